"""Tests that tables of docs/multimodal.md and docs/results.md are what the kept results give."""

import dataclasses
import json
from pathlib import Path

import pytest

from experiments.results import archive
from experiments.results.reports import atlas_tables, multimodal_tables
from experiments.results.reports.multimodal_tables import TABLES, Table, markdown, rewritten

DOCS = Path(__file__).parents[1] / "docs"
TOY = Table("toy", "A toy", "accuracy", {"small": ("size", 1), "large": ("size", 2)})
PAGE = """# Title

## Another

| scheme | kept |
|---|---|

## A toy

```
python launch.py
```

The table has shares:

| scheme | any |
|---|---|
| `old` | 0.1 |

- A finding.

| scheme | kept |
|---|---|
"""


def results(table, **values):
    """Returns records of every column of a table, from the numbers of each scheme's seeds."""
    return [
        dict(scheme=scheme, seed=seed, condition=condition, x=x, metric=table.metric)
        | dict(value=value, chance=0.1)
        for scheme, seeds in values.items()
        for seed, value in enumerate(seeds)
        for condition, x in table.columns.values()
    ]


def pack(path, records):
    """Writes an archive of one point with all the records."""
    folder = path.with_suffix("") / "runs/point/seed0"
    folder.mkdir(parents=True)
    (folder / "run.json").write_text("{}")
    (folder / "metrics.jsonl").write_text("{}\n")
    found = {"training": {"steps": 1}, "records": records}
    (folder / "evaluation.json").write_text(json.dumps(found))
    path.write_bytes(archive.pack(path.with_suffix("")))


def test_a_table_is_written_anew_and_the_text_stays(tmp_path):
    records = results(TOY, good=(0.8, 0.9, 1.0), even=(0.5, 0.5), lost=(0.5, None, 0.5))
    for r in records:
        if (r["scheme"], r["x"], r["value"]) == ("even", 1, 0.5):
            r["value"] = 0.95
    pack(tmp_path / "toy.tar.xz", [*records, records[0] | dict(metric="error")])
    text = rewritten(PAGE, TOY.heading, markdown(TOY.read(tmp_path)))
    expected = """
| scheme | small | large |
|---|---|---|
| `good` | 0.900 ± 0.058 | **0.900** ± 0.058 |
| `even` | **0.950** ± 0.000 (2 of 3 seeds) | 0.500 ± 0.000 (2 of 3 seeds) |
| `lost` | not finite | not finite |
"""
    old = "\n| scheme | any |\n|---|---|\n| `old` | 0.1 |\n"
    assert old in PAGE and text == PAGE.replace(old, expected)
    assert rewritten(text, TOY.heading, markdown(TOY.read(tmp_path))) == text


def test_a_page_without_the_table_is_refused(tmp_path):
    pack(tmp_path / "toy.tar.xz", results(TOY, good=(0.8,)))
    page = "# Title\n\n## A toy\n\nNone.\n\n## Another\n\n| scheme | kept |\n|---|---|\n"
    with pytest.raises(ValueError, match="no table below 'A toy'"):
        rewritten(page, TOY.heading, "")


def test_an_archive_without_a_column_is_refused(tmp_path):
    records = [r for r in results(TOY, good=(0.8,)) if r["x"] == 1]
    pack(tmp_path / "toy.tar.xz", records)
    with pytest.raises(ValueError, match=r"toy\.tar\.xz has no accuracy of size at 2"):
        TOY.read(tmp_path)


def test_without_an_archive_the_table_stays(tmp_path, monkeypatch, capsys):
    (tmp_path / "page.md").write_text(PAGE.replace("A toy", "Images"))
    pack(tmp_path / "images.tar.xz", results(TABLES[0], nope=(0.5, 0.6)))
    arguments = ["tables", f"--archives={tmp_path}", f"--page={tmp_path}/page.md"]
    monkeypatch.setattr("sys.argv", arguments)
    assert multimodal_tables.main() == 0
    assert "Video: " in capsys.readouterr().out
    assert "| `nope` | **0.550** ± 0.050 |" in (tmp_path / "page.md").read_text()


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.experiment)
def test_the_page_has_what_the_archives_give(table):
    page, study = (DOCS / "multimodal.md").read_text(), table.read(DOCS / "data")
    assert study is not None and rewritten(page, table.heading, markdown(study)) == page


def test_the_page_of_results_has_what_the_atlas_and_the_archive_give():
    page = (DOCS / "results.md").read_text()
    packed = DOCS / "data/extrapolation_long.tar.xz"
    assert atlas_tables.written(page, DOCS / "atlas", packed) == page
    with pytest.raises(ValueError, match=r"data has no atlas\.json; give the folder of an atlas"):
        atlas_tables.written(page, DOCS / "data", packed)


def test_a_table_of_the_atlas_has_means_margins_and_whose_model_was_evaluated():
    answers = [
        dict(scheme=scheme, topic="recall", multiple=4.0, mean=mean, margin=0.004)
        for scheme, mean in (("rope", 0.25), ("yarn", 0.5))
    ]
    rows = atlas_tables.Rows("A toy", "yarn rope", {"recall 4x": ("recall", 4)})
    expected = """| scheme | recall 4x |
|---|---|
| `yarn` (on `rope`) | 0.500 ± 0.004 |
| `rope` | 0.250 ± 0.004 |
"""
    trained = {"rope": "rope", "yarn": "rope"}
    assert atlas_tables.of_atlas(rows, answers, trained) == expected
    shares = atlas_tables.of_atlas(dataclasses.replace(rows, is_share=True), answers, trained)
    assert "| `yarn` (on `rope`) | 50 ± 0 |\n| `rope` | 25 ± 0 |\n" in shares
    with pytest.raises(ValueError, match="no result has rope at recall 4x; run it"):
        atlas_tables.of_atlas(rows, answers[1:], trained)


def test_a_gain_is_bold_where_it_exceeds_its_margin():
    answers = [
        dict(scheme=scheme, topic="gain", multiple=2.0, mean=mean, margin=0.1)
        for scheme, mean in (("fox", 0.2), ("alibi", 0.05))
    ]
    rows = atlas_tables.Rows("A toy", "fox alibi", {"gain 2x": ("gain", 2)})
    text = atlas_tables.of_atlas(rows, answers, {"fox": "fox", "alibi": "alibi"})
    assert text.endswith("| `fox` | **0.200 ± 0.100** |\n| `alibi` | 0.050 ± 0.100 |\n")
