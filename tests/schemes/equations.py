"""Sets the form of a scheme's test data, and the equations of attention without positions.

Equations are written from the papers in float64 NumPy, one row of a batch at a time, positions
``[T]``, or ``[A, T]`` with the axes first, in any order: no shared code, no shared tricks.
"""

import dataclasses
import math
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class Alternative:
    """Gives another value of a keyword, and the settings under which it must matter.

    ``beside`` are further keywords that both sides get, ``baseline`` the value on the other side
    (default: the scheme's own default), ``num_axes`` the number of position axes and
    ``baseline_axes`` that of the other side, if it is another. ``trains`` marks a keyword that
    changes no output, only which parameters have a gradient; ``training_only`` one that shows in
    ``place`` and ``aux_loss`` under a key, and nowhere else.
    """

    value: Any
    beside: dict[str, Any] = dataclasses.field(default_factory=dict)
    baseline: Any = None
    num_axes: int = 1
    trains: bool = False
    baseline_axes: int | None = None
    training_only: bool = False


@dataclasses.dataclass(frozen=True)
class Scheme:
    """Holds what cannot be guessed about a scheme.

    Attributes:
      equations: an instance of a subclass of ``NoPE``.
      settings: its keywords in each comparison with them, two or more. Positions are whole numbers
        in the first, and fractional and negative in the others.
      alternatives: for each of its own keywords that the settings do not vary.
      overrides: keywords it needs to be used past its training length, and to show at short ones.
      invisible: endings of paths to parameters that cannot change the output.
      whole_positions_only: fractional and negative positions mean nothing to it.
      reads_positions: False where the order of the tokens decides, and what they contain.
      shift_invariant: whether adding a constant to all positions changes nothing.
      depends_on_batch: where no length is given, what it does to one document depends on how long
        the others are, as one random draw must be large enough for all.
      mixes_heads: whether all heads must be computed in one place.
      mixes_keys: whether each key is mixed with others, so that none can be rotated alone.
      distant: a shift of all positions, as far as floating point takes the scheme.
      num_axes: of positions, in every comparison with the equations but the first, which is of
        text; a setting may have its own, ``num_axes`` or ``grid``.
    """

    equations: "NoPE"
    settings: list[dict[str, Any]]
    alternatives: dict[str, Alternative] = dataclasses.field(default_factory=dict)
    overrides: dict[str, Any] = dataclasses.field(default_factory=dict)
    invisible: tuple[tuple[str, ...], ...] = ()
    whole_positions_only: bool = False
    reads_positions: bool = True
    shift_invariant: bool = True
    depends_on_batch: bool = False
    mixes_heads: bool = False
    mixes_keys: bool = False
    distant: int = 1_000_003
    num_axes: int = 1


def content(q, k):
    return np.einsum("thc,shc->hts", q, k) / math.sqrt(q.shape[-1])


def distances(positions):
    return positions[:, None] - positions[None, :]


class NoPE:
    """Has the equations of a scheme; the classes below override what they change.

    ``given`` are the keywords it was made with, ``weights`` its parameters by their dotted paths.
    Arrays are ``x [T, D]``, ``q``, ``k`` and ``v [T, H, C]``, ``logits`` and softmax ``weights``
    of attention ``[H, T, T]``, ``out [T, H, C]``; only ``place`` sees all rows, ``[B, T]``.
    """

    def place(self, positions, given):
        return positions

    def embed(self, x, positions, given, weights):
        return x

    def observe(self, x, given, weights):
        """Comes before ``logits``, with what queries and keys are projected from."""

    def logits(self, q, k, positions, given, weights):
        return content(q, k)

    def values(self, out, attention, positions, given, weights):
        """Takes ``attention`` times the values, and returns it with values of positions added."""
        return out


def softmax(logits):
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


def reference_attention(equations, x_BTD, positions_BT, given, weights, projections):
    """Returns causal attention ``[B, T, H, C]`` by the equations of a scheme."""
    outputs = []
    positions_BT = equations.place(positions_BT, given)
    # The equations have the axes of positions first.
    for x_TD, positions_T in zip(x_BTD, [row.T for row in positions_BT], strict=True):
        x_TD = equations.embed(x_TD, positions_T, given, weights)
        q, k, v = (np.einsum("td,dhc->thc", x_TD, w) for w in projections)
        equations.observe(x_TD, given, weights)
        logits_HTS = equations.logits(q, k, positions_T, given, weights)
        # A query sees the tokens written before it, wherever their positions lie.
        logits_HTS = np.where(np.tri(len(x_TD), dtype=bool), logits_HTS, -np.inf)
        attention_HTS = softmax(logits_HTS)
        out_THC = np.einsum("hts,shc->thc", attention_HTS, v)
        outputs.append(equations.values(out_THC, attention_HTS, positions_T, given, weights))
    return np.stack(outputs)


SCHEMES = {"nope": Scheme(NoPE(), [{}, {"num_heads": 2}], reads_positions=False)}
