r"""RoPE, rotary position embedding, rotates queries and keys by angles that grow with the position.

https://arxiv.org/abs/2104.09864

$$
q_m^{(i)} \gets e^{\mathrm{i}\, m \theta_i} q_m^{(i)}, \quad
k_n^{(i)} \gets e^{\mathrm{i}\, n \theta_i} k_n^{(i)}, \qquad \theta_i = b^{-2i/d}
$$

Channel pair i of a query or key counts as one complex number, and b is the base. The product of a
query and a key then depends on their distance only. Overrides ``prepare`` (the cosines and sines)
and ``rotate``.
"""

from typing import Any, TypedDict, TypeGuard

import jax
import jax.numpy as jnp
import numpy as np

from posenc_jax.encodings.lib.angles import cos_sin
from posenc_jax.encodings.lib.axes import STILL, Allocation, as_tuples
from posenc_jax.encodings.rotary.base import Rotary
from posenc_jax.encodings.rotary.frequencies.base import Default, Frequencies, Length
from posenc_jax.encodings.rotary.frequencies.by_axis import ByAxis, shared_by_heads
from posenc_jax.positions import one_axis
from posenc_jax.tokens import Tokens


class Rotating(TypedDict, total=False):
    """Lists the keywords of ``RoPE`` that every encoding with a rule of its own takes too."""

    base: float
    axes: Allocation | None
    rotary_dim: int | None
    layout: str


class RoPE(Rotary):
    """Rotates each channel pair of queries and keys by the pair's frequency times the position.

    Args:
      head_dim: number of channels in one head.
      base: base of the frequencies; the slowest pair has a wavelength of about ``2 pi base``
        tokens.
      frequencies: a rule of ``posenc_jax.encodings.rotary.frequencies``. Default: RoPE's own.
      axes: the position axis that rotates each pair (``posenc_jax.encodings.lib.axes``); None for
        text. Positions ``[B, T]`` are text too: the same on every axis.
      rotary_dim: number of channels that rotate, the first ones; the rest pass through unchanged
        (partial rotary), and the exponents count ``rotary_dim``. Default: all of ``head_dim``.
      layout: which channels form a pair. "half" pairs i with i + rotary_dim / 2 (GPT-NeoX, Llama
        in Hugging Face), "interleaved" pairs 2 i with 2 i + 1 (the paper, GPT-J, Llama as
        released by Meta). One is a fixed permutation of the other.
    """

    def __init__(
        self,
        *,
        head_dim: int,
        base: float = 10000.0,
        frequencies: Frequencies | None = None,
        axes: Allocation | None = None,
        rotary_dim: int | None = None,
        layout: str = "half",
    ):
        super().__init__(head_dim=head_dim, base=base, rotary_dim=rotary_dim, layout=layout)
        axes = as_tuples(axes)
        _check_frequencies(frequencies, axes)
        if axes is not None:
            _check_axes(axes, self.rotary_dim // 2)
        self.frequencies = frequencies or Default()
        self.axes = axes

    def prepare(self, tokens: Tokens, length):
        """Makes the ``tables`` of the positions at the frequencies of the rule."""
        length = tokens.length(length)
        if self.frequencies.adapts(self.rotary_dim, self.base):
            check_length(tokens.positions, length)
        rates = self.frequencies(self.rotary_dim, self.base, length)
        return self.tables(tokens.positions, *rates)

    def tables(self, positions, inv_freq, attention_factor) -> tuple[jax.Array, ...]:
        """Returns float32 cosines and sines, each ``[B, T, K or 1, rotary_dim / 2]``.

        The frequencies and the attention factor are as a rule gives them; a subclass may change
        them first.
        """
        inv_freq = shared_by_heads(inv_freq)
        if isinstance(attention_factor, jax.Array):
            attention_factor = attention_factor[:, :, None]
        angles = cos_sin(self.positions_of_pairs(positions), inv_freq)
        return tuple(attention_factor * table for table in angles)

    def positions_of_pairs(self, positions):
        """Returns the position that rotates each pair, ``[B, T, K or 1, pairs or 1]``."""
        if self.axes is None:
            return one_axis(positions)[:, :, None, None]
        axes_KP = np.atleast_2d(self.axes)[None, None]
        if positions.ndim == 2:
            is_rotated, positions = axes_KP != STILL, positions[:, :, None, None]
            return positions if is_rotated.all() else jnp.where(is_rotated, positions, 0)
        if positions.shape[2] != axes_KP.max() + 1:
            raise ValueError(
                f"positions have shape {positions.shape}, but the encoding has axes={self.axes}, "
                f"so they must be [B, T, {axes_KP.max() + 1}], or [B, T] for text; "
                "OnAxes reads some of more axes"
            )
        chosen = jnp.zeros_like(positions, shape=(1, 1, 1, 1))
        for axis in np.unique(axes_KP[axes_KP != STILL]).tolist():
            chosen = jnp.where(axes_KP == axis, positions[:, :, axis, None, None], chosen)
        return chosen


def rotates_by_rule(encoding: Any) -> TypeGuard[RoPE]:
    """Returns whether an encoding is RoPE at any frequencies, such as YaRN, and nothing else."""
    methods = "prepare", "rotate_by"
    return isinstance(encoding, RoPE) and all(
        getattr(type(encoding), method) is getattr(RoPE, method) for method in methods
    )


def check_length(positions: jax.Array, length: Length) -> None:
    """Checks that a known length is not NaN, which marks a position too large to be a length."""
    is_traced = isinstance(length, jax.core.Tracer) or isinstance(positions, jax.core.Tracer)
    if is_traced or not np.isnan(length).any():
        return
    raise ValueError(
        f"position {np.max(positions)} would set the length that the frequencies adapt to, and is "
        "no length; if it marks padding, give segment_ids, with padding as a segment of its own, "
        "or else give length="
    )


def _check_frequencies(frequencies, axes):
    inner: Any = frequencies
    while isinstance(getattr(inner, "frequencies", None), Frequencies):
        inner = inner.frequencies
    # Text needs no axes: its position is the same on all of them.
    fits = not isinstance(inner, ByAxis) or axes in (None, inner.axes)
    beneath = getattr(inner, "frequencies", None)  # a tuple under ByAxis
    beneath = beneath if isinstance(beneath, tuple) else (beneath,)
    fits &= all(isinstance(rule, Frequencies | None) for rule in beneath)
    if not isinstance(frequencies, Frequencies | None) or not fits:
        raise ValueError(
            f"frequencies={frequencies!r} must be a rule of posenc_jax.encodings.rotary."
            "frequencies, with its arguments, such as NTKFrequencies(factor=4.0); ByAxis must have "
            f"the axes of the encoding, pair by pair: {axes}"
        )


def _check_axes(axes, pairs):
    """Checks that each pair has an axis, in all heads alike."""
    heads = axes if isinstance(axes, tuple) and axes and isinstance(axes[0], tuple) else (axes,)
    is_axis = all(
        isinstance(head, tuple) and all(isinstance(n, int) and n >= STILL for n in head)
        for head in heads
    )
    if not is_axis or any(len(head) != pairs for head in heads):
        raise ValueError(
            f"axes={axes} must have a number of a position axis, 0 or more, for each of the "
            f"{pairs} pairs, or {STILL} for one that does not rotate; heads that differ "
            "have one such tuple each"
        )
