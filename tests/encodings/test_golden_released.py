"""Compares with the code of models that were released, through what users call."""

import functools

import common
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from golden_checks import ONE_HEAD, as_published, close, rates

import posenc_jax
from posenc_jax.encodings.rotary.frequencies import YaRN
from posenc_jax.positions import text


@pytest.mark.parametrize("golden", ["sinks_gqa", "sinks_lse_form", "sinks_window"])
def test_sinks(golden):
    """The shares that the sinks take away say what the log-sum-exps are."""
    arrays, params = common.golden(golden)
    q, k, v, sinks = (jnp.asarray(arrays[key], jnp.float32) for key in ("q", "k", "v", "sinks"))
    (B, S, K, _), encoding = k.shape, posenc_jax.Encoding()
    one_hot = jnp.broadcast_to(jnp.eye(S)[None, :, None], (B, S, K, S))
    attend = functools.partial(posenc_jax.attend, encoding, window=params["window"], sinks=sinks)
    both = jnp.concatenate([v, one_hot], axis=-1)
    out = jax.jit(attend)(q, k, both, encoding.tokens(text(S)))
    out, weights = np.split(np.asarray(out), [v.shape[-1]], axis=-1)
    close(out, arrays["out"], rtol=1e-5, atol=1e-5)
    if "weights" in arrays:
        close(weights.swapaxes(1, 2), arrays["weights"], rtol=1e-5, atol=1e-5)
    taken = np.exp(arrays["sinks"][:, None] - arrays["lse_with_sink"])
    close(1 - weights.sum(-1).swapaxes(1, 2), taken, rtol=1e-5, atol=1e-5)


@jax.jit
def run(encoding, q, k, v, x_BTD, window, scale, sinks):
    """Returns the logits, the weights and the attended sums of a layer of text."""
    tokens = encoding.tokens(text(q.shape[1])).observed(encoding, x_BTD)
    attend = functools.partial(
        posenc_jax.attend, encoding, q, k, q_tokens=tokens, window=window, scale=scale, sinks=sinks
    )
    one_hot = jnp.broadcast_to(jnp.eye(k.shape[1])[None, :, None], (*k.shape[:3], k.shape[1]))
    weights = attend(v_BSKC=one_hot).swapaxes(1, 2)
    return posenc_jax.logits(encoding, q, k, tokens, scale=scale), weights, attend(v_BSKC=v)


INKLING = {"inkling_full": "inkling", "inkling_sliding": "inkling", "inkling2_full": "inkling2"}


@pytest.mark.parametrize(("golden", "name"), INKLING.items())
def test_inkling(golden, name):
    arrays, params = common.golden(golden)
    arrays = {key: jnp.asarray(value, jnp.float32) for key, value in arrays.items()}
    D, H, R = arrays["w_rel"].shape
    sizes = dict(num_heads=H, model_dim=D, head_dim=params["head_dim"], rngs=nnx.Rngs(0))
    clips = {}
    if name == "inkling2":
        clips = dict(clip=params["qk_l2_clip_threshold"])
        clips |= dict(vector_clip=params["rel_l2_clip_threshold"])
    encoding = posenc_jax.make(
        *(name,),
        **(sizes | clips),
        rank=R,
        extent=params["rel_extent"],
        log_floor=params["log_scaling_n_floor"],
        log_scale=params["log_scaling_alpha"],
    )
    encoding.kernel[...] = arrays["w_rel"].reshape(D, H * R)
    encoding.profiles[...] = arrays["profiles"]
    q, k = arrays["q"], arrays["k"]
    if name == "inkling2":
        encoding.query_scale[...], encoding.vector_scale[...] = (
            arrays[key] for key in ("q_scale", "rel_scale")
        )
        q, k = arrays["q_raw"], arrays["k_raw"]
    given = q, k, arrays["v"], arrays["x"], params["window"], params["scale"], arrays.get("sinks")
    logits, weights, out = run(encoding, *given)
    if "logits" in arrays:
        close(logits, arrays["logits"], rtol=1e-5, atol=2e-5)
    close(weights, arrays["weights"], rtol=1e-5, atol=2e-5)
    close(out, arrays["out"], rtol=1e-5, atol=2e-5)


def test_inkling_bias_between_any_positions():
    arrays, params = common.golden("inkling_bias_decode")
    (R, E), H = arrays["profiles"].shape, params["num_heads"]
    sizes = dict(num_heads=H, model_dim=H * R, rank=R, extent=E)
    encoding = posenc_jax.make("inkling", **sizes, rngs=nnx.Rngs(0))
    encoding.profiles[...] = jnp.asarray(arrays["profiles"], jnp.float32)
    encoding.kernel[...] = jnp.eye(H * R)
    vectors_BTD = jnp.asarray(arrays["rel_states"].reshape(2, -1, H * R), jnp.float32)
    queries, keys = (
        encoding.tokens(arrays[key][None], index=np.arange(len(arrays[key]))[None]).observed(
            encoding, x_BTD
        )
        for key, x_BTD in (("q_positions", vectors_BTD), ("k_positions", jnp.zeros((2, 10, H * R))))
    )
    q, k = jnp.zeros((2, queries.count, H, 1)), jnp.zeros((2, keys.count, H, 1))
    close(posenc_jax.logits(encoding, q, k, queries, keys), arrays["bias"], rtol=1e-6)


@jax.jit
def attend_at(encoding, q, k, v, positions, window, scale, sinks):
    """Returns the logits and the attended sums of a layer."""
    tokens = encoding.tokens(positions)
    rule = dict(window=window, scale=scale, sinks=sinks)
    logits = posenc_jax.logits(encoding, q, k, tokens, scale=scale)
    return logits, posenc_jax.attend(encoding, q, k, v, tokens, **rule)


def frequencies_of(rope):
    """Returns the rule of ``rope_parameters``."""
    if rope["rope_type"] == "default":
        return None
    return YaRN(
        rope["original_max_position_embeddings"],
        rope["factor"],
        beta_fast=rope["beta_fast"],
        beta_slow=rope["beta_slow"],
        attention_factor=rope["attention_factor"],
    )


MISTRAL = ["mistral_large4_lerope", "mistral_large4_far", "mistral_large4_nope_layer"]


def mistral(params):
    """Returns what a config.json holds about these layers."""
    sizes = {key: params[key] for key in ("qk_nope_head_dim", "qk_rope_head_dim")}
    sizes |= {"num_attention_heads": params["num_heads"], "num_hidden_layers": params["num_layers"]}
    rope = params["rope_parameters"]
    return {"model_type": "mistral_large4_text", "rope_parameters": rope} | sizes


@pytest.mark.slow
@pytest.mark.parametrize("golden", MISTRAL)
def test_mistral_large_4(golden):
    """A head is [nope | rope], and the keys' second part is one head's, repeated."""
    arrays, params = common.golden(golden)
    arrays = {key: jnp.asarray(x) for key, x in arrays.items()}
    q, k_nope = arrays["q"], arrays["k_nope"]
    k_rope = jnp.broadcast_to(arrays["k_rope"], (*k_nope.shape[:3], params["qk_rope_head_dim"]))
    layer = 0 if params["use_rope"] else 3
    encoding = posenc_jax.from_hf(mistral(params), layer=layer, rngs=nnx.Rngs(0))
    encoding.s[...], encoding.b[...] = arrays["s"], arrays["b"]
    if params["use_rope"]:
        encoding.inner.alpha[...] = arrays["alpha"]
    k = jnp.concatenate([k_nope, k_rope], axis=-1)
    positions = arrays["positions"].astype(jnp.int32)
    B, S, H, _ = k.shape
    one_hot = jnp.broadcast_to(jnp.eye(S)[None, :, None], (B, S, H, S))
    v = jnp.concatenate([arrays["v"], one_hot], axis=-1)
    logits, out = attend_at(encoding, q, k, v, positions, None, params["scale"], None)
    out, weights = np.split(out, [-S], axis=-1)
    as_published(golden, logits=logits, out=out, weights=weights.swapaxes(1, 2))
    # The first channels do not turn, and show what all of a query is multiplied by.
    tokens, side = encoding.tokens(positions), posenc_jax.Side(None, H, H, True)
    factor = encoding.rotate(jnp.ones_like(q), tokens, side)[..., 0]
    as_published(golden, q_factor=factor)
    if params["use_rope"]:
        cos, sin = (table[:, :, 0] for table in tokens.made)
        as_published(golden, cos=cos, sin=sin, inv_freq=rates(encoding.inner))
        encoding.inner.alpha[...] = jnp.zeros_like(arrays["alpha"])
        as_published(golden, inv_freq_yarn=rates(encoding.inner))


@pytest.mark.parametrize("golden", MISTRAL)
def test_which_layers_of_mistral_large_4_turn(golden):
    arrays, params = common.golden(golden)
    layers = posenc_jax.layers_from_hf(mistral(params), rngs=nnx.Rngs(0))
    turning = [layers.at(n)[0].inner for n in range(params["num_layers"])]
    assert [hasattr(item, "alpha") for item in turning] == arrays["no_rope_layers"].tolist()
    assert len({id(item) for item in turning}) == 2  # One alpha for all.
    assert layers.at(0)[0].s.shape == (6, params["num_heads"])


@pytest.mark.parametrize(
    "golden", ["deepseek_v4_main", "deepseek_v4_compress", "value_rotation_gqa"]
)
def test_values_that_turn(golden):
    arrays, params = common.golden(golden)
    arrays = {key: jnp.asarray(x) for key, x in arrays.items()}
    rope = params["rope_parameters"]
    encoding = posenc_jax.make(
        "value_rope",
        head_dim=params["head_dim"],
        rotary_dim=params["rope_channels"],
        base=rope["rope_theta"],
        frequencies=frequencies_of(rope),
    )
    q, k, positions = arrays["q"], arrays["k"], arrays["positions"].astype(jnp.int32)
    rule = params["window"], params["scale"], arrays.get("sinks")
    logits, out = attend_at(encoding, q, k, arrays.get("v", k), positions, *rule)
    tokens = encoding.tokens(positions)
    H, K = q.shape[2], k.shape[2]
    of_query, of_key = (posenc_jax.Side(None, H, K, is_query) for is_query in (True, False))
    turned = {"q_rot": encoding.rotate(q, tokens, of_query)}
    turned |= {"k_rot": encoding.rotate(k, tokens, of_key)}
    # What turns outputs back undone.
    turned |= {"out_before": encoding.rotate(out, tokens, of_query)}
    as_published(golden, logits=logits, out=out, inv_freq=rates(encoding), **turned)
    S, C = k.shape[1], k.shape[3]
    if C - params["rope_channels"] >= S:
        # Channels that do not turn can say how much each key's value weighs.
        one_hot = jnp.broadcast_to(jnp.eye(S, C)[None, :, None], k.shape)
        _, weights = attend_at(encoding, q, k, one_hot, positions, *rule)
        as_published(golden, weights=weights[..., :S].swapaxes(1, 2))


MLA = {"mla_half": "half", "mla_yarn": "interleaved"}


@pytest.mark.parametrize(("golden", "layout"), MLA.items())
def test_heads_of_two_parts(golden, layout):
    """The recipe of docs/how-to/published-models.md: the encoding turns one part of each head.

    The scale is that of the whole head, which grows by the square of YaRN's ``mscale_all_dim``.
    """
    arrays, params = common.golden(golden)
    arrays = {key: jnp.asarray(x, jnp.float32) for key, x in arrays.items()}
    config = {"model_type": "deepseek_v3", "rope_parameters": params["rope_parameters"]}
    sizes = ("qk_nope_head_dim", "qk_rope_head_dim", "rope_interleave")
    rope = posenc_jax.from_hf(config | {key: params[key] for key in sizes})
    assert (rope.layout, rope.head_dim) == (layout, params["qk_rope_head_dim"])
    as_published(golden, inv_freq=rates(rope))

    H, tokens = params["num_heads"], rope.tokens(arrays["positions"])
    q_nope, q_rope = jnp.split(arrays["q"], [params["qk_nope_head_dim"]], axis=-1)
    q_rope = rope.rotate(q_rope, tokens, posenc_jax.Side(None, H, 1, is_query=True))
    k_rope = rope.rotate(arrays["k_rope"], tokens, posenc_jax.Side(None, H, 1, is_query=False))
    q = jnp.concatenate([q_nope, q_rope], axis=-1)
    k = jnp.concatenate([arrays["k_nope"], jnp.repeat(k_rope, H, axis=2)], axis=-1)

    S, nope = k.shape[1], posenc_jax.Encoding()
    one_hot = jnp.broadcast_to(jnp.eye(S)[None, :, None], (*k.shape[:3], S))
    v = jnp.concatenate([arrays["v"], one_hot], axis=-1)
    logits = posenc_jax.logits(nope, q, k, tokens, scale=params["scale"])
    out = posenc_jax.attend(nope, q, k, v, tokens, scale=params["scale"])
    out, weights = np.split(out, [-S], axis=-1)
    as_published(golden, logits=logits, out=out, weights=weights.swapaxes(1, 2))
    section = params["rope_parameters"]
    m = 1 + 0.1 * section.get("mscale_all_dim", 0) * np.log(section.get("factor", 1))
    np.testing.assert_allclose(q.shape[-1] ** -0.5 * m**2, params["scale"], rtol=1e-6)


def test_scales_of_queries():
    arrays, params = common.golden("query_scales")
    sizes = dict(num_heads=1, head_dim=2, model_dim=2, rngs=nnx.Rngs(0))
    inkling = dict(log_floor=params["inkling_floor"], log_scale=params["inkling_alpha"])
    ministral = dict(train_length=params["ministral_every"], attn_scale=params["ministral_beta"])
    encodings = {
        "beam": posenc_jax.make("beam_scale", **sizes),
        "ministral": posenc_jax.make("ministral_scale", over="nope", **sizes, **ministral),
        "inkling": posenc_jax.make("inkling", **sizes, **inkling),
    }
    positions = jnp.asarray(arrays["positions"], jnp.int32)[None]
    ones = jnp.ones((1, positions.shape[1], 1, 2))
    for key, encoding in encodings.items():
        tokens = encoding.tokens(positions)
        scaled = encoding.rotate(ones, tokens, ONE_HEAD)[0, :, 0]
        close(scaled, np.repeat(arrays[key][:, None], 2, axis=1), rtol=1e-6, atol=1e-6)
