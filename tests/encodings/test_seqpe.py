"""Tests SeqPE's range, what training draws, and its objectives; ``schemes`` has its equation."""

import functools

import common
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import toy
from ml_collections import FrozenConfigDict

from experiments.training.step import train_step
from experiments.training.text import Text
from posenc_jax.encodings.absolute import seqpe_encoder, seqpe_losses

KEY = jax.random.key(0)
SMALL = dict(encoder_layers=1, num_pivots=8, num_candidates=8, num_offsets=8)


def test_positions_outside_the_digits():
    encoding = common.build("seqpe", max_position=500, num_axes=2)
    positions = jnp.array([[-1.0, 0.0, 999.0, 1000.0, 2.5]])
    positions = jnp.stack([jnp.full((1, 5), 7.0), positions], axis=-1)
    pe_q, _ = jax.jit(lambda e, p: e.at(p, length=1).tokens.made)(encoding, positions)
    isnan = np.isnan(pe_q[0]).reshape(5, -1)
    assert isnan[[0, 3, 4]].all() and not isnan[[1, 2]].any()
    for bad in (-1, 1000, 0.5):
        two_axes = jnp.array([[[0, 0], [0, bad]]])
        common.refuses(f"position {bad}", lambda p=two_axes: encoding.at(p, length=1))


def test_long_rows_are_encoded_in_pieces(monkeypatch):
    """Pieces have five positions each, and the last is not full."""
    encoder = common.build("seqpe").encoder
    positions = np.random.default_rng(0).integers(0, 20_000, (2, 12))

    def results():
        def loss(encoder):
            pe_BTE = encoder(positions)
            return (pe_BTE**2).mean(), pe_BTE

        return jax.jit(jax.value_and_grad(loss, has_aux=True))(encoder)

    whole = results()
    monkeypatch.setattr(seqpe_encoder, "PIECE", 5)
    common.close_trees(results(), whole)


# What training draws


def test_shifts_move_rows_and_axes_as_a_whole_and_stay_in_range():
    encoding = common.build("seqpe", max_position=100, num_axes=2, shift_probability=1.0)
    rows = jnp.stack([jnp.arange(20), jnp.full(20, 99)])
    positions = jnp.stack([rows, rows[:, ::-1]], axis=-1)
    keys = jax.random.split(KEY, 40)
    starts = jax.jit(jax.vmap(lambda key: encoding.shifted(positions, key) - positions))(keys)
    assert (starts == starts[:, :, :1]).all()
    assert (starts[:, 1] == 0).all(), "there is no room behind 99"
    assert (starts[:, 0, 0, 0] != starts[:, 0, 0, 1]).any(), "axes move by themselves"
    assert starts.min() >= 0 and 60 < starts.max() <= 80


def test_a_tenth_of_the_steps_is_shifted():
    encoding, keys = common.build("seqpe"), jax.random.split(KEY, 2000)
    shifted = jax.jit(jax.vmap(lambda key: encoding.shifted(jnp.zeros((1, 1), int), key)))(keys)
    assert abs(np.mean(shifted > 0) - 0.1) < 0.03


def test_candidates_are_other_positions_in_range():
    draw = jax.jit(seqpe_losses.draw_candidates, static_argnums=(2, 3))
    pivots = jax.random.randint(KEY, (2, 50), 0, 40)
    candidates = draw(KEY, pivots, 32, 40)
    assert candidates.shape == (2, 50, 32)
    assert candidates.min() == 0 and candidates.max() == 39
    assert seqpe_losses.squared_distances(pivots, candidates).min() >= 1


def neighbours(number: str) -> set[str]:
    """Returns every number one edit away, found by a loop over strings."""
    outcome, ten = set(), [str(d) for d in range(10)]
    for i in range(len(number) + 1):
        outcome |= {number[:i] + d + number[i:] for d in ten}
    for i in range(len(number)):
        outcome |= {number[:i] + d + number[i + 1 :] for d in ten}
        outcome.add(number[:i] + number[i + 1 :])
        for j in range(i):
            swapped = list(number)
            swapped[i], swapped[j] = swapped[j], swapped[i]
            outcome.add("".join(swapped))
    return {str(int(item or "0")) for item in outcome if int(item or "0") < 5000}


def test_edits_are_one_to_three_edits_of_the_digits():
    draw = jax.jit(seqpe_losses.draw_edits, static_argnums=(2, 3))
    outcome = {str(n) for n in np.unique(draw(KEY, jnp.array([[385]]), 4000, 5000))}
    once = neighbours("385")
    assert len(once & outcome) > 0.9 * len(once), "every kind of edit happens"
    assert not outcome <= once | {"385"}
    thrice = functools.reduce(lambda seen, _: seen.union(*map(neighbours, seen)), range(3), {"385"})
    assert outcome <= thrice


@pytest.mark.parametrize("num_axes", [1, 2])
def test_a_window_is_narrow_and_its_places_differ(num_axes):
    draw = jax.jit(seqpe_losses.draw_window, static_argnums=(2, 3))
    window = np.asarray(draw(KEY, jnp.zeros((num_axes, 20), jnp.int32), 32, 1000))
    side = 256 if num_axes == 1 else 16
    assert (np.ptp(window, axis=-1) < side).all() and np.ptp(window) > 500
    for cells in window.swapaxes(0, 1):
        assert len(np.unique(cells, axis=1).T) == 32


def test_teacher_is_the_training_block_and_student_lies_outside(monkeypatch):
    sizes = dict(num_axes=2, train_length=100, max_position=50, num_pivots=200)
    encoding, seen = common.build("seqpe", contrastive_weight=0.0, **sizes), []

    def encode(self, positions):
        seen.append(np.asarray(positions))
        return jnp.zeros((*positions.shape[:-1], common.WIDTH))

    monkeypatch.setattr(type(encoding.encoder), "__call__", encode)
    encoding.aux_loss(KEY)
    teacher, student = seen
    assert teacher.min() == 0 and teacher.max() == 9, "a square of 100 cells"
    cells = np.sort(10 * teacher[..., 0] + teacher[..., 1])
    assert (np.diff(cells) > 0).all(), "no cell comes twice"
    start = student - teacher
    assert (start == start[:, :1]).all()
    assert (start.max(axis=-1) >= 10).all() and start.min() == 0 and student.max() == 49


# Training


@pytest.mark.slow
def test_objectives_have_gradients_and_fall():
    """Positions are fresh in every step."""
    encoding = common.build("seqpe", max_position=1000, trained=False, **SMALL)
    optimizer = optax.adam(3e-3)

    @jax.jit
    def step(encoding, state, key):
        loss, gradient = jax.value_and_grad(lambda e: e.aux_loss(key))(encoding)
        updates, state = optimizer.update(gradient, state)
        return optax.apply_updates(encoding, updates), state, loss, gradient

    state, losses = optimizer.init(encoding), []
    for key in jax.random.split(jax.random.key(3), 150):
        encoding, state, loss, gradient = step(encoding, state, key)
        losses.append(loss)
    for path, g in common.parameter_paths(gradient):
        assert np.isfinite(g).all(), path
        assert ("pe_qk" in path) == (np.abs(g).max() == 0), path
    chance = 0.1 * np.log(8)
    assert np.mean(losses[-20:]) < 0.8 * min(chance, np.mean(losses[:5]))


@pytest.mark.slow
def test_the_trainer_adds_the_objectives_and_reports_the_loss_without_them():
    tokens, numbers = jax.random.randint(jax.random.key(1), (8, toy.RECIPE.length + 1), 0, 16), []
    for weight in (0.0, 100.0):
        weights = dict(contrastive_weight=weight, transfer_weight=weight, shift_probability=0.0)
        encoding = {"name": "seqpe", "max_position": 100, **SMALL, **weights}
        spec = FrozenConfigDict({"encoding": encoding, "model": toy.SPEC.model})
        loss = Text(toy.RECIPE, None, spec).loss
        step = jax.jit(functools.partial(train_step, loss=loss, recipe=toy.RECIPE))
        state = common.text_state(KEY, spec, toy.RECIPE)
        numbers.append(step(state, tokens, jax.random.key(2))[1])
    without, with_them = numbers
    assert without["loss"] == with_them["loss"]
    assert with_them["gradient_norm"] > 2 * without["gradient_norm"]
