"""Tests the tidy table, what is shown of it, and the one report of all studies."""

import math
import re

import common
import pandas as pd
import pytest
from study_records import record
from tiny_runs import comparison, config

from experiments.results import lengths, table

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


def test_the_page_stands_alone_and_the_same_results_give_the_same_bytes(finished, workdir, corpus):
    page = (finished / "report.html").read_text()
    assert "http" not in re.sub('src="data:[^"]*"', "", page)
    assert "<script" not in page and "@import" not in page
    one, _ = comparison(config(corpus), workdir)
    assert one.write_report("the command").read_text() == page
    for name in (table.FILE, "comparisons.csv"):
        assert (workdir / name).read_bytes() == (finished / name).read_bytes()


def test_a_tidy_table_is_read_as_it_was_written(tmp_path):
    written = lengths.tidy("text", [record("rope", 0, 1, 1.5, by_text=[1.0, 1.1])])
    (tmp_path / table.FILE).write_bytes(table.packed(written))
    read = table.read(tmp_path / table.FILE)
    pd.testing.assert_frame_equal(read, written, check_dtype=False, rtol=1e-6)
    assert table.by_seed(read)["value"].tolist() == [pytest.approx(1.5)]


def test_a_number_that_is_there_twice_is_refused():
    row = dict(scheme="a", seed=0, measure="loss", x=1, value=1.0, unit="bits")
    common.refuses("scheme a, seed 0", lambda: table.tidy("small", [row, row | {"value": 2.0}]))


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
    assert set(shown.cells.loc["c"]) == {"not finite"}


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


def test_marks_are_as_sure_as_the_texts_agree(corpus, tmp_path):
    """Without the losses of single texts, the marks say nothing of other texts."""
    for spread, is_marked in ((0.01, True), (1.0, False)):
        records = []
        for r in text_records({"alibi": -0.1, "rope": 0.1}):
            more = spread * (r["scheme"] == "alibi")
            records.append(r | {"by_text": [r["loss"] * (1 + more), r["loss"] * (1 - more)]})
        words = shown_of(corpus, tmp_path, records).loc["alibi", "16x"]
        assert ("▲" in words) == is_marked, spread


def test_what_is_not_finite_is_not_averaged(corpus, tmp_path):
    records = [
        r | {"bits_per_byte": math.nan}
        if (r["scheme"], r["seed"], r["length"]) == ("alibi", 1, 256)
        else r
        for r in text_records()
    ]
    cells = shown_of(corpus, tmp_path, records)
    assert cells.loc["alibi", "4x"] == "not finite"
    assert cells.loc["alibi", "2x"].startswith("1.191")
