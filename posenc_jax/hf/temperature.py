"""Scales queries by their position, where a config says so.

Llama 4 and Beam multiply the queries of their layers without rotation, and Ministral 3 and
Mistral 4 those of every layer (``llama_4_scaling_beta``).
"""

from posenc_jax.encoding import Encoding
from posenc_jax.encodings.wrappers.logit_scale import MinistralScale
from posenc_jax.hf import models
from posenc_jax.hf.layers import Layer
from posenc_jax.hf.values import ORIGINAL, agreed, number, whole
from posenc_jax.registry import make


def of_nope_layers(config: dict) -> Encoding:
    """Returns the encoding of a layer without RoPE."""
    if config.get("model_type") == "beam":
        return make("beam_scale")
    if config.get("model_type") != "llama4_text":
        return make("nope")
    # The published configs hold a number where the class has a switch.
    tuning = config.get("attn_temperature_tuning", True)
    if tuning not in (True, False, 4):
        raise ValueError(f"attn_temperature_tuning={tuning!r} must be true or false")
    if not tuning:
        return make("nope")
    return make(
        "llama4_temperature",
        floor_scale=whole(config, "floor_scale", default=8192),
        attn_scale=number("config", config, "attn_scale", 0, default=0.1),
    )


def of_all_layers(layer: Layer, encoding: Encoding) -> Encoding:
    """Returns ``encoding`` with the temperature that its section gives, if it gives one."""
    section = layer.section or {}
    if not section.get("llama_4_scaling_beta"):
        return encoding
    _check_read(layer)
    if "qk_rope_head_dim" in layer.config:
        raise ValueError(
            f"llama_4_scaling_beta={section['llama_4_scaling_beta']!r} in {layer.where} multiplies "
            "whole queries, but the encoding is for their qk_rope_head_dim channels: it is not "
            "offered for heads of two parts"
        )
    places = {f"{ORIGINAL} in {layer.where}": section, ORIGINAL: layer.config}
    lengths = {name: whole(place, ORIGINAL) for name, place in places.items() if ORIGINAL in place}
    if not lengths:
        raise ValueError(f"llama_4_scaling_beta in {layer.where} needs {ORIGINAL}")
    return MinistralScale(
        over=encoding,
        train_length=agreed(lengths),
        attn_scale=number(layer.where, section, "llama_4_scaling_beta", 0),
    )


def _check_read(layer):
    """Checks that the model's code reads the key; for unknown models the caller vouches."""
    model, beta = layer.config.get("model_type"), layer.section["llama_4_scaling_beta"]
    if model in models.KNOWN - models.SCALED_QUERIES:
        raise ValueError(
            f"llama_4_scaling_beta={beta!r} in {layer.where}: the code of {model!r} is not known "
            f"to read it; those known to are {', '.join(sorted(models.SCALED_QUERIES))}. If it "
            "does not, remove the key. If it does, remove it too, and wrap the encoding: "
            "posenc_jax.make('ministral_scale', over=encoding, train_length=..., "
            f"attn_scale={beta!r})"
        )
