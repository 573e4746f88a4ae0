"""Tests packed rows: what is in them, and that a model reads each document alone."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import FrozenConfigDict

from experiments.training.corpus import Corpus
from experiments.training.mesh import make_mesh
from experiments.training.recipe import Recipe
from experiments.training.text import PackedText, token_losses
from experiments.training.windows import packed_batch, packed_index

LENGTH, SIZES, BATCH = 8, [5, 1, 30, 2, 0, 3, 16], 3
TRAINING = sum(SIZES) - 16  # the last document is for tests


def corpus_of(sizes=SIZES):
    """Makes a corpus whose tokens are their own places in it; the last document is for tests."""
    splits = np.array([0] * (len(sizes) - 1) + [2], np.int8)
    offsets = np.cumsum([0, *sizes])
    tokens = np.arange(offsets[-1]).astype(np.uint16)
    return Corpus("toy", tokens, offsets, splits, int(offsets[-1]), 1.0, "digest")


INDEX = packed_index(corpus_of(), LENGTH)


def drawn(steps, seed=0, index=INDEX):
    """Returns tokens and segments of the batches of some steps, one below the other."""
    batches = [packed_batch(index, BATCH, seed, step) for step in steps]
    return [np.concatenate([batch[name] for batch in batches]) for name in ("tokens", "segments")]


def test_every_token_is_an_input_and_a_target_once_an_epoch():
    epochs = 2 * BATCH  # so that batches end where an epoch does
    tokens, segments = drawn(range(1, 1 + epochs * INDEX.rows // BATCH))
    assert tokens.shape == (epochs * INDEX.rows, LENGTH + 1)
    by_epoch = np.split(np.arange(len(tokens)), epochs)
    for rows in by_epoch:
        inputs = tokens[rows, :-1][segments[rows, :-1] >= 0]
        assert sorted(inputs) == [*range(TRAINING)]
        is_predicted = (segments[rows, 1:] == segments[rows, :-1]) & (segments[rows, 1:] >= 0)
        firsts = {*np.cumsum([0, *SIZES])[:-1]}
        assert sorted(tokens[rows, 1:][is_predicted]) == sorted({*range(TRAINING)} - firsts)
    assert len({tokens[rows].tobytes() for rows in by_epoch}) == epochs, "each has its own order"


def test_segments_are_documents():
    tokens, segments = drawn([1, 2, 3])
    document = np.searchsorted(INDEX.corpus.offsets, tokens, side="right")
    same = (document[:, 1:] == document[:, :-1]) & (segments[:, 1:] >= 0)
    np.testing.assert_array_equal(same, (np.diff(segments) == 0) & (segments[:, 1:] >= 0))
    assert (segments[:, 0] == 0).all() and segments.min() == -1


def test_a_batch_depends_on_seed_and_step_alone_whatever_its_parts():
    later = packed_batch(INDEX, 4, 1, 7)
    orders = {drawn(range(1, 9), seed)[0].tobytes() for seed in range(3)}
    assert len(orders) == 3
    chex.assert_trees_all_equal(later, packed_batch(INDEX, 4, 1, 7))
    for parts in (2, 4):
        of_parts = [packed_batch(INDEX, 4, 1, 7, part, parts) for part in range(parts)]
        chex.assert_trees_all_equal(jax.tree.map(lambda *x: np.concatenate(x), *of_parts), later)


def test_rows_are_the_same_in_every_version():
    """Otherwise no run could be resumed across the change."""
    assert drawn([1, 2], seed=3)[0][:, 0].tolist() == [8, 40, 16, 32, 24, 0]


def packed_task(scheme, restart=True, length=LENGTH, **keywords):
    model = dict(vocab_size=INDEX.corpus.vocab_size, model_dim=16, num_layers=2, num_heads=2)
    spec = FrozenConfigDict({"encoding": {"name": scheme, **keywords}, "model": model})
    recipe = Recipe(length=length, batch_size=BATCH, steps=6, warmup_steps=2, checkpoint_every=2)
    index = dataclasses.replace(INDEX, length=length)
    return PackedText(recipe, index, spec, restart=restart)


@pytest.mark.parametrize(
    ("scheme", "restart"),
    [("learned", False), ("fox", True)],
)
def test_packed_documents_have_the_loss_and_the_gradient_of_separate_ones(scheme, restart):
    task = packed_task(scheme, restart)
    model = jax.tree.map(lambda x: 4 * x, task.init(jax.random.key(0)))  # so that places matter
    batch = packed_batch(INDEX, BATCH, 0, 1)
    segments, count = batch["segments"], 0
    pieces = []
    for row, own in enumerate(segments):
        for segment in np.unique(own[own >= 0]):
            places = np.flatnonzero(own == segment)
            count += len(places) - 1
            if len(places) > 1:
                start = 0 if restart else places[0]
                pieces.append((batch["tokens"][row, places], start))

    def separate(model):
        return sum(
            token_losses(
                model, tokens[None], positions_BT=start + np.arange(len(tokens) - 1)[None]
            ).sum()
            for tokens, start in pieces
        )

    def packed(model):
        return task.loss(model, batch, jax.random.key(0)) * count

    assert count < segments.size - BATCH
    loss, gradient = jax.jit(jax.value_and_grad(packed))(model)
    expected, expected_gradient = jax.jit(jax.value_and_grad(separate))(model)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    chex.assert_trees_all_close(gradient, expected_gradient, rtol=1e-4, atol=1e-5)


def test_the_loss_of_packed_rows_is_the_same_where_their_tokens_are_spread_over_devices():
    task = packed_task("rope")
    model, batch = task.init(jax.random.key(0)), packed_batch(INDEX, BATCH, 0, 1)
    expected = task.loss(model, batch, None)
    with jax.set_mesh(make_mesh(jax.devices()[:2], context=2)):
        actual = jax.jit(task.loss)(model, jax.tree.map(jnp.asarray, batch), None)
    np.testing.assert_allclose(actual, expected, rtol=1e-5)
