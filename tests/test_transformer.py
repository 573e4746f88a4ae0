"""Models that are something else than a decoder of token ids."""

import common
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import posenc_jax
from posenc_jax.positions import text

B, T = 2, 6


class Projected(posenc_jax.Transformer):
    """Vectors in, each through a matrix whose rows are the embeddings."""

    def embed(self, inputs):
        return inputs["x"] @ self.embedding[...]


def test_other_embeddings_are_one_method():
    token_ids = np.random.default_rng(0).integers(0, common.VOCAB, (B, T))
    sizes = dict(vocab_size=common.VOCAB, model_dim=common.WIDTH, num_layers=1, num_heads=4)
    models = [
        kind(common.build("rope"), rngs=nnx.Rngs(0), **sizes)
        for kind in (posenc_jax.Transformer, Projected)
    ]
    vectors = {"x": np.eye(common.VOCAB, dtype=np.float32)[token_ids]}
    expected = models[0](token_ids, text(T))
    np.testing.assert_allclose(models[1](vectors, text(T)), expected, rtol=1e-5, atol=1e-6)
    cache = posenc_jax.Cache.empty(models[1], B, T)
    extended, _ = models[1].extend(vectors, cache)
    logits = models[1].unembed(extended)
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("scan", [False, True])
def test_an_encoder_sees_both_ways(scan):
    """Without positions its outputs move with its inputs; those of a decoder do not."""
    token_ids = np.random.default_rng(1).integers(0, common.VOCAB, (1, T))
    for causal in (False, True):
        model = common.build_model("nope", causal=causal, scan=scan)
        forward = np.asarray(model(token_ids, text(T)))
        reverse = np.asarray(model(token_ids[:, ::-1], text(T)))[:, ::-1]
        assert np.allclose(forward, reverse, atol=1e-3) == (not causal)


def test_an_encoder_has_no_cache():
    model = common.build_model("nope", causal=False)
    cache = posenc_jax.Cache.empty(model, 1, T)
    with pytest.raises(ValueError, match=r"causal=False cannot be extended.*hidden\(\)"):
        model.extend(jnp.zeros((1, 2), jnp.int32), cache)
