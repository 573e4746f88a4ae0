"""Computes all logits at once, in memory ``[B, H, T, S]``: the readable reference.

It can be differentiated any number of times, in forward and in reverse mode.
"""

import jax
import jax.numpy as jnp

from posenc_jax.attention.rule import Rule
from posenc_jax.checks import check_logits
from posenc_jax.encoding import Encoding
from posenc_jax.pairs import Pairs

# FLOOR is below any logit and TINY below any sum of weights, so that a row that sees no key is 0.
FLOOR, TINY = -1e30, 1e-30


def dense(encoding: Encoding, tile: Pairs, v_BSKC: jax.Array, rule: Rule) -> jax.Array:
    """Attends in one tile that holds every query and key, ``[B, T, H, C]``; see ``attend``."""
    logits_BHTS = scored(encoding, products(tile.q, tile.k), tile)
    weights_BHTS, totals_BTH1 = softmax(logits_BHTS, tile, rule)
    out_BTHC = encoding.mix(weighted_sums(weights_BHTS, v_BSKC), weights_BHTS, tile)
    # Dividing after the sum touches [T, C] numbers instead of [T, S].
    return (out_BTHC / totals_BTH1).astype(v_BSKC.dtype)


def products(q_BTHC: jax.Array, k_BSKC: jax.Array) -> jax.Array:
    """Multiplies each query with the keys of its kv head: float32 ``[B, H, T, S]``."""
    return products_of_groups(grouped(q_BTHC, k_BSKC.shape[2]), k_BSKC.swapaxes(1, 2))


def products_of_groups(q_BKGTC: jax.Array, k_BKSC: jax.Array) -> jax.Array:
    """Multiplies queries, grouped by their kv head, with the keys of it.

    The queries of a kv head are rows of one matrix: from any other form XLA:CPU makes small
    products, which take three times as long in a tile.
    """
    B, K, G, T, C = q_BKGTC.shape
    rows_BKTC = q_BKGTC.reshape(B, K, G * T, C)
    products = jnp.einsum("bktc,bksc->bkts", rows_BKTC, k_BKSC, preferred_element_type=jnp.float32)
    # Two reshapes, because sharding over Explicit axes cannot be inferred for a single one.
    return products.reshape(B, K, G, T, -1).reshape(B, K * G, T, -1)


def grouped(x_BTHC: jax.Array, num_kv_heads: int) -> jax.Array:
    """Returns an array of query heads as ``[B, K, G, T, C]``, grouped by their kv head."""
    B, T, H, C = x_BTHC.shape
    return x_BTHC.reshape(B, T, num_kv_heads, H // num_kv_heads, C).transpose(0, 2, 3, 1, 4)


def ungrouped(x_BKGTC: jax.Array) -> jax.Array:
    """Returns an array that ``grouped`` returned as ``[B, T, H, C]`` again."""
    B, K, G, T, C = x_BKGTC.shape
    return x_BKGTC.transpose(0, 3, 1, 2, 4).reshape(B, T, K * G, C)


def scored(encoding: Encoding, products_BHTS: jax.Array, tile: Pairs) -> jax.Array:
    """Returns the logits of a tile, float32 also where parameters are float64."""
    logits_BHTS = encoding.score(products_BHTS * tile.scale, tile)
    check_logits(encoding, logits_BHTS, products_BHTS.shape)
    return logits_BHTS.astype(jnp.float32)


def weighted_sums(weights_BHTS: jax.Array, v_BSKC: jax.Array) -> jax.Array:
    """Sums the values of each query's kv head by its weights: float32 ``[B, T, H, C]``."""
    B, H, T, S = weights_BHTS.shape
    weights_BKGTS = weights_BHTS.reshape(B, v_BSKC.shape[2], -1, T, S).astype(v_BSKC.dtype)
    out = jnp.einsum("bkgts,bskc->btkgc", weights_BKGTS, v_BSKC, preferred_element_type=jnp.float32)
    return out.reshape(B, T, H, -1)


def softmax(logits_BHTS: jax.Array, tile: Pairs, rule: Rule) -> tuple[jax.Array, jax.Array]:
    """Returns weights, not yet divided, and the totals ``[B, T, H, 1]`` to divide their sums by."""
    visible = rule.visible(tile.q_tokens, tile.k_tokens)
    if visible is not None:
        logits_BHTS = jnp.where(visible, logits_BHTS, -jnp.inf)
    largest = logits_BHTS.max(-1, keepdims=True)
    if rule.sinks is not None:
        sinks_BHT1 = rule.sinks.swapaxes(1, 2)[..., None]
        largest = jnp.maximum(largest, sinks_BHT1)
    largest = jnp.maximum(jax.lax.stop_gradient(largest), FLOOR)
    weights_BHTS = jnp.exp(logits_BHTS - largest)
    totals_BHT1 = weights_BHTS.sum(-1, keepdims=True)
    if rule.sinks is not None:
        totals_BHT1 += jnp.exp(sinks_BHT1 - largest)
    if rule.dropout is not None:
        weights_BHTS = weights_BHTS * rule.dropout.factors(tile)
    return weights_BHTS, jnp.maximum(totals_BHT1.swapaxes(1, 2), TINY)
