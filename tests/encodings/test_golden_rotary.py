"""Compares the rotary family with other people's code."""

import os

import common
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden_checks import assert_frequencies, by_token, close, rotated, turn

import posenc_jax
from posenc_jax.encodings.rotary.axes import chunked, interleaved
from posenc_jax.positions import text

# What conftest.py turns off.
XLA_TRIES_HARD = {"xla_backend_optimization_level": 3}
if "xla_cpu_use_fusion_emitters" in os.environ["XLA_FLAGS"]:
    XLA_TRIES_HARD["xla_cpu_use_fusion_emitters"] = True


@pytest.mark.parametrize("name", ["rope_default_d64_b10000", "rope_default_d128_b500000"])
@pytest.mark.parametrize("options", [{}, XLA_TRIES_HARD], ids=["quick", "hard"])
def test_rope_angles_to_two_million(name, options):
    """The compiler may try hard: the method lives on sums that it must not rearrange."""
    arrays, params = common.golden(name)
    encoding = posenc_jax.make("rope", head_dim=params["head_dim"], base=params["base"])
    positions = jnp.asarray(arrays["positions"], jnp.int32)[None]
    prepare = jax.jit(lambda p, n: encoding.tokens(p, length=n).made, compiler_options=options)
    for dtype in (jnp.int32, jnp.float32):
        cos, sin = prepare(positions.astype(dtype), 1)
        close(cos[0, :, 0], arrays["cos_f64_independent"], rtol=0, atol=1e-6)
        close(sin[0, :, 0], arrays["sin_f64_independent"], rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["rope_default_d64_b10000", "rope_default_d128_b500000"])
def test_rope_frequencies(name):
    arrays, params = common.golden(name)
    encoding = posenc_jax.make("rope", head_dim=params["head_dim"], base=params["base"])
    assert_frequencies(encoding, arrays["inv_freq_f32"])


# Rotary: applied


def test_rope_half():
    arrays, params = common.golden("rope_apply_half_d64")
    encoding = posenc_jax.make("rope", head_dim=params["head_dim"], base=params["base"])
    q, k = by_token(arrays["q"]), by_token(arrays["k"])
    positions = arrays["positions"].astype(np.int32)[None]
    close(rotated(encoding, q, positions), by_token(arrays["q_rot"]), atol=1e-5)
    close(rotated(encoding, k, positions), by_token(arrays["k_rot"]), atol=1e-5)

    logits = arrays["logits_unscaled"] / 8
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    tokens = encoding.tokens(positions)
    q, k = q.astype(np.float32), k.astype(np.float32)
    actual = common.probabilities(encoding, q, k, tokens, causal=False)
    close(actual, weights / weights.sum(-1, keepdims=True), rtol=1e-4)


@pytest.mark.parametrize(
    "name", ["rope_apply_interleaved_gptj_d64_r64", "rope_apply_complex_llama4_d32"]
)
def test_rope_interleaved(name):
    arrays, params = common.golden(name)
    encoding = posenc_jax.make(
        "rope", head_dim=params["head_dim"], base=params["base"], layout="interleaved"
    )
    positions = text(arrays["q"].shape[1])
    close(rotated(encoding, arrays["q"], positions), arrays["q_rot"], atol=1e-5)
    close(rotated(encoding, arrays["k"], positions), arrays["k_rot"], atol=1e-5)


def test_rope_partial():
    arrays, params = common.golden("rope_apply_partial_neox_pct25")
    encoding = posenc_jax.make(
        "rope", head_dim=params["head_dim"], base=params["base"], rotary_dim=params["rotary_dim"]
    )
    positions = arrays["positions"].astype(np.int32)[None]
    for key in ("q", "k"):
        actual = rotated(encoding, by_token(arrays[key]), positions)
        close(actual, by_token(arrays[f"{key}_rot"]), atol=1e-5)


@pytest.mark.parametrize(
    ("name", "scheme", "own"),
    [
        ("rope_ret_plain_d32", "rope", {}),
        ("rope_ret_pi4_d32", "pi", {"factor": 4.0}),
        ("rope_ret_ntk8_d64", "ntk", {"factor": 8.0}),
    ],
)
def test_rotary_embedding_torch(name, scheme, own):
    arrays, params = common.golden(name)
    encoding = posenc_jax.make(
        scheme, head_dim=params["dim"], base=params["theta"], layout="interleaved", **own
    )
    q = by_token(arrays["q"])
    close(rotated(encoding, q, text(params["T"])), by_token(arrays["q_rot"]), atol=1e-5)


# Rotary: the frequency dial


def test_pi_frequencies():
    arrays, params = common.golden("rope_linear_d64_s4")
    encoding = posenc_jax.make("pi", head_dim=params["head_dim"], factor=4.0)
    assert_frequencies(encoding, arrays["inv_freq"])


def test_ntk_frequencies():
    arrays, params = common.golden("ntk_static_d128_a8")
    encoding = posenc_jax.make("ntk", head_dim=params["dim"], factor=float(params["alpha"]))
    assert_frequencies(encoding, arrays["inv_freq"])


@pytest.mark.parametrize("name", ["rope_dynamic_d64_s2", "rope_dynamic_d128_s1"])
@pytest.mark.parametrize("as_array", [False, True])
def test_dynamic_ntk_of_hugging_face(name, as_array):
    arrays, params = common.golden(name)
    encoding = posenc_jax.make(
        "dynamic_ntk",
        head_dim=params["head_dim"],
        train_length=params["max_position_embeddings"],
        factor=params["rope_parameters"]["factor"],
    )
    for length in params["seq_lens"]:
        key = "inv_freq" if length is None else f"inv_freq_seq{length}"
        length = 1 if length is None else length
        array = jnp.full((1, 1), length) if as_array else None
        static = None if as_array else length
        assert_frequencies(encoding, arrays[key], length=static, array_length=array)


@pytest.mark.slow
def test_dynamic_ntk_of_the_yarn_repository():
    """The length is not given, but found from the positions."""
    arrays, params = common.golden("dynamic_ntk_repo_d64_a1")
    dim = params["dim"]
    encoding = posenc_jax.make(
        "dynamic_ntk", head_dim=dim, train_length=params["max_position"], factor=1.0
    )
    for length in params["lens"]:
        assert_frequencies(encoding, arrays[f"inv_freq_len{length}"], length=length)
        ahead = jnp.float32(np.repeat([1.0, 0.0], dim // 2))
        last = rotated(encoding, jnp.broadcast_to(ahead, (1, length, 1, dim)), text(length))[
            0, -1, 0
        ]
        close(last[: dim // 2], arrays[f"cos_last_len{length}"][: dim // 2], atol=1e-4)
        close(last[dim // 2 :], arrays[f"sin_last_len{length}"][: dim // 2], atol=1e-4)


YARN = {
    "rope_yarn_d64_s4_L512": {},
    "rope_yarn_llama2_s16": {},
    "rope_yarn_d64_s8_attnfactor": {"attention_factor": 1.0},
    "rope_yarn_dsv3_s40_mscale": {"mscale": 1.0, "mscale_all_dim": 1.0},
    "rope_yarn_d64_s32_notrunc_gptoss": {"truncate": False},
    "rope_yarn_d32_b500_L16384_highclamp": {},
}


@pytest.mark.parametrize("name", YARN)
def test_yarn_frequencies(name):
    arrays, params = common.golden(name)
    rope = params["rope_parameters"]
    encoding = posenc_jax.make(
        "yarn",
        head_dim=params["head_dim"],
        base=rope["rope_theta"],
        train_length=rope["original_max_position_embeddings"],
        factor=rope["factor"],
        **YARN[name],
    )
    factor = float(arrays["attention_factor"][0])
    assert_frequencies(encoding, arrays["inv_freq"], factor)


@pytest.mark.parametrize("case", range(6))
def test_yarn_of_qwen3(case):
    arrays, every = common.golden("yarn_qwen3")
    params = dict(every[case])
    channels, base, train_length = (params.pop(key) for key in ("D", "base", "orig"))
    encoding = posenc_jax.make(
        "yarn", head_dim=channels, base=base, train_length=train_length, **params
    )
    factor = float(arrays[f"attention_factor_{case}"])
    assert_frequencies(encoding, arrays[f"inv_freq_{case}"], factor)


@pytest.mark.parametrize("name", ["yarn_repo_d64_s8_L256", "yarn_repo_d128_s16_L4096"])
def test_yarn_of_its_repository(name):
    arrays, params = common.golden(name)
    encoding = posenc_jax.make(
        "yarn",
        head_dim=params["dim"],
        train_length=params["original"],
        factor=float(params["scale"]),
    )
    assert_frequencies(encoding, arrays["inv_freq"], float(arrays["mscale"]))
    cos, sin = turn(encoding, np.arange(64), 64)
    close(cos, arrays["cos"][:, : params["dim"] // 2], atol=1e-5)
    close(sin, arrays["sin"][:, : params["dim"] // 2], atol=1e-5)


def test_yarn_tables():
    arrays, params = common.golden("rope_yarn_tables_d32_s4")
    encoding = posenc_jax.make("yarn", head_dim=params["head_dim"], train_length=512, factor=4.0)
    cos, sin = turn(encoding, arrays["positions"].astype(np.int32), 1)
    near = arrays["positions"] < 4096
    close(cos[near], arrays["cos"][near, :16], rtol=0, atol=3e-4)
    close(sin[near], arrays["sin"][near, :16], rtol=0, atol=3e-4)


def test_yarn_logits_carry_the_temperature_squared():
    arrays, params = common.golden("rope_logits_yarn_d32_s8")
    encoding = posenc_jax.make("yarn", head_dim=32, train_length=256, factor=8.0)
    positions = text(params["T"])
    q = rotated(encoding, by_token(arrays["q"]), positions)
    k = rotated(encoding, by_token(arrays["k"]), positions)
    close(q, by_token(arrays["q_rot"]), atol=1e-5)
    logits = jnp.einsum("bthc,bshc->bhts", q, k) / jnp.sqrt(params["head_dim"])
    close(logits, arrays["logits_scaled"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("case", range(8))
def test_hope_frequencies(case):
    arrays, _ = common.golden("hope_highfreq")
    channels, base, train_length = arrays["combos_D_base_L"][case]
    encoding = posenc_jax.make(
        "hope", head_dim=int(channels), base=float(base), train_length=int(train_length)
    )
    assert_frequencies(encoding, arrays[f"inv_freq_{case}"])
    _, sin = turn(encoding, np.array([1]), 1)
    assert np.count_nonzero(sin) == arrays["kept_pairs"][case]


def test_hope_applied():
    arrays, _ = common.golden("hope_highfreq")
    channels, base, train_length = arrays["combos_D_base_L"][int(arrays["example_index"])]
    encoding = posenc_jax.make(
        "hope", head_dim=int(channels), base=float(base), train_length=int(train_length)
    )
    positions = arrays["positions"].astype(np.int32)[None]
    q, k = (rotated(encoding, arrays[key][None, :, None], positions) for key in ("q", "k"))
    close(q[0, :, 0], arrays["q_rot"], atol=1e-3)
    close(k[0, :, 0], arrays["k_rot"], atol=1e-3)
    logits = jnp.einsum("bthc,bshc->ts", q, k) / np.sqrt(channels)
    close(logits, arrays["logits"], atol=1e-3)


@pytest.mark.parametrize("case", range(3))
def test_p_rope_frequencies(case):
    arrays, every = common.golden("p_rope")
    params = every[case]
    encoding = posenc_jax.make(
        "p_rope",
        head_dim=params["head_dim"],
        base=params["base"],
        fraction=params["p"],
        factor=params["factor"],
    )
    assert_frequencies(encoding, arrays[f"inv_freq_{case}"])


@pytest.mark.parametrize("name", ["rope_proportional_d128_p25", "rope_proportional_d64_p75"])
def test_p_rope_of_hugging_face(name):
    arrays, params = common.golden(name)
    rope = params["rope_parameters"]
    encoding = posenc_jax.make(
        "p_rope",
        head_dim=params["head_dim"],
        base=rope["rope_theta"],
        fraction=rope["partial_rotary_factor"],
    )
    assert_frequencies(encoding, arrays["inv_freq"])


# Rotary: the axes dial


@pytest.mark.parametrize(
    ("name", "allocate"),
    [
        ("mrope_chunked_small", chunked),
        ("mrope_interleaved_small", interleaved),
        ("mrope_interleaved_partial", interleaved),
        ("mrope_interleaved_yarn", interleaved),
    ],
)
def test_mrope(name, allocate):
    arrays, params = common.golden(name)
    own = {}
    if "partial_rotary_factor" in params:
        own["rotary_dim"] = int(params["partial_rotary_factor"] * params["head_dim"])
    if "factor" in params:
        own["train_length"] = params["original_max_position_embeddings"]
        own["factor"] = params["factor"]
    encoding = posenc_jax.make(
        params.get("rope_type", "rope"),
        head_dim=params["head_dim"],
        base=params["rope_theta"],
        axes=allocate(tuple(params["mrope_section"])),
        **own,
    )
    positions = np.moveaxis(arrays["position_ids"], 0, -1).astype(np.int32)
    for key in ("q", "k"):
        actual = rotated(encoding, by_token(arrays[key]), positions)
        close(actual, by_token(arrays[f"{key}_rot"]), atol=3e-4)
