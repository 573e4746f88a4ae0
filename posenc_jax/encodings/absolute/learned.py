r"""Adds learned absolute positions to the token embeddings.

https://arxiv.org/abs/1705.03122, and GPT-2

$$ x_t \gets x_t + P[p_t] $$

P is a trained table, and p_t the position of token t. Overrides ``embed``.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from posenc_jax.checks import check_choice, check_rows
from posenc_jax.encodings.lib.added import Added
from posenc_jax.encodings.lib.initial_values import normal
from posenc_jax.lookup import rows
from posenc_jax.positions import one_axis
from posenc_jax.tokens import Tokens


class Learned(Added):
    """Adds one trained vector for each position, once at the input.

    Args:
      train_length: number of rows of the table, for positions ``0 .. train_length - 1``.
      out_of_range: meaning of a position outside the table. "error" raises ValueError; under
        ``jax.jit``, where values are not known, such a position reads NaN, never another row.
        "clamp" reads the nearest row. "interpolate" scales the positions of a sequence longer than
        the table down to it and interpolates between rows: it adapts to the length
        (``encoding.at``). A negative position reads the first row.
      rngs: source of the initial values, N(0, 0.02) as in GPT-2.
    """

    def __init__(
        self, *, model_dim: int, train_length: int, rngs: nnx.Rngs, out_of_range: str = "error"
    ):
        check_choice(("error", "clamp", "interpolate"), out_of_range=out_of_range)
        self.out_of_range = out_of_range
        self.table = normal(rngs, train_length, model_dim)

    @property
    def interpolates(self) -> bool:
        """Returns whether positions are scaled to the table, by the length of their sequence."""
        return self.out_of_range == "interpolate"

    def prepare(self, tokens: Tokens, length):
        """Makes the last position of each token's sequence, ``[B, T]``, to scale by."""
        if not self.interpolates:
            return None
        last = jnp.asarray(tokens.length(length), jnp.float32) - 1
        return last + jnp.zeros_like(one_axis(tokens.positions), jnp.float32)

    def vectors(self, tokens: Tokens):
        positions, table = one_axis(tokens.positions), self.table[...]
        if self.interpolates:
            below, above, share = rows_between(positions, tokens.made, len(table))
            share = share[..., None]
            return (1 - share) * rows(table, below) + share * rows(table, above)
        row = row_of(positions, len(table), self.out_of_range)
        return rows(table, row, mode="fill", fill_value=jnp.nan)


def row_of(positions, size: int, out_of_range: str) -> jax.Array:
    """Returns the row of each position in a table of ``size``, or ``size`` where it has none."""
    if out_of_range == "clamp":
        positions = jnp.round(jnp.clip(positions, 0, size - 1))
    else:
        fix = "use out_of_range='clamp' or 'interpolate', or a larger train_length"
        check_rows(positions, size, fix)
    # A negative number would count from the end, and a fraction would be cut off.
    is_row = (positions >= 0) & (positions < size) & (positions % 1 == 0)
    return jnp.where(is_row, positions, size).astype(jnp.int32)


def rows_between(positions, longest, size: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns the row below, the row above and the weight of the row above, for each position.

    Positions are scaled down if ``longest``, the last of the sequence, is beyond ``size`` rows.
    Negative ones count as 0.
    """
    last = size - 1
    row = jnp.clip(positions * jnp.minimum(1.0, last / jnp.maximum(longest, 1)), 0, last)
    below = jnp.floor(row).astype(jnp.int32)
    return below, jnp.minimum(below + 1, last), row - below
