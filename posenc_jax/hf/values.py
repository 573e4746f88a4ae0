"""Reads keys of a config, checks their values, and names the key at fault."""

import math
from collections.abc import Mapping
from typing import Any

from posenc_jax.hf import models

# Different models have different names for a size.
HEADS = ("num_attention_heads", "n_head", "n_heads", "num_heads", "decoder_num_attention_heads")
WIDTH = ("hidden_size", "n_embd", "d_model")
LAYERS = ("num_hidden_layers", "num_layers", "n_layers", "n_layer")
LENGTH = ("max_position_embeddings", "n_positions", "max_seq_len")
ORIGINAL = "original_max_position_embeddings"


def head_dim_of(config: Mapping[str, Any]) -> int:
    """Returns how many channels of a head the encoding is for.

    In heads of two parts these are the channels that turn.
    """
    model = config.get("model_type")
    if model in models.LATENT or "qk_rope_head_dim" in config:
        return whole(config, "qk_rope_head_dim")
    if model == "zamba2":  # Its attention is twice as wide as the model; kv_channels is not read.
        width, heads = whole(config, *WIDTH, instead="attention_head_dim"), whole(config, *HEADS)
        return whole(config, "attention_head_dim", default=2 * width // heads)
    if config.keys() & {"head_dim", "kv_channels"}:
        return whole(config, "head_dim", "kv_channels")
    if model in models.HEAD_DIM:
        return models.HEAD_DIM[model]
    width, heads = whole(config, *WIDTH, instead="head_dim"), whole(config, *HEADS)
    if width % heads:
        raise ValueError(f"head_dim is missing, and {width} channels are not {heads} equal heads")
    return width // heads


def agreed(values: Mapping[str, Any]) -> Any:
    """Returns the one value that every key gives."""
    if len(set(values.values())) > 1:
        listed = " and ".join(f"{key} ({value})" for key, value in values.items())
        raise ValueError(f"contradiction between {listed}: one of them is not the model's")
    return next(iter(values.values()))


def whole(
    config: Mapping[str, Any],
    *spellings: str,
    default: int | None = None,
    instead: str | None = None,
    minimum: int = 1,
) -> int:
    """Returns the whole number, ``minimum`` (1 or 0) or more, that ``config`` has.

    It is the value under any of the ``spellings``, or else ``default``; without one, the error
    names ``instead`` as missing.
    """
    found = {key: config[key] for key in spellings if key in config}
    if not found and default is None:
        missing = spellings[0] if instead is None else f"{instead} (or {spellings[0]})"
        raise ValueError(f"config lacks {missing}: add it, or pass it as a keyword")
    for key, value in found.items():
        if type(value) is not int or value < minimum:
            allowed = "positive whole number" if minimum else "whole number of 0 or more"
            raise ValueError(f"{key}={value!r} must be a {allowed}")
    return agreed(found or {spellings[0]: default})


def numbers_of_layers(key: str, value: object) -> list[int]:
    """Returns ``value``, which a config has under ``key``: a list of numbers of layers."""
    if not isinstance(value, (list, tuple)) or not all(type(n) is int and n >= 0 for n in value):
        raise ValueError(f"{key}={value!r} must be a list of numbers of layers")
    return list(value)


def by_number_of_layer(key: str, value: Mapping[str, Any]) -> dict[int, Any]:
    """Returns ``value``, which a config has under ``key``, with its keys as numbers."""
    wrong = [name for name in value if not str(name).isdigit()]
    if wrong:
        raise ValueError(f"{key} has {wrong[0]!r}, which is no number of a layer")
    return {int(name): own for name, own in value.items()}


def number(
    where: str, section: Mapping[str, Any], key: str, minimum: float, default: float | None = None
) -> float:
    """Returns the number of ``minimum`` or more under ``key``; ``where`` names the section."""
    value = section.get(key, default)
    if not is_number(value) or value < minimum:
        raise ValueError(f"{key}={value!r} in {where} must be a number of {minimum} or more")
    return float(value)


def flag(section: Mapping[str, Any], key: str, where: str = "config", *, default: bool) -> bool:
    """Returns the true or false under ``key``; ``where`` names the section."""
    value = section.get(key, default)
    if not isinstance(value, bool):
        raise ValueError(f"{key}={value!r} in {where} must be true or false")
    return value


def is_number(value: object) -> bool:
    """Returns whether ``value`` is a finite number and not a bool."""
    return isinstance(value, (int, float)) and type(value) is not bool and math.isfinite(value)
