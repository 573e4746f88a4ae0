"""Fills configs from the constructors that they will be passed to.

A hyperparameter's default is written only in its constructor, and every hyperparameter can be
overridden on the command line.
"""

import dataclasses
import inspect
import typing
from collections.abc import Callable, Mapping
from typing import Any

from ml_collections import ConfigDict, FieldReference, config_dict

from experiments.training.mesh import make_mesh
from experiments.training.recipe import Recipe
from posenc_jax import Transformer
from posenc_jax.registry import keywords, lookup, own_keywords


def start(experiment: str, *, trials: type, setting: type | None = None) -> ConfigDict:
    """Returns a config with the fields that all experiments share, for presets to change.

    ``experiment`` is the name in ``experiments/registry.py``. The fields of the dataclass
    ``trials`` become ``eval``, and of ``setting`` ``task``. An experiment with a ``setting`` fixes
    the training length and whether the model is causal; without one, the config says both.
    """
    config = ConfigDict()
    config.experiment = experiment
    config.seeds = 3
    config.mesh = defaults(make_mesh)
    fixed = ("vocab_size", "rngs") if setting is None else ("vocab_size", "rngs", "causal")
    config.model = defaults(Transformer.__init__, leave_out=fixed)
    # Only some experiments on text have phases, and add the field themselves.
    config.train = defaults(
        Recipe, leave_out=("phases",) if setting is None else ("phases", "length")
    )
    config.eval = defaults(trials)
    if setting is not None:
        config.task = defaults(setting)
    return config


def variant(name: str, settings: Mapping[str, Any] | None = None, **changed) -> ConfigDict:
    """Returns a variant: the scheme ``name`` with its keywords in full, and other settings."""
    config = ConfigDict({"encoding": encoding(name)})
    config.encoding.update(changed)
    config.update(settings or {})
    return config


def defaults(function: Callable, leave_out: tuple[str, ...] = ()) -> ConfigDict:
    """Returns the keywords of ``function`` (or fields of a dataclass) with their defaults.

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


def loading() -> ConfigDict:
    """Returns how published weights are held, which they do not say themselves."""
    return ConfigDict({"dtype": "float32", "param_dtype": "float32", "scan": True, "remat": False})


def encoding(name: str, **changed: Any) -> dict[str, Any]:
    """Returns the name of a scheme and its own keywords in full, some of them changed."""
    return {"name": name} | own_defaults(name) | changed


def own_defaults(name: str) -> dict[str, Any]:
    """Returns the own keywords of the scheme ``name`` with their defaults.

    A factor that the library asks for is 4; 8 in ``llama3``, as published.
    """
    parameters = keywords(lookup(name))
    given = {key: parameters[key].default for key in own_keywords(name)}
    if given.get("factor") is inspect.Parameter.empty:
        given["factor"] = 8.0 if name == "llama3" else 4.0
    return {key: _field(value, parameters[key].annotation) for key, value in given.items()}


def short_keywords(length: int | FieldReference) -> dict[str, dict[str, Any]]:
    """Returns the keywords that schemes need where the training length is short, by scheme.

    If ``length`` is a reference to a field of a config, they follow the field.
    """
    exactly = length.to_float() if isinstance(length, FieldReference) else float(length)
    half = {"window": length // 2}
    return {
        # Learned tables end at the training length: positions past it read the last row.
        "learned": {"out_of_range": "clamp"},
        "learned_2d": {"out_of_range": "clamp"},
        # FIRE's threshold is a quarter of the training length in the paper (512 of 2048).
        "fire": {"init_length": exactly / 4},
        # The default windows of patterns and scales of temperatures are for thousands of tokens.
        "rnope_swa": half,
        "global_nope": half,
        "global_yarn": half,
        "flint": half,
        "beam": half | {"scale": exactly},
        "dual_base": {"window": length // 4},
        "irope": {"floor_scale": length},
        "llama4_temperature": {"floor_scale": length},
        "beam_scale": {"scale": exactly},
    }


def _field(default, annotation):
    if default is not None and default is not inspect.Parameter.empty:
        return default
    kinds = [t for t in typing.get_args(annotation) or (annotation,) if t is not type(None)]
    kind = kinds[0] if kinds and isinstance(kinds[0], type) else object
    return config_dict.placeholder(kind)
