"""Reads tokens in pieces, past a cache."""

import functools

import common
import jax
import numpy as np

B, T, SIZE = 2, 12, 15
TOKEN_IDS = np.random.default_rng(0).integers(0, common.VOCAB, (B, T)).astype(np.int32)


@functools.partial(jax.jit, donate_argnames="cache")
def extend(model, token_ids, cache, positions=None, segment_ids=None):
    """Returns the logits of the next tokens, and the cache."""
    x_BTD, cache = model.extend(token_ids, cache, positions, segment_ids)
    return model.unembed(x_BTD), cache


def in_pieces(model, cache, positions=None, segment_ids=None, pieces=(4, 4, 4)):
    """Returns logits ``[B, T, V]`` of tokens read in pieces; those of one size are one program."""
    outputs, start = [], 0
    for count in pieces:
        now = slice(start, start + count)
        places, segments = (None if x is None else x[:, now] for x in (positions, segment_ids))
        output, cache = extend(model, TOKEN_IDS[:, now], cache, places, segments)
        outputs.append(output)
        start += count
    return np.concatenate(outputs, axis=1)


def close(actual, expected):
    common.close(actual, expected, rtol=1e-4, atol=1e-4)
