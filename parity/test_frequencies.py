"""Compares frequencies and attention factors of ``from_hf`` with transformers, by config."""

import numpy as np
import pytest
import torch
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


@pytest.mark.parametrize("layer_type", ["full_attention", "sliding_attention"])
def test_gemma3(layer_type):
    config = transformers.Gemma3TextConfig(
        rope_scaling={"rope_type": "linear", "factor": 8.0}, head_dim=64
    )
    embedding = transformers.models.gemma3.modeling_gemma3.Gemma3RotaryEmbedding(config)
    encoding = posenc_jax.from_hf(config.to_dict(), layer_type=layer_type)
    inv_freq = getattr(embedding, f"{layer_type}_inv_freq").numpy()
    assert_frequencies(encoding, inv_freq)


@pytest.mark.parametrize(
    ("model", "config", "embedding", "sections"),
    [
        ("qwen2_vl", "Qwen2VLTextConfig", "Qwen2VLRotaryEmbedding", [2, 3, 3]),
        ("qwen3_vl", "Qwen3VLTextConfig", "Qwen3VLTextRotaryEmbedding", [4, 2, 2]),
        (
            "ernie4_5_vl_moe",
            "Ernie4_5_VLMoeTextConfig",
            "Ernie4_5_VLMoeTextRotaryEmbedding",
            [3, 3, 2],
        ),
    ],
)
def test_axes_of_models_whose_config_does_not_say(model, config, embedding, sections):
    """The models' code says which axis rotates which pair; positions have three axes."""
    modules = getattr(transformers.models, model)
    config = getattr(modules, config)(
        hidden_size=64,
        num_attention_heads=4,
        rope_parameters={"rope_type": "default", "rope_theta": 50.0, "mrope_section": sections},
        **({"head_dim": 16} if model == "qwen3_vl" else {}),
    )
    embedding = getattr(getattr(modules, f"modeling_{model}"), embedding)(config)
    positions = np.random.default_rng(0).integers(0, 50, (3, 2, 9))
    tables = embedding(torch.zeros(1), torch.as_tensor(positions))
    encoding = posenc_jax.from_hf(config.to_dict())
    pairs = slice(None, None, 2) if encoding.layout == "interleaved" else slice(8)
    ours_of = np.moveaxis(positions, 0, -1)
    for ours, theirs in zip(encoding.tokens(ours_of, length=50).made, tables, strict=True):
        np.testing.assert_allclose(ours[:, :, 0], theirs.numpy()[..., pairs], atol=1e-5)
