"""Compares frequencies and attention factors of ``from_hf`` with transformers, by config."""

import numpy as np
import pytest
import transformers
from golden_checks import assert_frequencies
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

import posenc_jax

LENGTH = 4096
ORIGINAL = dict(original_max_position_embeddings=512)
LISTS = dict(
    short_factor=np.linspace(1.0, 1.3, 32).tolist(), long_factor=np.linspace(1.1, 9, 32).tolist()
)
SECTIONS = [
    dict(rope_type="linear", factor=4.0),
    dict(rope_type="dynamic", factor=1.0),
    dict(rope_type="dynamic", factor=3.0),
    dict(rope_type="yarn", factor=8.0, **ORIGINAL),
    dict(rope_type="yarn", factor=8.0, truncate=False, beta_fast=16.0, beta_slow=2.0, **ORIGINAL),
    dict(rope_type="yarn", factor=8.0, attention_factor=1.0, **ORIGINAL),
    dict(rope_type="yarn", factor=8.0, beta_fast=1.0, beta_slow=1.0, **ORIGINAL),
    dict(rope_type="yarn", factor=40.0, mscale=1.0, mscale_all_dim=0.707, **ORIGINAL),
    dict(rope_type="yarn", factor=8.0, partial_rotary_factor=0.5, **ORIGINAL),
    dict(rope_type="longrope", factor=8.0, **LISTS, **ORIGINAL),
    dict(rope_type="longrope", **LISTS, **ORIGINAL),
    dict(rope_type="longrope", attention_factor=1.5, **LISTS, **ORIGINAL),
    dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, **ORIGINAL),
    dict(rope_type="llama3", factor=32.0, low_freq_factor=2.0, high_freq_factor=9.0, **ORIGINAL),
    dict(rope_type="llama3", factor=16.0, low_freq_factor=1.0, high_freq_factor=1.0, **ORIGINAL),
    dict(rope_type="proportional", partial_rotary_factor=0.25),
    dict(rope_type="proportional", partial_rotary_factor=0.7, factor=2.0),
]


@pytest.mark.parametrize("base", [10000.0, 500000.0])
@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section["rope_type"])
def test_frequencies(section, base):
    config = transformers.LlamaConfig(
        hidden_size=256,
        num_attention_heads=4,
        max_position_embeddings=LENGTH,
        rope_parameters=section | {"rope_theta": base},
    )
    compute = ROPE_INIT_FUNCTIONS[section["rope_type"]]
    # Of no model: the code of Llama rotates whole heads, whatever the frequencies are.
    encoding = posenc_jax.from_hf(config.to_dict(), model_type=None)
    for length in (100, 512, 513, LENGTH, LENGTH + 1, 4 * LENGTH):
        inv_freq, attention_factor = compute(config, "cpu", seq_len=length)
        assert_frequencies(encoding, inv_freq.numpy(), attention_factor, length=length)
