"""Computes biases that depend on the distance alone, once for each distance where possible."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from posenc_jax.pairs import Pairs


def bias_by_distance(function: Callable[[jax.Array], jax.Array], pairs: Pairs) -> jax.Array:
    """Applies ``function`` to the distance of every pair, float32 ``[B, H, T, S]``.

    Where positions are known to be consecutive, a tile has T + S - 1 distances and not T * S: the
    function runs on these, and its values are laid out along the diagonals. A logarithm or a table
    lookup for each pair would cost a third of a training step on a CPU.

    Args:
      function: takes float32 distances ``[N]``, query position minus key position, and returns
        ``[H, N]`` for these query heads.
      pairs: its positions have one axis.
    """
    distance_BTS = pairs.distance()[:, 0]  # raises if there are several position axes
    if not has_diagonals(pairs):
        return jax.vmap(jax.vmap(function, out_axes=1))(distance_BTS)
    _, T, S = distance_BTS.shape
    # The distances from the last query to the first key, down to the first query to the last.
    between_first = pairs.q_tokens.positions[0, 0] - pairs.k_tokens.positions[0, 0]
    distance_N = between_first + jnp.arange(T - 1, -S, -1, dtype=jnp.int32)
    return along_diagonals(function(distance_N.astype(jnp.float32)), pairs)[None]


def has_diagonals(pairs: Pairs) -> bool:
    """Returns whether all pairs on a diagonal are known to have the same distance."""
    return pairs.q_tokens.consecutive and pairs.k_tokens.consecutive


def add_bias(logits_BHTS, bias_BHTS) -> jax.Array:
    """Adds a bias, whose ``B`` may be 1, to logits."""
    if bias_BHTS.shape[0] == logits_BHTS.shape[0]:
        return logits_BHTS + bias_BHTS
    return _add_shared(logits_BHTS, bias_BHTS)


def along_diagonals(values_HN, pairs: Pairs) -> jax.Array:
    """Returns ``[H, T, S]`` whose row t is ``values[T - 1 - t :][:S]``."""
    (H, N), T = values_HN.shape, pairs.q_tokens.count
    # Without this product with an identity, XLA:CPU would compute each value again for every pair.
    values_HN = jnp.einsum("gh,hn->gn", jnp.eye(H), values_HN, precision="highest")
    row = functools.partial(jax.lax.dynamic_slice_in_dim, slice_size=N + 1 - T, axis=1)
    return jax.vmap(row, in_axes=(None, 0), out_axes=1)(values_HN, T - 1 - jnp.arange(T))


@jax.custom_jvp
def _add_shared(logits_BHTS, bias_1HTS):
    return logits_BHTS + bias_1HTS


@_add_shared.defjvp
def _add_shared_jvp(operands, tangents):
    d_logits_BHTS, d_bias_1HTS = tangents
    return _add_shared(*operands), d_logits_BHTS + _repeated(d_bias_1HTS, d_logits_BHTS)


def _repeated(x_1HTS, like_BHTS) -> jax.Array:
    """Repeats along the batch, in a form whose transpose, a sum over the batch, is fast.

    XLA:CPU takes twenty times as long to reduce a leading axis as to add its slices, which it does
    in the loop that computes them. A batch on several devices cannot be sliced, and is summed by a
    product with ones.
    """
    B = like_BHTS.shape[0]

    def as_product(x_1HTS):
        ones_B = jnp.ones(B, x_1HTS.dtype)
        return jnp.einsum("b,hts->bhts", ones_B, x_1HTS[0], precision="highest")

    def as_slices(x_1HTS):
        return jnp.concatenate([x_1HTS] * B)

    if not isinstance(B, int) or jax.typeof(like_BHTS).sharding.mesh.size > 1:
        return as_product(x_1HTS)
    return jax.lax.platform_dependent(x_1HTS, cpu=as_slices, default=as_product)
