"""Tests the rule that decides on published claims, and that every claim has a run that tests it."""

import dataclasses
import functools
import math
from pathlib import Path

import pytest
from study_records import ABOUT, panel_records, record

from configs import ladder, learned
from configs.claims import get_config
from experiments.results import archive, ledger
from experiments.results.lengths import LengthStudy
from experiments.results.panels import Panel, PanelStudy
from experiments.results.reports.ledger_page import write
from experiments.results.statistics import mean_and_margin
from experiments.studies.claims import claims_of, effects
from experiments.studies.claims.text import CLAIMS

DOCS = Path(__file__).parents[3] / "docs"
# Studies whose results are stored, and which claims read.
STORED = ("images", "pointing", "video", "story")
SETUP = {"setup": {"language": "models of 2 layers"}}


@pytest.mark.parametrize(
    ("low", "cell", "word"),
    [
        (-math.inf, (-1.0, 0.43, 3), "reproduced"),
        (-math.inf, (-0.3, 0.43, 3), "mixed or underpowered"),
        (-math.inf, (0.3, 0.43, 3), "mixed or underpowered"),
        (-math.inf, (1.0, 0.43, 3), "not reproduced"),
        (-math.inf, (-1.0, math.nan, 1), "mixed or underpowered"),
        (-math.inf, (math.inf, math.nan, 3), "mixed or underpowered"),
        (-1.0, (-0.5, 0.43, 3), "reproduced"),
        (-1.0, (-0.5, 0.86, 3), "mixed or underpowered"),
        (-1.0, (-2.0, 0.43, 3), "not reproduced"),
    ],
)
def test_an_interval_decides(low, cell, word):
    assert ledger.decide(ledger.Effect("a range", lambda a: a, low=low, high=0.0), cell) == word


def test_arithmetic_is_seed_by_seed():
    one, other = ledger.Seeds({0: 1.0, 1: 5.0, 2: 9.0}), ledger.Seeds({1: 2.0, 2: 3.0, 3: 4.0})
    assert one - other == {1: 3.0, 2: 6.0} and one / other == {1: 2.5, 2: 3.0}
    assert one - 1.0 == {0: 0.0, 1: 4.0, 2: 8.0}
    assert math.isnan((one / ledger.Seeds({0: 0.0}))[0])
    assert ledger.mean(one, other) == {1: 3.5, 2: 6.0}
    assert ledger.spread(one) == {0: 4.0, 1: 0.0, 2: 4.0}


def text_study(**losses):
    """Returns a study of losses by scheme and protocol, of three seeds that differ by 0.001."""
    records = [
        record(scheme, seed, 1, loss + 0.001 * seed, protocol=protocol)
        for scheme, by_protocol in losses.items()
        for protocol, loss in by_protocol.items()
        for seed in range(3)
    ]
    return LengthStudy(records, [], [], {}, [])


LESS = ledger.Effect(
    "one minus two", lambda a: a.bits("text", "one", 1) - a.bits("text", "two", 1), high=0
)
CLAIM = ledger.Claim("one_wins", "One wins.", "2108.12409, table 3", "a scale", ("rope",), (LESS,))


def test_the_ledger_says_what_other_tokens_would_say(tmp_path):
    one, two = {"last": 1.0, "non_overlapping": 3.0}, {"last": 2.0, "non_overlapping": 2.0}
    rows = ledger.ledger_of((CLAIM,), {"text": text_study(one=one, two=two)})
    assert rows[0]["verdict"] == "reproduced"
    assert rows[0]["all_tokens"] == "not reproduced"
    page = write(tmp_path, rows, ABOUT | SETUP).read_text()
    assert "the verdict is not reproduced" in page and "1 reproduced" in page
    assert "<li><b>language</b>: models of 2 layers." in page
    assert "Source: <a href='https://arxiv.org/abs/2108.12409'>2108.12409</a>, table 3." in page
    assert "<a href='#one_wins'>" in page and "id=one_wins>" in page
    table = (tmp_path / "claims.csv").read_text().splitlines()
    assert table[1].startswith("one_wins,reproduced,reproduced,False,one minus two,-inf,0,-1.0,")


def noisy(seeds):
    return ledger.Effect("a number", lambda a: ledger.Seeds(enumerate(seeds)), low=0.0)


def test_the_numbers_of_all_claims_are_corrected_together(tmp_path):
    clear, weak = noisy((1.0, 1.01, 1.02)), noisy((1.0, 1.2, 0.6))
    assert ledger.p_value(weak, mean_and_margin((1.0, 1.2, 0.6))) == pytest.approx(0.034, abs=0.001)
    names = "abcdef"
    claims = tuple(
        dataclasses.replace(CLAIM, name=name, effects=(effect,))
        for name, effect in zip(names, [clear, weak, *[noisy((1.0, -0.9, 0.1))] * 4], strict=True)
    )
    rows = ledger.ledger_of(claims, {})
    assert [row["verdict"] for row in rows] == ["reproduced"] * 2 + ["mixed or underpowered"] * 4
    after = [row["after_correction"] for row in rows]
    assert after == ["reproduced"] + ["mixed or underpowered"] * 5
    assert not any("all_tokens" in row for row in rows)  # the numbers do not depend on tokens
    page = write(tmp_path, rows, ABOUT | SETUP).read_text()
    assert "2 reproduced, 4 mixed or underpowered. After correction: 1 reproduced, 5" in page


def test_a_claim_that_lacks_what_it_needs_is_untestable(tmp_path):
    """Sums that no model adds at the trained length say nothing about longer ones."""
    study = text_study(one={"last": 1.0}, two={"last": 2.0})

    def with_need(**range_):
        need = ledger.Effect("two", lambda a: a.bits("text", "two", 1), **range_)
        claim = dataclasses.replace(CLAIM, needs=(need,), scale_needed="a larger model")
        return ledger.ledger_of((claim,), {"text": study})

    rows = with_need(high=1.5)
    assert rows[0]["verdict"] == "untestable at this scale"
    words = [(effect["is_need"], effect["verdict"]) for effect in rows[0]["effects"]]
    assert words == [(True, "not reproduced"), (False, "reproduced")]
    page = write(tmp_path, rows, ABOUT | SETUP).read_text()
    assert "data-name='scale needed'>a larger model" in page and "needed first: two" in page
    assert with_need(low=1.5)[0]["verdict"] == "reproduced"
    assert with_need(high=2.001)[0]["verdict"] == "mixed or underpowered"


def test_loss_and_recall_are_compared_over_flat_schemes_that_differ():
    losses = {"one": 1.0, "twin": 1.0, "two": 1.1, "three": 1.2, "rope": 9.0}
    text = text_study(**{name: {"windowed": min(loss, 1.2)} for name, loss in losses.items()})
    text.records.extend(record(s, seed, 16, losses[s]) for s in losses for seed in range(3))
    panel = Panel("recall", "exact match", "tokens of a row", (32, 128), (32,))
    shares = panel_records(panel, {name: ([], 3 * [1 / loss]) for name, loss in losses.items()})
    tasks = PanelStudy(shares, [], [], {}, [], (panel,))
    (claim,) = (claim for claim in CLAIMS if claim.name == "flat_is_not_retrieval")
    answers = ledger.Answers({"language": text, "tasks": tasks})
    assert claim.needs[0].of(answers) == dict.fromkeys(range(3), 3.0)
    assert claim.effects[0].of(answers) == dict.fromkeys(range(3), pytest.approx(-1.0))


def test_flat_is_over_the_most_recent_tokens_alone():
    """In texts of the trained length the first tokens that count have nothing before them."""
    study = text_study(rope={"last": 3.0, "windowed": 2.0, "non_overlapping": 4.0})
    study.records.extend(
        r | {"multiple": 4} for r in list(study.records) if r["protocol"] != "windowed"
    )
    effect = effects.change("rope", 4)
    assert effect.of(ledger.Answers({"language": study}))[0] == pytest.approx(0.5)
    others = ledger.Answers({"language": study}, "non_overlapping")
    assert effect.of(others)[0] == pytest.approx(0.0)


class Asked(ledger.Answers):
    """Notes what is asked for, and answers with a number."""

    def __init__(self):
        super().__init__({})
        object.__setattr__(self, "asked", [])

    def read(self, study, key, **where):
        self.asked.append((study, where))
        return ledger.Seeds({0: 1.0, 1: 2.0})

    def hits(self, scheme, task, multiple):
        return self.read("tasks", "value", scheme=scheme, task=task, multiple=multiple)

    def alone(self, task, scheme, multiple, metric="", rows=""):
        return self.read(f"learned/{task}", "value", scheme=scheme, multiple=multiple)

    def turning_pairs(self, study, scheme):
        return self.bits(study, scheme, 1)


@functools.cache
def asked():
    answers = Asked()
    # Which schemes are flat is only known from results.
    for claim in (one for one in claims_of(["rope"]) if one.name != "flat_is_not_retrieval"):
        for effect in (*claim.needs, *claim.effects):
            assert effect.of(answers)
    return answers.asked


def test_every_claim_asks_for_what_its_preset_measures():
    claims_config, rungs = get_config("small"), ladder.get_config("small").studies
    studies = dict(claims_config.studies.items())
    studies |= {name: rungs[name] for name in claims_config.read if name in rungs}
    studies |= {f"learned/{name}": study for name, study in learned.get_config().studies.items()}
    for study, where in asked():
        if study == "order" or study in STORED:
            continue
        config, scheme = studies[study], where["scheme"]
        names = config.get("schemes") or f"{config.get('methods')},{config.get('stages')},yarn,pi"
        assert scheme in names.split(","), (study, scheme)
        multiples = config.eval.get("multiples") or [m for m, _ in config.eval.get("lengths", ())]
        assert where.get("multiple", 1) in (*multiples, 1), (study, where)
        if study == "extension":
            assert where["steps"] in (0, *config.tuning_steps)
        if where.get("protocol") == "sliding":
            assert where["stride"] in [stride for stride, _ in config.eval.strides]


def test_claims_ask_for_what_is_stored_of_images_and_videos():
    assert set(STORED) <= {*get_config("small").read}
    for study in STORED:
        records = archive.records(DOCS / f"data/{study}.tar.xz")
        for where in (where for name, where in asked() if name == study):
            actual = [r for r in records if where.items() <= r.items()]
            assert len({r["seed"] for r in actual}) == len(actual) == 3, (study, where)
