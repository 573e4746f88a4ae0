"""Compares the logits of whole models, with new random weights and with the saved ones."""

import numpy as np
import pytest
from hf_models import FORWARD, relative_error

from parity import models


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("name", models.CASES)
def test_logits(name, seed):
    """The config that transformers writes, with every key there is, gives the same logits."""
    _, config, lengths = models.CASES[name]
    model, ids = models.build(name, seed), models.token_ids(name, seed)
    weights, forward = models.weights_of(model), FORWARD[config["model_type"]]
    for length in lengths:
        given = models.arguments(name, length)
        expected = models.logits_of(model, ids[:, :length], **given)
        for one in (config, model.config.to_dict()):
            actual = forward(one, weights, ids[:, :length], **given)
            assert relative_error(actual, expected) < 1e-4


@pytest.mark.parametrize("name", models.CASES)
def test_the_golden_arrays_are_what_transformers_gives(name):
    with np.load(models.GOLDEN / f"{name}.npz") as arrays:
        model = models.build(name, seed=0)
        weights = {key[2:]: arrays[key] for key in arrays if key.startswith("w.")}
        assert weights.keys() == models.weights_of(model).keys()
        for key, value in models.weights_of(model).items():
            np.testing.assert_array_equal(value, weights[key])
        for length in models.CASES[name][2]:
            given = models.arguments(name, length)
            again = models.logits_of(model, arrays["ids"][:, :length], **given)
            assert relative_error(again, arrays[f"logits_T{length}"]) < 1e-5
