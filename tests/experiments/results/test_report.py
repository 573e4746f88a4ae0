"""Tests the report: its numbers, what it refuses to average, and that the page stands alone."""

import csv
import dataclasses
import io
import itertools
import json
import math

import markupsafe
import pytest
from rich.console import Console
from study_records import ABOUT, TRAINING, record

from experiments.results import lengths
from experiments.results.length_table import length_table
from experiments.results.reports import length_report as report
from experiments.results.speedup import reached, smoothed, with_speedups
from experiments.results.statistics import by_seed, cells_of
from experiments.training.recipe import RULES

SLOPES = {"alibi": -0.01, "nope": 0.4, "rope": 1.1, "yarn": 0.1}


def make_study(slopes=SLOPES, seeds=(0, 1, 2), splits=("test",), strides=()):
    """Loss grows by the slope with every doubling; seed ``s`` adds ``s / 1000`` bits."""
    records, curves, training = [], [], []
    protocols = [("last", None), *(("sliding", stride) for stride in strides)]
    for (scheme, slope), seed in itertools.product(slopes.items(), seeds):
        base = 1.2 + seed / 1000
        for split in splits:
            records.append(record(scheme, seed, 1, base + 0.0005, protocol="windowed", split=split))
            for k, (protocol, stride) in itertools.product(range(5), protocols):
                where = dict(protocol=protocol, split=split, stride=stride)
                records.append(record(scheme, seed, 2**k, base + slope * k, **where))
        run, positions = {"scheme": scheme, "seed": seed}, [1, 8, 64, 256, 1024]
        curves.append(run | {"split": "test", "positions": positions, "loss": [5, 4, 3, 3, 4]})
        training.append(run | TRAINING | {"trained": "rope" if scheme == "yarn" else scheme})
    return lengths.LengthStudy(records, training, [], ABOUT, curves)


def page_of(study, folder):
    return report.write(folder, study).read_text(encoding="utf-8")


def printed(study, width=200):
    console = Console(file=io.StringIO(), width=width)
    report.print_tables(study, console)
    return console.file.getvalue()


def replace_bits(study, **where_and_bits):
    bits = {"bits_per_byte": where_and_bits.pop("bits")}
    where = where_and_bits | {"protocol": "last"}
    records = [r | bits if where.items() <= r.items() else r for r in study.records]
    return dataclasses.replace(study, records=records)


def test_without_a_test_split_another_is_shown_first(tmp_path):
    study = make_study(splits=("prose", "code"))
    curves = [curve | {"split": "code"} for curve in study.curves]
    study = dataclasses.replace(study, curves=curves)
    assert "alibi" in printed(study)
    page_of(study, tmp_path)
    assert {path.stem for path in tmp_path.glob("*.svg")} >= {"loss_vs_length", "loss_vs_position"}


def test_a_mean_has_half_of_its_interval():
    records = [record("a", seed, 1, bits) for seed, bits in enumerate((1.0, 2.0, 4.0))]
    (cell,) = cells_of(by_seed(records, "length", "bits_per_byte", "test")).to_dict("records")
    # Mean 7/3; squared deviations sum to 14/3; sqrt(14/3 / 2 / 3) = sqrt(7) / 3, times 4.3027.
    margin = pytest.approx(4.3027 * math.sqrt(7) / 3, abs=1e-4)
    assert cell == dict(scheme="a", x=64, mean=pytest.approx(7 / 3), margin=margin, seeds=3)
    (cell,) = cells_of(by_seed(records[:1], "length", "loss", "test")).to_dict("records")
    assert cell["mean"] == pytest.approx(0.7) and math.isnan(cell["margin"]) and cell["seeds"] == 1


def test_effective_context_is_the_longest_that_lowers_the_loss():
    study = make_study()
    effective = length_table(study).effective
    assert effective["alibi"] == 1024 and effective["rope"] == 64
    assert length_table(make_study(seeds=(0,))).effective["alibi"] == 1024
    # A gain counts only if no longer context loses it again.
    for seed in range(3):
        bits = 1.19 + seed / 1000
        study = replace_bits(study, scheme="alibi", seed=seed, length=1024, bits=bits)
    assert length_table(study).effective["alibi"] == 128
    small = make_study({"alibi": -0.0004})
    assert length_table(small).effective["alibi"] == 64


def test_rope_through_a_window_is_a_row_that_the_others_are_compared_with():
    study = make_study()
    study = dataclasses.replace(study, records=lengths.with_window(study.records))
    table = length_table(study)
    row = table.cells[table.cells["scheme"] == lengths.WINDOWED].set_index("x")["mean"]
    assert row[64] == pytest.approx(1.201)  # where a window changes nothing
    assert row[128] == row[1024] == pytest.approx(1.2015)
    for mark in ("is_ahead", "is_gain"):
        assert set(table.cells[table.cells[mark]]["scheme"]) == {"alibi"}
    assert "loss against rope_windowed (16 comparisons, 4 better, 12 worse)" in table.statement
    assert lengths.with_window(study.records) == study.records
    # Where other tokens are scored than through the window, it says nothing.
    fewer = [r | {"tokens": 10} if r["length"] == 1024 else r for r in study.records]
    windowed = {r["length"] for r in lengths.with_window(fewer) if r["scheme"] == lengths.WINDOWED}
    assert windowed == {64, 128, 256, 512}


def test_marks_are_as_sure_as_the_texts_agree():
    """Without the losses of single texts, the marks say nothing of other texts."""
    for spread, is_marked in ((0.01, True), (1.0, False)):
        study, records = make_study({"alibi": -0.1, "rope": 0.1}), []
        for r in lengths.with_window(study.records):
            more = spread * (r["scheme"] == "alibi")
            texts = [r["loss"] * (1 + more), r["loss"] * (1 - more)]
            records.append(r | {"by_text": texts})
        cells = length_table(dataclasses.replace(study, records=records)).cells
        assert cells["is_ahead"].any() == is_marked, spread
    assert length_table(study).cells["is_gain"].any()


@pytest.mark.parametrize("bad", [math.nan, math.inf, None])
def test_what_is_not_finite_is_not_averaged(bad, tmp_path):
    study = replace_bits(make_study(), scheme="alibi", seed=1, length=256, bits=bad)
    cells = length_table(study).cells.set_index(["scheme", "x"])
    assert cells.loc[("alibi", 256), "mean"] == math.inf
    assert math.isnan(cells.loc[("alibi", 256), "margin"])
    assert math.isfinite(cells.loc[("alibi", 128), "mean"])
    assert "not finite" in printed(study)
    assert "not finite" in page_of(study, tmp_path)
    json.loads((tmp_path / "results.json").read_text(), parse_constant=pytest.fail)


def test_the_page_stands_alone(tmp_path):
    page = page_of(make_study(splits=("test", "manual"), strides=(64, 1)), tmp_path)
    assert "http" not in page
    assert "<script" not in page and "@import" not in page and " src=" not in page
    assert page.count("<svg") == 3
    assert page.count(str(markupsafe.escape(RULES))) == 1
    ids = [part.split('"')[0] for part in page.split(' id="')[1:]]
    assert len(ids) == len(set(ids))
    assert "a &amp; b" in page and "12ab" in page


def test_round_trip(tmp_path):
    study = make_study()
    report.write(tmp_path, study)
    assert lengths.LengthStudy(**json.loads((tmp_path / "results.json").read_text())) == study
    rows = list(csv.DictReader(io.StringIO((tmp_path / "results.csv").read_text())))
    assert len(rows) == len(study.records)
    assert [float(row["bits_per_byte"]) for row in rows] == [
        r["bits_per_byte"] for r in study.records
    ]


def test_effective_speedup_is_the_baselines_compute_at_the_same_loss_over_ones_own():
    """The baseline falls by 0.1 in ten steps, and its mean over a tenth is 4 at step 115."""
    steps = range(10, 201, 10)
    nope = [(step, 5.1 - step / 100) for step in steps]
    smooth = [mean for _, mean in smoothed(nope)]
    assert smooth == pytest.approx([5.0, *(5.1 - (step - 5) / 100 for step in steps[1:])])
    curves = {("nope", 0): nope}
    curves |= {(name, 0): [(200, loss)] for name, loss in (("t5", 4.0), ("rope", 3.0))}
    cost = {"seed": 0, "tokens": 1e6, "parameters": 1000}
    runs = [cost | {"scheme": name, "trained": name} for name in ("nope", "t5", "rope", "fire")]
    runs[1]["parameters"] = 2000
    nope, t5, rope, fire = with_speedups([*runs, runs[1] | {"seed": 1}], curves)[:4]
    assert nope["speedup"] == 1
    assert t5["speedup"] == pytest.approx(115 / 200 / 2)
    assert rope["speedup"] is None and rope["speedup_above"] == 1
    assert "speedup" not in fire
    # A dip on the way does not count: it is no worse from step 3 on.
    assert reached([(1, 5.0), (2, 3.0), (3, 4.0), (4, 3.0)], 3.5) == 3.5
    assert reached([(1, 3.0), (2, 4.0)], 3.5) is None
