"""Reads keys of a config, checks their values, and names the key at fault."""

import math
from collections.abc import Callable, Mapping
from typing import Any

from posenc_jax.checks import count_of

Config = Mapping[str, Any]

# Different models have different names for a size.
HEADS = ("num_attention_heads", "n_head", "n_heads", "num_heads", "decoder_num_attention_heads")
WIDTH = ("hidden_size", "n_embd", "d_model")
LAYERS = ("num_hidden_layers", "num_layers", "n_layers", "n_layer")
LENGTH = ("max_position_embeddings", "n_positions", "max_seq_len")
ORIGINAL = "original_max_position_embeddings"
# The kinds of layers that most configs name.
FULL, SLIDING, CHUNKED, LINEAR = (
    f"{kind}_attention" for kind in ("full", "sliding", "chunked", "linear")
)


def words(text: str) -> frozenset[str]:
    """Returns the words of a text."""
    return frozenset(text.split())


def agreed(values: Mapping[str, Any]) -> Any:
    """Returns the one value that every key gives."""
    if len(set(values.values())) > 1:
        listed = " and ".join(f"{key} ({value})" for key, value in values.items())
        raise ValueError(f"contradiction between {listed}: one of them is not the model's")
    return next(iter(values.values()))


def whole(config: Config, *spellings: str, default: int | None = None, minimum: int = 1) -> int:
    """Returns the whole number of ``minimum`` or more under one of ``spellings``."""
    given = {key: count_of(key, config[key], minimum) for key in spellings if key in config}
    if given:
        return agreed(given)
    if default is None:
        raise ValueError(f"config lacks {' or '.join(spellings)}: add one, or pass it as a keyword")
    return default


def number(
    section: Config,
    key: str,
    minimum: float = 0,
    *,
    where: str = "config",
    default: float | None = None,
) -> float:
    """Returns the number of ``minimum`` or more under ``key``; ``where`` names the section."""
    value = section.get(key, default)
    if not is_number(value) or value < minimum:
        raise ValueError(f"{key}={value!r} in {where} must be a number of {minimum} or more")
    return float(value)


def flag(section: Config, key: str, *, default: bool) -> bool:
    """Returns the true or false under ``key``."""
    value = section.get(key, default)
    if not isinstance(value, bool):
        raise ValueError(f"{key}={value!r} must be true or false")
    return value


def entries(
    section: Config, key: str, is_entry: Callable[[Any], bool], default: Any = ()
) -> list[Any]:
    """Returns the list under ``key``; each entry passes ``is_entry``."""
    value = section.get(key, default)
    if not isinstance(value, list | tuple) or not all(map(is_entry, value)):
        raise ValueError(f"{key}={value!r} must be a list of entries of the right type")
    return list(value)


def mapping(section: Config, key: str) -> Config:
    """Returns the dict under ``key``, empty where it is missing or null."""
    value = section.get(key) or {}
    if not isinstance(value, Mapping):
        raise ValueError(f"{key}={value!r} must be a dict")
    return value


def is_number(value: object) -> bool:
    """Returns whether ``value`` is a finite number and not a bool."""
    return isinstance(value, int | float) and type(value) is not bool and math.isfinite(value)


def is_whole(value: object) -> bool:
    """Returns whether ``value`` is a whole number of 0 or more and not a bool."""
    return type(value) is int and value >= 0


def is_text(value: object) -> bool:
    """Returns whether ``value`` is a string."""
    return isinstance(value, str)
