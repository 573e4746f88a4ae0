"""Compares SeqPE with its equation, and tests its range, what training draws, and training."""

import functools

import common
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from ml_collections import FrozenConfigDict

from experiments.training.recipe import Recipe
from experiments.training.step import train_step
from experiments.training.text import Text
from posenc_jax.encodings.absolute import seqpe_encoder, seqpe_losses
from posenc_jax.positions import text

KEYS = jax.random.split(jax.random.key(0), 40)
candidates_of = jax.jit(seqpe_losses.draw_candidates, static_argnums=(2, 3))
edits_of = jax.jit(seqpe_losses.draw_edits, static_argnums=(2, 3))
window_of = jax.jit(seqpe_losses.draw_window, static_argnums=(2, 3))
SMALL = dict(encoder_layers=1, num_pivots=8, num_candidates=8, num_offsets=8)


# Positions


def test_positions_outside_the_digits():
    encoding = common.build("seqpe", max_position=500, num_axes=2)
    positions = jnp.array([[-1.0, 0.0, 999.0, 1000.0, 2.5]])
    positions = jnp.stack([jnp.full((1, 5), 7.0), positions], axis=-1)
    pe_q, _ = jax.jit(lambda e, p: e.tokens(p, length=1).made)(encoding, positions)
    isnan = np.isnan(pe_q[0]).reshape(5, -1)
    assert isnan[[0, 3, 4]].all() and not isnan[[1, 2]].any()
    for bad in (-1, 1000, 0.5):
        two_axes = jnp.array([[[0, 0], [0, bad]]])
        common.refuses(f"position {bad}", lambda p=two_axes: encoding.tokens(p, length=1))


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
    for actual, expected in zip(jax.tree.leaves(results()), jax.tree.leaves(whole), strict=True):
        common.close(actual, expected, rtol=1e-4)


# The random shift


def test_shifts_move_rows_as_a_whole_and_stay_in_range():
    encoding = common.build("seqpe", max_position=100, shift_probability=1.0)
    positions = jnp.stack([jnp.arange(20), jnp.arange(20)[::-1], jnp.full(20, 99)])
    starts = np.stack([encoding.shifted(positions, key) - positions for key in KEYS])
    assert (starts == starts[:, :, :1]).all()
    assert (starts[:, 2] == 0).all(), "there is no room behind 99"
    assert (starts[:, 0, 0] != starts[:, 1, 0]).any(), "rows move by themselves"
    assert starts.min() >= 0 and 60 < starts.max() <= 80
    assert (encoding.tokens(positions).positions == positions).all(), "evaluation does not move"


def test_shifts_of_several_axes():
    encoding = common.build("seqpe", max_position=100, num_axes=2, shift_probability=1.0)
    positions = jnp.arange(3 * 4 * 2).reshape(3, 4, 2)
    starts = np.asarray(encoding.shifted(positions, KEYS[0]) - positions)
    assert (starts == starts[:, :1]).all()
    assert len(np.unique(starts)) > 4, "every row and axis moves by itself"


def test_a_tenth_of_the_steps_is_shifted():
    encoding = common.build("seqpe")
    keys = jax.random.split(jax.random.key(1), 2000)
    first = jax.vmap(lambda key: encoding.shifted(text(5), key)[0, 0])(keys)
    assert abs(np.mean(first > 0) - 0.1) < 0.03


# What the objectives are computed at


@pytest.mark.parametrize(
    ("num_axes", "modes"), [(2, (1.0, 0.0, 0.0)), (1, (0.0, 1.0, 0.0)), (2, (0.0, 0.0, 1.0))]
)
def test_candidates_are_other_positions_in_range(num_axes, modes):
    pivots = jax.random.randint(KEYS[0], (num_axes, 50), 0, 40)
    candidates = candidates_of(KEYS[1], pivots, 32, 40, modes)
    assert candidates.shape == (num_axes, 50, 32)
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
    return {str(int(item or "0")) for item in outcome}


@pytest.mark.parametrize("pivot", [7, 385])
def test_edits_are_one_to_three_edits_of_the_digits(pivot):
    edits = edits_of(KEYS[0], jnp.array([[pivot]]), 4000, 5000)
    outcome = {str(n) for n in np.unique(edits)}
    allowed, reached = {str(pivot)}, []
    for _ in range(3):
        allowed = {b for a in allowed for b in neighbours(a) if int(b) < 5000} | allowed
        reached.append(len(outcome & allowed) / len(outcome))
    assert reached[2] == 1.0 and reached[0] < 1.0
    once = {n for n in neighbours(str(pivot)) if int(n) < 5000}
    assert len(once & outcome) > 0.9 * len(once), "every kind of edit happens"


@pytest.mark.parametrize("num_axes", [1, 2])
def test_a_window_is_narrow_and_its_places_differ(num_axes):
    pivots = jnp.zeros((num_axes, 20), jnp.int32)
    window = np.asarray(window_of(KEYS[0], pivots, 32, 1000))
    side = 256 if num_axes == 1 else 16
    assert (np.ptp(window, axis=-1) < side).all() and np.ptp(window) > 500
    for cells in window.swapaxes(0, 1):
        assert len(np.unique(cells, axis=1).T) == 32


@pytest.mark.parametrize(
    ("num_axes", "train_length", "side"), [(1, 60, 60), (2, 60, 7), (3, 125, 5)]
)
def test_the_training_block_is_trained_as_a_whole(num_axes, train_length, side):
    encoding = common.build("seqpe", num_axes=num_axes, train_length=train_length)
    assert encoding.block_side == side


def test_places_of_a_block():
    cells = np.asarray(seqpe_losses.draw_cells(KEYS[0], 30, 9, 3, 2))
    assert cells.shape == (2, 30, 9)
    assert (np.sort(3 * cells[0] + cells[1], axis=-1) == np.arange(9)).all()


# Training


def descend(encoding, keys):
    """Yields loss and gradient of each step."""
    optimizer = optax.adam(3e-3)

    @jax.jit
    def step(encoding, state, key):
        loss, gradient = jax.value_and_grad(lambda e: e.aux_loss(key))(encoding)
        updates, state = optimizer.update(gradient, state)
        return optax.apply_updates(encoding, updates), state, loss, gradient

    state = optimizer.init(encoding)
    for key in keys:
        encoding, state, loss, gradient = step(encoding, state, key)
        yield float(loss), gradient


@pytest.mark.slow
def test_objectives_have_gradients_and_fall():
    """Positions are fresh in every step."""
    encoding = common.build("seqpe", max_position=1000, trained=False, **SMALL)
    keys = jax.random.split(jax.random.key(3), 150)
    losses, gradients = zip(*descend(encoding, keys), strict=True)
    for path, g in common.parameter_paths(gradients[20]):
        assert np.isfinite(g).all(), path
        assert ("pe_qk" in path) == (np.abs(g).max() == 0), path
    chance = 0.1 * np.log(8)
    assert np.mean(losses[-20:]) < 0.8 * min(chance, np.mean(losses[:5]))


def test_teacher_is_the_training_block_and_student_lies_outside(monkeypatch):
    encoding = common.build("seqpe", num_axes=2, train_length=100, max_position=50, num_pivots=200)
    outputs = []

    def encode(self, positions):
        outputs.append(positions)
        return jnp.zeros((*positions.shape[1:], common.WIDTH))

    monkeypatch.setattr(type(encoding), "_encode", encode)
    encoding._transfer(KEYS[0])
    teacher, student = (np.asarray(positions) for positions in outputs)
    assert teacher.min() == 0 and teacher.max() == 9, "a square of 100 cells"
    start = student - teacher
    assert (start == start[:, :, :1]).all()
    assert (start.max(axis=0) >= 10).all() and start.min() == 0
    assert student.max() == 49


MODEL = {"vocab_size": 16, "model_dim": 16, "num_layers": 1, "num_heads": 4}
RECIPE = Recipe(length=16, batch_size=8, steps=60, learning_rate=1e-2, warmup_steps=5)


def spec(**keywords):
    encoding = {"name": "seqpe", "max_position": 100, **SMALL, **keywords}
    return FrozenConfigDict({"encoding": encoding, "model": MODEL})


@pytest.mark.slow
def test_the_trainer_adds_the_objectives_and_reports_the_loss_without_them():
    tokens = jax.random.randint(jax.random.key(1), (8, 17), 0, 16)
    loss = Text(RECIPE, None, spec()).loss
    step = jax.jit(functools.partial(train_step, loss=loss, recipe=RECIPE))
    numbers = []
    for weight in (0.0, 100.0):
        weights = dict(contrastive_weight=weight, transfer_weight=weight, shift_probability=0.0)
        state = common.text_state(jax.random.key(0), spec(**weights), RECIPE)
        numbers.append(step(state, tokens, jax.random.key(2))[1])
    without, with_them = numbers
    assert without["loss"] == with_them["loss"]
    assert with_them["gradient_norm"] > 2 * without["gradient_norm"]
