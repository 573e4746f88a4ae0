"""Tests the decoder's own settings, other models, and mistakes in both."""

import functools

import common
import jax
import numpy as np
import pytest
from common import refuses
from flax import nnx
from pieces import extend

import posenc_jax
from experiments.training.text import token_losses
from posenc_jax.model.stacking import stack
from posenc_jax.positions import text

B, T = 2, 6


class Projected(posenc_jax.Transformer):
    """Takes vectors, each through a matrix whose rows are the embeddings."""

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
    expected = common.forward(models[0], token_ids, text(T))
    common.close(common.forward(models[1], vectors, text(T)), expected, atol=1e-6)
    cache = posenc_jax.Cache.empty(models[1], B, T)
    logits, _ = extend(models[1], vectors, cache)
    common.close(logits, expected, atol=1e-6)


@pytest.mark.parametrize(("dtype", "bad"), [("int32", -1), ("uint8", common.VOCAB)])
def test_a_token_outside_of_the_vocabulary_is_no_other_token(bad, dtype):
    model, ids = common.build_model("rope"), token_ids().astype(dtype)
    expected = common.forward(model, ids, text(T))
    ids[0, 2] = bad
    common.refuses(f"token {bad}", lambda: model(ids, text(T)))
    logits = common.forward(model, ids, text(T))
    assert np.isnan(logits[0]).all()
    common.close(logits[1], expected[1], rtol=1e-4)


def test_an_encoder_sees_both_ways():
    """Without positions its outputs move with its inputs; those of a decoder do not."""
    token_ids = np.random.default_rng(1).integers(0, common.VOCAB, (1, T))
    for causal in (False, True):
        model = common.build_model("nope", causal=causal, scan=True)
        orders = token_ids, token_ids[:, ::-1]
        forward, reverse = (common.forward(model, ids, text(T)) for ids in orders)
        reverse = reverse[:, ::-1]
        assert np.allclose(forward, reverse, atol=1e-3) == (not causal)
    encoder = common.build_model("nope", causal=False)
    cache = posenc_jax.Cache.empty(encoder, 1, T)
    common.refuses("causal=False", lambda: encoder.extend(token_ids[:, :2], cache))


OTHER_DIALS = dict(norm_epsilon=0.1, qk_norm="all", qkv_bias=True, sinks="token", post_norm=True)
OTHER_DIALS |= dict(tied=False)


def dialled(scan=False, **dials):
    """Makes a RoPE model with these dials, moved from where biases and norms do not show."""
    model = common.moved(common.build_model("rope", num_kv_heads=2, **dials), seed=3)
    if not scan:
        return model
    scanned = common.build_model("rope", num_kv_heads=2, scan=True, **dials)
    scanned.layers[0].block = stack([layer.block for layer in model.layers])
    for part in ("embedding", "unembedding", "final_norm"):
        setattr(scanned, part, getattr(model, part))
    return scanned


def test_positions_of_text_may_be_left_out():
    """They are refused where segments or an order make it more than plain text."""
    model, ids = common.build_model("learned"), token_ids()
    np.testing.assert_array_equal(jax.jit(model)(ids), common.forward(model, ids, text(T)))
    for other in (dict(segment_ids=np.zeros((B, T), int)), dict(index=np.arange(T)[None])):
        common.refuses("positions", lambda other=other: model(ids, **other))


def token_ids(length=T):
    return np.random.default_rng(0).integers(0, common.VOCAB, (B, length)).astype(np.int32)


@pytest.mark.parametrize("kind", ["head", "token"])
def test_sinks_are_those_of_attention(kind):
    """Golden models have all other dials."""
    model, ids = dialled(sinks=kind, num_layers=1), token_ids()
    (layer,), (rope,), x = model.layers, model.distinct(), model.embed(ids)
    block, of = layer.block, layer.block.attention
    read = block.attention_norm(x)
    q, k, v = (by(read).reshape(B, T, -1, common.HEAD_DIM) for by in (of.q, of.k, of.v))
    sinks = of.sink_of_head[...] if kind == "head" else of.sink_of_token(read)
    out = posenc_jax.attend(rope.at(text(T)), q, k, v, sinks=sinks)
    x = x + of.out(out.reshape(B, T, -1))
    x = x + block.mlp(block.mlp_norm(x))
    logits = model.final_norm(x) @ model.output_table.T
    common.close(model(ids, text(T)), logits, rtol=1e-4, atol=1e-3)


def test_dials_in_a_scan_and_past_a_cache():
    expected, ids = common.forward(dialled(**OTHER_DIALS), token_ids(), text(T)), token_ids()
    model = dialled(scan=True, **OTHER_DIALS).under(common.build("rope"))
    cache, outputs = posenc_jax.Cache.empty(model, B, T), []
    for piece in (slice(0, 3), slice(3, T)):
        logits, cache = extend(model, ids[:, piece], cache)
        outputs.append(logits)
    common.close(np.concatenate(outputs, 1), expected, rtol=1e-4, atol=1e-4)


def test_the_loss_is_that_of_the_output_layer():
    model, ids = dialled(tied=False), token_ids(T + 1)
    logits = jax.nn.log_softmax(model(ids[:, :-1], text(T)))
    expected = -np.take_along_axis(np.asarray(logits), ids[:, 1:, None], -1)[..., 0]
    common.close(token_losses(model, ids), expected, rtol=1e-4)


def of_sinks(sinks, num_layers=4, scan=False, pattern=1):
    encodings = [common.build("rope")] * pattern
    sizes = dict(vocab_size=common.VOCAB, model_dim=common.WIDTH, num_heads=common.HEADS)
    sizes |= dict(num_layers=num_layers, sinks=sinks, scan=scan)
    return posenc_jax.Transformer(encodings, rngs=nnx.Rngs(0), **sizes)


def test_sinks_of_some_layers_in_a_scan_and_past_a_cache():
    sinks, ids = (None, "head", None, "token"), token_ids()
    plain = of_sinks(sinks)
    expected = common.forward(plain, ids, text(T))
    scanned = of_sinks(sinks, scan=True, pattern=len(sinks))
    common.close(common.forward(scanned, ids, text(T)), expected)
    logits, _ = extend(scanned, ids, posenc_jax.Cache.empty(scanned, B, T))
    common.close(logits, expected, rtol=1e-4, atol=1e-4)


# Mistakes


IDS = np.ones((B, T), np.int32)
MODEL = common.build_model("rope")
SIZES = dict(vocab_size=8, model_dim=32, num_layers=1, num_heads=4, rngs=nnx.Rngs(0))


def model(**bad):
    return functools.partial(posenc_jax.Transformer, posenc_jax.Encoding(), **SIZES | bad)


MODELS = {
    "num_layers=2": [lambda: common.build_model(common.build("transformer_xl", num_layers=3))],
    "pattern": [
        lambda: common.build_model([common.build("rope")] * 3, num_layers=4),
        lambda: MODEL.under([common.build("rope")] * 3),
    ],
    "num_kv_heads": [model(num_kv_heads=3)],
    "num_heads": [model(num_heads=5)],
    "qk_norm": [model(qk_norm="heads")],
    "implementation": [model(implementation="flash")],
    "Encoding": [lambda x=x: MODEL.under(x) for x in ("rope", None)],
    "window": [lambda: posenc_jax.Layers([common.build("rope")], [3, 4])],
    "layer": [lambda: common.build("fox", num_layers=2).of_layer(2)],
    "inputs": [
        lambda bad=bad: MODEL(bad, text(T))
        for bad in (np.ones((B, T)), np.ones(T, int), IDS + common.VOCAB, IDS[:, :0], IDS[:0])
    ],
}


@pytest.mark.parametrize("name", MODELS)
def test_models(name):
    for call in MODELS[name]:
        refuses(name, call)
