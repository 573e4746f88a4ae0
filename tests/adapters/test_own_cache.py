"""A cache of one's own, by the functions that docs/how-to/decoding.md has, in a layer as Gemma's.

flax's Gemma keeps in each layer a dictionary of keys, values and the number of tokens so far.
"""

import functools

import common
import jax
import jax.numpy as jnp
import numpy as np
import pages
import pytest
from flax import nnx

from posenc_jax import attend
from posenc_jax.positions import text

B, SIZE, H, K, C, D = 2, 11, common.HEADS, 2, common.HEAD_DIM, common.WIDTH


@functools.cache
def of_the_page():
    """Returns the two functions of the page."""
    names = pages.run("docs/how-to/decoding.md")
    return names["empty_cache"], names["attend_to_past"]


class Attention(nnx.Module):
    """Attends to a whole sequence, or from new tokens past a cache."""

    def __init__(self, encoding, rngs):
        self.encoding = encoding
        self.q_einsum = nnx.Einsum("BTD,NDH->BTNH", (H, D, C), rngs=rngs)
        self.kv_einsum = nnx.Einsum("BSD,CKDH->CBSKH", (2, K, D, C), rngs=rngs)
        self.attn_vec_einsum = nnx.Einsum("BTNH,NHD->BTD", (H, C, D), rngs=rngs)

    def __call__(self, x, cache=None):
        query_proj, (key_proj, value_proj) = self.q_einsum(x), self.kv_einsum(x)
        projected = query_proj, key_proj, value_proj
        if cache is None:
            tokens = self.encoding.tokens(text(x.shape[1]))
            encoded = attend(self.encoding, *projected, tokens, x=x)
        else:
            _, attend_to_past = of_the_page()
            encoded, past = attend_to_past(self.encoding, cache["past"], x, *projected)
            cache = {"past": past, "end_index": cache["end_index"] + x.shape[1]}
        return cache, self.attn_vec_einsum(encoded)

    def init_cache(self):
        empty_cache, _ = of_the_page()
        x, k = jnp.zeros((B, SIZE, D)), jnp.zeros((B, SIZE, K, C))
        return {"past": empty_cache(self.encoding, x, k, H), "end_index": 0}


@pytest.mark.parametrize("name", ["fox", "path"])
def test_pieces_past_a_cache_are_the_whole_sequence(name):
    encoding = common.build(name, num_kv_heads=K)
    layer = Attention(encoding, nnx.Rngs(0))
    x = jnp.asarray(common.normal(0, B, SIZE - 1, D))
    run = jax.jit(lambda layer, x, cache=None: layer(x, cache))
    _, whole = run(layer, x)
    cache, pieces, start = layer.init_cache(), [], 0
    for count in (6, 1, 1, 2):
        cache, piece = run(layer, x[:, start : start + count], cache)
        pieces.append(piece)
        start += count
    np.testing.assert_allclose(np.concatenate(pieces, axis=1), whole, atol=1e-5)


def test_what_would_be_wrong_is_refused():
    """KV shift needs the key before, and dynamic NTK rotates old keys again."""
    for name in ("kv_shift", "dynamic_ntk"):
        layer = Attention(common.build(name, num_kv_heads=K), nnx.Rngs(0))
        common.refuses("rotates all keys again", layer.init_cache)
