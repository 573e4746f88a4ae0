"""Defines the phases of a run: parts in which texts are longer or the encoding is another one.

The run has one optimizer and one schedule over all of its phases, and the model keeps its arrays.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from flax import nnx

from experiments.settings import bounded, check_fields, one_of
from experiments.training.encodings import as_trained, at_ratio, make_encoding
from posenc_jax import Encoding, Layers


@dataclasses.dataclass(frozen=True)
class Phase:
    """Describes a part of a run.

    Attributes:
      share: the share of the run's steps.
      length: tokens of a training sequence; 0 means the recipe's. A step has the same number of
        tokens in every phase, so that it has fewer rows where they are longer.
      encoding: keywords that differ from those of the trained encoding. With a ``name`` it is
        another scheme, which keeps the keywords that it shares with the trained one. "ratio" means
        the length over the recipe's, see ``at_ratio``.
      window: the number of keys that a query sees in every layer, itself included; 0 means all.
    """

    share: float = bounded(1.0, above=0, most=1)
    length: int = bounded(0, least=0)
    encoding: Mapping[str, Any] = dataclasses.field(default_factory=dict, hash=False)
    window: int = bounded(0, least=0)

    @classmethod
    def of(cls, given: Any, number: int) -> "Phase":
        """Returns a phase that is given as ``(share, changes)``, or as the dict of a record."""
        if isinstance(given, Phase):
            return given
        name = f"train.phases[{number}]"
        if not isinstance(given, Mapping):
            try:
                share, changes = given
                given = {"share": share, **changes}
            except (TypeError, ValueError):
                raise ValueError(
                    f"{name}={given!r} must be a pair of a share of the steps and what changes, "
                    "such as (0.1, {'length': 1024})"
                ) from None
        for field in given:
            one_of(name, field, [known.name for known in dataclasses.fields(cls)])
        check_fields(cls, name, given)
        return cls(**{field: value for field, value in given.items() if value is not None})


UNCHANGED = Phase()


def encoding_in(
    phase: Phase,
    trained: Mapping[str, Any],
    model: Mapping[str, Any],
    length: int,
    rngs: nnx.Rngs | None,
) -> Encoding | Layers:
    """Builds the encoding of a phase, for a model of these sizes.

    The ``trained`` encoding, a name and its keywords, is for ``length`` tokens in every phase.
    """
    ratio = (phase.length or length) / length
    changed = at_ratio(phase.encoding, int(ratio) if ratio.is_integer() else ratio, length)
    name = changed.get("name", trained["name"])
    kept = trained if name == trained["name"] else as_trained(name, trained)
    made = make_encoding({**kept, "name": name, **changed}, model, length, rngs)
    if not phase.window:
        return made
    if isinstance(made, Layers):
        raise ValueError(
            f"a phase has window={phase.window}, and {name} has windows of its own: give "
            "encoding=dict(window=...) instead"
        )
    return Layers([made], [phase.window])
