"""Compares the rotary family with other people's code."""

import common
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from golden_checks import (
    assert_frequencies,
    by_token,
    close,
    close_tables,
    cos_and_sin,
    empty,
    layer,
    load,
    rotated,
)

import posenc_jax
from posenc_jax.positions import text


def of_rope(params, scheme="rope", **given):
    """Makes a scheme with the width and the base of a golden file."""
    width = params.get("head_dim", params.get("dim"))
    section = params.get("rope_parameters", params)
    base = section.get("rope_theta", params.get("base", params.get("theta", 1e4)))
    return posenc_jax.make(scheme, head_dim=width, base=base, **given)


@pytest.mark.parametrize("name", ["rope_default_d64_b10000", "rope_default_d128_b500000"])
@pytest.mark.parametrize("options", [{}, common.USUAL_FLAGS], ids=["quick", "hard"])
def test_rope_angles_to_two_million(name, options):
    """The compiler may try hard: the method lives on sums that it must not rearrange."""
    arrays, params = common.golden(name)
    encoding = of_rope(params)
    positions = jnp.asarray(arrays["positions"], jnp.int32)[None]
    prepare = jax.jit(lambda p, n: encoding.at(p, length=n).tokens.made, compiler_options=options)
    for dtype in (jnp.int32, jnp.float32):
        cos, sin = prepare(positions.astype(dtype), 1)
        close(cos[0, :, 0], arrays["cos_f64_independent"], rtol=0, atol=1e-6)
        close(sin[0, :, 0], arrays["sin_f64_independent"], rtol=0, atol=1e-6)


# Frequencies


FREQUENCIES = {
    "rope_default_d64_b10000": ("rope", {}),
    "rope_default_d128_b500000": ("rope", {}),
    "ntk_static_d128_a8": ("ntk", dict(factor=8.0)),
    "yarn_repo_d64_s8_L256": ("yarn", dict(train_length=256, factor=8.0)),
    "yarn_repo_d128_s16_L4096": ("yarn", dict(train_length=4096, factor=16.0)),
}


@pytest.mark.parametrize("golden", FREQUENCIES)
def test_frequencies(golden):
    """The frequencies of configs are compared in ``hf/test_hf_configs.py``."""
    arrays, params = common.golden(golden)
    scheme, keywords = FREQUENCIES[golden]
    encoding = of_rope(params, scheme, **keywords)
    expected = arrays["inv_freq"] if "inv_freq" in arrays else arrays["inv_freq_f32"]
    assert_frequencies(encoding, expected, float(arrays.get("mscale", 1.0)))
    if "cos" in arrays:
        close_tables(cos_and_sin(encoding, np.arange(64), 64), arrays, atol=1e-5)


NUMBERED = {"yarn_qwen3": ("yarn", 6), "p_rope": ("p_rope", 3), "hope_highfreq": ("hope", 8)}
NUMBERED |= {"mrrope_uni": ("mrrope_uni", 2), "mrrope_pro": ("mrrope_pro", 2)}
OTHER_NAMES = {"D": "head_dim", "orig": "train_length", "p": "fraction"}


@pytest.mark.parametrize(
    ("golden", "case"), [(golden, i) for golden in NUMBERED for i in range(NUMBERED[golden][1])]
)
def test_numbered_frequencies(golden, case):
    arrays, every = common.golden(golden)
    if golden == "hope_highfreq":
        channels, base, train_length = arrays["combos_D_base_L"][case].tolist()
        keywords = dict(head_dim=int(channels), base=base, train_length=int(train_length))
    else:
        keywords = {OTHER_NAMES.get(key, key): value for key, value in every[case].items()}
    encoding = posenc_jax.make(NUMBERED[golden][0], **keywords)
    factor = float(arrays.get(f"attention_factor_{case}", 1.0))
    assert_frequencies(encoding, arrays[f"inv_freq_{case}"], factor)
    if golden == "hope_highfreq":
        _, sin = cos_and_sin(encoding, np.array([1]), 1)
        assert np.count_nonzero(sin) == arrays["kept_pairs"][case]


# What transformers 5.24 computes where a ramp has no width, pairs below the step divided.
KIMI_K2 = [1.0, 0.25860014, 0.06687403, 0.017293633, 0.0044721360, 3.6140467e-5]
KIMI_K2 += [9.3459302e-6, 2.4168587e-6]
LLAMA_4_SCOUT = [1.0, 0.19392275, 0.037606030, 0.0072926650, 0.0014142134, 1.7140511e-5]
LLAMA_4_SCOUT += [3.3239348e-6, 6.4458657e-7]
STEP = dict(base=5e4, factor=32.0, train_length=4096, beta_fast=1.0)
SCOUT = dict(base=5e5, factor=16.0, train_length=8192, high_freq_factor=1.0)


@pytest.mark.parametrize(
    ("name", "inv_freq", "keywords"),
    [("yarn", KIMI_K2, STEP), ("yarn", KIMI_K2, STEP | {"truncate": False})]
    + [("llama3", LLAMA_4_SCOUT, SCOUT)],
)
def test_a_ramp_without_width_is_a_step(name, inv_freq, keywords):
    encoding = posenc_jax.make(name, head_dim=16, **keywords)
    attention_factor = 0.1 * np.log(32) + 1 if name == "yarn" else 1.0
    assert_frequencies(encoding, np.array(inv_freq), attention_factor)


@pytest.mark.parametrize(
    ("key", "keywords"),
    [
        ("inv_freq_soft", {}),
        ("inv_freq_hard", {"taper": "hard"}),
        ("inv_freq_none", {"clipped_pairs": 1}),
    ],
)
def test_clipped_rope(key, keywords):
    arrays, params = common.golden("cope_clipped")
    assert_frequencies(of_rope(params, "clipped_rope", **keywords), arrays[key])


# Tables at the last position of each length

AT_THE_END = {
    "dynamic_pi_d64": ("dynamic_pi", dict(train_length=128)),
    "dynamic_ntk_repo_d64_a1": ("dynamic_ntk", dict(train_length=128, factor=1.0)),
    "yarn_repo_dynamic_d64": ("dynamic_yarn", dict(train_length=128)),
}


@pytest.mark.parametrize("golden", AT_THE_END)
def test_lengths_that_grow(golden):
    arrays, params = common.golden(golden)
    scheme, keywords = AT_THE_END[golden]
    encoding, pairs = of_rope(params, scheme, **keywords), params["dim"] // 2
    factors = arrays.get("mscale", np.ones(1 + len(params["lens"])))[1:]
    for length, factor in zip(params["lens"], factors, strict=True):
        # The other code of dynamic PI divides positions instead.
        if scheme != "dynamic_pi":
            assert_frequencies(encoding, arrays[f"inv_freq_len{length}"], factor, length)
        tables = cos_and_sin(encoding, np.array([length - 1]), length)
        for kind, table in zip(("cos", "sin"), tables, strict=True):
            if (key := f"{kind}_last_len{length}") in arrays:
                close(table[0], arrays[key][:pairs], atol=1e-4)


def test_yarn_tables():
    arrays, params = common.golden("rope_yarn_tables_d32_s4")
    encoding = posenc_jax.make("yarn", head_dim=params["head_dim"], train_length=512, factor=4.0)
    tables = cos_and_sin(encoding, arrays["positions"].astype(np.int32), 1)
    close_tables(tables, arrays, rows=arrays["positions"] < 4096, rtol=0, atol=3e-4)


def test_longrope_switches_for_all_positions():
    """The length is found from the positions."""
    arrays, params = common.golden("longrope_phi3_switch_d32")
    section, train_length = params["rope_parameters"], params["original"]
    factors = {key: section[key] for key in ("long_factor", "short_factor")}
    factors |= dict(factor=params["max_position"] / train_length, train_length=train_length)
    encoding = of_rope(params, "longrope", **factors)
    for length in (32, 64, 65, 128):
        positions = arrays[f"idx_T{length}"].astype(np.int32)
        assert positions.max() == length - 1
        tables = (table[0, :, 0] for table in encoding.at(positions[None]).tokens.made)
        close_tables(tables, arrays, f"{{}}_T{length}", atol=3e-5)


@pytest.mark.parametrize("start_tokens", [0, 4])
def test_longrope_of_its_repository(start_tokens):
    arrays, params = common.golden("longrope_repo_d64_s8_su")
    train_length, target = params["original"], params["max_position"]
    settings = dict(train_length=train_length, factor=target / train_length)
    settings |= dict(long_factor=arrays["rescale_factors"], start_tokens=start_tokens)
    encoding = of_rope(params, "longrope", **settings)
    close(encoding.attention_factor, arrays["mscale"], rtol=1e-9)
    kind = "mixed_" if start_tokens else ""
    tables = cos_and_sin(encoding, arrays[f"{kind}positions"].astype(np.int32), target)
    # The arrays' own float32 products grow with the position.
    close_tables(tables, arrays, f"{kind}{{}}", rtol=0, atol=4e-4)


@pytest.mark.parametrize("case", [0, 1])
def test_longrope2(case):
    arrays, every = common.golden("longrope2")
    params = every[case]
    train_length, target = params["original"], params["target"]
    settings = dict(train_length=train_length, factor=target / train_length)
    tail = dict(critical_pair=params["critical_pair"], tail_factors=arrays[f"tail_factors_{case}"])
    encoding = of_rope(params, "longrope2", **tail, **settings)
    close(encoding.long_factor, arrays[f"rescale_factors_{case}"])
    assert_frequencies(
        encoding, arrays[f"inv_freq_{case}"], float(arrays[f"mscale_{case}"]), target
    )

    # Farther, the arrays' own float32 products are off by more.
    positions = arrays[f"positions_{case}"].astype(np.int32)
    near, tables = positions < 10_000, cos_and_sin(encoding, positions, target)
    assert near.sum() > 3
    close_tables(tables, arrays, f"{{}}_{case}", rows=near, rtol=0, atol=1e-3)

    # The first pair that does not make a turn within training; the repository counts one less.
    default = of_rope(params, "longrope2", **settings)
    full = np.flatnonzero(np.array(default.long_factor) == settings["factor"])
    assert full[0] == params["theoretical_critical_pair_repo_formula"] + 1


# Rotations: scheme and keywords

INTERLEAVED = dict(layout="interleaved")
ROTATED = {
    "rope_apply_half_d64": ("rope", {}),
    "rope_apply_interleaved_gptj_d64_r64": ("rope", INTERLEAVED),
    "rope_apply_complex_llama4_d32": ("rope", INTERLEAVED),
    "rope_apply_partial_neox_pct25": ("rope", dict(rotary_dim=16)),
    "rope_ret_plain_d32": ("rope", INTERLEAVED),
    "rope_ret_pi4_d32": ("pi", INTERLEAVED | dict(factor=4.0)),
    "rope_ret_ntk8_d64": ("ntk", INTERLEAVED | dict(factor=8.0)),
    "rope_logits_yarn_d32_s8": ("yarn", dict(train_length=256, factor=8.0)),
}


@pytest.mark.parametrize("golden", ROTATED)
def test_rotations(golden):
    """YaRN's logits carry its temperature squared."""
    arrays, params = common.golden(golden)
    scheme, keywords = ROTATED[golden]
    encoding = of_rope(params, scheme, **keywords)
    heads_second = "interleaved_gptj" not in golden and "llama4" not in golden
    after = {}
    for key in {"q", "k"} & set(arrays):
        x, expected = arrays[key], arrays[f"{key}_rot"]
        if heads_second:
            x, expected = by_token(x), by_token(expected)
        places = text(x.shape[1])
        if "positions" in arrays:
            places = arrays["positions"].astype(np.int32)[None]
        after[key] = rotated(encoding, x, places)
        close(after[key], expected, atol=1e-5)
    scales = {"logits_unscaled": 1.0, "logits_scaled": params.get("head_dim", 1) ** -0.5}
    for key in scales.keys() & arrays.keys():
        logits = scales[key] * jnp.einsum("bthc,bshc->bhts", after["q"], after["k"])
        close(logits, arrays[key], rtol=1e-4, atol=1e-5)


# Near relatives


def by_head(x):
    """Returns ``[B, T, H, C]`` of an array that has heads second, or none."""
    return np.float32(x[:, :, None] if x.ndim == 3 else by_token(x))


def relative(golden, encoding, factors=(1.0, 1.0), names=("q_rot", "k_rot"), atol=1e-4):
    """Compares rotated queries and keys, which the code multiplies by factors, and products."""
    arrays, _ = common.golden(golden)
    q, k = (jnp.asarray(by_head(arrays[key])) for key in "qk")
    results = layer(encoding, q, k, k, scale=1.0)
    for key, name, factor in zip(("q_rot", "k_rot"), names, factors, strict=True):
        close(results[key], by_head(arrays[name]) * factor, rtol=1e-4, atol=1e-5)
    expected = arrays["logits_unscaled"]
    close(results["logits"].reshape(expected.shape), expected, rtol=1e-4, atol=atol)


@pytest.mark.parametrize("name", ["xpos_torchscale_d32_T20", "xpos_xt_d32_T16", "xpos_ret_d16_T12"])
def test_xpos(name):
    """Three codes agree; they move both sides' exponents by half the length, for the range."""
    arrays, params = common.golden(name)
    C, T, scale_base = params["head_dim"], params["T"], params["scale_base"]
    zeta = (np.arange(0, C, 2) + 0.4 * C) / (1.4 * C)
    if "zeta" in arrays:
        close(zeta, arrays["zeta"])
    moved = np.repeat(zeta ** (T // 2 / scale_base), 2)
    encoding = posenc_jax.make("xpos", head_dim=C, scale_base=scale_base)
    relative(name, encoding, factors=(moved, 1 / moved), atol=2e-5)


def test_fope():
    arrays, params = common.golden("fope_h2_d32_L64")
    sizes = dict(num_heads=params["heads"], train_length=params["train_length"])
    encoding = of_rope(params, "fope", padding="ones", rngs=nnx.Rngs(0), **sizes)
    cos, _ = encoding.at(jnp.ones((1, 1), jnp.int32), length=1).tokens.made
    close(np.arccos(cos[0, 0]), arrays["inv_freq_kept"])
    load(encoding, {key: arrays[key] for key in ("cos_coef", "sin_coef")})
    relative("fope_h2_d32_L64", encoding)


def test_fope_matrices_are_drawn_as_released():
    """Matrices lie near the identity, or every n-th row of it if frequencies outnumber pairs."""
    arrays, params = common.golden("fope_h2_d32_L64")

    def draw(**given):
        encoding = posenc_jax.make("fope", num_heads=2, rngs=nnx.Rngs(0), **given)
        assert isinstance(encoding.cos_coef, nnx.Param) == given.get("learned", False)
        return np.asarray([encoding.cos_coef[...], encoding.sin_coef[...]])

    theirs = np.asarray([arrays["cos_coef"], arrays["sin_coef"]])
    few = draw(head_dim=params["head_dim"], train_length=params["train_length"])
    many = draw(head_dim=64, train_length=100_000, gain=1.0, learned=True)
    identity = np.zeros((32, 16))  # 32 of 32 pairs kept, 16 may turn
    identity[np.arange(0, 32, 2), np.arange(16)] = 1
    draws = ((theirs, params["gain"], np.eye(5)), (few, 0.3, np.eye(5)), (many, 1.0, identity))
    for drawn, gain, near in draws:
        rows, columns = near.shape
        noise = drawn - near
        close(noise.std(), gain * np.sqrt(2 / (columns * (rows + 2))), rtol=0.15)
        close(noise.mean(), 0, atol=0.02)


def test_pope():
    arrays, params = common.golden("pope_h2_T8_d8")
    encoding = empty("pope", num_heads=params["heads"], head_dim=params["head_dim"])
    load(encoding, {"phase": arrays["learned_bias"][:, 0]})
    relative("pope_h2_T8_d8", encoding, names=("q_polar", "k_polar"))
    drawn = common.build("pope", trained=False).phase[...]
    assert (drawn <= 0).all() and np.ptp(drawn) > 5
