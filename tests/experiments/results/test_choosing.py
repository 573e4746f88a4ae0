"""Tests that the guide chooses what the longest training supports, and says why if it does not."""

import dataclasses
import json
import math
import re
from pathlib import Path

import pandas as pd
import pytest
from study_records import HIGH as LEARNED
from study_records import LOW as NOT_LEARNED
from study_records import panel_study, text_records

from experiments.results.answers import TEXT, judged, of_tasks, of_text, table
from experiments.results.learning import values_of
from experiments.results.lengths import WINDOWED
from experiments.results.reports import trust
from experiments.results.reports.choosing_page import (
    NEEDS,
    Need,
    decide,
    guide,
    read_rungs,
    section,
)
from experiments.results.reports.sources import read
from posenc_jax import REGISTRY

DOCS = Path(__file__).parents[3] / "docs"
NOPE, ROPE, WINDOW = (3.0, 3.01, 3.02), (2.5, 2.49, 2.51), (2.0, 2.01, 2.02)
BASELINES = {"nope": NOPE, "rope": ROPE, WINDOWED: WINDOW}
LOW, HIGH = (1.5, 1.51, 1.52), (2.3, 2.31, 2.32)
# As many schemes as tell whether an order lasts.
CONTENDERS = ("fox", "t5", "alibi", "fire", "cope", "path")
NEED = Need("Text", (("text", 2),), "RoPE through a window", "YaRN", ("yarn", "hope"))


def rung_of(values, tokens=1.0, length=0):
    answers, _ = judged(values)
    return trust.Rung(f"rung {tokens:g}", "Some models.", tokens, answers, length)


def rung(tokens=1.0, is_error=True, **losses):
    unit = "bits per byte" if is_error else "accuracy"
    values = table(
        dict(topic="text", multiple=2, family=TEXT, says="", unit=unit, is_error=is_error)
        | dict(scheme=scheme, seed=seed, value=value)
        for scheme, seeds in losses.items()
        for seed, value in enumerate(seeds)
    )
    return rung_of(values, tokens)


def test_a_scheme_is_chosen_that_is_better_than_all_baselines():
    said = section(NEED, [rung(**BASELINES, alibi=LOW, t5=(1.9, 2.0, 2.15), yarn=HIGH)])
    assert said["choice"] == "`alibi`" and "corrected" in said["badges"]
    assert said["evidence"].startswith("1 of 3 schemes is better than every baseline at 2x")
    assert said["chapter"].endswith("worse than RoPE through a window; `hope` was not run there).")


def test_a_recommended_scheme_with_one_seed_is_not_compared():
    """A rung that is half finished has schemes of one seed."""
    said = section(NEED, [rung(**BASELINES, alibi=LOW, yarn=HIGH[:1])])["chapter"]
    assert "`yarn` 2.300" in said and "not compared with RoPE through a window" in said


def test_a_scheme_that_diverged_is_behind_the_baselines():
    """Accuracies of a diverged model are infinite, like its losses."""
    numbers = {"nope": (0.5, 0.51), "rope": (0.6, 0.61), "t5": (math.inf,) * 2, "fox": (0.7, 0.71)}
    assert trust.ahead(rung(is_error=False, **numbers).rows(("text", 2))) == {"fox"}


def test_what_longer_training_contradicts_is_not_chosen():
    short = rung(1.0, **BASELINES, alibi=LOW, fox=LOW)
    assert decide(NEED, [short]).chosen == ["alibi", "fox"]
    longer = rung(2.0, **BASELINES, fox=LOW, alibi=HIGH)
    assert decide(NEED, [short, longer]).chosen == ["fox"]


def test_no_scheme_is_chosen_from_a_training_whose_winner_fails_later():
    short = rung(1.0, **BASELINES, alibi=LOW, fox=LOW)
    said = section(NEED, [short, rung(2.0, **BASELINES, alibi=HIGH)])
    assert said["choice"] == NEED.remains
    assert said["evidence"].startswith(
        "0 of 1 schemes are better than every baseline at 2x in rung 2"
    )
    assert "`fox` won after less training, from which nothing is chosen" in said["evidence"]


def test_a_training_without_a_baseline_says_nothing_of_being_behind():
    alone, behind = rung(0.5, alibi=HIGH, fox=LOW), rung(0.7, **BASELINES, alibi=HIGH)
    said = section(NEED, [alone, behind, rung(1.0, **BASELINES, alibi=LOW)])
    assert "`alibi` is behind a baseline in 1 of 1 trainings" in said["evidence"]


def test_schemes_of_the_longest_training_that_has_better_ones_are_chosen():
    short, longer = rung(1.0, **BASELINES, alibi=LOW, fox=LOW), rung(2.0, **BASELINES, alibi=LOW)
    said = section(NEED, [short, longer])
    assert said["choice"] == "`alibi`" and "1 of 1 schemes" in said["evidence"]
    assert "in rung 2" in said["evidence"]


def test_a_scheme_must_be_better_on_each_kind_of_text():
    """A mean over code and prose may hide that a scheme is worse on one of them."""
    behind = {scheme: tuple(loss - 0.6 for loss in seeds) for scheme, seeds in BASELINES.items()}
    of_all = rung(1.0, **BASELINES, alibi=LOW, fox=LOW).answers
    tables = [of_all]
    for kind, baselines in {"code": BASELINES, "prose": behind}.items():
        answers = rung(1.0, **baselines, alibi=LOW, fox=(1.0, 1.01, 1.02)).answers
        tables.append(answers.assign(topic=f"text of {kind}", multiple=1))
    said = section(NEED, [trust.Rung("rung", "", 1.0, pd.concat(tables))])
    assert said["choice"] == "`fox`"
    assert "but not on source code and on prose alike: `alibi`." in said["evidence"]


def test_a_rung_does_not_answer_for_longer_texts_than_it_has_read():
    answers = rung(1.0, **BASELINES).answers.assign(topic="text, beyond", multiple=4.0)
    one = trust.Rung("rung", "", 1.0, answers)
    assert one.rows(("text", 2)).keys() == one.rows(("text", 4)).keys() == BASELINES.keys()
    assert not one.rows(("text", 16))


def first_seeds(**losses):
    """Returns a longer rung that has one seed of each scheme, and so no verdicts."""
    return rung(2.0, **{scheme: seeds[:1] for scheme, seeds in (BASELINES | losses).items()})


def test_the_order_must_last_among_schemes_that_are_ahead_of_the_baselines():
    far = {f"far{i}": (4.0 + i, 4.1 + i, 4.2 + i) for i in range(trust.SHARED)}
    near = {name: (1.5 + i / 20,) * 3 for i, name in enumerate(CONTENDERS)}
    short = rung(1.0, **BASELINES, **far, **near, cable=LOW)
    reversed_ = dict(zip(near, list(near.values())[::-1], strict=True))
    decision = decide(NEED, [short, first_seeds(**far, **reversed_)])
    assert (decision.order.rho, decision.order.shared) == (pytest.approx(-1), trust.SHARED)
    assert decision.better and not decision.chosen
    assert decide(NEED, [short, first_seeds(**far)]).order.longer is None
    late = first_seeds(**dict.fromkeys(far, LOW))
    assert decide(NEED, [short, late]).order.longer is None  # ahead only at the end


def test_one_seed_of_longer_training_is_enough_to_fall_behind():
    rungs = [rung(1.0, **BASELINES, alibi=LOW, fox=LOW), first_seeds(alibi=HIGH)]
    decision = decide(NEED, rungs)
    assert decision.better == ["alibi", "fox"] and decision.chosen == ["fox"]
    said = section(NEED, rungs)["evidence"]
    assert "`alibi` is not chosen" in said and "after longer training (rung 2, 1 seed)" in said


def test_a_choice_says_where_it_was_behind_after_less_training():
    rungs = [first_seeds(alibi=HIGH), rung(3.0, **BASELINES, alibi=LOW)]
    said = section(NEED, rungs)
    assert said["choice"] == "`alibi`"
    assert "`alibi` is behind a baseline in 1 of 1 trainings of fewer tokens" in said["evidence"]


def test_a_choice_says_where_as_many_tokens_do_not_prove_it():
    short, long = (
        dataclasses.replace(rung(1.0, **BASELINES, alibi=losses), length=length)
        for length, losses in ((64, (1.9, 2.0, 2.15)), (256, LOW))
    )
    said = section(NEED, [short, long])
    assert said["choice"] == "`alibi`"
    assert "as many tokens in texts of 64, `alibi` is not clearly better" in said["evidence"]
    assert "as many tokens" not in section(NEED, [long])["evidence"]
    worse = dataclasses.replace(rung(1.0, **BASELINES, alibi=HIGH), length=64)
    assert "`alibi` is worse than a baseline" in section(NEED, [worse, long])["evidence"]


def test_a_task_counts_where_it_is_learned():
    low, high = NOT_LEARNED, LEARNED
    need = Need("Copies", (("copy", 2),))

    def said(**shares):
        values = of_tasks(panel_study(nope=(low, high), rope=(high, low), **shares))
        return section(need, [rung_of(values)])

    assert said()["choice"] == "none yet" and "learned by 1 of 2" in said()["badges"]
    most = said(t5=(high, (0.99, 0.8, 0.9)))
    assert most["choice"] == "`t5`" and "in 2 of 3 seeds" in most["evidence"]
    assert said(t5=(high, (0.99, 0.8, 0.9)), fox=(high, high))["choice"] == "`fox`"


def test_a_baseline_that_solves_a_task_is_chosen():
    values = of_tasks(panel_study(rope=(LEARNED, LEARNED), t5=(NOT_LEARNED, NOT_LEARNED)))
    said = section(Need("Copies", (("copy", 2),)), [rung_of(values)])
    assert said["choice"] == "`rope`" and "1 of 2 schemes solves" in said["evidence"]


@pytest.fixture(scope="module")
def rungs_and_missing():
    """Returns the rungs of the results that the repository keeps."""
    return read_rungs(DOCS, read(DOCS))


def test_every_need_asks_what_was_measured(rungs_and_missing):
    rungs, missing = rungs_and_missing
    described = json.loads((DOCS / "ladder/ladder.json").read_text())["rungs"].values()
    finished, points = (sum(rung[key] for rung in described) for key in ("finished", "points"))
    holes = points - finished
    assert missing == (f"{holes} of {points} runs of the ladder" if holes else "")
    assert rungs[-1].rows(("text", 4)).keys() >= {"rope", "rope_windowed"}
    named = set(REGISTRY) | set(pd.concat([one.answers["scheme"] for one in rungs]))
    for need in NEEDS:
        assert all(any(one.rows(question) for one in rungs) for question in need.asked)
        assert set(need.recommended) <= named


@pytest.mark.slow
def test_the_guide_is_one_screen(rungs_and_missing):
    text = guide(*rungs_and_missing, {"rope": 1.04, "t5": 3.3})
    assert len(text.splitlines()) <= 120 and "longer under `t5`" in text
    assert re.findall(r"^### (.*)", text, re.M) == [need.title for need in NEEDS]
    assert len((DOCS / "choosing.md").read_text().splitlines()) <= 120


# Badges

LOSSES = {name: 1.0 + i for i, name in enumerate(CONTENDERS)}


def test_badges_are_read_as_they_were_written(tmp_path):
    short = rung_of(of_text(text_records(rope=9.0, **LOSSES), 64))
    longer = rung_of(of_text(text_records(**{name: 1 / LOSSES[name] for name in LOSSES}), 64), 2.0)
    trust.write(tmp_path / trust.JSON, [short, longer])
    told = trust.read(tmp_path / trust.JSON)
    assert told["text", 2.0] == [
        "3 seeds",
        "corrected",
        "rank reverses: rho -1.00 over 6 contenders",
    ]
    assert trust.words(told["text", 2.0]).startswith("`3 seeds` `corrected` `rank reverses")
    assert trust.read(tmp_path / "none.json") == {}


def test_a_badge_says_that_longer_training_has_one_seed():
    values = of_text(text_records(rope=9.0, **LOSSES), 64)
    short, longer = rung_of(values), rung_of(values[values["seed"] == 0], 2.0)
    asked = ("text", 2.0)
    said = trust.badges([asked], short, trust.order(asked, short, [short, longer]))
    assert said[-1] == "rank lasts: rho 1.00 over 6 contenders, 1 seed"


def test_the_longest_training_says_whether_an_order_lasts():
    rungs = [rung_of(of_text(text_records(**LOSSES), 64), tokens) for tokens in (1.0, 3.0, 2.0)]
    order = trust.order(("text", 2), rungs[0], rungs)
    assert order.lasts and order.longer is rungs[1]
    assert (order.rho, order.shared) == (pytest.approx(1), trust.SHARED)
    assert trust.order(("text", 2), rungs[1], rungs).longer is None


def test_of_equally_many_tokens_those_in_longer_texts_are_the_longer_training():
    values = of_text(text_records(**LOSSES), 64)
    rungs = [rung_of(values, 1.0, length) for length in (64, 1024, 256)]
    assert trust.order(("text", 2), rungs[0], rungs).longer is rungs[1]


def test_a_model_of_one_task_counts_more_than_one_of_many():
    """Studies of one task have schemes of their own, and may test other tasks beside it."""
    many = rung_of(of_tasks(panel_study(rope=(LEARNED, LEARNED), t5=(LEARNED, LEARNED))), 0.0)
    model = {"study": "copy", "task": "copy", "metric": "exact match", "chance": 0.0}
    ends = {"rope": (1.0, 0.2), "path": (1.0, 1.0)}
    rows = [
        model | {"scheme": scheme, "seed": seed, "tokens": 43 * n, "right": right}
        for scheme, shares in ends.items()
        for n, right in enumerate(shares, 1)
        for seed in range(3)
    ]
    rows += [row | {"task": "copy_sparse", "right": 0.0} for row in rows]
    table = pd.DataFrame(rows)
    is_trained = (table["task"] == "copy") & (table["tokens"] == 43)
    alone = rung_of(values_of(table.assign(is_trained=is_trained)))
    said = section(Need("Copies", (("copy", 1), ("copy", 2))), [many, alone])
    assert said["choice"] == "`path`" and "in rung 1" in said["evidence"]
    assert "learned by 2 of 2" in said["badges"]


def test_a_task_says_how_many_schemes_have_learned_it():
    one = rung_of(of_tasks(panel_study(rope=(NOT_LEARNED, LEARNED), t5=(LEARNED, NOT_LEARNED))))
    said = trust.of_questions([one])["copy"]["2"]
    assert said == ["3 seeds", "learned by 1 of 2", "rank: untested"]
