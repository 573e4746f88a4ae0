"""Compares the logits of whole models, with new random weights and with the saved ones."""

import numpy as np
import pytest
from hf_models import FORWARD, relative_error

from parity import models


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("name", models.CASES)
def test_logits(name, seed):
    _, config, lengths = models.CASES[name]
    model, ids = models.build(name, seed), models.token_ids(name, seed)
    weights = models.weights_of(model)
    for length in lengths:
        given = models.arguments(name, length)
        actual = FORWARD[config["model_type"]](config, weights, ids[:, :length], **given)
        assert relative_error(actual, models.logits_of(model, ids[:, :length], **given)) < 1e-4


@pytest.mark.parametrize("name", models.CASES)
def test_the_config_that_transformers_writes(name):
    """The config holds every key there is, defaults included, and gives the same logits."""
    config = models.CASES[name][1]
    model, ids = models.build(name, seed=1), models.token_ids(name, seed=1)
    written, given = model.config.to_dict(), models.arguments(name, ids.shape[1])
    actual = FORWARD[config["model_type"]](written, models.weights_of(model), ids, **given)
    assert relative_error(actual, models.logits_of(model, ids, **given)) < 1e-4


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
