"""Finds the keys of the text model in a config, and puts them into one flat dict."""

from collections.abc import Mapping
from typing import Any

from posenc_jax.hf import models
from posenc_jax.hf.positions import READ, about_positions
from posenc_jax.hf.types import SECTION_ONLY

# The keys under which models of several parts keep their text model.
_PARTS = ("thinker_config", "text_config", "llm_config", "language_config")


def flattened(config: Mapping[str, Any], keys: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the keys of the text model, overridden by ``keys``, without nulls.

    A null that has a meaning (a model without windows) is kept.
    """
    if not isinstance(config, Mapping):
        raise ValueError(
            f"config must be a dict, as json.load or to_dict() of transformers returns, not "
            f"{config!r}"
        )
    for key in keys:
        if key in SECTION_ONLY | {"rope_type", "type"}:
            raise ValueError(
                f"{key}={keys[key]!r} is no key of a config, but of the rotary section in it: "
                "change it there, in rope_parameters or rope_scaling"
            )
    if _is_section(config):
        config = {"rope_parameters": config}
    config = _text(config)
    config = {**_inner(config, "attn_config"), **config, **keys}
    if not isinstance(config.get("model_type") or "", str):
        raise ValueError(f"model_type={config['model_type']!r} must be a string")
    present = {key: value for key, value in config.items() if value is not None}
    if "model_type" in present:
        model = models.TEXT_PARTS.get(present["model_type"], present["model_type"])
        bases = {} if "rope_parameters" in present else models.BASES.get(model, {})
        present = {**bases, **present, "model_type": model}
    windows = ("sliding_window", "attention_chunk_size")
    return present | {key: None for key in windows if key in config and config[key] is None}


def part_of_text(config: Mapping[str, Any]) -> str | None:
    """Returns the key under which a model of several parts has its text model, or None."""
    return next((name for name in _PARTS if config.get(name)), None)


def _is_section(config):
    """Returns whether this is a rotary section alone, or one for each kind of layer."""
    if config.keys() & {"rope_type", "type", "full_attention", "sliding_attention"}:
        return True
    of_models = ("model_type", "rope_parameters", "rope_scaling", *_PARTS)
    return not any(map(config.get, of_models)) and not SECTION_ONLY.isdisjoint(config)


def _text(config):
    """Returns the innermost text model, with the outer model's type if it has none of its own."""
    part = part_of_text(config)
    if part is None:
        return config
    inner = _inner(config, part)
    for key in config:
        is_read = key in READ or about_positions(key)
        if is_read and config[key] is not None and config[key] != inner.get(key):
            raise ValueError(f"{key} contradicts {part}: pass config[{part!r}] instead")
    if "model_type" in config and not inner.get("model_type"):
        inner = {**inner, "model_type": config["model_type"]}
    return _text(inner)


def _inner(config, name):
    inner = config.get(name) or {}
    if not isinstance(inner, Mapping):
        raise ValueError(f"{name}={inner!r} must be a dict")
    return inner
