"""Computes cross-entropy through the output layer, without all logits of the vocabulary at once."""

import functools
import math

import jax
import jax.numpy as jnp

from posenc_jax.attention.context import context_size
from posenc_jax.checks import as_array

# _ROWS is the fastest of 256 to 2048 on a CPU. Up to _FEW_LOGITS the vocabulary is one piece.
_ROWS = 512
_FEW_LOGITS = 2**20


def cross_entropy(x_BTD, table_VD, targets_BT, *, chunk: int | None = None) -> jax.Array:
    """Returns the cross-entropy of each target under ``softmax(x @ table.T)`` in nats, float32.

    Args:
      x_BTD: what the output layer reads, ``[..., D]``.
      table_VD: the output layer, a row for each token id; used in the dtype of ``x_BTD``.
      targets_BT: int token ids, ``[...]``. One that is not in ``0 .. V - 1`` has the loss NaN and
        no gradient: leave tokens out with ``jnp.where(wanted, losses, 0)``, not by a product.
      chunk: number of ids whose logits exist at the same time. Default: about 512, or all if there
        are few logits.

    The forward pass keeps two numbers per token, and the backward pass computes the logits again.
    The table is read piece by piece where it is, without a copy of the whole.
    The vocabulary is cut and not the tokens, so that tokens stay on their devices and each row of
    the table's gradient is summed over them once.
    """
    targets_BT = as_array("targets_BT", targets_BT)
    if not x_BTD.shape or table_VD.ndim != 2 or table_VD.shape[1] != x_BTD.shape[-1]:
        raise ValueError(
            f"table must be [V, D], a row for each token id as wide as the vectors x [..., D], not "
            f"{table_VD.shape} with x {x_BTD.shape}"
        )
    *shape, D = x_BTD.shape
    V = table_VD.shape[0]
    if targets_BT.shape != tuple(shape) or not jnp.issubdtype(targets_BT.dtype, jnp.integer):
        raise ValueError(
            f"targets must be integers of shape {tuple(shape)}, one for each vector of x, not "
            f"{targets_BT.dtype} of shape {targets_BT.shape}"
        )
    if targets_BT.dtype.itemsize < 4:
        targets_BT = targets_BT.astype(jnp.int32)  # V itself may be too large for their type.

    R = min(_rows(targets_BT.size, V) if chunk is None else chunk, V)
    # N stands for the axes of tokens. Unless they are sharded it is one axis, which is the fastest
    # for XLA:CPU.
    x_ND, targets_N = x_BTD, targets_BT
    if context_size() == 1:
        x_ND, targets_N = x_BTD.reshape(-1, D), targets_BT.reshape(-1)
    # The table is G groups of E neighbouring rows, and a piece has some rows of each group: where
    # the rows of the table are spread over devices, every device has its share of each piece.
    G = math.gcd(V, R)
    table_GED = table_VD.reshape(G, V // G, D)
    losses_BT = _losses(R // G, x_ND, table_GED, targets_N).reshape(shape)
    is_id = (targets_BT >= 0) & (targets_BT < V)
    return jnp.where(is_id, losses_BT, jnp.nan)


def _rows(N, V):
    """Returns the number of rows in a piece, such that pieces are even and devices divide them."""
    pieces = 1 if N * V <= _FEW_LOGITS else -(-V // _ROWS)
    return V if pieces == 1 else -(-V // (pieces * 64)) * 64


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _losses(count, x_ND, table_GED, targets_N):
    """Returns the losses, from pieces that have ``count`` rows of each group of the table."""
    return _forward(count, x_ND, table_GED, targets_N)[0]


def _forward(count, x_ND, table_GED, targets_N):
    def add(sums, number):
        largest_N, sum_N, target_N = sums
        rows_RD, ids_R = _piece(count, table_GED, number)
        logits_NR, is_target_NR = _logits(x_ND, rows_RD, ids_R, targets_N)
        larger_N = jnp.maximum(largest_N, logits_NR.max(-1))
        sum_N *= jnp.exp(largest_N - larger_N)
        sum_N += jnp.exp(logits_NR - larger_N[..., None]).sum(-1)
        target_N += jnp.where(is_target_NR, logits_NR, 0).sum(-1)
        return (larger_N, sum_N, target_N), None

    zeros_N = jnp.zeros_like(targets_N, jnp.float32)
    start = zeros_N - jnp.inf, zeros_N, zeros_N
    (largest_N, sum_N, target_N), _ = jax.lax.scan(add, start, _numbers(count, table_GED))
    # Subtracted in this order, near-certain targets lose no digits to large logits.
    losses_N = jnp.log(sum_N) - (target_N - largest_N)
    return losses_N, (x_ND, table_GED, targets_N, largest_N, sum_N)


def _backward(count, residuals, d_N):
    x_ND, table_GED, targets_N, largest_N, sum_N = residuals
    d_sum_N = d_N / sum_N

    def add(gradients, number):
        dx_ND, d_table_GED = gradients
        rows_RD, ids_R = _piece(count, table_GED, number)
        logits_NR, is_target_NR = _logits(x_ND, rows_RD, ids_R, targets_N)
        d_NR = jnp.exp(logits_NR - largest_N[..., None]) * d_sum_N[..., None]
        d_NR -= jnp.where(is_target_NR, d_N[..., None], 0)
        d_NR = d_NR.astype(x_ND.dtype)
        dx_ND += _gradient(d_NR, rows_RD.astype(x_ND.dtype), x_ND, ((d_NR.ndim - 1,), (0,)))
        tokens = tuple(range(x_ND.ndim - 1))
        d_rows_RD = _gradient(d_NR, x_ND, rows_RD, (tokens, tokens)).astype(rows_RD.dtype)
        # Zeros for rows of a later piece, which it replaces.
        d_rows_GED = d_rows_RD.reshape(len(table_GED), count, -1)
        start = _start(count, table_GED, number)
        return (dx_ND, jax.lax.dynamic_update_slice_in_dim(d_table_GED, d_rows_GED, start, 1)), None

    zeros = jnp.zeros_like(x_ND, jnp.float32), jnp.zeros_like(table_GED)
    (dx_ND, d_table_GED), _ = jax.lax.scan(add, zeros, _numbers(count, table_GED))
    return dx_ND.astype(x_ND.dtype), d_table_GED, None


_losses.defvjp(_forward, _backward)


def _gradient(left, right, of, axes):
    """Multiplies ``left`` and ``right`` over ``axes`` of each; the result is sharded as ``of`` is.

    On a mesh with Explicit axes a sum over devices must be given its sharding.
    """
    sharding = jax.typeof(of).sharding
    return jax.lax.dot_general(
        left,
        right,
        (axes, ((), ())),
        preferred_element_type=jnp.float32,
        out_sharding=None if sharding.mesh.empty else sharding,
    )


def _numbers(count, table_GED):
    return jnp.arange(-(-table_GED.shape[1] // count))


def _start(count, table_GED, number):
    """Returns where a piece starts in each group; the last piece starts early, to be whole."""
    return jnp.minimum(number * count, table_GED.shape[1] - count)


def _piece(count, table_GED, number):
    """Returns the rows of a piece, and their ids; -1 for a row that a later piece has too."""
    G, E, D = table_GED.shape
    start, next_start = (_start(count, table_GED, number + i) for i in range(2))
    rows_GED = jax.lax.dynamic_slice_in_dim(table_GED, start, count, axis=1)
    place_1E = start + jnp.arange(count)[None]
    ids_GE = E * jnp.arange(G)[:, None] + place_1E
    ids_GE = jnp.where((place_1E < next_start) | (start + count == E), ids_GE, -1)
    return rows_GED.reshape(-1, D), ids_GE.reshape(-1)


def _logits(x_ND, rows_RD, ids_R, targets_N):
    """Returns the float32 logits of a piece, and which of them are the targets'."""
    ids_R = ids_R.reshape((1,) * targets_N.ndim + (-1,))
    rows_DR = rows_RD.astype(x_ND.dtype).T
    logits_NR = jnp.matmul(x_ND, rows_DR, preferred_element_type=jnp.float32)
    is_target_NR = (ids_R == targets_N[..., None]) & (ids_R >= 0)
    return jnp.where(ids_R >= 0, logits_NR, -jnp.inf), is_target_NR
