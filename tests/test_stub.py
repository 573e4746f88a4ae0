"""Tests that the types of ``make`` are those of the registry."""

import pytest

import posenc_jax
from docs.site import stub


def test_the_stub_is_that_of_the_registry():
    assert stub.PATH.read_text() == stub.stub(), "run python -m docs.site.stub"


@pytest.mark.parametrize(
    ("word", "meant"),
    [("rope_theta", "base"), ("theta", "base"), ("max_position_embeddings", "train_length")]
    + [("dim", "head_dim")],
)
def test_words_of_other_projects_are_answered(word, meant):
    with pytest.raises(TypeError, match=f"did you mean '{meant}'"):
        posenc_jax.make("yarn", head_dim=8, train_length=16, **{word: 8})
