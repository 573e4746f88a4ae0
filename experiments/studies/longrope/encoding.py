"""Defines the encoding whose factors are arrays, and finds the factors of known methods."""

import math
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx

from experiments.studies.longrope.search import Genome
from posenc_jax.encodings.lib.double import Double
from posenc_jax.encodings.rotary.frequencies.base import Frequencies, geometric
from posenc_jax.encodings.rotary.rope import RoPE
from posenc_jax.tokens import Tokens


class Searched(RoPE):
    """Rotates pairs slower by factors that are arrays: LongRoPE at one length.

    One compiled program takes any factors. Past the training length, ``LongRoPE`` with the same
    factors is the same encoding.

    Args:
      rope: the RoPE that the model was trained under.
      factors: how many times slower each pair rotates, a float64 NumPy array ``[pairs]``.
      start_tokens: int; tokens at positions below it are rotated as in RoPE.
      attention_factor: multiplies cosine and sine of all other tokens.
    """

    def __init__(
        self,
        rope: RoPE,
        factors: np.ndarray,
        start_tokens: int = 0,
        attention_factor: float = 1.0,
    ):
        super().__init__(**shared_keywords(rope))
        self.factors = nnx.data(Double.of(factors))
        self.start_tokens = jnp.asarray(start_tokens, jnp.int32)
        self.attention_factor = jnp.asarray(attention_factor, jnp.float32)

    @classmethod
    def of(cls, rope: RoPE, genome: Genome, attention_factor: float) -> "Searched":
        """Returns the encoding of a genome."""
        return cls(rope, np.array(genome.factors), genome.start_tokens, attention_factor)

    def prepare(self, tokens: Tokens, length):
        positions = tokens.positions
        inv_freq, no_factor = self.frequencies(self.rotary_dim, self.base, 1)
        unchanged = self.tables(positions, inv_freq, no_factor)
        slowed = self.tables(positions, inv_freq / self.factors, 1.0)
        starts = self.positions_of_pairs(positions) < self.start_tokens
        return tuple(
            jnp.where(starts, as_in_rope, self.attention_factor * table)
            for as_in_rope, table in zip(unchanged, slowed, strict=True)
        )


def shared_keywords(rope: RoPE) -> dict[str, Any]:
    """Returns the keywords that all rotary encodings of one model share."""
    names = ("head_dim", "base", "axes", "rotary_dim", "layout")
    return {name: getattr(rope, name) for name in names}


def factors_of(rope: RoPE, rule: Frequencies) -> np.ndarray:
    """Returns how many times slower than in RoPE each pair rotates under ``rule``, float64."""
    inv_freq, _ = rule(rope.rotary_dim, rope.base, 1)
    factors = np.asarray(geometric(rope.rotary_dim, rope.base)) / np.asarray(inv_freq)
    return factors.round(12)  # so that rounding errors do not make equal factors differ


def attention_of(rope: RoPE, rule: Frequencies) -> float:
    """Returns the factor by which ``rule`` multiplies cosine and sine."""
    return float(rule(rope.rotary_dim, rope.base, 1)[1])


def critical_pairs(rope: RoPE, train_length: int) -> tuple[int, int]:
    """Returns the smallest critical pair that LongRoPE2 tries, and the largest.

    They are the first pair that turns less than ten times within the training length, and the first
    that turns less than once.
    """
    pairs = rope.rotary_dim // 2

    def first_below(turns):
        ratio = math.log(train_length / (2 * math.pi * turns)) / math.log(rope.base)
        return min(max(math.ceil(pairs * ratio), 0), pairs - 1)

    return first_below(10), first_below(1)
