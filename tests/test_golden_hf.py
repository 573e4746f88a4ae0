"""Whole models of transformers: their weights around our attention give their logits."""

import common
import numpy as np
import pytest
from hf_models import FORWARD, relative_error

import posenc_jax

MODELS = [
    "hf_llama",
    "hf_llama3",
    "hf_qwen3_yarn",
    "hf_phi3_longrope",
    "hf_gpt_neox",
    "hf_bloom",
    "hf_mpt",
    "hf_t5",
]


def load(name):
    arrays, params = common.golden(name)
    weights = {key[2:]: value for key, value in arrays.items() if key.startswith("w.")}
    return params["config"], weights, arrays, params["lengths"]


@pytest.mark.parametrize("name", MODELS)
def test_logits(name):
    config, weights, arrays, lengths = load(name)
    for length in lengths:
        logits = FORWARD[config["model_type"]](config, weights, arrays["ids"][:, :length])
        assert relative_error(logits, arrays[f"logits_T{length}"]) < 1e-4


@pytest.mark.parametrize("name", MODELS)
def test_the_encoding_shows_in_the_logits(name, monkeypatch):
    """Without it the same weights give something else, so that the test above tests it."""
    config, weights, arrays, lengths = load(name)
    monkeypatch.setattr(posenc_jax, "from_hf", lambda *_, **__: NoPEWithTable())
    for length in lengths:
        logits = FORWARD[config["model_type"]](config, weights, arrays["ids"][:, :length])
        assert relative_error(logits, arrays[f"logits_T{length}"]) > 0.02


class NoPEWithTable(posenc_jax.Encoding):
    """NoPE that T5's table can be loaded into."""

    table = property(lambda self: np.zeros((16, 4)))
