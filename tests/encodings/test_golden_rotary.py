"""Compares the rotary family with other people's code."""

import os

import common
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden_checks import (
    assert_frequencies,
    by_token,
    close,
    rotated,
    turn,
)

import posenc_jax
from posenc_jax.positions import text

# What conftest.py turns off.
XLA_TRIES_HARD = {"xla_backend_optimization_level": 3}
if "xla_cpu_use_fusion_emitters" in os.environ["XLA_FLAGS"]:
    XLA_TRIES_HARD["xla_cpu_use_fusion_emitters"] = True


def of_rope(params, scheme="rope", **given):
    """Makes a scheme with the width and the base of a golden file."""
    width = params.get("head_dim", params.get("dim"))
    section = params.get("rope_parameters", params)
    base = section.get("rope_theta", params.get("base", params.get("theta", 1e4)))
    return posenc_jax.make(scheme, head_dim=width, base=base, **given)


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


# Frequencies: scheme, keywords, and what they are called, in its golden file or in its section


def extended(*keys, **given):
    """Returns a function from a file's section to keywords, those that are in the section too."""

    def keywords(section):
        train_length = section["original_max_position_embeddings"]
        return {key: section[key] for key in keys} | {"train_length": train_length} | given

    return keywords


FREQUENCIES = {
    "rope_default_d64_b10000": ("rope", {}, "inv_freq_f32"),
    "rope_default_d128_b500000": ("rope", {}, "inv_freq_f32"),
    "rope_linear_d64_s4": ("pi", {"factor": 4.0}),
    "ntk_static_d128_a8": ("ntk", {"factor": 8.0}),
    "rope_yarn_d64_s4_L512": ("yarn", extended("factor")),
    "rope_yarn_llama2_s16": ("yarn", extended("factor")),
    "rope_yarn_d64_s8_attnfactor": ("yarn", extended("factor", attention_factor=1.0)),
    "rope_yarn_dsv3_s40_mscale": ("yarn", extended("factor", mscale=1.0, mscale_all_dim=1.0)),
    "rope_yarn_d64_s32_notrunc_gptoss": ("yarn", extended("factor", truncate=False)),
    "rope_yarn_d32_b500_L16384_highclamp": ("yarn", extended("factor")),
    "rope_llama3_8b": ("llama3", extended("factor", "low_freq_factor", "high_freq_factor")),
    "rope_proportional_d128_p25": ("p_rope", {"fraction": 0.25}),
    "rope_proportional_d64_p75": ("p_rope", {"fraction": 0.75}),
    "yarn_repo_d64_s8_L256": ("yarn", {"train_length": 256, "factor": 8.0}),
    "yarn_repo_d128_s16_L4096": ("yarn", {"train_length": 4096, "factor": 16.0}),
}


@pytest.mark.parametrize("golden", FREQUENCIES)
def test_frequencies(golden):
    arrays, params = common.golden(golden)
    scheme, given, key = (*FREQUENCIES[golden], "inv_freq")[:3]
    given = given(params["rope_parameters"]) if callable(given) else given
    encoding = of_rope(params, scheme, **given)
    factor = arrays.get("attention_factor", arrays.get("mscale", np.ones(1)))
    assert_frequencies(encoding, arrays[key], float(np.ravel(factor)[0]))
    if "cos" in arrays:
        pairs = encoding.rotary_dim // 2
        for table, kind in zip(turn(encoding, np.arange(64), 64), ("cos", "sin"), strict=True):
            close(table, arrays[kind][:, :pairs], atol=1e-5)


NUMBERED = {
    "yarn_qwen3": ("yarn", 6),
    "p_rope": ("p_rope", 3),
    "mrrope_uni": ("mrrope_uni", 2),
    "mrrope_pro": ("mrrope_pro", 2),
}
OTHER_NAMES = {"D": "head_dim", "orig": "train_length", "p": "fraction"}


@pytest.mark.parametrize(
    ("golden", "case"), [(golden, i) for golden in NUMBERED for i in range(NUMBERED[golden][1])]
)
def test_numbered_frequencies(golden, case):
    arrays, every = common.golden(golden)
    given = {OTHER_NAMES.get(key, key): value for key, value in every[case].items()}
    encoding = posenc_jax.make(NUMBERED[golden][0], **given)
    factor = float(arrays.get(f"attention_factor_{case}", 1.0))
    assert_frequencies(encoding, arrays[f"inv_freq_{case}"], factor)


@pytest.mark.parametrize("name", ["rope_dynamic_d64_s2", "rope_dynamic_d128_s1"])
def test_dynamic_ntk_of_hugging_face(name):
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
        assert_frequencies(encoding, arrays[key], length=length)


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


# Rotations


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


ROTATED = {
    "rope_apply_interleaved_gptj_d64_r64": ("rope", {"layout": "interleaved"}),
    "rope_apply_complex_llama4_d32": ("rope", {"layout": "interleaved"}),
    "rope_apply_partial_neox_pct25": ("rope", {"rotary_dim": None}),
    "rope_ret_plain_d32": ("rope", {"layout": "interleaved"}),
    "rope_ret_pi4_d32": ("pi", {"layout": "interleaved", "factor": 4.0}),
    "rope_ret_ntk8_d64": ("ntk", {"layout": "interleaved", "factor": 8.0}),
}


@pytest.mark.parametrize("golden", ROTATED)
def test_rotations(golden):
    arrays, params = common.golden(golden)
    scheme, given = ROTATED[golden]
    if "rotary_dim" in given:
        given = {"rotary_dim": params["rotary_dim"]}
    encoding = of_rope(params, scheme, **given)
    heads_second = "interleaved_gptj" not in golden and "llama4" not in golden
    for key in {"q", "k"} & set(arrays):
        x, expected = arrays[key], arrays[f"{key}_rot"]
        if heads_second:
            x, expected = by_token(x), by_token(expected)
        places = text(x.shape[1])
        if "positions" in arrays:
            places = arrays["positions"].astype(np.int32)[None]
        close(rotated(encoding, x, places), expected, atol=1e-5)
