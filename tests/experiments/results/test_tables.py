"""Tests that tables of docs/multimodal.md and docs/results.md are what the kept results give."""

from pathlib import Path

import pandas as pd
import pytest
from study_records import pack, results, text_records

from experiments.evaluation import copying
from experiments.results.answers import judged, of_text
from experiments.results.lengths import WINDOWED
from experiments.results.reports import (
    atlas_tables,
    extension_tables,
    ladder_page,
    learned_page,
    multimodal_tables,
)
from experiments.results.reports.markdown import written
from experiments.results.reports.sources import read as read_sources
from experiments.results.reports.templates import Table

DOCS = Path(__file__).parents[3] / "docs"
COLUMNS = {"small": ("size", 1), "large": ("size", 2)}
TOY = Table("A toy", COLUMNS, experiment="toy", metric="accuracy")
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


def test_a_table_is_written_anew_and_the_text_stays(tmp_path, monkeypatch):
    monkeypatch.setattr(multimodal_tables, "TABLES", [TOY])
    good, even = (0.8, 0.9, 1.0), (0.5, 0.6, 0.7)
    records = results(TOY, nope=even, good=good, even=even, lost=(0.5, None, 0.5))
    pack(tmp_path / "toy.tar.xz", [*records, records[0] | dict(metric="error")])
    tables = multimodal_tables.tables(tmp_path)
    text = written(PAGE, tables)
    expected = """
| scheme | small | large |
|---|---|---|
| `good` | 0.900 ± 0.248 ▲ | 0.900 ± 0.248 ▲ |
| `even` | 0.600 ± 0.248 | 0.600 ± 0.248 |
| `nope` | 0.600 ± 0.248 | 0.600 ± 0.248 |
| `lost` | not finite | not finite |
"""
    old = "\n| scheme | any |\n|---|---|\n| `old` | 0.1 |\n"
    assert old in PAGE and text.startswith(PAGE.split(old)[0] + expected)
    assert "Families of comparisons: a toy against nope (2 comparisons, 2 better" in text
    assert written(text, tables) == text


def test_the_page_has_what_the_archives_give():
    page, tables = (DOCS / "multimodal.md").read_text(), multimodal_tables.tables(DOCS / "data")
    assert written(page, tables) == page, f"run {multimodal_tables.__name__}"


def test_the_page_has_what_the_records_of_longer_models_give():
    page, tables = (DOCS / "extension.md").read_text(), extension_tables.tables(DOCS / "data")
    assert written(page, tables) == page, f"run {extension_tables.__name__}"


def test_the_page_has_what_the_atlas_and_the_archive_give():
    page, tables = (DOCS / "results.md").read_text(), atlas_tables.tables(read_sources(DOCS))
    assert written(page, tables) == page, "run make results"


def shown(values, schemes, columns):
    table, trusted = Table("A toy", columns, schemes=schemes), {("text", 2.0): ["3 seeds"]}
    return atlas_tables.of_atlas(table, *judged(values), {"fox": "rope"}, trusted)


def test_a_table_of_losses_has_marks_and_says_what_was_compared():
    values = of_text(text_records(rope=2.0, fox=1.0, t5=3.0), 64)
    text = shown(values, f"{WINDOWED} fox t5", {"2x": ("text", 2), "gain": ("gain", 2)})
    lines = text.splitlines()
    assert lines[2] == f"| `{WINDOWED}` (on `rope`) | 2.510 ± 0.025 | - |"
    assert lines[3].startswith("| `fox` (on `rope`) | 1.020 ± 0.050 ▲ | **0.490 ± 0.0")
    assert lines[4].startswith("| `t5` | 3.020 ± 0.050 ▼ | **")
    assert lines[5] == "| *trust* | `3 seeds` |  |"
    said = " ".join(lines[7:])
    assert "loss on text against rope_windowed" in said and "gain against own_window" in said
    assert "against nope" not in said and "tasks" not in said
    page = written(PAGE, {"A toy": text})
    assert written(page, {"A toy": text}) == page and page.count("Families of comparisons") == 1
    with pytest.raises(ValueError, match="t5 at recall 4x"):
        shown(values, "t5", {"4x": ("recall", 4)})


def test_copying_has_a_number_for_each_seed_and_the_best_of_the_main_rung_first():
    rows = [("long", "fox", 0, 0.1), ("long", "fox", 1, -0.001), ("long", "rope", 0, 0.2)]
    models = pd.DataFrame([*rows, ("short", "t5", 0, 0.3)], columns=[*copying.MODEL, "copied"])
    ladder = {"rungs": {"short": {}, "long": {}, "empty": {}}, "main": "long"}
    lines = atlas_tables.of_copied(models, ladder).splitlines()
    assert lines[0] == "| scheme | `short` | `long` |"
    assert lines[2:] == [
        "| `rope` | - | 0.20 |",
        "| `fox` | - | 0.10, 0.00 |",
        "| `t5` | 0.30 | - |",
    ]


def test_a_loss_to_the_oracle_that_is_not_known_is_a_dash():
    row = {"scheme": "t5", "window": 2.0, "extrapolated": 2.5, "oracle": 1.9}
    lines = atlas_tables.by_scheme(
        *ladder_page.oracle({"oracle": [row | {"lost": None, "margin": None}]})
    )
    assert lines.splitlines()[-1] == "| `t5` | 2.000 | 2.500 | 1.900 | - |"


def test_copying_measures_the_models_that_its_table_lacks(tmp_path, monkeypatch):
    for scheme, file in (
        ("rope", "evaluation.json"),
        ("fox", "evaluation.json"),
        ("t5", "run.json"),
    ):
        (run := tmp_path / "long/runs" / scheme / "seed1/checkpoints").mkdir(parents=True)
        (run.parent / file).touch()
    out = tmp_path / "copied.csv"
    out.write_text("rung,scheme,seed,copied\ngone,rope,0,0.5\nlong,fox,1,0.25\n")
    monkeypatch.setattr(copying, "run_and_windows", lambda run, count: (run, count))
    monkeypatch.setattr(copying, "copied", lambda *_: {"value": 0.125})
    copying.main([f"--workdir={tmp_path}", f"--out={out}"])
    lines = "gone,rope,0,0.500", "long,fox,1,0.250", "long,rope,1,0.125"
    assert out.read_text().splitlines()[1:] == [*lines]


def test_a_task_learned_alone_has_each_length_below_its_multiple(tmp_path):
    """Studies test other multiples: four times the trained length is not the third of any three."""
    model = {"study": "copy", "scheme": "rope", "seed": 0, "steps": 9, "to_0.9": 4, "to_0.95": 5}
    model |= {"metric": "exact match", "chance": 0.0, "task": "copy", "is_trained": False}
    rows = [{"tokens": 43, "right": 1.0, "is_trained": True}, {"tokens": 86, "right": 0.5}]
    rows += [{"tokens": 172, "right": 0.25}, {"tokens": 43, "right": 0.75, "task": "copy_sparse"}]
    pd.DataFrame([model | row for row in rows]).to_csv(tmp_path / "learned.csv")
    (table,) = learned_page.tables(tmp_path).values()
    assert "| 1x | 2x | 3x | 4x | sparse 1x |" in table
    assert "| `copy` | `rope` | 1 of 1 | 4 | 100 | 50 |  | 25 | 75 |" in table
