"""Computes cross-entropy through the output layer, without all logits of the vocabulary at once."""

import functools

import jax
import jax.numpy as jnp

from posenc_jax.attention.ring import context_size
from posenc_jax.checks import count_of

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
    The vocabulary is cut and not the tokens, so that tokens stay on their devices and each row of
    the table's gradient is summed over them once.
    """
    for name, array in (("x", x_BTD), ("table", table_VD), ("targets", targets_BT)):
        if not hasattr(array, "dtype"):
            raise ValueError(f"{name} must be an array, not {type(array).__name__}")
        if name != "targets" and not jnp.issubdtype(array.dtype, jnp.floating):
            raise ValueError(f"{name} must be floating-point numbers, not {array.dtype}")
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
    if chunk is not None:
        count_of("chunk", chunk)

    # Each piece takes every P-th row: where rows are spread over devices, every device has its
    # share of each piece.
    R = min(_rows(targets_BT.size, V) if chunk is None else chunk, V)
    P = -(-V // R)
    padded = jnp.pad(table_VD, ((0, P * R - V), (0, 0)))
    pieces_PRD = padded.reshape(R, P, D).swapaxes(0, 1)
    # N are the axes of tokens: one, because XLA:CPU is slow with more, unless they are sharded.
    x_ND, targets_N = x_BTD, targets_BT
    if context_size() == 1:
        x_ND, targets_N = x_BTD.reshape(-1, D), targets_BT.reshape(-1)
    losses_BT = _losses(V, x_ND, pieces_PRD, targets_N).reshape(shape)
    is_id = (targets_BT >= 0) & (targets_BT < V)
    return jnp.where(is_id, losses_BT, jnp.nan)


def _rows(N, V):
    """Returns the number of rows in a piece, such that pieces are even and devices divide them."""
    pieces = 1 if N * V <= _FEW_LOGITS else -(-V // _ROWS)
    return V if pieces == 1 else -(-V // (pieces * 64)) * 64


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _losses(V, x_ND, pieces_PRD, targets_N):
    return _forward(V, x_ND, pieces_PRD, targets_N)[0]


def _forward(V, x_ND, pieces_PRD, targets_N):
    def add(sums, piece):
        largest_N, sum_N, target_N = sums
        logits_NR, is_target_NR = _logits(V, x_ND, piece, targets_N, len(pieces_PRD))
        larger_N = jnp.maximum(largest_N, logits_NR.max(-1))
        sum_N *= jnp.exp(largest_N - larger_N)
        sum_N += jnp.exp(logits_NR - larger_N[..., None]).sum(-1)
        target_N += jnp.where(is_target_NR, logits_NR, 0).sum(-1)
        return (larger_N, sum_N, target_N), None

    zeros_N = jnp.zeros_like(targets_N, jnp.float32)
    start = zeros_N - jnp.inf, zeros_N, zeros_N
    (largest_N, sum_N, target_N), _ = jax.lax.scan(add, start, _numbered(pieces_PRD))
    # Subtracted in this order, near-certain targets lose no digits to large logits.
    losses_N = jnp.log(sum_N) - (target_N - largest_N)
    return losses_N, (x_ND, pieces_PRD, targets_N, largest_N, sum_N)


def _backward(V, kept, d_N):
    x_ND, pieces_PRD, targets_N, largest_N, sum_N = kept
    d_sum_N = d_N / sum_N

    def add(dx_ND, piece):
        logits_NR, is_target_NR = _logits(V, x_ND, piece, targets_N, len(pieces_PRD))
        d_NR = jnp.exp(logits_NR - largest_N[..., None]) * d_sum_N[..., None]
        d_NR -= jnp.where(is_target_NR, d_N[..., None], 0)
        d_NR = d_NR.astype(x_ND.dtype)
        rows_RD = piece[1]
        dx_ND += _gradient(d_NR, rows_RD.astype(x_ND.dtype), x_ND, ((d_NR.ndim - 1,), (0,)))
        tokens = tuple(range(x_ND.ndim - 1))
        d_rows_RD = _gradient(d_NR, x_ND, rows_RD, (tokens, tokens))
        return dx_ND, d_rows_RD.astype(rows_RD.dtype)

    zeros_ND = jnp.zeros_like(x_ND, jnp.float32)
    dx_ND, d_pieces_PRD = jax.lax.scan(add, zeros_ND, _numbered(pieces_PRD))
    return dx_ND.astype(x_ND.dtype), d_pieces_PRD, None


_losses.defvjp(_forward, _backward)


def _gradient(left, right, of, axes):
    """Multiplies ``left`` and ``right`` over ``axes`` of each; the result is sharded as ``of`` is.

    On a mesh with Explicit axes a sum over devices must be given its sharding.
    """
    sharding = jax.typeof(of).sharding
    return jax.lax.dot_general(
        *(left, right, (axes, ((), ()))),
        preferred_element_type=jnp.float32,
        out_sharding=None if sharding.mesh.empty else sharding,
    )


def _numbered(pieces_PRD):
    return jnp.arange(len(pieces_PRD)), pieces_PRD


def _logits(V, x_ND, piece, targets_N, P):
    """Returns the float32 logits of a piece, and which of them are the targets'."""
    number, rows_RD = piece
    ids_R = jnp.arange(len(rows_RD)) * P + number
    ids_R = ids_R.reshape((1,) * targets_N.ndim + (-1,))
    rows_DR = rows_RD.astype(x_ND.dtype).T
    logits_NR = jnp.matmul(x_ND, rows_DR, preferred_element_type=jnp.float32)
    return jnp.where(ids_R < V, logits_NR, -jnp.inf), ids_R == targets_N[..., None]
