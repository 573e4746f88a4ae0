"""Tests the rule that decides on published claims, and that every claim has a run that tests it."""

import functools
import math
from pathlib import Path

import common
import pandas as pd
import pytest
from study_records import record

from configs import ladder, learned
from configs.claims import get_config
from experiments.results import archive, ledger
from experiments.results.statistics import mean_and_margin
from experiments.studies.claims import CLAIMS, effects

DATA = common.ROOT / "docs/data"


@pytest.mark.parametrize(
    ("low", "cell", "word"),
    [
        (-math.inf, (-1.0, 0.43, 3), "reproduced"),
        (-math.inf, (-0.3, 0.43, 3), "mixed or underpowered"),
        (-math.inf, (1.0, 0.43, 3), "not reproduced"),
        (-math.inf, (math.inf, math.nan, 3), "mixed or underpowered"),
        (-1.0, (-0.5, 0.43, 3), "reproduced"),
        (-1.0, (-0.5, 0.86, 3), "mixed or underpowered"),
        (-1.0, (-2.0, 0.43, 3), "not reproduced"),
    ],
)
def test_an_interval_decides(low, cell, word):
    assert ledger.decide(ledger.Effect("a range", lambda a: a, low=low, high=0.0), cell) == word


def test_the_worst_number_decides_on_a_claim():
    good, mixed, bad = "reproduced", "mixed or underpowered", "not reproduced"
    missing = "missing"
    assert ledger.verdict([good, good]) == good and ledger.verdict([good, mixed]) == mixed
    assert ledger.verdict([good, mixed, bad]) == bad
    assert ledger.verdict([bad, missing]) == missing


def noisy(*seeds):
    return ledger.Effect("a number", lambda a: pd.Series(seeds), low=0.0)


def claim(name, effect):
    return ledger.Claim(name, "It holds.", "2108.12409", "a scale", ("rope",), (effect,))


def decided(claims):
    frame, missing = ledger.measured(claims, ledger.Answers({}))
    return ledger.tested(claims, frame).set_index("claim"), missing


def test_the_numbers_of_all_claims_are_corrected_together():
    clear, weak = noisy(1.0, 1.01, 1.02), noisy(1.0, 1.2, 0.6)
    assert ledger.p_value(weak, mean_and_margin((1.0, 1.2, 0.6))) == pytest.approx(0.034, abs=0.001)
    unclear = [noisy(1.0, -0.9, 0.1)] * 4
    table, _ = decided(
        [claim(*pair) for pair in zip("abcdef", [clear, weak, *unclear], strict=True)]
    )
    assert list(table["verdict"]) == ["reproduced"] * 2 + ["mixed or underpowered"] * 4
    after = list(table["claim_after_correction"])
    assert after == ["reproduced"] + ["mixed or underpowered"] * 5


def test_growth_is_over_the_most_recent_tokens_alone():
    """In texts of the trained length the first tokens that count have nothing before them."""
    places = (("last", 1, 3.0), ("windowed", 1, 2.0), ("last", 4, 3.0))
    records = [
        record("rope", seed, multiple, bits, protocol=protocol)
        for protocol, multiple, bits in places
        for seed in range(3)
    ]
    answers = ledger.Answers({"language": records})
    assert effects.change("rope", 4, "language").of(answers)[0] == pytest.approx(0.5)
    assert effects.rise("rope", 4, "language").of(answers)[0] == pytest.approx(0.0)


class Asked(ledger.Answers):
    """Notes what is asked for, and answers with a number."""

    def __init__(self):
        super().__init__({})
        object.__setattr__(self, "asked", [])

    def read(self, study, key, **where):
        self.asked.append((study, where))
        return pd.Series({0: 1.0, 1: 2.0})


@functools.cache
def asked():
    answers = Asked()
    for one in CLAIMS:
        for effect in one.effects:
            assert len(effect.of(answers))
    return answers.asked


def test_every_claim_asks_for_what_its_preset_measures():
    config = get_config("small")
    studies = dict(config.studies.items())
    studies |= {f"ladder/{name}": s for name, s in ladder.get_config("small").studies.items()}
    studies |= {f"learned/{name}": s for name, s in learned.get_config().studies.items()}
    known = {*config.studies, *config.read}
    for study, where in asked():
        assert study in known
        if study == "video":
            continue
        part, scheme = studies[study], where["scheme"]
        names = part.get("schemes") or f"{part.get('stages')},yarn,pi"
        assert scheme in names.split(","), (study, scheme)
        multiples = part.eval.get("multiples") or [m for m, _ in part.eval.get("lengths", ())]
        assert where.get("multiple", 1) in (*multiples, 1), (study, where)
        if where.get("protocol") == "sliding":
            assert where["stride"] in [stride for stride, _ in part.eval.strides]


def test_claims_ask_for_what_is_stored():
    for file, folder in (("video", "video"), ("learned", "learned/flip_flops")):
        records = archive.records(Path(DATA / f"{file}.tar.xz"))
        for where in (where for name, where in asked() if name == folder):
            actual = [r for r in records if where.items() <= r.items()]
            assert len({r["seed"] for r in actual}) == len(actual) == 3, (file, where)
