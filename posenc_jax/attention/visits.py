"""Says which tiles hold a query and a key that it may see, so that no other tile is visited.

A tile is a block of queries and a block of keys. The last block begins within the block before it
where the size of a block does not divide the number of tokens.
"""

import jax.numpy as jnp

from posenc_jax.attention.rule import Rule
from posenc_jax.tokens import Tokens


def visits(rule: Rule, queries: Tokens, keys: Tokens, q_block: int, k_block: int):
    """Returns which key blocks each query block visits, and the other way round.

    Both are a pair of arrays: for each block, the numbers of the blocks that it visits, which come
    first in its row, and how many they are. They need not follow one another, because tokens on
    several devices need not lie in written order. ``rule.mask`` is not consulted, because its
    values are known only within a tile.
    """
    q_lowest, q_highest = _bounds(queries.order(), q_block)
    k_lowest, k_highest = _bounds(keys.order(), k_block, of_new=True)
    visit = jnp.ones((q_lowest.shape[0], k_lowest.shape[0]), bool)
    if rule.causal:
        visit &= q_highest[:, None] >= k_lowest[None]
    if rule.window is not None:
        visit &= q_lowest[:, None] - k_highest[None] < rule.window
    if rule.after is not None:
        visit &= k_lowest[None] - q_highest[:, None] <= rule.after
    if rule.chunk is not None:
        visit &= q_lowest[:, None] // rule.chunk <= k_highest[None] // rule.chunk
        visit &= q_highest[:, None] // rule.chunk >= k_lowest[None] // rule.chunk
    if queries.segment_ids is not None:
        q_lowest, q_highest = _bounds(queries.segment_ids, q_block)
        k_lowest, k_highest = _bounds(keys.segment_ids, k_block, of_new=True)
        visit &= (q_highest[:, None] >= k_lowest[None]) & (q_lowest[:, None] <= k_highest[None])
    return _visited(visit), _visited(visit.T)


def _bounds(numbers_BT, size, *, of_new=False):
    """Returns the smallest and the largest number in each block of tokens.

    ``of_new`` leaves out the tokens of the last block that the block before it has too. Among keys
    these tokens are masked, and among queries they are computed twice.
    """
    B, T = numbers_BT.shape
    blocks = [numbers_BT[:, : T // size * size].reshape(B, -1, size)]
    if T % size:
        blocks.append(numbers_BT[:, None, -(T % size if of_new else size) :])
    extremes = [(x.min(axis=(0, 2)), x.max(axis=(0, 2))) for x in blocks]
    lowest, highest = zip(*extremes, strict=True)
    return jnp.concatenate(lowest), jnp.concatenate(highest)


def _visited(visit):
    """Returns the places of the trues of each row, before those of the falses, and their number."""
    return jnp.argsort(~visit, axis=1, stable=True), visit.sum(axis=1)
