"""The readable reference: all logits at once, memory ``[B, H, T, S]``."""

import functools

import jax
import jax.numpy as jnp

# Below any logit, and below any sum of weights: what turns a row that sees nothing into zeros.
FLOOR, TINY = -1e30, 1e-30


def dense(encoding, tile, v_BSKC, segment_ids, *, causal: bool, window: int | None):
    """Softmax attention over a tile that holds every query and key; see ``attend``."""
    B, T, H, _ = tile.q.shape
    S, K = v_BSKC.shape[1:3]
    logits_BHTS = tile_logits(encoding, tile)
    seen = visible(tile, segment_ids, causal, window)
    if seen is not None:
        logits_BHTS = jnp.where(seen, logits_BHTS, -jnp.inf)

    # Normalising after the product with the values touches [T, C] numbers instead of [T, S].
    largest = jnp.maximum(jax.lax.stop_gradient(logits_BHTS.max(-1, keepdims=True)), FLOOR)
    weights_BHTS = jnp.exp(logits_BHTS - largest)
    sums_BTH1 = weights_BHTS.sum(-1).swapaxes(1, 2)[..., None]
    weights_BKGTS = weights_BHTS.reshape(B, K, H // K, T, S).astype(v_BSKC.dtype)
    out_BKGTC = _mix(weights_BKGTS, v_BSKC.swapaxes(1, 2))
    out_BTHC = out_BKGTC.reshape(B, H, T, -1).swapaxes(1, 2)
    out_BTHC = encoding.mix(out_BTHC, weights_BHTS, tile) / jnp.maximum(sums_BTH1, TINY)
    return out_BTHC.astype(v_BSKC.dtype)


def tile_logits(encoding, tile) -> jax.Array:
    """float32 ``[B, H, T, S]`` logits of a tile, without the mask."""
    return encoding.score(products(tile.q, tile.k) * tile.scale, tile)


def products(q_BTHC, k_BSKC) -> jax.Array:
    """float32 ``[B, H, T, S]`` products of each query with the keys of its kv head."""
    B, T, H, C = q_BTHC.shape
    S, K = k_BSKC.shape[1:3]
    q_BKGTC = q_BTHC.reshape(B, T, K, H // K, C).transpose(0, 2, 3, 1, 4)
    return _scores(q_BKGTC, k_BSKC.swapaxes(1, 2)).reshape(B, H, T, S)


def _by_key(x_BKGTC, matrix_BKGTS):
    """Sum over queries of their vectors, weighted for each key: ``[B, K, S, C]``.

    Computed transposed, because XLA:CPU would otherwise transpose the [T, S] matrix in memory,
    which is an eighth of attention's time; the barrier keeps XLA from undoing the choice. It is
    why the two products below have gradients of their own.
    """
    sums_BKCS = _einsum("bkgtc,bkgts->bkcs", x_BKGTC, matrix_BKGTS)
    return jax.lax.optimization_barrier(sums_BKCS).swapaxes(2, 3)


@jax.custom_vjp
def _scores(q_BKGTC, k_BKSC):
    return _einsum("bkgtc,bksc->bkgts", q_BKGTC, k_BKSC)


def _scores_backward(operands, d_BKGTS):
    q_BKGTC, k_BKSC = operands
    d_BKGTS = d_BKGTS.astype(k_BKSC.dtype)
    dq = _einsum("bkgts,bksc->bkgtc", d_BKGTS, k_BKSC)
    return dq.astype(q_BKGTC.dtype), _by_key(q_BKGTC, d_BKGTS).astype(k_BKSC.dtype)


_scores.defvjp(lambda q, k: (_scores(q, k), (q, k)), _scores_backward)


@jax.custom_vjp
def _mix(weights_BKGTS, v_BKSC):
    return _einsum("bkgts,bksc->bkgtc", weights_BKGTS, v_BKSC)


def _mix_backward(operands, d_BKGTC):
    weights_BKGTS, v_BKSC = operands
    d_BKGTC = d_BKGTC.astype(v_BKSC.dtype)
    dweights = _einsum("bkgtc,bksc->bkgts", d_BKGTC, v_BKSC)
    return dweights.astype(weights_BKGTS.dtype), _by_key(d_BKGTC, weights_BKGTS).astype(
        v_BKSC.dtype
    )


_mix.defvjp(lambda weights, v: (_mix(weights, v), (weights, v)), _mix_backward)

_einsum = functools.partial(jnp.einsum, preferred_element_type=jnp.float32)


def visible(tile, segment_ids, causal, window):
    """bool ``[B, 1, T, S]``, or None where every query sees every key."""
    q_segments, k_segments = segment_ids
    seen = None
    if causal:
        seen = tile.q_index[:, None, :, None] >= tile.k_index[:, None, None, :]
    if window is not None:
        near = tile.q_index[:, None, :, None] - tile.k_index[:, None, None, :] < window
        seen = near if seen is None else seen & near
    if q_segments is not None:
        same = q_segments[:, None, :, None] == k_segments[:, None, None, :]
        seen = same if seen is None else seen & same
    return seen
