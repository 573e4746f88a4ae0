"""The encoding of a published model, from its Hugging Face ``config.json``.

Read are the spellings of transformers 4 and 5: ``rope_scaling`` with ``rope_theta`` beside it, and
``rope_parameters`` with ``rope_theta`` in it, flat or with a section for each kind of layer. A key
that is not understood is an error, for a number read past it would be wrong.
"""

import re
from collections.abc import Mapping
from typing import Any

from flax import nnx

from posenc_jax.encoding import Encoding
from posenc_jax.hf.rotary import rotary
from posenc_jax.hf.values import HEADS, WIDTH, flag, head_dim_of, whole
from posenc_jax.registry import make

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

    ``mrope_section`` gives the axes of ``mrope``, ``i_mrope`` or ``videorope``, as the model has
    them. What is not part of an encoding stays the model's affair: which layers have none, sliding
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
    return rotary(config, where, section, layout)


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
        num_heads=whole(config, *HEADS),
        model_dim=whole(config, *WIDTH),
        num_buckets=whole(config, "relative_attention_num_buckets"),
        max_distance=whole(config, "relative_attention_max_distance", default=128),
        bidirectional=layer_type == "encoder",
        rngs=rngs,
    )


def _has_alibi(config):
    model = config.get("model_type")
    alibi = flag(config, "alibi", default=model in ("bloom", "mpt"))
    bias_max = config.get("alibi_bias_max", 8)
    if alibi and bias_max != 8:
        raise ValueError(f"alibi_bias_max={bias_max!r} must be 8: no other is offered")
    if not alibi and model in ("bloom", "mpt"):
        raise ValueError(f"alibi=false: the other positions of {model!r} are not offered")
    if alibi and (config.get("rope_scaling") or config.get("rope_parameters")):
        raise ValueError("alibi=true contradicts rope_scaling or rope_parameters: drop one")
    return alibi


def _alibi(config):
    num_heads = whole(config, *HEADS)
    if config.get("model_type") != "falcon":
        return make("alibi", num_heads=num_heads)
    # Falcon adds the bias before it divides by sqrt(head_dim).
    return make("alibi", num_heads=num_heads, slope_scale=head_dim_of(config) ** -0.5)


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
        return where, without_nulls(section)
    if layer_type not in kinds:
        described = f"one of {', '.join(map(repr, kinds))}: they differ" if kinds else "left out"
        raise ValueError(f"layer_type={layer_type!r} must be {described} in this config")
    section = section[layer_type]
    if section is None:
        return where, None
    if "rope_theta" in section:
        config.pop("rope_theta", None)  # That of the other layers.
    return f"{where}[{layer_type!r}]", without_nulls(section)


def _check_layers(config, where, section, local_base):
    for kind, value in section.items():
        if not isinstance(value, Mapping | None):
            raise ValueError(f"{kind}={value!r} in {where} must be a dict, or null for no RoPE")
    bases = [value.get("rope_theta") for value in section.values() if value is not None]
    outside = {"rope_theta": config.get("rope_theta"), "rope_local_base_freq": local_base}
    for key, base in outside.items():
        if base is not None and None not in bases and base not in bases:
            raise ValueError(f"{key}={base!r} contradicts rope_theta in {where}: drop one")


def without_nulls(section):
    return {key: value for key, value in section.items() if value is not None}
