"""Tests models of transformers: their logits with our attention, and how each type rotates."""

import functools
import json

import common
import jax
import numpy as np
import pytest
from hf_models import FORWARD, relative_error

import posenc_jax
from posenc_jax.encodings.lib.wrapper import innermost
from posenc_jax.hf.pattern import same

MODELS = [
    "hf_llama",
    "hf_llama3",
    "hf_qwen3_yarn",
    "hf_phi3_longrope",
    "hf_mistral",
    "hf_qwen2",
    "hf_olmo2",
    "hf_smollm3",
    "hf_gpt_neox",
    "hf_bloom",
    "hf_mpt",
    "hf_t5",
    "hf_qwen2_vl",
    "hf_qwen3_vl",
]


def errors(name):
    """Yields the error of our logits, relative to the largest, at each length."""
    arrays, params = common.golden(name)
    config, weights = params["config"], {k[2:]: v for k, v in arrays.items() if k.startswith("w.")}
    forward = jax.jit(functools.partial(FORWARD[config["model_type"]], config, weights))
    for length in params["lengths"]:
        given = {k: v[..., :length] for k, v in arrays.items() if k == "positions"}
        ids, expected = arrays["ids"][:, :length], arrays[f"logits_T{length}"]
        yield relative_error(forward(ids, **given), expected)
        for axis in range(len(given.get("positions", ()))):
            still = given["positions"].copy()
            still[axis] = 0
            assert relative_error(forward(ids, positions=still), expected) > 0.02, "no axis shows"


@pytest.mark.parametrize("name", MODELS)
def test_logits(name):
    assert max(errors(name)) < 1e-4


TYPES = json.loads((common.GOLDEN / "hf_model_types.json").read_text())
# Of the others the rotary parts alone were run.
WHOLE = [name for name, about in TYPES["models"].items() if "windows" in about]


@pytest.mark.parametrize("model_type", TYPES["models"])
def test_model_types(model_type):
    """Each layer rotates the same channels as in transformers, and by the same angles."""
    config = TYPES["models"][model_type]["config"]
    for number, expected in TYPES["models"][model_type]["layers"]:
        encoding = innermost(posenc_jax.from_hf(config, layer=number))
        if expected is None:
            assert not encoding.overrides("rotate")
            continue
        *channels, table = expected
        assert channels == [encoding.layout, encoding.head_dim, encoding.rotary_dim]
        np.testing.assert_allclose(rotation_at_7(encoding), TYPES["tables"][table], atol=1e-5)


# The golden configs of these types have another head_dim than the type has by default.
OTHER_WIDTHS = [
    "dots3_note_text",
    "hunyuan_v1_dense",
    "hunyuan_v1_moe",
    "ministral",
    "qwen3_omni_moe_text",
    "qwen4_exp_text",
]


def test_head_dim_of_model_types_by_default():
    """A config without head_dim gets the width that transformers has written for its type."""
    models = {n: m for n, m in TYPES["models"].items() if n not in OTHER_WIDTHS}
    for model_type, about in models.items():
        config, (number, rotates), *_ = about["config"], *about["layers"]
        if "head_dim" not in config or rotates is None:
            continue
        bare = {key: value for key, value in config.items() if key != "head_dim"}
        encoding = innermost(posenc_jax.from_hf(bare, layer=number))
        assert encoding.head_dim == rotates[1], model_type


@pytest.mark.parametrize("model_type", WHOLE)
def test_patterns_of_model_types(model_type):
    """The same layers attend as in transformers, to the same keys, each under its own encoding."""
    config, windows = (TYPES["models"][model_type][key] for key in ("config", "windows"))
    if windows is None:
        common.refuses("not known|layer_types", lambda: posenc_jax.layers_from_hf(config))
        return
    pattern, shown = posenc_jax.layers_from_hf(config), dict(windows)
    for number, (encoding, window) in enumerate(pattern):
        if number not in shown:
            assert (encoding, window) == (None, None)
            continue
        assert same(encoding, posenc_jax.from_hf(config, layer=number))
        if isinstance(shown[number], list):
            kind = posenc_jax.Chunks if len(shown[number]) == 1 else lambda *sides: sides
            shown[number] = kind(*shown[number])
        assert window == shown[number]


def rotation_at_7(encoding):
    """Returns cosine and sine at position 7 of text, or at 7, 3 and 2 of three axes."""
    inv_freq, factor = encoding.frequencies(encoding.rotary_dim, encoding.base, 64)
    axes = encoding.axes or (0,) * len(inv_freq)
    angles = np.array([7, 3, 2])[list(axes)] * np.asarray(inv_freq, np.float64)
    return factor * np.cos(angles), factor * np.sin(angles)
