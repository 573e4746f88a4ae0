"""Tests the tasks: solvable from what is before the answers, balanced, and at chance otherwise."""

import math
import zlib
from itertools import pairwise

import jax
import numpy as np
import pytest
from tiny_runs import study

from experiments.running.points import Point
from experiments.studies.tasks import ALONE, TASKS
from experiments.studies.tasks.task import DIGITS, PAD, STORE, SYMBOLS, VOCAB_SIZE

COUNT = 4000


def rng(seed=0):
    return np.random.default_rng(seed)


def is_by_chance(share, chance):
    return abs(share - chance) < 4 * math.sqrt(chance * (1 - chance) / COUNT)


# What is asked for, from the tokens of a row and the places of its answers.


def said_after_the_mark(row, at):
    first = row.index(STORE) + 1
    return row[first : first + len(at)]


def stored_under_the_name(row, at):
    name, count = row[at[0] - 1], len(at)
    (first,) = (i + 2 for i, pair in enumerate(pairwise(row)) if pair == (STORE, name))
    return row[first : first + count]


def told_with_each_key(row, at):
    return [row[row.index(row[place - 1]) + 1] for place in at]


def said_before(row, at):
    return row[-2 * len(at) - 1 : -len(at) - 1]


def end_of_the_chain(row, at):
    assigned = {row[i + 1]: row[i + 2] for i, token in enumerate(row) if token == STORE}
    answer = row[-2]
    while answer in assigned:
        answer = assigned[answer]
    return [answer]


def last_written(row, at):
    written = {i: row[i + 1] for i, token in enumerate(row) if token == STORE}
    return [written[max(i for i in written if i < place)] for place in at]


def times_of_the_first(row, at):
    return [DIGITS[row[2:-2].count(row[1])]]


def the_sum(row, at):
    row, count = [token for token in row if token < VOCAB_SIZE], len(at)  # without hints
    numbers = row[-3 * count : -2 * count - 1], row[-2 * count : -count - 1]
    written = ("".join(str(token - DIGITS[0]) for token in reversed(one)) for one in numbers)
    return [DIGITS[int(digit)] for digit in reversed(f"{sum(map(int, written)):0{count}}")]


def parity_of_ones(row, at):
    return [DIGITS[row[1:-2].count(DIGITS[1]) % 2]]


SOLVED = {
    "passkey": said_after_the_mark,
    "needles": stored_under_the_name,
    "passkeys": stored_under_the_name,
    "recall": told_with_each_key,
    "pairs": told_with_each_key,
    # The first of the repeated tokens is no answer.
    "induction": lambda row, at: row[-2 * len(at) - 1 : -len(at) - 1],
    "variable_tracking": end_of_the_chain,
    "counting": times_of_the_first,
    "copy": said_before,
    "reverse": lambda row, at: said_before(row, at)[::-1],
    "sort": lambda row, at: sorted(said_before(row, at)),
    "parity": parity_of_ones,
    **dict.fromkeys(("flip_flop", "flip_flops", "flip_flops_sparse"), last_written),
    **{name: the_sum for name in ALONE if name.startswith("addition")},
}


def solved(name, tokens_L, is_answer_L):
    """Returns the answers of a row, from the tokens before each of them."""
    row = np.where(is_answer_L, PAD, tokens_L).tolist()
    return SOLVED[name](row, np.flatnonzero(is_answer_L).tolist())


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
            assert solved(name, tokens_L, is_answer_L) == list(tokens_L[is_answer_L])


# Tasks that ask for one of the few values, of eleven, that the row tells.
TOLD = ("needles", "recall", "variable_tracking")


# The answers of sort ascend, so that each tells of the next.
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


# Answers are told apart by the names of their tasks: a task whose rows change gets another name,
# or results of its old rows would be compared with those of the new. The second number of a task is
# of the positions of its rows.
IN_ORDER = 222921653
ROWS = {
    "passkey": (2771294494, IN_ORDER),
    "needles": (3364043195, IN_ORDER),
    "recall": (1762425723, IN_ORDER),
    "induction": (2169948313, IN_ORDER),
    "variable_tracking": (2520695257, IN_ORDER),
    "flip_flop": (4104926595, IN_ORDER),
    "counting": (2070744448, IN_ORDER),
    "copy": (2145297826, IN_ORDER),
    "reverse": (3100407925, IN_ORDER),
    "addition": (1196941336, IN_ORDER),
    "sort": (1991795558, IN_ORDER),
    "parity": (1438040695, IN_ORDER),
    "pairs": (3694573247, IN_ORDER),
    "passkeys": (552917950, IN_ORDER),
    "flip_flops": (2281238452, IN_ORDER),
    "flip_flops_sparse": (801561421, IN_ORDER),
    "addition_shifted": (1196941336, 719756771),
    "addition_hinted": (3570425921, IN_ORDER),
    "addition_coupled": (1196941336, 366888225),
}


@pytest.mark.parametrize("name", ALONE)
def test_rows_are_those_that_were_answered(name):
    generator = np.random.Generator(np.random.Philox(0))
    tokens_NL, _ = ALONE[name].draw(generator, 8, 40)
    positions_NL = np.ascontiguousarray(ALONE[name].positions(generator, tokens_NL))
    assert (zlib.crc32(tokens_NL.tobytes()), zlib.crc32(positions_NL.tobytes())) == ROWS[name]


@pytest.mark.parametrize("name", [name for name, task in TASKS.items() if task.has_depth])
def test_depth_is_where_the_needle_lies(name):
    task = TASKS[name]
    rows = [task.draw(rng(), 5, 100, depth).tokens_NL for depth in (0, 0.5, 1)]
    first = [np.argmax(tokens_NL == 3, axis=1) for tokens_NL in rows]
    assert (first[0] == 1).all() and (first[0] < first[1]).all() and (first[1] < first[2]).all()
    assert len({int(place) for place in first[1]}) == 1


def test_a_model_that_knows_the_answers_has_all_of_them(tmp_path, monkeypatch):
    one = study("tasks", tmp_path, schemes="rope")

    def predict(function, model, rows):
        tokens_NL = rows["tokens"]
        likeliest_NL = np.zeros_like(tokens_NL[:, 1:])
        for row, tokens_L in zip(likeliest_NL, tokens_NL, strict=True):
            task = next(t for t in TASKS.values() if t.number == tokens_L[0] - 5)
            is_answer_L = task.draw(rng(), 1, len(tokens_L)).is_answer_NL[0]
            row[is_answer_L[1:]] = solved(task.name, tokens_L, is_answer_L)
        return likeliest_NL

    monkeypatch.setattr(one, "predict", predict)
    assert all(result.value == 1 for result in one.measure("rope", None))


def test_an_extension_is_made_for_each_length(tmp_path, monkeypatch):
    one = study("tasks", tmp_path, schemes="rope,pi", eval__depths=())
    model, factors = one.task(Point("rope", 0, ())).init(jax.random.key(0)), {}

    def predict(function, model, rows):
        factors[rows["tokens"].shape[1]] = model.encodings[0].frequencies.factor
        return rows["tokens"][:, 1:]

    monkeypatch.setattr(one, "predict", predict)
    assert len(list(one.measure("pi", model))) == len(one.panels) * 2
    assert factors == {32: 1, 64: 2}
