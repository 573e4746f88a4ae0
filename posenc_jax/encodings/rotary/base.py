"""Defines the base class of the rotary family, which rotates channel pairs by given angles."""

import jax
import jax.numpy as jnp

from posenc_jax.checks import check_choice
from posenc_jax.encoding import Encoding
from posenc_jax.encodings.lib.angles import rotated, tables_of_text
from posenc_jax.encodings.lib.layouts import pairs_of
from posenc_jax.encodings.rotary.frequencies.base import checked_base, geometric
from posenc_jax.lookup import check_width
from posenc_jax.pairs import Side
from posenc_jax.positions import one_axis
from posenc_jax.tokens import Tokens


class Rotary(Encoding):
    """Rotates channel pairs of queries and keys; a subclass says by which angles.

    Where angles come from positions or content, ``prepare`` or ``observe`` makes their cosines and
    sines, each float32 ``[B, T, K or 1, rotary_dim / 2]``. Where they differ by layer or by side, a
    subclass overrides ``rotate`` and calls ``rotate_by``. The arguments are as in ``RoPE``.
    """

    def __init__(
        self,
        *,
        head_dim: int,
        base: float = 10000.0,
        rotary_dim: int | None = None,
        layout: str = "half",
    ):
        check_choice(("half", "interleaved"), layout=layout)
        self.head_dim = head_dim
        self.base = checked_base(base)
        self.rotary_dim = 2 * pairs_of(head_dim, rotary_dim)
        self.layout = layout

    def rope_tables(self, positions: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Returns RoPE's cosines and sines, each float32 ``[B, T, 1, rotary_dim / 2]``."""
        return tables_of_text(one_axis(positions), geometric(self.rotary_dim, self.base))

    def rotate(self, x_BTHC: jax.Array, tokens: Tokens, side: Side) -> jax.Array:
        cos, sin = (_of_heads(table, side) for table in tokens.made)
        return self.rotate_by(x_BTHC, cos, sin)

    def rotate_by(self, x_BTHC: jax.Array, cos: jax.Array, sin: jax.Array) -> jax.Array:
        """Rotates queries or keys by angles with cosines and sines ``[B, T, H or 1, pairs]``."""
        check_width(x_BTHC, head_dim=self.head_dim)
        moving, still = jnp.split(x_BTHC, [self.rotary_dim], axis=-1)
        moving = self.rotate_pairs(moving, cos, sin)
        return jnp.concatenate([moving, still], axis=-1) if still.shape[-1] else moving

    def rotate_pairs(self, x_BTHC: jax.Array, cos: jax.Array, sin: jax.Array) -> jax.Array:
        """Rotates the channels that rotate, without the others, as ``rotate_by`` does."""
        x = x_BTHC.astype(jnp.float32)
        if self.layout == "half":
            a, b = jnp.split(x, 2, axis=-1)
            x = jnp.concatenate(rotated(a, b, cos, sin), axis=-1)
        else:
            a, b = x[..., 0::2], x[..., 1::2]
            x = jnp.stack(rotated(a, b, cos, sin), axis=-1).reshape(x.shape)
        return x.astype(x_BTHC.dtype)


def _of_heads(table_BTKP, side: Side) -> jax.Array:
    """Returns the table of each head; a table that all heads share stays as it is."""
    if table_BTKP.shape[2] == 1:
        return table_BTKP
    return jnp.moveaxis(side.of_kv_heads(jnp.moveaxis(table_BTKP, 2, 0)), 0, 2)
