"""Lists the types of rotary sections, with their keys and the keywords of ``make`` for them."""

import difflib
from typing import Any

from posenc_jax.hf import models
from posenc_jax.hf.values import LENGTH, ORIGINAL, agreed, flag, is_number, number, whole

_MSCALES = ("beta_fast", "beta_slow", "mscale", "mscale_all_dim")

# The keys of each type of section besides _EVERY_TYPE: the required ones, and the allowed ones.
TYPES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "default": ((), ()),
    "linear": (("factor",), ()),
    "dynamic": (("factor",), ()),
    "yarn": ((), ("factor", ORIGINAL, "attention_factor", *_MSCALES, "truncate")),
    "longrope": (
        ("short_factor", "long_factor"),
        ("factor", ORIGINAL, "attention_factor", "short_mscale", "long_mscale"),
    ),
    "llama3": (("factor", "low_freq_factor", "high_freq_factor"), (ORIGINAL,)),
    "proportional": ((), ("factor",)),
    # HunYuan's "dynamic" with a fixed alpha; its code reads none of the others.
    "ntk_alpha": (("alpha",), ("factor", *_MSCALES)),
}
_EVERY_TYPE = (
    "rope_type",
    "type",
    "rope_theta",
    "partial_rotary_factor",
    "mrope_section",
    "mrope_interleaved",
    "llama_4_scaling_beta",
    "finetuned",
)
# Keys that belong into a section, and not next to it.
SECTION_ONLY = {key for keys in TYPES.values() for own in keys for key in own} - {ORIGINAL}
SECTION_ONLY |= {"mrope_section", "mrope_interleaved", "llama_4_scaling_beta"}
_OLD_NAMES = {"su": "longrope", "mrope": "default"}


def kind_of(where: str, section: dict[str, Any], model: str | None) -> str:
    """Returns the type of a section, a key of ``TYPES``; raises ValueError for unknown keys."""
    kind = _named(where, section)
    if kind == "dynamic" and model in models.NTK_ALPHA and "alpha" in section:
        kind = "ntk_alpha"
    needed, allowed = TYPES[kind]
    # llama_4_scaling_beta needs the training length; transformers also writes the longest length,
    # and never reads it.
    written = (ORIGINAL, "max_position_embeddings") if "llama_4_scaling_beta" in section else ()
    for key in section:
        valid = (*needed, *allowed, *_EVERY_TYPE, *written)
        if key not in valid:
            close = difflib.get_close_matches(key, valid, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"it may have {', '.join(valid)}"
            raise ValueError(f"{where} of type {kind!r} has an unknown key {key!r}; {hint}")
    for key in needed:
        if key not in section:
            raise ValueError(f"{where} of type {kind!r} lacks {key!r}")
    return kind


def _named(where, section):
    for key in ("rope_type", "type"):
        if not isinstance(section.get(key, ""), str):
            raise ValueError(f"{key}={section[key]!r} in {where} must be a string")
    names = {section[key] for key in ("rope_type", "type") if key in section}
    kinds = {_OLD_NAMES.get(name, name) for name in names} or {"default"}
    if len(kinds) > 1:
        raise ValueError(
            f"rope_type={section['rope_type']!r} contradicts type={section['type']!r} in {where}"
        )
    (kind,) = kinds
    if kind == "axial":
        raise ValueError(
            f"rope_type='axial' in {where}: its pairs turn by the rows and columns of an image, "
            "each model in an order of its own. Read the model's code, then use "
            "posenc_jax.make('axial_rope', ...)"
        )
    if kind not in TYPES or kind == "ntk_alpha":
        valid = (*(name for name in TYPES if name != "ntk_alpha"), *_OLD_NAMES)
        raise ValueError(f"rope_type={kind!r} in {where} must be one of {', '.join(valid)}")
    if "mrope" in names and "mrope_section" not in section:
        raise ValueError(f"{where} of type 'mrope' lacks 'mrope_section'")
    return kind


def own_keywords(
    config: dict[str, Any], where: str, section: dict[str, Any], kind: str, pairs: int
) -> tuple[str, dict[str, Any]]:
    """Returns the name that ``make`` has for this type, and its keywords besides RoPE's own."""
    if kind == "default":
        return "rope", {}
    if kind in ("linear", "ntk_alpha", "dynamic"):
        key = "alpha" if kind == "ntk_alpha" else "factor"
        own: dict[str, Any] = {"factor": number(where, section, key, 1)}
        if kind == "dynamic":
            own["train_length"] = whole(config, *LENGTH)
        return {"linear": "pi", "ntk_alpha": "ntk", "dynamic": "dynamic_ntk"}[kind], own
    if kind == "proportional":
        return "p_rope", {"factor": number(where, section, "factor", 1, default=1.0)}
    train_length = _train_length(config, where, section, kind)
    own = {"train_length": train_length}
    if kind == "llama3":
        for key in TYPES[kind][0]:
            own[key] = number(where, section, key, 1 if key == "factor" else 0)
        return "llama3", own
    own["factor"] = _stretch(config, where, section, kind, train_length)
    if kind == "longrope":
        return "longrope", own | _longrope(where, section, pairs)
    for key in _MSCALES:
        if key in section:
            own[key] = number(where, section, key, 0)
    if not (own.get("mscale") and own.get("mscale_all_dim")):
        # The code of transformers reads neither, where one is missing or 0.
        own = {key: value for key, value in own.items() if not key.startswith("mscale")}
    if "attention_factor" in section:
        own["attention_factor"] = _attention_factor(where, section, "attention_factor")
    return "yarn", own | {"truncate": flag(section, "truncate", where, default=True)}


def _train_length(config, where, section, kind):
    lengths = {
        f"{ORIGINAL} in {name}": whole(place, ORIGINAL)
        for name, place in ((where, section), ("config", config))
        if ORIGINAL in place
    }
    if not lengths and (kind != "yarn" or config.keys().isdisjoint(LENGTH)):
        raise ValueError(
            f"{where} of type {kind!r} lacks {ORIGINAL!r}, the length before the extension: add "
            "it, or pass it as a keyword"
        )
    length = agreed(lengths) if lengths else whole(config, *LENGTH)
    longest = whole(config, *LENGTH, default=length)
    if longest < length:
        raise ValueError(
            f"max_position_embeddings={longest} must not be below {ORIGINAL}={length}: it is the "
            "length after the extension"
        )
    return length


def _stretch(config, where, section, kind, train_length):
    if "factor" not in section:
        if config.keys().isdisjoint(LENGTH):
            raise ValueError(
                f"{where} of type {kind!r} lacks 'factor', and the config lacks "
                "max_position_embeddings, which would give it: add one of them there"
            )
        return whole(config, *LENGTH) / train_length
    factor = number(where, section, "factor", 1)
    ratio = whole(config, *LENGTH, default=train_length) / train_length
    # For the attention factor of LongRoPE, where it is not given, transformers 4 reads the ratio
    # and 5 the factor; of YaRN both read the factor.
    is_read = kind == "longrope" and "attention_factor" not in section
    if is_read and ratio not in (1, factor):
        raise ValueError(
            f"factor={factor} in {where} contradicts max_position_embeddings / "
            f"{ORIGINAL} = {ratio}: one of them is not the model's"
        )
    return factor


def _longrope(where, section, pairs):
    keywords = {}
    for key in ("short_factor", "long_factor"):
        factors = section[key]
        is_list = isinstance(factors, (list, tuple)) and all(map(is_number, factors))
        if not is_list or len(factors) != pairs or min(factors) <= 0:
            raise ValueError(
                f"{key} in {where} must be a list of {pairs} positive numbers, one for each "
                f"channel pair, not {factors!r}"
            )
        keywords[key] = tuple(map(float, factors))
    names = {"attention_factor": "attention_factor", "long_mscale": "attention_factor"}
    for key, name in (names | {"short_mscale": "short_attention_factor"}).items():
        if key in section:
            if name in keywords:
                raise ValueError(
                    f"{key} contradicts attention_factor in {where}: one of them is not the model's"
                )
            keywords[name] = _attention_factor(where, section, key)
    return keywords


def _attention_factor(where, section, key):
    factor = number(where, section, key, 0)
    if factor == 0:
        raise ValueError(f"{key}=0 in {where} makes every logit 0")
    return factor
