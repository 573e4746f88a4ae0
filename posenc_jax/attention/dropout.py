"""Drops attention weights at random in training, the same ones in every implementation.

The key, the row of the batch, the head, the segment and the indices of query and key decide whether
a weight is dropped. So tiles of any size draw the same numbers, forwards and backwards and on every
device of a ring, and no implementation stores them.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from posenc_jax.checks import in_python, is_key, is_real
from posenc_jax.pairs import Pairs


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Dropout:
    """Sets a share of the weights to 0, and scales up the others."""

    key: jax.Array  # a typed random key
    # The share of weights that are dropped, above 0 and below 1 (static).
    rate: float = dataclasses.field(metadata={"static": True})

    def factors(self, tile: Pairs) -> jax.Array:
        """Returns the factor of each weight, 0 or ``1 / (1 - rate)``: float32 ``[B, H, T, S]``."""
        B, _, H, _ = tile.q.shape
        heads_H = jnp.arange(H) if tile.side.heads is None else tile.side.heads
        q_tokens, k_tokens = tile.q_tokens, tile.k_tokens
        # Under ``Chunks`` an index counts the tokens of its segment, so others have it too.
        segments = 0 if q_tokens.segment_ids is None else q_tokens.segment_ids
        segments_BT, q_index_BT, k_index_BS = (
            jnp.broadcast_to(x, (B, tokens.count))
            for x, tokens in (
                (segments, q_tokens),
                (q_tokens.order(), q_tokens),
                (k_tokens.order(), k_tokens),
            )
        )

        def of_row(row, segments_T, q_index_T, k_index_S):
            key = jax.random.fold_in(self.key, row)
            keys_HT = _folded(_folded(key, heads_H), q_index_T)
            keys_HT = jax.vmap(jax.vmap(jax.random.fold_in), (0, None))(keys_HT, segments_T)
            return jax.random.key_data(_folded(keys_HT, k_index_S))[..., 0]

        bits_BHTS = jax.vmap(of_row)(jnp.arange(B), segments_BT, q_index_BT, k_index_BS)
        first = np.uint32(min(round(self.rate * 2**32), 2**32 - 1))
        return jnp.where(bits_BHTS < first, 0.0, 1 / (1 - self.rate)).astype(jnp.float32)


def checked_dropout(dropout: Any) -> Dropout | None:
    """Returns ``dropout``, a rate and a random key, or None where nothing is dropped."""
    if dropout is None:
        return None
    rate, key = dropout if isinstance(dropout, tuple | list) else (dropout, None)
    is_known = is_real(rate) and not isinstance(rate, jax.core.Tracer)
    is_share = is_known and 0 <= in_python(rate) < 1
    if not is_key(key) or not is_share:
        raise ValueError(
            f"dropout={dropout!r} must be the share of weights that are dropped, a number from 0 "
            "to below 1, and a random key, fresh in each layer and step: (0.1, jax.random.key(0))"
        )
    if in_python(rate) == 0:
        return None
    is_typed = jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    return Dropout(key if is_typed else jax.random.wrap_key_data(key), float(rate))


def _folded(keys, numbers_N):
    """Returns a key for each of ``keys`` and each number, ``[..., N]``."""
    with_all = jax.vmap(jax.random.fold_in, in_axes=(None, 0))
    return jax.vmap(with_all, in_axes=(0, None))(keys.reshape(-1), numbers_N).reshape(
        *keys.shape, -1
    )
