"""Checks what a config gives, once, where it enters a study.

The bounds of a study's own settings are told beside their defaults, by ``bounded``, and names are
looked up by ``one_of``. A study checks what depends on several settings or on the data, and a
constructor checks its own arguments.
"""

import dataclasses
import math
import typing
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

import jax
from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict

from posenc_jax.registry import suggest

T = TypeVar("T")

_TYPES = ("float32", "bfloat16", "float16")


def check_config(config: ConfigDict) -> None:
    """Raises a ValueError for the first field of an experiment's config that has no meaning.

    Of a config of several studies, each is checked when it is made.
    """
    if "studies" in config:
        return
    fields = config.to_dict()
    for name, value in flatten_dict(fields, sep=".").items():
        if name.endswith("dtype") and value is not None and str(value) not in _TYPES:
            raise ValueError(f"{name}={value!r} must be one of {', '.join(_TYPES)}")
    encodings = fields.get("encodings", {})
    for name, extension in fields.get("extend", {}).items():
        trained = extension["of"]
        if encodings.get(trained, {}).get("name", trained) != "rope":
            raise ValueError(
                f"extend.{name}.of={trained!r} must be 'rope' or a variant of it: these schemes "
                "make a trained RoPE longer"
            )


def bounded(default: T, **bounds: Any) -> T:
    """Returns a field of a dataclass of settings; ``bounds`` are the keywords of ``_refusal``."""
    return dataclasses.field(default=default, metadata=bounds)


def filled(kind: type[T], name: str, config: Mapping[str, Any]) -> T:
    """Returns the dataclass ``kind`` of the part ``name`` of a config, after ``check_fields``."""
    check_fields(kind, name, config)
    return kind(**config)


def check_fields(kind: type, name: str, config: Mapping[str, Any]) -> None:
    """Raises a ValueError for a field of the part ``name`` of a config that ``kind`` refuses.

    The command line checks the types of all values but not of a tuple's elements, which are checked
    here, as are the bounds of every field of the dataclass ``kind``. None is not checked.
    """
    hints = typing.get_type_hints(kind)
    for field in dataclasses.fields(kind):
        value, hint = config.get(field.name), hints[field.name]
        if value is None:
            continue
        if typing.get_origin(hint) is tuple and not _fits(value, hint):
            why: str | None = f"have the form of its default, {field.default}"
        else:
            why = _refusal(value, hint, **field.metadata)
        if why:
            raise ValueError(f"{name}.{field.name}={value!r} must {why}")


def _refusal(
    value: Any,
    hint: Any,
    least: float | None = None,
    above: float = -math.inf,
    below: float = math.inf,
    most: float = math.inf,
    ascends: bool = False,
    first: float | None = None,
) -> str | None:
    """Returns what a value of the type ``hint`` must be, in words, or None if it is allowed.

    All numbers of a tuple must be within the bounds; ``least`` is 1 for whole numbers by default.
    A tuple has no element twice, and may have to ascend and to begin with ``first``.
    """
    kind = hint
    while typing.get_origin(kind) is tuple:
        kind = typing.get_args(kind)[0]
    if isinstance(value, tuple):
        if len({*value}) < len(value):
            return "have each element once"
        if ascends and list(value) != sorted(value):
            return "ascend"
        if first not in (None, *value[:1]):
            return f"begin with {first}"
    if kind not in (int, float):
        return None
    least = (1 if kind is int else -math.inf) if least is None else least
    if all(least <= n <= most and above < n < below for n in jax.tree.leaves(value)):
        return None
    bounds = {"at least": least, "above": above, "at most": most, "below": below}
    words = [f"{word} {bound}" for word, bound in bounds.items() if math.isfinite(bound)]
    return " and ".join(["be finite", *words])


def _fits(value: Any, hint: Any) -> bool:
    """Returns whether a value, or each element of a tuple, is of the type that a hint says."""
    if typing.get_origin(hint) is not tuple:
        return isinstance(value, int | float if hint is float else hint)
    if not isinstance(value, tuple):
        return False
    hints = typing.get_args(hint)
    hints = hints[:1] * len(value) if hints[-1] is Ellipsis else hints
    return len(value) == len(hints) and all(map(_fits, value, hints))


def one_of(field: str, name: str, known: Iterable[str]) -> str:
    """Returns a name that a config gives in ``field``, or raises a ValueError if it is unknown."""
    known = list(known)
    if name not in known:
        raise ValueError(f"{field}={name!r} is unknown{suggest(str(name), known)}")
    return name


def listed(text: str) -> list[str]:
    """Returns the names that a text has between commas, each once."""
    return list(dict.fromkeys(part.strip() for part in text.split(",")))


def names_in(field: str, text: str, known: Iterable[str]) -> list[str]:
    """Returns the comma-separated names that a config gives in ``field``, all of them known."""
    known = list(known)
    return [one_of(field, name, known) for name in listed(text) if name]
