"""The readable reference: all logits at once, memory ``[B, H, T, S]``."""

import jax
import jax.numpy as jnp


def dense(encoding, tile, v_BSKC, segment_ids, *, causal: bool, scale: float) -> jax.Array:
    """Softmax attention over one tile that holds every query and key; see ``attend``."""
    B, T, H, C = tile.q.shape
    S, K = v_BSKC.shape[1:3]
    q_BTKGC = tile.q.reshape(B, T, K, H // K, C)
    logits_BKGTS = jnp.einsum(
        "btkgc,bskc->bkgts", q_BTKGC, tile.k, preferred_element_type=jnp.float32
    )
    logits_BHTS = encoding.score(logits_BKGTS.reshape(B, H, T, S) * scale, tile)
    visible = _visible(tile, segment_ids, causal)
    if visible is not None:
        logits_BHTS = jnp.where(visible, logits_BHTS, -jnp.inf)

    # Normalising after the product with the values touches [T, C] numbers instead of [T, S], and
    # a floor under the maximum and the sum turns a row that sees nothing into zeros.
    largest = jnp.maximum(jax.lax.stop_gradient(logits_BHTS.max(-1, keepdims=True)), -1e30)
    weights_BHTS = jnp.exp(logits_BHTS - largest)
    sums_BHT = weights_BHTS.sum(-1)
    weights_BKGTS = weights_BHTS.reshape(B, K, H // K, T, S).astype(v_BSKC.dtype)
    out_BKGTC = jnp.einsum(
        "bkgts,bskc->bkgtc", weights_BKGTS, v_BSKC, preferred_element_type=jnp.float32
    )
    out_BHTC = out_BKGTC.reshape(B, H, T, -1) / jnp.maximum(sums_BHT, 1e-30)[..., None]
    return out_BHTC.swapaxes(1, 2).astype(v_BSKC.dtype)


def _visible(tile, segment_ids, causal):
    """bool ``[B, 1, T, S]``, or None where every query sees every key."""
    q_segments, k_segments = segment_ids
    visible = None
    if causal:
        visible = tile.q_index[:, None, :, None] >= tile.k_index[:, None, None, :]
    if q_segments is not None:
        same = q_segments[:, None, :, None] == k_segments[:, None, None, :]
        visible = same if visible is None else visible & same
    return visible
