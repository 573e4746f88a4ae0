"""Compares rotary frequencies for longer sequences with other people's code."""

import common
import numpy as np
import pytest
from golden_checks import assert_frequencies, close, turn

import posenc_jax

# What transformers 5.24 computes where a ramp has no width, pairs below the step divided.
KIMI_K2 = [1.0, 0.25860014, 0.06687403, 0.017293633, 0.0044721360, 3.6140467e-5]
KIMI_K2 += [9.3459302e-6, 2.4168587e-6]
LLAMA_4_SCOUT = [1.0, 0.19392275, 0.037606030, 0.0072926650, 0.0014142134, 1.7140511e-5]
LLAMA_4_SCOUT += [3.3239348e-6, 6.4458657e-7]


@pytest.mark.parametrize(
    ("name", "inv_freq", "given"),
    [
        ("yarn", KIMI_K2, dict(base=5e4, factor=32.0, train_length=4096, beta_fast=1.0)),
        (
            "yarn",
            KIMI_K2,
            dict(base=5e4, factor=32.0, train_length=4096, beta_fast=1.0, truncate=False),
        ),
        (
            "llama3",
            LLAMA_4_SCOUT,
            dict(base=5e5, factor=16.0, train_length=8192, high_freq_factor=1.0),
        ),
    ],
)
def test_a_ramp_without_width_is_a_step(name, inv_freq, given):
    encoding = posenc_jax.make(name, head_dim=16, **given)
    attention_factor = 0.1 * np.log(32) + 1 if name == "yarn" else 1.0
    assert_frequencies(encoding, np.array(inv_freq), attention_factor)


def test_dynamic_pi():
    """The other code divides the positions, and leaves the frequencies as they are."""
    arrays, params = common.golden("dynamic_pi_d64")
    pairs = params["dim"] // 2
    encoding = posenc_jax.make(
        "dynamic_pi", head_dim=params["dim"], train_length=params["max_position"]
    )
    for length in params["lens"]:
        cos, sin = turn(encoding, np.array([length - 1]), length=length)
        close(cos[0], arrays[f"cos_last_len{length}"][:pairs], atol=1e-4)
        close(sin[0], arrays[f"sin_last_len{length}"][:pairs], atol=1e-4)


def test_dynamic_yarn():
    """The lengths grow, so that it does not matter that the released code remembers them."""
    arrays, params = common.golden("yarn_repo_dynamic_d64")
    encoding = posenc_jax.make(
        "dynamic_yarn", head_dim=params["dim"], train_length=params["original"]
    )
    for length, temperature in zip(params["lens"], arrays["mscale"][1:], strict=True):
        assert_frequencies(encoding, arrays[f"inv_freq_len{length}"], temperature, length)
        cos, _ = turn(encoding, np.array([length - 1]), length)
        close(cos[0], arrays[f"cos_last_len{length}"][: params["dim"] // 2], atol=1e-4)


@pytest.mark.parametrize("name", ["rope_longrope_d64_factor8", "rope_longrope_d96_phi3like"])
def test_longrope_of_hugging_face(name):
    arrays, params = common.golden(name)
    rope = params["rope_parameters"]
    train_length = rope["original_max_position_embeddings"]
    encoding = posenc_jax.make(
        "longrope",
        head_dim=params["head_dim"],
        base=rope["rope_theta"],
        train_length=train_length,
        factor=rope.get("factor", params["max_position_embeddings"] / train_length),
        long_factor=rope["long_factor"],
        short_factor=rope["short_factor"],
    )
    for length, factor in zip(params["seq_lens"], arrays["attention_factor"], strict=True):
        key = "inv_freq" if length is None else f"inv_freq_seq{length}"
        assert_frequencies(encoding, arrays[key], factor, length or 1)


def test_longrope_switches_for_all_positions():
    """The length is found from the positions."""
    arrays, params = common.golden("longrope_phi3_switch_d32")
    rope, pairs = params["rope_parameters"], params["head_dim"] // 2
    encoding = posenc_jax.make(
        "longrope",
        head_dim=params["head_dim"],
        base=rope["rope_theta"],
        train_length=params["original"],
        factor=params["max_position"] / params["original"],
        long_factor=rope["long_factor"],
        short_factor=rope["short_factor"],
    )
    for length in (32, 64, 65, 128):
        positions = arrays[f"idx_T{length}"].astype(np.int32)
        assert positions.max() == length - 1
        tokens = encoding.tokens(positions[None])
        for table, kind in zip(tokens.made, ("cos", "sin"), strict=True):
            close(table[0, :, 0], arrays[f"{kind}_T{length}"][:, :pairs], atol=3e-5)


@pytest.mark.parametrize("start_tokens", [0, 4])
def test_longrope_of_its_repository(start_tokens):
    arrays, params = common.golden("longrope_repo_d64_s8_su")
    pairs = params["dim"] // 2
    encoding = posenc_jax.make(
        "longrope",
        head_dim=params["dim"],
        train_length=params["original"],
        factor=params["max_position"] / params["original"],
        long_factor=arrays["rescale_factors"],
        start_tokens=start_tokens,
    )
    close(encoding.attention_factor, arrays["mscale"], rtol=1e-9)
    kind = "mixed_" if start_tokens else ""
    assert start_tokens in (0, params["start_tokens"])
    positions = arrays[f"{kind}positions"].astype(np.int32)
    cos, sin = turn(encoding, positions, length=params["max_position"])
    # The arrays' own float32 products grow with the position.
    close(cos, arrays[f"{kind}cos"][:, :pairs], rtol=0, atol=4e-4)
    close(sin, arrays[f"{kind}sin"][:, :pairs], rtol=0, atol=4e-4)


@pytest.mark.parametrize("case", [0, 1])
def test_longrope2(case):
    arrays, every = common.golden("longrope2")
    params = every[case]
    settings = dict(
        head_dim=params["head_dim"],
        base=params["base"],
        train_length=params["original"],
        factor=params["target"] / params["original"],
    )
    encoding = posenc_jax.make(
        "longrope2",
        critical_pair=params["critical_pair"],
        tail_factors=arrays[f"tail_factors_{case}"],
        **settings,
    )
    close(encoding.long_factor, arrays[f"rescale_factors_{case}"])
    temperature = float(arrays[f"mscale_{case}"])
    inv_freq = arrays[f"inv_freq_{case}"]
    assert_frequencies(encoding, inv_freq, temperature, params["target"])

    positions = arrays[f"positions_{case}"].astype(np.int32)
    cos, sin = turn(encoding, positions, params["target"])
    pairs = params["head_dim"] // 2
    # Farther, the arrays' own float32 products are off by more.
    near = positions < 10_000
    assert near.sum() > 3
    close(cos[near], arrays[f"cos_{case}"][near, :pairs], rtol=0, atol=1e-3)
    close(sin[near], arrays[f"sin_{case}"][near, :pairs], rtol=0, atol=1e-3)

    # Up to the training length it is RoPE.
    plain = posenc_jax.make("rope", head_dim=params["head_dim"], base=params["base"])
    short = turn(encoding, positions, params["original"])
    for one, other in zip(short, turn(plain, positions, 1), strict=True):
        np.testing.assert_array_equal(one, other)

    # The first pair that does not turn once within training; the repository counts one less.
    default = posenc_jax.make("longrope2", **settings)
    full = np.flatnonzero(np.array(default.long_factor) == settings["factor"])
    assert full[0] == params["theoretical_critical_pair_repo_formula"] + 1


@pytest.mark.parametrize(
    ("key", "given"),
    [
        ("inv_freq_soft", {}),
        ("inv_freq_soft", {"clipped_pairs": 20}),
        ("inv_freq_hard", {"taper": "hard"}),
        ("inv_freq_none", {"clipped_pairs": 1}),
    ],
)
def test_clipped_rope(key, given):
    arrays, params = common.golden("cope_clipped")
    encoding = posenc_jax.make(
        "clipped_rope", head_dim=params["head_dim"], base=params["base"], **given
    )
    assert_frequencies(encoding, arrays[key])
    assert params["clip_low_n"] == 20
