"""Tests the tasks: solvable from what is before the answers, balanced, and at chance otherwise."""

import collections
import math
import zlib

import jax
import numpy as np
import pytest
from tiny_runs import study

from experiments.running.points import Point
from experiments.studies.tasks import ALONE, TASKS
from experiments.studies.tasks.task import ASK, DIGITS, IGNORE, PAD, SEPARATE, STORE, SYMBOLS

COUNT = 4000


def rng(seed=0):
    return np.random.default_rng(seed)


def is_by_chance(share, chance):
    return abs(share - chance) < 4 * math.sqrt(chance * (1 - chance) / COUNT)


@pytest.mark.parametrize("name", ALONE)
def test_the_solver_has_every_answer_right(name):
    task = ALONE[name]
    for length in (task.shortest, task.shortest + 1, task.shortest + 2, 130):
        tokens_NL, is_answer_NL = task.draw(rng(), 50, length)
        assert tokens_NL.shape == is_answer_NL.shape == (50, length)
        assert tokens_NL.dtype == np.int32 and is_answer_NL.dtype == bool
        assert tokens_NL.min() > PAD and tokens_NL.max() < task.vocab_size
        assert is_answer_NL.any(axis=1).all() and not is_answer_NL[:, 0].any()
        for tokens_L, is_answer_L in zip(tokens_NL, is_answer_NL, strict=True):
            hidden_L = np.where(is_answer_L, PAD, tokens_L)
            assert task.solve(hidden_L, is_answer_L) == list(tokens_L[is_answer_L])


# Tasks that ask for one of the few values, of eleven, that the row tells.
TOLD = ("needles", "recall", "variable_tracking")


# The answers of sort tell of each other; see the next test.
@pytest.mark.parametrize("name", [name for name in TASKS if name != "sort"])
def test_each_answer_is_as_likely_as_the_others(name):
    """The likeliest token of each place is no better a guess than the chance that is said."""
    task = TASKS[name]
    tokens_NL, is_answer_NL = task.draw(rng(2), COUNT, 40)
    answers_NA = tokens_NL[is_answer_NL].reshape(COUNT, -1)
    chances = [1 / 11] * answers_NA.shape[1] if name in TOLD else task.chances(40)
    size, chance = len(chances), math.prod(chances)
    best = np.prod([np.bincount(column).max() / COUNT for column in answers_NA.T])
    # The most frequent of several tokens that are equally likely is off by some standard errors.
    kinds = chance ** (-1 / size)
    assert chance / 2 < best < chance * (1 + 3.5 * np.sqrt(kinds / COUNT)) ** size


def test_what_sorted_answers_give_away_is_their_chance():
    """The likeliest answer after the same ones, in one half of the rows, is tried in the other."""
    task, count = TASKS["sort"], 20_000
    tokens_NL, is_answer_NL = task.draw(rng(8), 2 * count, 14)
    answers_NA = tokens_NL[is_answer_NL].reshape(2 * count, -1)
    for place, chance in enumerate(task.chances(14)):
        last_N = answers_NA[:, place - 1] if place else np.zeros(2 * count, int)
        read_N = (answers_NA[:, :place] == last_N[:, None]).sum(axis=1)
        known = np.stack([last_N, read_N, answers_NA[:, place]], axis=1).tolist()
        answers = collections.defaultdict(collections.Counter)
        for last, read, answer in known[:count]:
            answers[last, read][answer] += 1
        likeliest = {before: item.most_common(1)[0][0] for before, item in answers.items()}
        is_right = [likeliest.get((last, read)) == answer for last, read, answer in known[count:]]
        actual = np.mean(is_right)
        assert actual == pytest.approx(chance, abs=0.01)


def told_values(rows):
    """Returns the values that the rows tell, in the order in which they are told, ``[N, any]``."""
    is_told_NL = np.isin(rows.tokens_NL, SYMBOLS[21:]) & ~rows.is_answer_NL
    return rows.tokens_NL[is_told_NL].reshape(len(rows.tokens_NL), -1)


@pytest.mark.parametrize("name", [*TOLD, "pairs"])
def test_any_value_that_a_row_tells_is_right_by_chance(name):
    rows = ALONE[name].draw(rng(3), COUNT, 60)
    answers_NA = rows.tokens_NL[rows.is_answer_NL].reshape(COUNT, -1)
    guesses_NA = rng(4).permuted(told_values(rows), axis=1)[:, :1]
    for item, chance in zip(answers_NA.T, ALONE[name].chances(60), strict=True):
        assert is_by_chance((guesses_NA[:, 0] == item).mean(), chance)


def test_no_place_in_a_row_has_the_value_of_the_chain():
    """The first value told is right as often as the second and the last one."""
    task = TASKS["variable_tracking"]
    rows = task.draw(rng(5), COUNT, 60)
    (chance,) = task.chances(60)
    values_NC = told_values(rows)
    assert values_NC.shape == (COUNT, round(1 / chance))
    for told_N in values_NC.T:
        assert is_by_chance((told_N == rows.tokens_NL[:, -1]).mean(), chance)


def test_names_of_every_chain_are_read_as_often():
    """All but the last name of a chain are read again, and none tells by this what is asked for."""
    tokens_NL, _ = TASKS["variable_tracking"].draw(rng(6), 200, 60)
    for tokens_L in tokens_NL:
        names = tokens_L[:-2][np.isin(tokens_L[:-2], SYMBOLS[10:21])]
        _, counts = np.unique(names, return_counts=True)
        assert sorted(counts) == [1, 1, 1, 2, 2, 2]


# Answers are told apart by the names of their tasks: a task whose rows change gets another name,
# or results of its old rows would be compared with those of the new.
ROWS = {
    "passkey": 2771294494,
    "needles": 3364043195,
    "recall": 1762425723,
    "induction": 2169948313,
    "variable_tracking": 2520695257,
    "flip_flop": 4104926595,
    "counting": 2070744448,
    "copy": 2145297826,
    "reverse": 3100407925,
    "addition": 1196941336,
    "sort": 1991795558,
    "parity": 1438040695,
}


@pytest.mark.parametrize("name", TASKS)
def test_rows_are_those_that_were_answered(name):
    tokens_NL, _ = TASKS[name].draw(np.random.Generator(np.random.Philox(0)), 8, 40)
    assert zlib.crc32(tokens_NL.tobytes()) == ROWS[name]


@pytest.mark.parametrize("name", [name for name, task in TASKS.items() if task.has_depth])
def test_depth_is_where_the_needle_lies(name):
    task = TASKS[name]
    rows = [task.draw(rng(), 5, 100, depth).tokens_NL for depth in (0, 0.5, 1)]
    first = [np.argmax(tokens_NL == 3, axis=1) for tokens_NL in rows]
    assert (first[0] == 1).all() and (first[0] < first[1]).all() and (first[1] < first[2]).all()
    assert len({int(place) for place in first[1]}) == 1


def test_a_batch_has_rows_of_every_task_and_length(tmp_path):
    one = study("tasks", tmp_path, schemes="rope")

    def drawn(generator, count):
        return one.draw("rope", generator, count, step=0)

    rows = drawn(rng(), 300)
    assert rows["tokens"].shape == rows["is_answer"].shape == (300, 32)
    assert len(np.unique(rows["tokens"][:, 0])) == len(TASKS)
    others = [drawn(rng(seed), 100)["tokens"] for seed in range(20)]
    ends = (np.concatenate(others) != PAD).sum(axis=1)
    assert ends.min() < 8 and ends.max() == 32 and len(np.unique(ends)) > 20
    assert not (rows["is_answer"] & (rows["tokens"] == PAD)).any()


def test_the_loss_is_of_answers_alone(tmp_path):
    one = study("tasks", tmp_path, schemes="rope")
    task = one.task(Point("rope", 0, ()))
    model, batch = task.init(jax.random.key(0)), one.draw("rope", rng(), 4, step=0)
    loss = task.loss(model, batch, jax.random.key(1))
    assert np.isfinite(loss)
    other = dict(batch, tokens=np.where(batch["tokens"] == PAD, 1, batch["tokens"]))
    np.testing.assert_allclose(task.loss(model, other, jax.random.key(1)), loss, rtol=1e-6)


def test_a_model_that_knows_the_answers_has_all_of_them(tmp_path, monkeypatch):
    one = study("tasks", tmp_path, schemes="rope")

    def solved(function, model, rows):
        tokens_NL = rows["tokens"]
        likeliest_NL = np.zeros_like(tokens_NL[:, 1:])
        for row, tokens_L in zip(likeliest_NL, tokens_NL, strict=True):
            task = next(t for t in TASKS.values() if t.number == tokens_L[0] - 5)
            is_answer_L = task.draw(rng(), 1, len(tokens_L)).is_answer_NL[0]
            row[is_answer_L[1:]] = task.solve(tokens_L, is_answer_L)
        return likeliest_NL

    monkeypatch.setattr(one, "predict", solved)
    assert all(result.value == 1 for result in one.measure("rope", None))


def test_an_extension_rotates_as_the_trained_scheme_does(tmp_path):
    changes = {"schemes": "rope,dynamic_ntk,yarn", "variants__rope__encoding__base": 20.0}
    one = study("tasks", tmp_path, **changes)
    assert [one.encoding(name, None).base for name in ("rope", "dynamic_ntk", "yarn")] == [20.0] * 3
    single = study("tasks", tmp_path, **changes, variants__yarn__encoding__base=50.0)
    assert single.encoding("yarn", None).base == 50.0


def test_an_extension_is_made_for_each_length(tmp_path, monkeypatch):
    one = study("tasks", tmp_path, schemes="rope,pi", eval__depths=())
    model, factors = one.task(Point("rope", 0, ())).init(jax.random.key(0)), {}

    def predict(function, model, rows):
        factors[rows["tokens"].shape[1]] = model.encodings[0].frequencies.factor
        return rows["tokens"][:, 1:]

    monkeypatch.setattr(one, "predict", predict)
    assert len(list(one.measure("pi", model))) == len(one.panels) * 2
    assert factors == {32: 1, 64: 2}


# Tasks that a model learns alone


@pytest.mark.parametrize("name", ["flip_flops", "flip_flops_sparse"])
def test_bits_that_are_guessed_are_right_by_chance(name):
    task = ALONE[name]
    rows = task.draw(rng(1), COUNT, 20)
    guesses_NL = DIGITS[rng(2).integers(0, 2, rows.tokens_NL.shape)]
    is_right_NL = (guesses_NL == rows.tokens_NL) | ~rows.is_answer_NL
    assert is_by_chance(is_right_NL.all(axis=1).mean(), task.chance(20))


@pytest.mark.parametrize(("name", "share"), [("flip_flops", 0.8), ("flip_flops_sparse", 0.98)])
def test_most_instructions_are_ignored_and_reads_are_as_many_as_writes(name, share):
    tokens_NL, is_answer_NL = ALONE[name].draw(rng(), 200, 513)
    kinds = tokens_NL[:, 1::2]
    assert (kinds[:, 0] == STORE).all() and (kinds[:, -1] == ASK).all()
    shares = [(kinds[:, 1:-1] == kind).mean() for kind in (IGNORE, STORE, ASK)]
    np.testing.assert_allclose(shares, [share, (1 - share) / 2, (1 - share) / 2], rtol=0.1)
    np.testing.assert_array_equal(is_answer_NL[:, 2::2], kinds == ASK)
    assert not is_answer_NL[:, 1::2].any()


def test_any_key_that_is_told_is_right_by_chance():
    task, length = ALONE["passkeys"], 64
    tokens_NL, _ = task.draw(rng(1), COUNT, length)
    first_N = np.argmax(tokens_NL == STORE, axis=1)[:, None] + 2
    keys_N4 = np.take_along_axis(tokens_NL, first_N + np.arange(4), axis=1)
    assert is_by_chance((keys_N4 == tokens_NL[:, -4:]).all(axis=1).mean(), task.chance(length))


@pytest.mark.parametrize("length", [24, 48, 96, 160])
def test_longer_rows_have_more_to_remember(length):
    tokens_NL, _ = ALONE["passkeys"].draw(rng(), 20, length)
    assert ((tokens_NL == STORE).sum(axis=1) == length // 16).all()
    task = ALONE["pairs"]
    tokens_NL, is_answer_NL = task.draw(rng(), 20, length)
    is_told_NL = np.isin(tokens_NL, SYMBOLS[21:]) & ~is_answer_NL
    assert (is_told_NL.sum(axis=1) == length // 8).all()
    assert (is_answer_NL.sum(axis=1) == 3).all()


def numbers(row_L, values_L):
    """Returns the values at the two numbers and at the sum, which separators of the row divide."""
    first, second = np.flatnonzero(row_L == SEPARATE)[-2:]
    size = second - first - 1
    return values_L[first - size : first], values_L[first + 1 : second], values_L[second + 1 :]


def test_digits_of_the_same_place_have_the_same_position():
    task = ALONE["addition_coupled"]
    tokens_NL, _ = task.draw(rng(), COUNT, 35)
    positions_NL = task.positions(rng(1), tokens_NL)
    assert positions_NL.dtype == np.int32 and positions_NL.shape == tokens_NL.shape
    for row, positions in zip(tokens_NL, positions_NL, strict=True):
        one, two, total = numbers(row, positions)
        np.testing.assert_array_equal(np.diff(total), 1)
        np.testing.assert_array_equal(one, two)
        np.testing.assert_array_equal(one, total[:-1])
        # The token from which the first digit of the sum is predicted is one place before it.
        assert (positions[row == SEPARATE] == total[0] - 1).all() and positions[0] == total[0] - 1
    assert {*positions_NL[:, 0]} == {*range(task.num_positions - 11)}
    assert positions_NL.min() == 0 and positions_NL.max() == task.num_positions - 1


def test_positions_begin_anywhere():
    task = ALONE["addition_shifted"]
    tokens_NL, _ = task.draw(rng(), COUNT, 35)
    positions_NL = task.positions(rng(1), tokens_NL)
    assert (np.diff(positions_NL) == 1).all()
    assert {*positions_NL[:, 0]} == {*range(task.num_positions - 34)}


def test_a_hint_says_the_place_of_the_digit_after_it():
    tokens_NL, is_answer_NL = ALONE["addition_hinted"].draw(rng(), 200, 65)
    firsts = set()
    for row_L, is_answer_L in zip(tokens_NL, is_answer_NL, strict=True):
        one, two, total = numbers(row_L, row_L)
        np.testing.assert_array_equal(np.diff(total[::2]), 1)
        np.testing.assert_array_equal(one[::2], two[::2])
        np.testing.assert_array_equal(one[::2], total[::2][:-1])
        assert np.isin([*one[1::2], *two[1::2], *total[1::2]], DIGITS).all()
        np.testing.assert_array_equal(row_L[is_answer_L], total[1::2])
        firsts.add(int(one[0]))
    assert len(firsts) == 32 - 10, "the first hint is any that leaves room for the others"
