"""Members of the first dial that look at the second: frequencies that differ by position axis."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from posenc_jax.rotary.frequencies import Default


@dataclasses.dataclass(frozen=True)
class ByAxis:
    """A rule for each axis: a pair turns as it does under the rule of its axis.

    Attributes:
      axes: the allocation of the pairs, see ``posenc_jax.rotary.axes``.
      frequencies: a member of ``posenc_jax.rotary.frequencies`` for each axis. Their attention
        factors must be one number, for queries and keys turn by all axes at once.
    """

    axes: tuple[int, ...]
    frequencies: tuple[Callable, ...]

    def __call__(self, channels, base, length):
        rules = [rule(channels, base, length) for rule in self.frequencies]
        xp = jnp if any(isinstance(inv_freq, jax.Array) for inv_freq, _ in rules) else np
        chosen = rules[0][0]
        for axis, (inv_freq, _) in enumerate(rules):
            chosen = xp.where(np.array(self.axes) == axis, inv_freq, chosen)
        return chosen, _agreed([factor for _, factor in rules])


@dataclasses.dataclass(frozen=True)
class Spectra:
    """A spectrum for each axis, from the fastest pair to the slowest, in its own run of pairs.

    Attributes:
      sections: how many pairs each axis has.
      frequencies: the rule of every spectrum. Default: RoPE's.
    """

    sections: tuple[int, ...]
    frequencies: Callable | None = None

    def __call__(self, channels, base, length):
        rule = self.frequencies or Default()
        rules = [rule(2 * pairs, base, length) for pairs in self.sections if pairs]
        xp = jnp if any(isinstance(inv_freq, jax.Array) for inv_freq, _ in rules) else np
        spectra = xp.concatenate([inv_freq for inv_freq, _ in rules], axis=-1)
        return spectra, _agreed([factor for _, factor in rules])


def _agreed(attention_factors):
    first = attention_factors[0]
    if any(factor is not first and not _equal(factor, first) for factor in attention_factors):
        raise ValueError(
            f"the attention factors of the axes differ: {attention_factors}; give each rule the "
            "same attention_factor="
        )
    return first


def _equal(factor, other) -> bool:
    are_numbers = not isinstance(factor, jax.Array) and not isinstance(other, jax.Array)
    return are_numbers and factor == other
