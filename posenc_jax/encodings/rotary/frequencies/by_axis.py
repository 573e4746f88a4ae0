"""Lets frequency rules differ by position axis."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from posenc_jax.checks import count_of
from posenc_jax.encodings.lib.axes import STILL, Allocation
from posenc_jax.encodings.lib.double import Double
from posenc_jax.encodings.rotary.frequencies.base import (
    Default,
    Frequencies,
    InvFreq,
    Length,
    Rates,
)


@dataclasses.dataclass(frozen=True)
class ByAxis(Frequencies):
    """Gives each pair the frequency that the rule of its axis has for it.

    Attributes:
      axes: the allocation of the pairs, the encoding's own, see
        ``posenc_jax.encodings.lib.axes``. One for each kv head gives frequencies ``[K, P]``, or
        ``[B, T, K, P]`` where a rule adapts to an array of lengths.
      frequencies: a rule for each axis. Their attention factors must be equal, because one factor
        multiplies the products of all axes.
    """

    axes: Allocation
    frequencies: tuple[Frequencies, ...]

    def __post_init__(self):
        # Each axis has a rule.
        count_of("the largest of axes", int(np.max(self.axes)), STILL, len(self.frequencies) - 1)

    def __call__(self, channels: int, base: float, length: Length) -> Rates:
        rules = [rule(channels, base, length) for rule in self.frequencies]
        by_axis = [inv_freq for inv_freq, _ in rules]
        if isinstance(self.axes[0], tuple):
            by_axis = list(map(shared_by_heads, by_axis))
        chosen = by_axis[0]
        for axis, inv_freq in enumerate(by_axis):
            is_chosen = np.array(self.axes) == axis
            # A product with 0 or 1 is exact, for numbers and for Doubles.
            chosen = inv_freq * is_chosen.astype(float) + chosen * (~is_chosen).astype(float)
        return chosen, _agreed([factor for _, factor in rules])


@dataclasses.dataclass(frozen=True)
class Spectra(Frequencies):
    """Gives each axis a whole spectrum, from the fastest pair to the slowest, in a run of pairs.

    Attributes:
      sections: number of pairs of each axis.
      frequencies: rule of every spectrum. Default: RoPE's.
    """

    sections: tuple[int, ...]
    frequencies: Frequencies | None = None

    def __call__(self, channels: int, base: float, length: Length) -> Rates:
        rule = self.frequencies or Default()
        rates = [rule(2 * pairs, base, length) for pairs in self.sections if pairs]
        spectra = [inv_freq for inv_freq, _ in rates]
        xp: Any = jnp if isinstance(spectra[0], Double) else np
        joined = jax.tree.map(lambda *parts: xp.concatenate(parts, axis=-1), *spectra)
        return joined, _agreed([factor for _, factor in rates])


def shared_by_heads(inv_freq: InvFreq) -> InvFreq:
    """Returns frequencies of each token ``[B, T, P]`` as ``[B, T, 1, P]``, and others as given."""
    if isinstance(inv_freq, Double) and inv_freq.high.ndim == 3:
        return jax.tree.map(lambda part: part[:, :, None], inv_freq)
    return inv_freq


def _agreed(attention_factors):
    first, *others = attention_factors
    has_array = any(isinstance(factor, jax.Array) for factor in attention_factors)
    if any(other is not first and (has_array or other != first) for other in others):
        raise ValueError(
            f"the attention factors of the axes differ: {attention_factors}; give each rule the "
            "same attention_factor="
        )
    return first
