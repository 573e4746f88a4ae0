"""Tests the tasks that a model learns alone: solvable, at chance, and what grows with the rows."""

import math

import numpy as np
import pytest

from experiments.studies.tasks import ALONE
from experiments.studies.tasks.task import ASK, DIGITS, IGNORE, SEPARATE, STORE, SYMBOLS

COUNT = 4000
VALUES = SYMBOLS[21:]


def rng(seed=0):
    return np.random.default_rng(seed)


def is_by_chance(share, chance):
    return abs(share - chance) < 4 * math.sqrt(chance * (1 - chance) / COUNT)


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
    is_told_NL = np.isin(tokens_NL, VALUES) & ~is_answer_NL
    assert (is_told_NL.sum(axis=1) == length // 8).all()
    assert (is_answer_NL.sum(axis=1) == 3).all()


def numbers(row_L, values_L):
    """Returns the values at the two numbers and at the sum, which separators of the row divide."""
    first, second = np.flatnonzero(row_L == SEPARATE)[-2:]
    size = second - first - 1
    return (
        values_L[first - size : first],
        values_L[first + 1 : second],
        values_L[second + 1 :],
    )


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
