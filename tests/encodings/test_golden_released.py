"""Compares with the code of models that were released, through what users call."""

import common
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from golden_checks import ONE_HEAD, as_published, close, empty, float32, layer, load, rates

import posenc_jax
from posenc_jax.encodings.rotary.frequencies.yarn import YaRNFrequencies


@pytest.mark.parametrize("golden", ["sinks_gqa", "sinks_lse_form", "sinks_window"])
def test_sinks(golden):
    """The shares that the sinks take away say what the log-sum-exps are."""
    arrays, params = float32(golden)
    q, k, v, sinks = (arrays[key] for key in ("q", "k", "v", "sinks"))
    rule = dict(window=params["window"], sinks=sinks, with_weights=True)
    results = layer(posenc_jax.Encoding(), q, k, v, **rule)
    close(results["out"], arrays["out"], rtol=1e-5, atol=1e-5)
    if "weights" in arrays:
        close(results["weights"], arrays["weights"], rtol=1e-5, atol=1e-5)
    taken = np.exp(np.asarray(sinks)[:, None] - np.asarray(arrays["lse_with_sink"]))
    close(1 - results["weights"].sum(-1), taken, rtol=1e-5, atol=1e-5)


def test_inkling_bias_between_any_positions():
    arrays, params = float32("inkling_bias_decode")
    (R, E), H = arrays["profiles"].shape, params["num_heads"]
    sizes = dict(num_heads=H, model_dim=H * R, rank=R, extent=E)
    encoding = empty("inkling", **sizes)
    load(encoding, dict(profiles=arrays["profiles"], kernel=np.eye(H * R)))
    vectors_BTD = arrays["rel_states"].reshape(2, -1, H * R)
    places = (np.asarray(common.golden("inkling_bias_decode")[0][f"{x}_positions"]) for x in "qk")
    here, there = (
        encoding.at(p[None], index=np.arange(len(p))[None]).see(x_BTD)[0]
        for p, x_BTD in zip(places, (vectors_BTD, jnp.zeros((2, 10, H * R))), strict=True)
    )
    q, k = (jnp.zeros((2, side.tokens.count, H, 1)) for side in (here, there))
    close(posenc_jax.logits(here, q, there.keys(k, k)), arrays["bias"], rtol=1e-6)


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
    arrays, params = float32(golden)
    q, k_nope = arrays["q"], arrays["k_nope"]
    k_rope = jnp.broadcast_to(arrays["k_rope"], (*k_nope.shape[:3], params["qk_rope_head_dim"]))
    k = jnp.concatenate([k_nope, k_rope], axis=-1)
    number = 0 if params["use_rope"] else 3
    encoding = posenc_jax.from_hf(mistral(params), layer=number, rngs=nnx.Rngs(0))
    paths = {"s": "s", "b": "b"} | ({"inner.alpha": "alpha"} if params["use_rope"] else {})
    load(encoding, {path: arrays[key] for path, key in paths.items()})
    positions = arrays["positions"].astype(jnp.int32)
    rule = dict(positions=positions, scale=params["scale"], with_weights=True)
    results = layer(encoding, q, k, arrays["v"], **rule)
    as_published(golden, **{key: results[key] for key in ("logits", "out", "weights")})
    # The first channels do not rotate, and show what all of a query is multiplied by.
    here, side = encoding.at(positions), posenc_jax.Side(None, k.shape[2], is_query=True)
    as_published(golden, q_factor=encoding.rotate(jnp.ones_like(q), here.tokens, side)[..., 0])
    if params["use_rope"]:
        cos, sin = (table[:, :, 0] for table in here.tokens.made)
        as_published(golden, cos=cos, sin=sin, inv_freq=rates(encoding.inner))
        load(encoding, {"inner.alpha": 0 * arrays["alpha"]})
        as_published(golden, inv_freq_yarn=rates(encoding.inner))


@pytest.mark.parametrize("golden", MISTRAL)
def test_which_layers_of_mistral_large_4_rotate(golden):
    arrays, params = common.golden(golden)
    layers = posenc_jax.layers_from_hf(mistral(params), rngs=nnx.Rngs(0))
    rotating = [layers.at(n)[0].inner for n in range(params["num_layers"])]
    assert [hasattr(item, "alpha") for item in rotating] == arrays["no_rope_layers"].tolist()
    assert len({id(item) for item in rotating}) == 2  # One alpha for all.
    assert layers.at(0)[0].s.shape == (6, params["num_heads"])


def frequencies_of(rope):
    """Returns the rule of ``rope_parameters``."""
    if rope["rope_type"] == "default":
        return None
    dials = {key: rope[key] for key in ("beta_fast", "beta_slow", "attention_factor")}
    return YaRNFrequencies(rope["original_max_position_embeddings"], rope["factor"], **dials)


@pytest.mark.parametrize(
    "golden", ["deepseek_v4_main", "deepseek_v4_compress", "value_rotation_gqa"]
)
def test_values_that_rotate(golden):
    arrays, params = float32(golden)
    rope = params["rope_parameters"]
    sizes = dict(head_dim=params["head_dim"], rotary_dim=params["rope_channels"])
    given = dict(base=rope["rope_theta"], frequencies=frequencies_of(rope))
    encoding = posenc_jax.make("value_rope", **sizes, **given)
    q, k, positions = arrays["q"], arrays["k"], arrays["positions"].astype(jnp.int32)
    rule = dict(window=params["window"], scale=params["scale"], sinks=arrays.get("sinks"))
    results = layer(encoding, q, k, arrays.get("v", k), positions=positions, **rule)
    as_published(golden, inv_freq=rates(encoding), **results)
    # What rotates outputs back, undone.
    side = posenc_jax.Side(None, q.shape[2], is_query=True)
    before = encoding.rotate(results["out"], encoding.at(positions).tokens, side)
    as_published(golden, out_before=before)
    S, C = k.shape[1], k.shape[3]
    if C - params["rope_channels"] >= S:
        # Channels that do not rotate can say how much each key's value weighs.
        one_hot = jnp.broadcast_to(jnp.eye(S, C)[None, :, None], k.shape)
        weights = layer(encoding, q, k, one_hot, positions=positions, **rule)["out"]
        as_published(golden, weights=weights[..., :S].swapaxes(1, 2))


@pytest.mark.parametrize(("golden", "layout"), [("mla_half", "half"), ("mla_yarn", "interleaved")])
def test_heads_of_two_parts(golden, layout):
    """The recipe of docs/how-to/published-models.md: the encoding rotates one part of each head.

    The scale is that of the whole head, which grows by the square of YaRN's ``mscale_all_dim``.
    """
    arrays, params = float32(golden)
    config = {"model_type": "deepseek_v3", "rope_parameters": params["rope_parameters"]}
    sizes = ("qk_nope_head_dim", "qk_rope_head_dim", "rope_interleave")
    rope = posenc_jax.from_hf(config | {key: params[key] for key in sizes})
    assert (rope.layout, rope.head_dim) == (layout, params["qk_rope_head_dim"])
    as_published(golden, inv_freq=rates(rope))

    H, here = params["num_heads"], rope.at(arrays["positions"])
    q_nope, q_rope = jnp.split(arrays["q"], [params["qk_nope_head_dim"]], axis=-1)
    q_rope = rope.rotate(q_rope, here.tokens, posenc_jax.Side(None, H, is_query=True))
    k_rope = rope.rotate(arrays["k_rope"], here.tokens, posenc_jax.Side(None, 1, is_query=False))
    q = jnp.concatenate([q_nope, q_rope], axis=-1)
    k = jnp.concatenate([arrays["k_nope"], jnp.repeat(k_rope, H, axis=2)], axis=-1)
    rule = dict(scale=params["scale"], with_weights=True)
    results = layer(posenc_jax.Encoding(), q, k, arrays["v"], **rule)
    as_published(golden, **{key: results[key] for key in ("logits", "out", "weights")})
    section = params["rope_parameters"]
    m = 1 + 0.1 * section.get("mscale_all_dim", 0) * np.log(section.get("factor", 1))
    np.testing.assert_allclose(q.shape[-1] ** -0.5 * m**2, params["scale"], rtol=1e-6)


def test_scales_of_queries():
    arrays, params = common.golden("query_scales")
    sizes = dict(num_heads=1, head_dim=2, model_dim=2)
    inkling = dict(log_floor=params["inkling_floor"], log_scale=params["inkling_alpha"])
    ministral = dict(train_length=params["ministral_every"], attn_scale=params["ministral_beta"])
    encodings = {
        "beam": empty("beam_scale", **sizes),
        "ministral": empty("ministral_scale", over="nope", **sizes, **ministral),
        "inkling": empty("inkling", **sizes, **inkling),
    }
    cases = [(arrays["positions"], arrays[key], encoding) for key, encoding in encodings.items()]
    arrays, params = common.golden("llama4_attn_temperature")
    llama4 = empty("llama4_temperature", **params)
    for positions, scale, encoding in [*cases, (arrays["positions"], arrays["q_scale"], llama4)]:
        ones, here = jnp.ones((1, len(scale), 1, 2)), encoding.at(np.int32(positions)[None])
        scaled = encoding.rotate(ones, here.tokens, ONE_HEAD)[0, :, 0]
        close(scaled, np.repeat(scale[:, None], 2, axis=1), rtol=1e-6, atol=1e-6)
