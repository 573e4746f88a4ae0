"""Says which tiles hold a query and a key that it may see, so that no other tile is visited.

A tile is a block of queries and a block of keys. The last block begins within the block before it
where the size of a block does not divide the number of tokens.
"""

import jax.numpy as jnp

from posenc_jax.attention.rule import Rule
from posenc_jax.tokens import Tokens


def visits(rule: Rule, queries: Tokens, keys: Tokens, q_block: int, k_block: int):
    """Returns the range of key blocks that each query block visits, and the other way round.

    The four arrays are first and end for each block of queries, then first and end for each block
    of keys. ``rule.mask`` is not consulted, because its values are known only within a tile.
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
    return *_first_and_end(visit), *_first_and_end(visit.T)


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


def _first_and_end(visit):
    """Returns where the trues of each row begin and end; a row without any has an empty range."""
    count = visit.shape[1]
    end = count - jnp.argmax(visit[:, ::-1], axis=1)
    return jnp.argmax(visit, axis=1), jnp.where(visit.any(axis=1), end, 0)
