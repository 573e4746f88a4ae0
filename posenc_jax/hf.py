"""The encoding of a published model, from its Hugging Face ``config.json``.

Read are the spellings of transformers 4 and 5: ``rope_scaling`` with ``rope_theta`` beside it, and
``rope_parameters`` with ``rope_theta`` in it, flat or with a section for each kind of layer. A key
that is not understood is an error, for a number read past it would be wrong.
"""

import difflib
import math
import re
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

# Models whose channel pairs are neighbours in transformers' code, where rope_interleave is not set.
_INTERLEAVED = {"gptj", "codegen", "roformer", "cohere", "cohere2", "cohere2_moe", "helium"}
_INTERLEAVED |= {"glm", "glm4", "glm4v_text", "glm_ocr_text", "glm4_moe_lite", "glm_moe_dsa"}
_INTERLEAVED |= {"ernie4_5", "ernie4_5_moe", "ernie4_5_vl_moe_text", "llama4_text"}
_INTERLEAVED |= {"deepseek_v2", "deepseek_v3", "deepseek_v32", "longcat_flash", "youtu"}
_INTERLEAVED |= {"bailing_hybrid", "moonshine"}

# Models whose published configs may lack a base, and then mean 10000.
_OLD_MODELS = {"llama", "mistral", "falcon", "gptj", "codegen", "gpt_neox", "phi", "roformer"}

_HEADS = ("num_attention_heads", "n_head", "n_heads", "num_heads")
_WIDTH = ("hidden_size", "n_embd", "d_model")
_LENGTH = ("max_position_embeddings", "n_positions", "max_seq_len")

# Layers that may differ, as Gemma 3 names them.
_KINDS = {"full_attention", "sliding_attention"}

# Keys that say which positions a model has. Those not read here must be empty.
_ABOUT_POSITIONS = re.compile("rope|rotary|alibi|_ntk|logn")
_READ = {"rope_parameters", "rope_scaling", "rope_theta", "rope_local_base_freq", "rotary_emb_base"}
_READ |= {"rotary_dim", "partial_rotary_factor", "rotary_pct", "rope_pct", "qk_rope_head_dim"}
_READ |= {"rope_interleave", "alibi", "alibi_bias_max"}
# Which layers have no positions is the model's affair.
_READ |= {"no_rope_layers", "no_rope_layer_interval"}


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
      **keys: keys of the config to add or replace, ``head_dim=64`` for instance, or to leave out:
        ``rope_ratio=None``. Without ``rope_theta``, a section alone has a base of 10000.

    What is not part of an encoding stays the model's affair: which layers have none, sliding
    windows, a softmax scale (T5 has 1.0, and DeepSeek one that grows with its ``mscale``), and that
    DeepSeek rotates ``qk_rope_head_dim`` channels kept apart, which the encoding then is for.
    ALiBi of Falcon lacks the rounding to bfloat16 that transformers has there.

    Raises:
      ValueError: a key is missing, unknown, malformed or contradicts another; it is named.
    """
    config = _flat(config, keys)
    if "relative_attention_num_buckets" in config:
        _left_out("T5's bias", layout=layout)
        return _t5(config, layer_type, rngs)
    if _has_alibi(config):
        _left_out("ALiBi", layout=layout, layer_type=layer_type)
        return _alibi(config)
    _check_positions(config)
    where, section = _section(config, layer_type)
    if section is None:
        return make("nope")
    return _rope(config, where, section, layout)


def _flat(config, keys) -> dict[str, Any]:
    """The keys of the text model, without nulls."""
    if not isinstance(config, Mapping):
        raise ValueError(f"config must be a dict, as json.load returns, not {config!r}")
    if config.keys() & {"rope_type", "type", *_KINDS}:
        config = {"rope_parameters": config}
    text = _inner(config, "text_config")
    for key in _READ & config.keys() if text else ():
        if config[key] is not None and config[key] != text.get(key):
            raise ValueError(f"{key} contradicts text_config: pass config['text_config'] instead")
    config = text or config
    config = {**_inner(config, "attn_config"), **config, **keys}
    if not isinstance(config.get("model_type") or "", str):
        raise ValueError(f"model_type={config['model_type']!r} must be a string")
    return {key: value for key, value in config.items() if value is not None}


def _inner(config, name):
    inner = config.get(name) or {}
    if not isinstance(inner, Mapping):
        raise ValueError(f"{name}={inner!r} must be a dict")
    return inner


def _left_out(scheme, **arguments):
    for name, value in arguments.items():
        if value is not None:
            raise ValueError(f"{name}={value!r} must be left out: {scheme} has none")


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
    model = config.get("model_type")
    alibi = _flag(config, "alibi", default=model in ("bloom", "mpt"))
    bias_max = config.get("alibi_bias_max", 8)
    if alibi and bias_max != 8:
        raise ValueError(f"alibi_bias_max={bias_max!r} must be 8: no other is offered")
    if not alibi and model in ("bloom", "mpt"):
        raise ValueError(f"alibi=false: the other positions of {model!r} are not offered")
    if alibi and (config.get("rope_scaling") or config.get("rope_parameters")):
        raise ValueError("alibi=true contradicts rope_scaling or rope_parameters: drop one")
    return alibi


def _alibi(config):
    num_heads = _whole(config, *_HEADS)
    if config.get("model_type") != "falcon":
        return make("alibi", num_heads=num_heads)
    # Falcon adds the bias before it divides by sqrt(head_dim).
    return make("alibi", num_heads=num_heads, slope_scale=_head_dim(config) ** -0.5)


def _check_positions(config):
    """Refuses what would be RoPE of another kind, or no RoPE, were the key not read."""
    for key, value in config.items():
        if _ABOUT_POSITIONS.search(key) and key not in _READ and value:
            raise ValueError(
                f"{key}={value!r} is not understood; where it changes nothing, pass {key}=None"
            )
    kind = config.get("position_embedding_type", "rope")
    if kind not in ("rope", "rotary"):
        raise ValueError(f"position_embedding_type={kind!r} must be 'rope' or 'rotary'")


def _section(config, layer_type):
    """The name of the rotary section and the section of these layers, None if they do not turn."""
    given = {name: config[name] for name in ("rope_parameters", "rope_scaling") if name in config}
    for name, section in given.items():
        if not isinstance(section, Mapping):
            raise ValueError(f"{name}={section!r} must be a dict")
    if len(given) == 2 and config["rope_parameters"] != config["rope_scaling"]:
        raise ValueError("rope_parameters contradicts rope_scaling: drop one")
    where, section = next(iter(given.items()), ("config", {}))

    local_base = config.pop("rope_local_base_freq", None)
    kinds = []
    if section.keys() & _KINDS or any(isinstance(value, Mapping) for value in section.values()):
        kinds = list(section)
        _check_layers(config, where, section, local_base)
    elif local_base is not None:
        kinds = ["full_attention", "sliding_attention"]
        local = {"rope_type": "default", "rope_theta": local_base}
        section = {"full_attention": section, "sliding_attention": local}
    elif layer_type is None or layer_type in config.get("layer_types", ()):
        return where, _without_nulls(section)
    if layer_type not in kinds:
        described = f"one of {', '.join(map(repr, kinds))}: they differ" if kinds else "left out"
        raise ValueError(f"layer_type={layer_type!r} must be {described} in this config")
    section = section[layer_type]
    if section is None:
        return where, None
    if "rope_theta" in section:
        config.pop("rope_theta", None)  # That of the other layers.
    return f"{where}[{layer_type!r}]", _without_nulls(section)


def _check_layers(config, where, section, local_base):
    for kind, value in section.items():
        if not isinstance(value, Mapping | None):
            raise ValueError(f"{kind}={value!r} in {where} must be a dict, or null for no RoPE")
    bases = [value.get("rope_theta") for value in section.values() if value is not None]
    outside = {"rope_theta": config.get("rope_theta"), "rope_local_base_freq": local_base}
    for key, base in outside.items():
        if base is not None and None not in bases and base not in bases:
            raise ValueError(f"{key}={base!r} contradicts rope_theta in {where}: drop one")


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
    fraction, rope["rotary_dim"] = _rotary_part(config, section, rope["head_dim"], kind)
    rope["axes"] = _axes(where, section, rope["rotary_dim"] // 2)
    by_model = config.get("model_type") in _INTERLEAVED
    is_interleaved = _flag(config, "rope_interleave", default=by_model)
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
    rope["factor"] = _stretch(config, where, section, kind, rope["train_length"])
    if kind == "longrope":
        return make("longrope", **_longrope(where, section, rope["rotary_dim"] // 2), **rope)
    for key in ("beta_fast", "beta_slow", "mscale", "mscale_all_dim"):
        if key in section:
            rope[key] = _number(where, section, key, 0)
    if "attention_factor" in section:
        rope["attention_factor"] = _attention_factor(where, section, "attention_factor")
    return make("yarn", truncate=_flag(section, "truncate", where, default=True), **rope)


def _kind(where, section):
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
    if kind not in _TYPES:
        raise ValueError(
            f"rope_type={kind!r} in {where} must be one of {', '.join((*_TYPES, *_OLD_NAMES))}"
        )
    if "mrope" in names and "mrope_section" not in section:
        raise ValueError(f"{where} of type 'mrope' lacks 'mrope_section'")
    return kind


def _head_dim(config):
    for keys in (("qk_rope_head_dim",), ("head_dim", "kv_channels")):
        if config.keys() & set(keys):
            return _whole(config, *keys)
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


def _rotary_part(config, section, head_dim, kind):
    """The rotated fraction of a head, and how many channels take part in rotation."""
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
    width = _agreed(widths) if widths else head_dim
    if kind == "proportional":
        return fraction, head_dim
    if widths and (width % 2 or not 2 <= width <= head_dim):
        raise ValueError(
            f"{' and '.join(widths)} must turn an even number of the head_dim={head_dim} channels, "
            f"not {width}"
        )
    return fraction, width


def _axes(where, section, pairs):
    if "mrope_section" not in section:
        if section.get("mrope_interleaved"):
            raise ValueError(f"mrope_interleaved in {where} needs mrope_section")
        return None
    counts = section["mrope_section"]
    is_list = isinstance(counts, (list, tuple)) and all(type(n) is int and n >= 0 for n in counts)
    if not is_list or sum(counts) != pairs:
        raise ValueError(
            f"mrope_section={counts!r} in {where} must be a list of numbers of channel pairs, "
            f"{pairs} in all"
        )
    is_interleaved = _flag(section, "mrope_interleaved", where, default=False)
    return (axes.interleaved if is_interleaved else axes.chunked)(tuple(counts))


def _train_length(config, where, section, kind):
    key = "original_max_position_embeddings"
    lengths = {
        f"{key} in {name}": _whole(place, key)
        for name, place in ((where, section), ("config", config))
        if key in place
    }
    if not lengths and kind != "yarn":
        raise ValueError(f"{where} of type {kind!r} lacks {key!r}")
    length = _agreed(lengths) if lengths else _whole(config, *_LENGTH, instead=key)
    longest = _whole(config, *_LENGTH, default=length)
    if longest < length:
        raise ValueError(
            f"max_position_embeddings={longest} must not be below {key}={length}: it is what that "
            "was extended to"
        )
    return length


def _stretch(config, where, section, kind, train_length):
    if "factor" not in section:
        return _whole(config, *_LENGTH, instead="factor") / train_length
    factor = _number(where, section, "factor", 1)
    ratio = _whole(config, *_LENGTH, default=train_length) / train_length
    # transformers 4 reads the ratio and 5 the factor; of YaRN both read the factor.
    if kind == "longrope" and ratio not in (1, factor):
        raise ValueError(
            f"factor={factor} in {where} contradicts max_position_embeddings / "
            f"original_max_position_embeddings = {ratio}: drop one"
        )
    return factor


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
            keywords[name] = _attention_factor(where, section, key)
    return keywords


def _attention_factor(where, section, key):
    factor = _number(where, section, key, 0)
    if factor == 0:
        raise ValueError(f"{key}=0 in {where} makes every logit 0: drop it")
    return factor


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


def _flag(section, key, where="config", *, default):
    value = section.get(key, default)
    if not isinstance(value, bool):
        raise ValueError(f"{key}={value!r} in {where} must be true or false")
    return value


def _is_number(value):
    return isinstance(value, (int, float)) and type(value) is not bool and math.isfinite(value)


def _without_nulls(section):
    return {key: value for key, value in section.items() if value is not None}
