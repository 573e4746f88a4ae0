"""Sets the form of a scheme's test data, and the equations of attention without positions.

Equations are written from the papers in float64 NumPy, one row of a batch at a time, positions
``[T]``, or ``[A, T]`` with the axes first, in any order: no shared code, no shared tricks.
"""

import dataclasses
import math
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class Scheme:
    """Holds what cannot be guessed about a scheme.

    Attributes:
      equations: an instance of a subclass of ``NoPE``.
      settings: its keywords in each comparison with them, two or more. Positions are whole numbers
        in the first, and fractional and negative in the others.
      in_training: another value of keywords that show in training alone: in the positions that are
        drawn with a key, and in ``aux_loss``.
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
    in_training: dict[str, Any] = dataclasses.field(default_factory=dict)
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


def pairs_of(x, layout):
    """Returns the pairs of channels of ``x [..., C]`` as complex numbers, ``[..., C / 2]``."""
    if layout == "interleaved":
        return x[..., 0::2] + 1j * x[..., 1::2]
    first, second = np.split(x, 2, axis=-1)
    return first + 1j * second


def channels_of(pairs, layout):
    """Undoes ``pairs_of``."""
    parts = pairs.real, pairs.imag
    if layout == "interleaved":
        return np.stack(parts, axis=-1).reshape(*pairs.shape[:-1], -1)
    return np.concatenate(parts, axis=-1)


class NoPE:
    """Has the equations of a scheme; the classes below override what they change.

    ``given`` are the keywords it was made with, ``weights`` its parameters by their dotted paths.
    Arrays are ``x [T, D]``, ``q``, ``k`` and ``v [T, H, C]``, logits and their softmax, which is
    ``attention``, ``[H, T, T]``; only ``place`` sees all rows, ``[B, T]``.
    """

    def place(self, positions, given):
        return positions

    def embed(self, x, positions, given, weights):
        return x

    def observe(self, x, given, weights):
        """Comes before ``logits``, with what queries and keys are projected from."""

    def logits(self, q, k, positions, given, weights):
        return content(q, k)

    def values(self, v, attention, positions, given, weights):
        """Returns the output ``[T, H, C]``."""
        return np.einsum("hts,shc->thc", attention, v)


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
        outputs.append(equations.values(v, softmax(logits_HTS), positions_T, given, weights))
    return np.stack(outputs)


SCHEMES = {"nope": Scheme(NoPE(), [{}, {"num_heads": 2}], reads_positions=False)}
