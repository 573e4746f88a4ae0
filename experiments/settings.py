"""Checks what a config gives, once, where it enters a study.

The bounds of a number are told beside its default, by ``bounded``; names are looked up by
``one_of``. What depends on several settings or on the data is checked by the study.
"""

import dataclasses
import importlib.util
import math
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from posenc_jax.registry import suggest

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Bounds:
    """Says what the numbers of a setting may be.

    Attributes:
      least: the least number that is allowed; by default 1 for whole numbers.
      above: a number that all must exceed.
      most: the largest number that is allowed.
      ascends: whether the numbers of a tuple must ascend.
      first: the number that a tuple must begin with.
    """

    least: float | None = None
    above: float = -math.inf
    most: float = math.inf
    ascends: bool = False
    first: float | None = None

    def refusal(self, value: Any, hint: Any) -> str | None:
        """Returns what a value must be or have, in words, or None for a value that is allowed."""
        numbers: Iterable[Any] = (value,)
        kind = hint
        while typing.get_origin(kind) is tuple:
            kind = typing.get_args(kind)[0]
        if kind is not hint:
            if len({*value}) < len(value):
                return "have each element once"
            if self.ascends and list(value) != sorted(value):
                return "ascend"
            if self.first not in (None, *value[:1]):
                return f"begin with {self.first}"
            numbers = [*_leaves(value)]
        if kind not in (int, float):
            return None
        usual = 1 if kind is int else -math.inf
        least = usual if self.least is None else self.least
        if all(least <= n <= self.most and self.above < n < math.inf for n in numbers):
            return None
        bounds = {"at least": least, "above": self.above, "at most": self.most}
        words = [f"{word} {bound}" for word, bound in bounds.items() if math.isfinite(bound)]
        return " and ".join(["be finite", *words])


def bounded(default: T, **bounds: Any) -> T:
    """Returns a field of a dataclass of settings, with the keywords of its ``Bounds``."""
    return dataclasses.field(default=default, metadata={"bounds": Bounds(**bounds)})


def filled(kind: type[T], name: str, config: Mapping[str, Any]) -> T:
    """Returns the dataclass ``kind`` with the fields of the part ``name`` of a config.

    The command line checks the types of all values but not those of the elements of a tuple, which
    are checked here, as are the bounds of every field. A tuple has no element twice.

    Raises:
      ValueError: a value is refused; or as ``kind`` raises.
    """
    hints = typing.get_type_hints(kind)
    for field in dataclasses.fields(kind):  # type: ignore[arg-type]
        value, hint = config.get(field.name), hints[field.name]
        if value is None:
            continue
        if typing.get_origin(hint) is tuple and not _fits(value, hint):
            refusal: str | None = f"have the form of its default, {field.default}"
        else:
            refusal = field.metadata.get("bounds", Bounds()).refusal(value, hint)
        if refusal:
            raise ValueError(f"{name}.{field.name}={value!r} must {refusal}")
    return kind(**config)


def _leaves(value: Any) -> Iterable[Any]:
    """Yields what is in a tuple of tuples."""
    for part in value:
        if isinstance(part, tuple):
            yield from _leaves(part)
        else:
            yield part


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


def names_in(field: str, text: str, known: Iterable[str]) -> list[str]:
    """Returns the comma-separated names that a config gives in ``field``, all of them known."""
    known = list(known)
    names = (part.strip() for part in text.split(","))
    return [one_of(field, name, known) for name in names if name]


def folder_of(package: str, extra: str, purpose: str) -> Path:
    """Returns the folder of an optional package, without importing it.

    Raises:
      ValueError: the package is not installed; the sentence says which ``extra`` brings it.
    """
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise ValueError(f"{purpose} needs the package {package}; run: pip install -e '.[{extra}]'")
    return Path(spec.origin).parent
