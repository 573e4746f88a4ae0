"""Configs filled from the constructors they will be passed to.

So a hyperparameter has one home, and every one of them can be overridden on the command line.
"""

import dataclasses
import inspect
import typing
from collections.abc import Callable
from typing import Any

from flax import nnx
from ml_collections import ConfigDict, config_dict

from posenc_jax import REGISTRY, Encoding, Layers, make
from posenc_jax.registry import keywords, lookup, own_keywords


def defaults(function: Callable, leave_out: tuple[str, ...] = ()) -> ConfigDict:
    """The keywords of ``function`` (or fields of a dataclass) with their defaults.

    A keyword without a default becomes a placeholder of its type, which a preset or the command
    line must fill.
    """
    parameters = inspect.signature(function).parameters
    hints = typing.get_type_hints(function)
    return ConfigDict(
        {
            name: _field(parameter.default, hints.get(name))
            for name, parameter in parameters.items()
            if name not in leave_out
            and (dataclasses.is_dataclass(function) or parameter.kind is parameter.KEYWORD_ONLY)
        }
    )


def encoding_defaults() -> ConfigDict:
    """The own keywords of every registered scheme with their defaults."""
    return ConfigDict({scheme: own_defaults(scheme) for scheme in REGISTRY})


def own_defaults(name: str) -> dict[str, Any]:
    """The own keywords of the scheme ``name`` with their defaults."""
    parameters = keywords(lookup(name))
    return {
        key: _field(parameters[key].default, parameters[key].annotation)
        for key in own_keywords(name)
    }


def make_encoding(encoding, model, train_length: int, rngs: nnx.Rngs | None) -> Encoding | Layers:
    """What ``encoding`` (a name and its own keywords) builds in a model of these sizes."""
    head_dim = model.get("head_dim") or model["model_dim"] // model["num_heads"]
    return make(
        **encoding,
        num_heads=model["num_heads"],
        num_kv_heads=model.get("num_kv_heads"),
        head_dim=head_dim,
        model_dim=model["model_dim"],
        num_layers=model["num_layers"],
        train_length=train_length,
        rngs=rngs,
    )


def _field(default, annotation):
    if default is not None and default is not inspect.Parameter.empty:
        return default
    kinds = [t for t in typing.get_args(annotation) or (annotation,) if t is not type(None)]
    kind = kinds[0] if kinds and isinstance(kinds[0], type) else object
    return config_dict.placeholder(kind)
