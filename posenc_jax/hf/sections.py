"""Lists the types of rotary sections, with their keys and the keywords of ``make`` for them."""

from typing import Any, NamedTuple

from posenc_jax.hf.values import LENGTH, ORIGINAL, agreed, entries, flag, is_number, number, whole
from posenc_jax.registry import suggest


class Type(NamedTuple):
    """Holds the scheme that a ``rope_type`` means, and the keys that not every type has."""

    scheme: str
    needed: tuple[str, ...] = ()
    allowed: tuple[str, ...] = ()


_MSCALES = ("beta_fast", "beta_slow", "mscale", "mscale_all_dim")
TYPES = {
    "default": Type("rope"),
    "linear": Type("pi", ("factor",)),
    "dynamic": Type("dynamic_ntk", ("factor",)),
    "yarn": Type("yarn", (), ("factor", ORIGINAL, "attention_factor", *_MSCALES, "truncate")),
    "longrope": Type(
        "longrope",
        ("short_factor", "long_factor"),
        ("factor", ORIGINAL, "attention_factor", "short_mscale", "long_mscale"),
    ),
    "llama3": Type("llama3", ("factor", "low_freq_factor", "high_freq_factor"), (ORIGINAL,)),
    "proportional": Type("p_rope", (), ("factor",)),
    # HunYuan's "dynamic" with a fixed alpha; its code does not read the allowed keys.
    "ntk_alpha": Type("ntk", ("alpha",), ("factor", *_MSCALES)),
}
_OLD_NAMES = {"su": "longrope", "mrope": "default"}
_EVERY_TYPE = (
    *("rope_type", "type", "rope_theta", "partial_rotary_factor", "mrope_section"),
    *("mrope_interleaved", "llama_4_scaling_beta", "finetuned"),
)
# Keys that belong into a section, and not next to it.
SECTION_ONLY = {key for kind in TYPES.values() for key in kind.needed + kind.allowed} - {ORIGINAL}
SECTION_ONLY |= {"mrope_section", "mrope_interleaved", "llama_4_scaling_beta"}


class Section(NamedTuple):
    """Holds the keys of a config about the rotation of one layer."""

    keys: dict[str, Any]  # the rotary section
    where: str  # the name of the section in errors
    config: dict[str, Any]  # every key, with this layer's own values in place of the common ones


def kind_of(section: Section, reads_alpha: bool) -> str:
    """Returns the type of a section, a key of ``TYPES``.

    ``reads_alpha`` says whether the model's code takes "dynamic" for a fixed alpha.
    """
    keys, where, _ = section
    names = {str(keys[key]) for key in ("rope_type", "type") if key in keys}
    kinds = {_OLD_NAMES.get(name, name) for name in names} or {"default"}
    if len(kinds) > 1 or not kinds <= TYPES.keys() - {"ntk_alpha"}:
        valid = [name for name in (*TYPES, *_OLD_NAMES) if name != "ntk_alpha"]
        raise ValueError(
            f"rope_type={' and '.join(sorted(names))} in {where} must be one of "
            f"{', '.join(valid)}. A model with another type has its own code: read it, then use "
            "posenc_jax.make(...), 'axial_rope' for instance"
        )
    (kind,) = kinds
    kind = "ntk_alpha" if kind == "dynamic" and reads_alpha and "alpha" in keys else kind
    needed = TYPES[kind].needed + ("mrope_section",) * ("mrope" in names)
    valid = [*needed, *TYPES[kind].allowed, *_EVERY_TYPE]
    if "llama_4_scaling_beta" in keys:
        # It needs the training length; transformers writes the longest too, and never reads it.
        valid += [ORIGINAL, LENGTH[0]]
    for key in sorted(keys.keys() - {*valid}):
        hint = suggest(key, valid)
        if key == "attn_factor" and kind == "yarn":
            hint = (
                ", which multiplies YaRN's own factor in the code of some models: give the product,"
                " attention_factor = attn_factor * (0.1 * log(factor) + 1), in its place"
            )
        raise ValueError(f"{where} of type {kind!r} has an unknown key {key!r}{hint}")
    if missing := [key for key in needed if key not in keys]:
        raise ValueError(f"{where} of type {kind!r} lacks {missing[0]!r}")
    return kind


def keywords(section: Section, kind: str) -> dict[str, Any]:
    """Returns the keywords of the type's scheme besides RoPE's own."""
    keys, where, config = section
    match kind:
        case "default":
            return {}
        case "yarn":
            return _yarn(section)
        case "longrope":
            return _longrope(section)
    of_scheme = "alpha" if kind == "ntk_alpha" else "factor"
    settings: dict[str, Any] = {"factor": number(keys, of_scheme, 1, where=where, default=1.0)}
    if kind == "dynamic":
        settings["train_length"] = whole(config, *LENGTH)
    if kind == "llama3":
        settings |= {key: number(keys, key, where=where) for key in TYPES[kind].needed[1:]}
        settings["train_length"] = train_length(section)
    return settings


def train_length(section: Section, *others: str) -> int:
    """Returns the length before the extension, which ``others`` give where it is missing."""
    keys, where, config = section
    sources = {f"{ORIGINAL} in {where}": keys, f"{ORIGINAL} in config": config}
    lengths = {name: whole(keys, ORIGINAL) for name, keys in sources.items() if ORIGINAL in keys}
    # Not the longest length in general, which may be that after the extension.
    length = agreed(lengths) if lengths else whole(config, ORIGINAL, *others)
    longest = whole(config, *LENGTH, default=length)
    if longest < length:
        raise ValueError(
            f"{LENGTH[0]}={longest} must not be below {ORIGINAL}={length}: it is the length after "
            "the extension"
        )
    return length


def _yarn(section):
    keys, where, _ = section
    read = [key for key in ("attention_factor", "beta_fast", "beta_slow") if key in keys]
    if keys.get("mscale") and keys.get("mscale_all_dim"):
        # The code of transformers reads neither, where one is missing or 0.
        read += ["mscale", "mscale_all_dim"]
    length = train_length(section, *LENGTH)
    settings = {key: number(keys, key, where=where) for key in read}
    settings |= {"train_length": length, "factor": _stretch(section, length)}
    return settings | {"truncate": flag(keys, "truncate", default=True)}


def _longrope(section):
    keys, where, config = section
    length = train_length(section)
    settings: dict[str, Any] = {"train_length": length, "factor": _stretch(section, length)}
    # Where it does not give its attention factor, transformers 4 computes it from the ratio of
    # lengths and transformers 5 from the factor.
    ratio = whole(config, *LENGTH, default=length) / length
    if "attention_factor" not in keys and ratio != 1:
        agreed({f"factor in {where}": settings["factor"], f"{LENGTH[0]} / {ORIGINAL}": ratio})
    for key in ("short_factor", "long_factor"):
        settings[key] = tuple(map(float, entries(keys, key, is_number)))
    # The two spellings are of different models.
    spellings = [key for key in ("attention_factor", "long_mscale") if key in keys]
    if spellings:
        factors = {key: number(keys, key, where=where) for key in spellings}
        settings["attention_factor"] = agreed(factors)
    if "short_mscale" in keys:
        settings["short_attention_factor"] = number(keys, "short_mscale", where=where)
    return settings


def _stretch(section, length):
    keys, where, config = section
    if "factor" in keys:
        return number(keys, "factor", 1, where=where)
    return whole(config, *LENGTH) / length
