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
    expected = models[0](token_ids, text(T))
    common.close(models[1](vectors, text(T)), expected, atol=1e-6)
    cache = posenc_jax.Cache.empty(models[1], B, T)
    extended, _ = models[1].extend(vectors, cache)
    logits = models[1].unembed(extended)
    common.close(logits, expected, atol=1e-6)


@pytest.mark.parametrize(("dtype", "bad"), [("int32", -1), ("uint8", common.VOCAB)])
def test_a_token_outside_of_the_vocabulary_is_no_other_token(bad, dtype):
    model, ids = common.build_model("rope"), token_ids().astype(dtype)
    expected = model(ids, text(T))
    ids[0, 2] = bad
    common.refuses(f"token {bad}", lambda: model(ids, text(T)))
    logits = jax.jit(lambda model, ids: model(ids, text(T)))(model, ids)
    assert np.isnan(logits[0]).all()
    common.close(logits[1], expected[1], rtol=1e-4)


def test_an_encoder_sees_both_ways():
    """Without positions its outputs move with its inputs; those of a decoder do not."""
    token_ids = np.random.default_rng(1).integers(0, common.VOCAB, (1, T))
    for causal in (False, True):
        model = common.build_model("nope", causal=causal, scan=True)
        forward = np.asarray(model(token_ids, text(T)))
        reverse = np.asarray(model(token_ids[:, ::-1], text(T)))[:, ::-1]
        assert np.allclose(forward, reverse, atol=1e-3) == (not causal)
    encoder = common.build_model("nope", causal=False)
    cache = posenc_jax.Cache.empty(encoder, 1, T)
    common.refuses("causal=False", lambda: encoder.extend(token_ids[:, :2], cache))


ALL_DIALS = dict(norm_epsilon=0.1, qk_norm="head", qkv_bias=True, sinks="head", post_norm=True)
ALL_DIALS |= dict(tied=False)
OTHER_DIALS = ALL_DIALS | {"qk_norm": "all", "sinks": "token"}


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
    np.testing.assert_array_equal(model(ids), model(ids, text(T)))
    for other in (dict(segment_ids=np.zeros((B, T), int)), dict(index=np.arange(T)[None])):
        common.refuses("positions", lambda other=other: model(ids, **other))


def token_ids(length=T):
    return np.random.default_rng(0).integers(0, common.VOCAB, (B, length)).astype(np.int32)


def written_out(model, ids, norm_epsilon=1e-6, qk_norm=None, sinks=None, post_norm=False, **_):
    """Returns the logits by NumPy, one head at a time."""

    def norm(by, x):
        scale = np.asarray(by.scale[...], np.float64)
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + norm_epsilon) * scale

    def linear(by, x):
        y = x @ np.asarray(by.kernel[...], np.float64)
        return y if by.bias is None else y + np.asarray(by.bias[...], np.float64)

    def rotated(x_BTC):
        half = x_BTC.shape[-1] // 2
        angles = np.arange(x_BTC.shape[1])[:, None] * 10000.0 ** (-np.arange(half) / half)
        pairs = (x_BTC[..., :half] + 1j * x_BTC[..., half:]) * np.exp(1j * angles)
        return np.concatenate([pairs.real, pairs.imag], -1)

    def heads(by, count, x, normalise=None):
        y = linear(by, x)
        y = norm(normalise, y) if normalise is not None and qk_norm == "all" else y
        parts = np.split(y, count, axis=-1)
        return [norm(normalise, z) if normalise and qk_norm == "head" else z for z in parts]

    def attention(by, x):
        count = model.num_kv_heads
        queries = [rotated(q) for q in heads(by.q, common.HEADS, x, by.q_norm)]
        keys, values = heads(by.k, count, x, by.k_norm), heads(by.v, count, x)
        outputs = []
        extra = np.full((*x.shape[:2], common.HEADS), -np.inf)
        if sinks == "head":
            extra[:] = by.sink_of_head[...]
        elif sinks == "token":
            extra = linear(by.sink_of_token, x)
        for number, q in enumerate(queries):
            pair = number // (common.HEADS // count)
            logits = q @ rotated(keys[pair]).swapaxes(1, 2) * q.shape[-1] ** -0.5
            logits = np.where(np.tri(x.shape[1], dtype=bool), logits, -np.inf)
            logits = np.concatenate([logits, extra[:, :, number, None]], axis=-1)
            weights = np.exp(logits - logits.max(-1, keepdims=True))
            weights /= weights.sum(-1, keepdims=True)
            outputs.append(weights[..., :-1] @ values[pair])
        return linear(by.out, np.concatenate(outputs, -1))

    def mlp(by, x):
        gate = linear(by.gate, x)
        return linear(by.down, gate / (1 + np.exp(-gate)) * linear(by.up, x))

    x = np.asarray(model.embedding[...], np.float64)[ids]
    for layer in model.layers:
        block = layer.block
        for by, step in ((block.attention_norm, attention), (block.mlp_norm, mlp)):
            part = block.attention if step is attention else block.mlp
            x = x + (norm(by, step(part, x)) if post_norm else step(part, norm(by, x)))
    return norm(model.final_norm, x) @ np.asarray(model.output_table, np.float64).T


@pytest.mark.parametrize("dials", [{}, ALL_DIALS, OTHER_DIALS], ids=["none", "all", "others"])
def test_dials_are_what_they_say(dials):
    model, ids = dialled(**dials), token_ids()
    expected = written_out(model, ids, **dials)
    if "qkv_bias" in dials:
        assert min(float(abs(layer.block.attention.k.bias[...]).min()) for layer in model.layers)
    common.close(model(ids, text(T)), expected, rtol=1e-4, atol=1e-3)


def test_dials_in_a_scan_and_past_a_cache():
    expected, ids = common.forward(dialled(**OTHER_DIALS), token_ids(), text(T)), token_ids()
    model = dialled(scan=True, **OTHER_DIALS).under(common.build("rope"))
    cache, outputs = posenc_jax.Cache.empty(model, B, T), []
    for piece in (slice(0, 4), slice(4, T)):
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
    sinks = None, "head", None, "token"
    plain = of_sinks(sinks)
    is_there = [
        (by.sink_of_head is not None, by.sink_of_token is not None)
        for by in (layer.block.attention for layer in plain.layers)
    ]
    assert is_there == [(kind == "head", kind == "token") for kind in sinks]
    expected, ids = common.forward(plain, token_ids(), text(T)), token_ids()
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


class OwnGate(posenc_jax.Encoding):
    """Has a parameter for each layer, and is not in the registry."""

    per_layer = True

    def __init__(self):
        self.rate = nnx.Param(np.ones(common.HEADS))

    def score(self, logits_BHTS, tile):
        return logits_BHTS - tile.per_head(self.rate)


MODELS = {
    "num_layers=1.*REGISTRY": [lambda: posenc_jax.Transformer(OwnGate(), **SIZES)],
    "num_layers=2": [lambda: common.build_model(common.build("transformer_xl", num_layers=3))],
    "pattern": [
        lambda: common.build_model([common.build("rope")] * 3, num_layers=4),
        lambda: MODEL.under([common.build("rope")] * 3),
    ],
    "num_kv_heads": [model(num_kv_heads=3)],
    "num_heads": [model(num_heads=5)],
    "qk_norm": [model(qk_norm="heads")],
    "implementation": [model(implementation="flash")],
    "encodings|Encoding": [lambda: MODEL.under("rope")],
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
