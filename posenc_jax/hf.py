"""The encoding of a published model, from its Hugging Face ``config.json``.

Read are the spellings of transformers 4 and 5: ``rope_scaling`` with ``rope_theta`` beside it, and
``rope_parameters`` with ``rope_theta`` in it, flat or with a section for each kind of layer. A key
that is not understood is an error, for a number read past it would be wrong.
"""

import difflib
import math
from collections.abc import Mapping
from typing import Any

from flax import nnx

from posenc_jax.encoding import Encoding
from posenc_jax.registry import make
from posenc_jax.rotary import axes

# What each type of section has beside _EVERY_TYPE: needed, and allowed.
_TYPES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "default": ((), ()),
    "linear": (("factor",), ()),
    "dynamic": (("factor",), ()),
    "yarn": (
        (),
        (
            "factor",
            "original_max_position_embeddings",
            "attention_factor",
            "beta_fast",
            "beta_slow",
            "mscale",
            "mscale_all_dim",
            "truncate",
        ),
    ),
    "longrope": (
        ("short_factor", "long_factor"),
        (
            "factor",
            "original_max_position_embeddings",
            "attention_factor",
            "short_mscale",
            "long_mscale",
        ),
    ),
    "llama3": (
        ("factor", "low_freq_factor", "high_freq_factor"),
        ("original_max_position_embeddings",),
    ),
    "proportional": ((), ("factor",)),
}
_EVERY_TYPE = (
    "rope_type",
    "type",
    "rope_theta",
    "partial_rotary_factor",
    "mrope_section",
    "mrope_interleaved",
    "finetuned",
)
_OLD_NAMES = {"su": "longrope", "mrope": "default"}

# Models whose channel pairs are neighbours in transformers' code, where no key says so.
_INTERLEAVED = {"gptj", "codegen", "roformer", "cohere", "cohere2", "glm", "glm4", "helium"}
_INTERLEAVED |= {"ernie4_5", "ernie4_5_moe", "llama4_text", "deepseek_v2", "deepseek_v3"}

# Models whose published configs may lack a base, and then mean 10000.
_OLD_MODELS = {"llama", "mistral", "falcon", "gptj", "codegen", "gpt_neox", "phi", "roformer"}

_HEADS = ("num_attention_heads", "n_head", "n_heads", "num_heads")
_WIDTH = ("hidden_size", "n_embd", "d_model")
_LENGTH = ("max_position_embeddings", "n_positions", "max_seq_len")


def from_hf(
    config: Mapping[str, Any],
    *,
    layer_type: str | None = None,
    layout: str | None = None,
    rngs: nnx.Rngs | None = None,
    **keys: Any,
) -> Encoding:
    """The encoding that ``config`` describes: RoPE in all its types, ALiBi or T5's bias.

    Args:
      config: what ``config.json`` holds, or only its ``rope_parameters`` or ``rope_scaling``; then
        the sizes it needs come as ``keys``.
      layer_type: which layers are meant, where they differ: "full_attention" or
        "sliding_attention" of Gemma 3, "encoder" or "decoder" of T5.
      layout: which channels form a pair, as in ``RoPE``. Default: as transformers has it for the
        config's ``model_type``, and "half" for models not known to differ.
      rngs: initial values, for T5 only; its checkpoint then replaces ``table``.
      **keys: keys of the config to add or replace, ``head_dim=64`` for instance.

    What is not part of an encoding stays the model's affair: which layers have none, sliding
    windows, a softmax scale (T5 has 1.0, and DeepSeek one that grows with its ``mscale``), and that
    DeepSeek rotates ``qk_rope_head_dim`` channels kept apart, which the encoding then is for.
    ALiBi of Falcon lacks the rounding to bfloat16 that transformers has there.

    Raises:
      ValueError: a key is missing, unknown, malformed or contradicts another; it is named.
    """
    if not isinstance(config, Mapping):
        raise ValueError(f"config must be a dict, as json.load returns, not {config!r}")
    config = config.get("text_config") or config
    if "rope_type" in config or "type" in config or "full_attention" in config:
        config = {"rope_parameters": config}
    config = {key: value for key, value in {**config, **keys}.items() if value is not None}

    if "relative_attention_num_buckets" in config:
        return _t5(config, layer_type, rngs)
    if _has_alibi(config):
        return _alibi(config)
    where, section = _section(config, layer_type)
    if section is None:
        return make("nope")
    return _rope(config, where, section, layout)


def _t5(config, layer_type, rngs):
    if layer_type not in ("encoder", "decoder"):
        raise ValueError(
            f"layer_type={layer_type!r} must be 'encoder' or 'decoder': a T5 config describes both"
        )
    return make(
        "t5",
        num_heads=_whole(config, *_HEADS),
        model_dim=_whole(config, *_WIDTH),
        num_buckets=_whole(config, "relative_attention_num_buckets"),
        max_distance=_whole(config, "relative_attention_max_distance", default=128),
        bidirectional=layer_type == "encoder",
        rngs=rngs,
    )


def _has_alibi(config):
    if config.get("model_type") == "bloom":
        return True
    where, attention = "config", config
    if config.get("model_type") == "mpt" or "attn_config" in config:
        where, attention = "attn_config", {"alibi": True} | dict(config.get("attn_config", {}))
    alibi = attention.get("alibi", False)
    if not isinstance(alibi, bool):
        raise ValueError(f"alibi={alibi!r} in {where} must be true or false")
    bias_max = attention.get("alibi_bias_max", 8)
    if alibi and bias_max != 8:
        raise ValueError(f"alibi_bias_max={bias_max!r} in {where} must be 8: no other is offered")
    if not alibi and where == "attn_config":
        raise ValueError("alibi=false in attn_config: the other positions of MPT are not offered")
    if alibi and (config.get("rope_scaling") or config.get("rope_parameters")):
        raise ValueError("alibi=true contradicts rope_scaling or rope_parameters: drop one")
    return alibi


def _alibi(config):
    num_heads = _whole(config, *_HEADS)
    if config.get("model_type") != "falcon":
        return make("alibi", num_heads=num_heads)
    # Falcon adds the bias before it divides by sqrt(head_dim).
    return make("alibi", num_heads=num_heads, slope_scale=_head_dim(config) ** -0.5)


def _section(config, layer_type):
    """The name of the rotary section and the section of these layers, None if they do not turn."""
    given = {name: config[name] for name in ("rope_parameters", "rope_scaling") if name in config}
    for name, section in given.items():
        if not isinstance(section, Mapping):
            raise ValueError(f"{name}={section!r} must be a dict")
    if len(given) == 2 and config["rope_parameters"] != config["rope_scaling"]:
        raise ValueError("rope_parameters contradicts rope_scaling: drop one")
    where, section = next(iter(given.items()), ("config", {}))

    local_base = config.get("rope_local_base_freq")
    kinds = [kind for kind, value in section.items() if isinstance(value, Mapping)]
    if kinds:
        kinds = list(section)
    elif local_base is not None:
        kinds = ["full_attention", "sliding_attention"]
        local = {"rope_type": "default", "rope_theta": local_base}
        section = {"full_attention": section, "sliding_attention": local}
        config.pop("rope_local_base_freq")
    elif layer_type is None or layer_type in config.get("layer_types", ()):
        return where, _without_nulls(section)
    if layer_type not in kinds:
        described = f"one of {', '.join(map(repr, kinds))}: they differ" if kinds else "left out"
        raise ValueError(f"layer_type={layer_type!r} must be {described} in this config")
    section = section[layer_type]
    if section is None:
        return where, None
    if not isinstance(section, Mapping):
        raise ValueError(f"{layer_type}={section!r} in {where} must be a dict, or null for no RoPE")
    if "rope_theta" in section:
        config.pop("rope_theta", None)  # That of the other layers.
    return f"{where}[{layer_type!r}]", _without_nulls(section)


def _rope(config, where, section, layout):
    kind = _kind(where, section)
    needed, allowed = _TYPES[kind]
    for key in section:
        valid = (*needed, *allowed, *_EVERY_TYPE)
        if key not in valid:
            close = difflib.get_close_matches(key, valid, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"it may have {', '.join(valid)}"
            raise ValueError(f"{where} of type {kind!r} has an unknown key {key!r}; {hint}")
    for key in needed:
        if key not in section:
            raise ValueError(f"{where} of type {kind!r} lacks {key!r}")

    rope = dict(head_dim=_head_dim(config), base=_base(config, where, section))
    fraction, rotary_dim = _rotary_part(config, section, rope["head_dim"])
    if kind != "proportional":
        rope["rotary_dim"] = rotary_dim
    rope["axes"] = _axes(where, section, rope["head_dim"] if kind == "proportional" else rotary_dim)
    is_interleaved = config.get("model_type") in _INTERLEAVED and config.get(
        "rope_interleave", True
    )
    rope["layout"] = layout or ("interleaved" if is_interleaved else "half")

    if kind == "default":
        return make("rope", **rope)
    if kind == "linear":
        return make("pi", factor=_number(where, section, "factor", 1), **rope)
    if kind == "proportional":
        factor = _number(where, section, "factor", 1, default=1.0)
        return make("p_rope", fraction=fraction, factor=factor, **rope)
    if kind == "dynamic":
        length = _whole(config, *_LENGTH)
        factor = _number(where, section, "factor", 1)
        return make("dynamic_ntk", train_length=length, factor=factor, **rope)
    rope["train_length"] = _train_length(config, where, section, kind)
    if kind == "llama3":
        for key in needed:
            rope[key] = _number(where, section, key, 1 if key == "factor" else 0)
        return make("llama3", **rope)
    rope["factor"] = _stretch(config, where, section, rope["train_length"])
    if kind == "longrope":
        return make("longrope", **_longrope(where, section, rotary_dim // 2), **rope)
    for key in ("attention_factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim"):
        if key in section:
            rope[key] = _number(where, section, key, 0)
    truncate = section.get("truncate", True)
    if not isinstance(truncate, bool):
        raise ValueError(f"truncate={truncate!r} in {where} must be true or false")
    return make("yarn", truncate=truncate, **rope)


def _kind(where, section):
    names = {section[key] for key in ("rope_type", "type") if key in section}
    kinds = {_OLD_NAMES.get(name, name) for name in names} or {"default"}
    if len(kinds) > 1:
        raise ValueError(
            f"rope_type={section['rope_type']!r} contradicts type={section['type']!r} in {where}"
        )
    (kind,) = kinds
    if kind not in _TYPES:
        raise ValueError(
            f"rope_type={kind!r} in {where} must be one of {', '.join((*_TYPES, *_OLD_NAMES))}"
        )
    if "mrope" in names and "mrope_section" not in section:
        raise ValueError(f"{where} of type 'mrope' lacks 'mrope_section'")
    return kind


def _head_dim(config):
    for key in ("qk_rope_head_dim", "head_dim", "kv_channels"):
        if key in config:
            return _whole(config, key)
    width, heads = _whole(config, *_WIDTH, instead="head_dim"), _whole(config, *_HEADS)
    if width % heads:
        raise ValueError(f"head_dim is missing, and {width} channels are not {heads} equal heads")
    return width // heads


def _base(config, where, section):
    bases = {f"rope_theta in {where}": section["rope_theta"]} if "rope_theta" in section else {}
    bases |= {key: config[key] for key in ("rope_theta", "rotary_emb_base") if key in config}
    if not bases:
        model = config.get("model_type")
        if where == "config" and model not in _OLD_MODELS:
            raise ValueError(
                "config has none of the keys rope_parameters, rope_scaling, rope_theta, alibi, "
                "relative_attention_num_buckets: its positions are not understood"
            )
        if model is not None and model not in _OLD_MODELS:
            raise ValueError(f"rope_theta is missing, and no default is known for {model!r}")
        return 10000.0
    for key, base in bases.items():
        if not _is_number(base) or base <= 1:
            raise ValueError(f"{key} must be a number above 1, not {base!r}")
    return float(_agreed(bases))


def _rotary_part(config, section, head_dim):
    """The rotated fraction of a head, and how many channels that is."""
    fractions = {
        f"{key}={place[key]!r}": place[key]
        for place in (section, config)
        for key in ("partial_rotary_factor", "rotary_pct", "rope_pct")
        if key in place
    }
    for key, fraction in fractions.items():
        if not _is_number(fraction) or not 0 < fraction <= 1:
            raise ValueError(f"{key} must be a number in (0, 1]")
    widths = {key: int(head_dim * fraction) for key, fraction in fractions.items()}
    if "rotary_dim" in config:
        widths["rotary_dim"] = _whole(config, "rotary_dim")
    fraction = next(iter(fractions.values()), 1.0)
    return fraction, _agreed(widths) if widths else head_dim


def _axes(where, section, rotary_dim):
    if "mrope_section" not in section:
        if section.get("mrope_interleaved"):
            raise ValueError(f"mrope_interleaved in {where} needs mrope_section")
        return None
    counts, interleaved = section["mrope_section"], section.get("mrope_interleaved", False)
    is_list = isinstance(counts, (list, tuple)) and all(type(n) is int and n >= 0 for n in counts)
    if not is_list or sum(counts) != rotary_dim // 2:
        raise ValueError(
            f"mrope_section={counts!r} in {where} must be a list of numbers of channel pairs, "
            f"{rotary_dim // 2} in all"
        )
    if not isinstance(interleaved, bool):
        raise ValueError(f"mrope_interleaved={interleaved!r} in {where} must be true or false")
    return (axes.interleaved if interleaved else axes.chunked)(tuple(counts))


def _train_length(config, where, section, kind):
    key = "original_max_position_embeddings"
    lengths = {
        f"{key} in {name}": _whole(place, key)
        for name, place in ((where, section), ("config", config))
        if key in place
    }
    if lengths:
        return _agreed(lengths)
    if kind != "yarn":
        raise ValueError(f"{where} of type {kind!r} lacks {key!r}")
    return _whole(config, *_LENGTH, instead=key)


def _stretch(config, where, section, train_length):
    if "factor" in section:
        return _number(where, section, "factor", 1)
    length = _whole(config, *_LENGTH, instead="factor")
    if length < train_length:
        raise ValueError(
            f"max_position_embeddings={length} must not be below "
            f"original_max_position_embeddings={train_length}: their ratio is the factor"
        )
    return length / train_length


def _longrope(where, section, pairs):
    keywords = {}
    for key in ("short_factor", "long_factor"):
        factors = section[key]
        is_list = isinstance(factors, (list, tuple)) and all(map(_is_number, factors))
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
                raise ValueError(f"{key} contradicts attention_factor in {where}: drop one")
            keywords[name] = _number(where, section, key, 0)
    return keywords


def _agreed(values):
    """The one value that every key gives."""
    if len(set(values.values())) > 1:
        listed = " and ".join(f"{key} ({value})" for key, value in values.items())
        raise ValueError(f"contradiction between {listed}: drop one")
    return next(iter(values.values()))


def _whole(config, *spellings, default=None, instead=None):
    """The positive whole number that config has under any of the spellings."""
    found = {key: config[key] for key in spellings if key in config}
    if not found and default is None:
        missing = spellings[0] if instead is None else f"{instead} (or {spellings[0]})"
        raise ValueError(f"config lacks {missing}: add it, or pass it as a keyword")
    for key, value in found.items():
        if type(value) is not int or value < 1:
            raise ValueError(f"{key}={value!r} must be a positive whole number")
    return _agreed(found) if found else default


def _number(where, section, key, minimum, default=None):
    value = section.get(key, default)
    if not _is_number(value) or value < minimum:
        raise ValueError(f"{key}={value!r} in {where} must be a number of {minimum} or more")
    return float(value)


def _is_number(value):
    return isinstance(value, (int, float)) and type(value) is not bool and math.isfinite(value)


def _without_nulls(section):
    return {key: value for key, value in section.items() if value is not None}
