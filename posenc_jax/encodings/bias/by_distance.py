"""Biases that depend on the distance alone, computed once a distance where that is possible."""

import functools

import jax
import jax.numpy as jnp

from posenc_jax.gather import compares, explicit_layout


def bias_by_distance(function, parameters, tile) -> jax.Array:
    """``function(parameters, distance)`` for every pair of a tile: float32 ``[B, H, T, S]``.

    Args:
      function: of parameters and float32 distances ``[N]`` (query minus key) to ``[H, N]``; it
        must close over no array, which would have no gradient.
      parameters: any pytree, the rows of this tile's heads.
      tile: positions of one axis.

    Where positions are consecutive, which is looked up at run time, a tile has T + S - 1 distances
    and not T * S: the function runs on those, and its values are laid out along the diagonals. A
    logarithm or a table lookup for each pair would cost a third of a training step on a CPU.
    """
    distance = tile.distance()  # refuses several position axes
    if compares():
        # Inside a kernel, which knows no branches and wants matrices.
        of_rows = jax.vmap(functools.partial(function, parameters), out_axes=1)
        return jax.vmap(of_rows)(distance[:, 0])
    if may_be_consecutive(tile.q_positions, tile.k_positions):
        return _bias(function, parameters, tile.q_positions, tile.k_positions)[None]
    return _pairs(function, parameters, distance[:, 0])


def products_by_distance(q_BTD, k_BSD, tile) -> jax.Array:
    """Every query's vector times every key's, float32 ``[B, T, S]``, without gradients.

    The products must depend on the distance alone: where positions are consecutive, only those of
    the last query and of the last key are computed.
    """
    product = functools.partial(jnp.einsum, "btd,bsd->bts", precision="highest")
    operands = jax.lax.stop_gradient((q_BTD, k_BSD))
    if compares() or not may_be_consecutive(tile.q_positions, tile.k_positions):
        return product(*operands)

    def of_strip(q_1TD, k_1SD):
        of_last_query = product(q_1TD[:, -1:], k_1SD)[:, 0]
        of_last_key = product(q_1TD[:, :-1], k_1SD[:, -1:])[..., 0]
        strip_1N = jnp.concatenate([of_last_query, of_last_key[:, ::-1]], axis=1)
        return _along_diagonals(q_1TD.shape[1], strip_1N)

    is_strip = consecutive(tile.q_positions, tile.k_positions)
    return jax.lax.cond(is_strip, of_strip, product, *operands)


def add_bias(logits_BHTS, bias_BHTS):
    """Their sum; ``B`` of the bias may be 1.

    Where it is, the sum has a gradient of its own, because XLA:CPU adds along a leading axis twenty
    times as slowly as it multiplies by a row of ones.
    """
    if bias_BHTS.shape[0] == logits_BHTS.shape[0]:
        return logits_BHTS + bias_BHTS
    return _add_shared(explicit_layout(bias_BHTS), logits_BHTS, bias_BHTS)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _add_shared(layout, logits_BHTS, bias_1HTS):
    del layout
    return logits_BHTS + bias_1HTS


def _add_shared_backward(layout, _, d_BHTS):
    d_1HTS = jnp.einsum(
        "ab,bhts->ahts",
        jnp.ones((1, d_BHTS.shape[0])),
        d_BHTS,
        precision="highest",
        out_sharding=layout,
    )
    return d_BHTS, d_1HTS


_add_shared.defvjp(
    lambda layout, logits_BHTS, bias_1HTS: (logits_BHTS + bias_1HTS, None), _add_shared_backward
)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _bias(function, parameters, q_positions, k_positions):
    return jax.lax.cond(
        consecutive(q_positions, k_positions),
        functools.partial(_strip, function),
        functools.partial(_pairs_of_row, function),
        *(parameters, q_positions, k_positions),
    )


def _forward(function, *arguments):
    return _bias(function, *arguments), arguments


def _backward(function, arguments, d_HTS):
    # The gradient is taken within each branch: between them, JAX would hand over what both need.
    def gradient_of(branch):
        def gradient(parameters, q_positions, k_positions):
            value = functools.partial(branch, function)
            _, pull = jax.vjp(lambda p: value(p, q_positions, k_positions), parameters)
            return pull(d_HTS)[0]

        return gradient

    _, q_positions, k_positions = arguments
    d_parameters = jax.lax.cond(
        consecutive(q_positions, k_positions),
        gradient_of(_strip),
        gradient_of(_pairs_of_row),
        *arguments,
    )
    return d_parameters, None, None


_bias.defvjp(_forward, _backward)


def may_be_consecutive(q_positions, k_positions) -> bool:
    """Whether one row of whole numbers is shared by the batch."""
    is_shared = q_positions.shape[0] == k_positions.shape[0] == 1
    return is_shared and jnp.issubdtype(jnp.result_type(q_positions, k_positions), jnp.integer)


def consecutive(q_positions, k_positions) -> jax.Array:
    """Whether each of the two rows is."""
    return (jnp.diff(q_positions) == 1).all() & (jnp.diff(k_positions) == 1).all()


def _pairs(function, parameters, distance_BTS):
    B, T, S = distance_BTS.shape
    bias_HN = function(parameters, distance_BTS.reshape(-1))
    return jnp.moveaxis(bias_HN.reshape(-1, B, T, S), 0, 1)


def _pairs_of_row(function, parameters, q_positions, k_positions):
    distance = (q_positions[:, :, None] - k_positions[:, None, :]).astype(jnp.float32)
    return _pairs(function, parameters, distance)[0]


def _strip(function, parameters, q_positions, k_positions):
    T, S = q_positions.shape[1], k_positions.shape[1]
    # From the distance of the first query to the last key on, up to the last query's to the first.
    first = q_positions[0, 0] - k_positions[0, -1]
    distance_N = (first + jnp.arange(T + S - 1)).astype(jnp.float32)
    strip_HN = function(parameters, distance_N)[:, ::-1]
    return _along_diagonals(T, strip_HN)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _along_diagonals(T, strip_HN):
    """``[H, T, S]`` whose row t is the part of the strip that starts at ``T - 1 - t``."""
    # Written out row after row with one number to spare, each row starts one number earlier than
    # the one above it.
    H, N = strip_HN.shape
    padded = jnp.pad(strip_HN, ((0, 0), (0, 1)))
    rows_HTN = jnp.tile(padded, (1, T))[:, : T * N].reshape(H, T, N)
    return rows_HTN[:, :, T - 1 :]


def _sums_of_diagonals(T, _, d_HTS):
    # The gradient of slices, which is three times as fast on a CPU as that of the reshape above.
    H, _, S = d_HTS.shape
    row = functools.partial(jax.lax.dynamic_slice_in_dim, slice_size=S, axis=1)
    rows = jax.vmap(row, in_axes=(None, 0), out_axes=1)
    zeros_HN = jnp.zeros_like(d_HTS, shape=(H, T + S - 1))
    _, pull = jax.vjp(lambda strip_HN: rows(strip_HN, T - 1 - jnp.arange(T)), zeros_HN)
    return pull(d_HTS)


_along_diagonals.defvjp(
    lambda T, strip_HN: (_along_diagonals(T, strip_HN), None), _sums_of_diagonals
)
