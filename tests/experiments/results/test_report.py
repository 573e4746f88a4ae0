"""Tests the tidy table, what is shown of it, and the one report of all studies."""

import io
import math
import re

import numpy as np
import pandas as pd
import pytest
from rich.console import Console
from study_records import record
from tiny_runs import comparison, config

from experiments.results import drawing, lengths, report, table
from experiments.results.statistics import number
from experiments.training.recipe import RULES

SLOPES = {"alibi": -0.01, "nope": 0.4, "rope": 1.1, "yarn": 0.1}


def text_records(slopes=SLOPES, seeds=3, **more):
    """The loss grows by the slope with every doubling; seed ``s`` adds ``s / 1000`` bits."""
    records = []
    for scheme, slope in slopes.items():
        for seed in range(seeds):
            base = 1.2 + seed / 1000
            records.append(record(scheme, seed, 1, base + 0.0005, protocol="windowed", **more))
            records += [record(scheme, seed, 2**k, base + slope * k, **more) for k in range(5)]
    return records


class Study(report.Reported):
    """Is the smallest study that has a report."""

    title = "A < study"

    def __init__(self, workdir, values, failures=()):
        self.workdir, self.values, self.failed = workdir, values, list(failures)
        self.console = Console(file=io.StringIO(), width=100)

    def frame(self):
        rows = [
            dict(scheme=s, seed=seed, measure="loss", x=x, value=v, unit="bits")
            for (s, x), values in self.values.items()
            for seed, v in enumerate(values)
        ]
        return table.tidy("small", rows)

    def tables(self, frame, comparisons):
        return [table.grid(frame, "The <loss>", caption="Lower is better.")]

    def figures(self, frame):
        return {"loss": drawing.curves(frame, ["a"], xlabel="x", ylabel="y", trained=1)}

    def about(self, command):
        return {"command": command, "rules": RULES, "rates": {"a": {1e-3: 2.0, 1e-2: math.inf}}}

    def costs(self):
        cost = dict(parameters=1000, steps=10, tokens=5000, seconds=2.5, final_loss=3.0)
        return [cost | dict(scheme="a", trained="a"), cost | dict(scheme="b", trained="a")]

    def failures(self):
        return self.failed

    def holes(self):
        return []


VALUES = {("a", 1): (1.0, 2.0, 4.0), ("a", 2): (1.0, 1.0, 1.0), ("b", 1): (3.0, math.nan, 5.0)}
FAILURE = {"scheme": "[red]c", "seed": 1, "reason": "no </p> number"}


@pytest.fixture(scope="module")
def reported(tmp_path_factory):
    """Returns a study whose report is written, and the page."""
    study = Study(tmp_path_factory.mktemp("report"), VALUES, [FAILURE])
    return study, report.write(study, "python launch.py --config=x").read_text()


def test_the_page_stands_alone(reported):
    _, page = reported
    assert "http" not in re.sub('src="data:[^"]*"', "", page)
    assert "<script" not in page and "@import" not in page
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert "A &lt; study" in page and "The &lt;loss&gt;" in page and "no &lt;/p&gt; number" in page
    assert re.search(r"Best mean</h2>\s*<ul>\s*<li>a: 1</li>", page), "who won stands first"
    assert "--config=x" in page and "Learning rates" in page and "no result" in page


def test_the_same_results_give_the_same_bytes(reported, tmp_path):
    study, _ = reported
    again = Study(tmp_path, VALUES, [FAILURE])
    report.write(again, "python launch.py --config=x")
    for path in sorted(study.workdir.iterdir()):
        assert path.read_bytes() == (tmp_path / path.name).read_bytes(), path.name
    assert {path.name for path in tmp_path.iterdir()} == {
        "report.html",
        "results.csv.gz",
        "loss.svg",
    }


def test_the_terminal_shows_the_first_table_and_what_failed(reported):
    printed = reported[0].console.file.getvalue()
    assert "failed: [red]c, seed 1: no </p> number" in printed
    (line,) = (line for line in printed.splitlines() if line.strip().startswith("a"))
    # Mean 7/3; squared deviations sum to 14/3; sqrt(14/3 / 2 / 3) = sqrt(7) / 3, times 4.3027.
    assert line.split() == ["a", "2.333", "±3.795", "1.000", "±0.000"]
    (line,) = (line for line in printed.splitlines() if line.strip().startswith("b"))
    assert line.split() == ["b", "not", "finite", "-"]


def test_nothing_to_report_is_refused(tmp_path):
    with pytest.raises(ValueError, match="--status"):
        report.write(Study(tmp_path, {}), "the command")
    report.write(Study(tmp_path, {}, [FAILURE]), "the command")
    assert "no &lt;/p&gt; number" in (tmp_path / "report.html").read_text()


def test_a_tidy_table_is_read_as_it_was_written(reported):
    study, _ = reported
    actual = table.read(study.workdir / table.FILE)
    pd.testing.assert_frame_equal(actual, study.frame(), check_dtype=False)
    texts = lengths.tidy("text", [record("rope", 0, 1, 1.5, by_text=[1.0, 1.1])])
    (tmp := study.workdir / "texts.csv.gz").write_bytes(table.packed(texts))
    read = table.read(tmp)
    tmp.unlink()
    np.testing.assert_allclose(read["value"], texts["value"], rtol=1e-6)
    assert table.by_seed(read)["value"].tolist() == [pytest.approx(1.5)]


def test_a_number_that_is_there_twice_is_refused():
    row = dict(scheme="a", seed=0, measure="loss", x=1, value=1.0, unit="bits")
    with pytest.raises(ValueError, match=r"two records of scheme a, seed 0, .*loss, x 1"):
        table.tidy("small", [row, row | {"value": 2.0}])


def test_a_cell_says_how_many_seeds_it_lacks_and_rows_come_best_first():
    rows = [
        dict(scheme=scheme, seed=seed, measure="right", x=x, value=value + seed / 100, unit="share")
        for scheme, value, seeds in (("a", 0.2, 3), ("b", 0.9, 2), ("c", math.inf, 3))
        for seed in range(seeds)
        for x in (8, 16)
    ]
    shown = table.grid(
        table.tidy("small", rows), "share right", is_error=False, heads="{} tokens".format
    )
    assert list(shown.cells.index) == ["b", "a", "c"]
    assert list(shown.cells.columns) == ["8 tokens", "16 tokens"]
    assert shown.cells.loc["b", "8 tokens"] == "0.905\n±0.064 (2 of 3)"
    lines = shown.markdown().splitlines()
    assert lines[0] == "| scheme | 8 tokens | 16 tokens |"
    assert lines[1] == "| --- | ---: | ---: |"
    assert lines[-1] == "| c | not finite | not finite |"


def test_a_number_has_digits_that_suit_its_size():
    numbers = [1.23456, 12.3456, 123.456, 1234.56, 0.00012, -0.0001, math.nan, 123456.0]
    shown = ["1.235", "12.35", "123.5", "1,235", "1.2e-04", "-1.0e-04", "not finite", "1.2e+05"]
    assert [number(x) for x in numbers] == shown


# Losses of text


def shown_of(corpus, workdir, records):
    """Returns the main table that a comparison of texts shows of the given records."""
    one, _ = comparison(config(corpus, eval__splits=("test",)), workdir)
    frame = lengths.tidy("text", records)
    compared = one.comparisons(frame)
    return one.tables(frame, compared)[0].cells.rename(columns=lambda head: head.split("\n")[0])


def test_rope_through_a_window_is_a_row_that_the_others_are_compared_with(corpus, tmp_path):
    cells = shown_of(corpus, tmp_path, text_records())
    assert cells.loc["alibi", "16x"].endswith("✓▲")
    is_marked = cells.map(lambda words: "▲" in words or "✓" in words)
    assert set(cells.index[is_marked.any(axis=1)]) == {"alibi"}
    row = cells.loc[lengths.WINDOWED].str.split("\n").str[0]
    assert row["1x"] == "1.201"  # where a window changes nothing
    assert row["2x"] == row["16x"] == "1.202" and row["windowed"] == "-"
    assert list(cells.index)[:2] == ["alibi", lengths.WINDOWED]


def test_other_tokens_than_through_the_window_say_nothing():
    records = text_records()
    fewer = [r | {"tokens": 10} if r["length"] == 1024 else r for r in records]
    frame = lengths.tidy("text", fewer)
    frame = frame[(frame["scheme"] == lengths.WINDOWED) & (frame["measure"] == "last")]
    assert set(frame["x"]) == {1, 2, 4, 8}


def test_marks_are_as_sure_as_the_texts_agree(corpus, tmp_path):
    """Without the losses of single texts, the marks say nothing of other texts."""
    for spread, is_marked in ((0.01, True), (1.0, False)):
        records = []
        for r in text_records({"alibi": -0.1, "rope": 0.1}):
            more = spread * (r["scheme"] == "alibi")
            records.append(r | {"by_text": [r["loss"] * (1 + more), r["loss"] * (1 - more)]})
        words = shown_of(corpus, tmp_path, records).loc["alibi", "16x"]
        assert ("▲" in words) == is_marked, spread


@pytest.mark.parametrize("bad", [math.nan, math.inf, None])
def test_what_is_not_finite_is_not_averaged(bad, corpus, tmp_path):
    records = [
        r | {"bits_per_byte": bad}
        if (r["scheme"], r["seed"], r["length"]) == ("alibi", 1, 256)
        else r
        for r in text_records()
    ]
    cells = shown_of(corpus, tmp_path, records)
    assert cells.loc["alibi", "4x"] == "not finite"
    assert cells.loc["alibi", "2x"].startswith("1.191")
