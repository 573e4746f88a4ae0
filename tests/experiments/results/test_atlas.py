"""Tests the atlas: its data and pages, and one run of all its studies."""

import io
import json
import re

import common
import pandas as pd
import pytest
from rich.console import Console
from study_records import ABOUT, HIGH, LOW, TRAINING, panel_study, text_records

from configs.atlas import get_config
from experiments.results import atlas_data
from experiments.results.answers import AGAINST, OWN_WINDOW, by_question
from experiments.results.atlas import COST, EFFECTIVE, PARAMETERS, atlas_of, family
from experiments.results.lengths import WINDOWED, LengthStudy, with_window
from experiments.results.record import write_files
from experiments.results.reports.atlas_page import write
from experiments.running.schedule import run_points
from experiments.studies.atlas import Atlas
from posenc_jax import REGISTRY


def language(**losses):
    training = [
        TRAINING | {"scheme": scheme, "trained": "rope", "seed": seed}
        for scheme in losses
        for seed in range(3)
    ]
    return LengthStudy(with_window(text_records(**losses)), training, [], ABOUT, [])


@pytest.fixture(scope="module")
def small():
    return atlas_of(
        {
            "language": language(nope=3.0, rope=2.0, alibi=1.0),
            "tasks": panel_study(nope=(LOW, LOW), rope=(HIGH, LOW), alibi=(HIGH, HIGH)),
            "tasks_copy": panel_study(nope=(HIGH, LOW), rope=(HIGH, LOW), alibi=(HIGH, HIGH)),
        },
        ABOUT | {"tasks": {"copy": "Copies."}},
    )


QUESTIONS = ["text 1x", "text 2x", "text, windowed 1x", "manual 1x", "manual 2x"]
QUESTIONS += ["manual, windowed 1x", "gain 2x", "gain, manual 2x", "copy 1x", "copy 2x"]
QUESTIONS += [PARAMETERS, COST, EFFECTIVE, f"{EFFECTIVE}, manual"]


def test_the_atlas_has_every_answer_once(small):
    assert small.questions["question"].tolist() == QUESTIONS
    assert small.schemes == ["nope", "rope", WINDOWED, "alibi"]
    rows = by_question(small.answers)
    assert rows["rope", COST, 1]["mean"] == 500.0 and ("alibi", COST, 1) not in rows
    assert rows["alibi", PARAMETERS, 1]["mean"] == 1000
    assert rows["alibi", EFFECTIVE, 1]["mean"] == 128
    alibi = rows["alibi", "copy", 2]
    assert alibi["vs_rope"] == "better" and alibi["solved"] == 3 and alibi["chance"] == 0.1
    assert small.families["comparisons"].sum() > 20


def test_the_data_are_read_as_they_were_written(small, tmp_path):
    write_files(tmp_path, atlas_data.files(small))
    actual = atlas_data.read(tmp_path)
    pd.testing.assert_frame_equal(atlas_data.read(str(tmp_path)), actual)
    assert len(actual) == len(small.answers)
    for key in ("question", "scheme", "learned", "unit", "is_error", "vs_rope", f"vs_{WINDOWED}"):
        one, other = (table[key].astype(object).fillna("") for table in (actual, small.answers))
        assert one.tolist() == other.tolist()
    for key in ("mean", "margin", f"vs_{OWN_WINDOW}_p", "chance", "solved"):
        assert actual[key].tolist() == pytest.approx(small.answers[key].tolist(), nan_ok=True)
    values = atlas_data.read_values(tmp_path)
    pd.testing.assert_frame_equal(atlas_data.read_values(str(tmp_path)), values)
    assert values["value"].tolist() == pytest.approx(small.values["value"].tolist())
    saved = json.loads((tmp_path / "atlas.json").read_text())
    assert [q["question"] for q in saved["questions"]] == QUESTIONS
    assert {item["against"] for item in saved["families"]} == {*AGAINST, OWN_WINDOW}
    path = tmp_path / atlas_data.CSV
    pd.read_csv(path).rename(columns={"learned": "x"}).to_csv(path, index=False)
    common.refuses("'learned'", lambda: atlas_data.read(tmp_path))
    assert atlas_data.read(tmp_path / "none").empty


def test_pages_have_every_scheme_and_what_is_missing(small, tmp_path):
    claim = {"name": "flat", "schemes": ["alibi"], "verdict": "reproduced", "says": "It holds."}
    claim |= {"source": "2108"}
    path = write(tmp_path, small, {"alibi": "<p>a card"}, {}, [claim])
    page = path.read_text()
    assert "tasks: fire, seed 1: no number" in page and "rank correlation" in page
    assert len(re.findall("<tr data-name|<tr class=baseline data-name", page)) == 4
    assert "0 of 3<small>" in page and "3 of 3<small>" in page
    nope = re.search("<tr class=baseline data-name='nope'.*?<tr", page, re.DOTALL)[0]
    assert nope.count("<td data-value=''><small></small>") == 2  # it has not learned to copy
    linked = re.findall('<a xlink:href="schemes/(.*?).html"', page)
    assert sorted(linked) == ["alibi", "nope", "rope"]
    assert "xlink:href" in (tmp_path / "window.svg").read_text()
    assert "Families of comparisons: loss on text against nope" in page and "q = 0.025" in page
    assert "../claims/claims.html" in page and "The task: Copies." in page
    alibi = (tmp_path / "schemes" / "alibi.html").read_text()
    assert "a card" in alibi
    assert re.search(r"It reads the checkpoints of rope\.\s+Of \d+ questions:", alibi)
    assert "<a href='../../claims/claims.html#flat'>reproduced</a>: It holds. (2108)" in alibi
    assert "128 on text, 128 on the manual" in alibi and "against its own window" in alibi
    assert "It holds." not in (tmp_path / "schemes" / "rope.html").read_text()


def test_every_scheme_has_a_family():
    assert family("nope") == "none" and family("yarn") == "rotary" and family("t5") == "bias"
    assert family(WINDOWED) == "rotary"
    assert all(family(name) for name in REGISTRY)


def atlas(corpus, workdir, **changes):
    config = get_config("tiny")
    config.studies.language.corpus = corpus
    for name in [name for name in config.studies if name.startswith("tasks_")]:
        del config.studies[name]
    config.studies.tasks.task.tasks = "copy"
    output = io.StringIO()
    return Atlas(common.changed(config, **changes), workdir, Console(file=output)), output


@pytest.mark.slow
def test_one_program_runs_all_studies_and_goes_on_where_it_was(corpus, tmp_path):
    one, _ = atlas(corpus, tmp_path, schemes="rope,alibi")
    assert {name: len(part.points) for name, part in one.parts.items()} == dict(language=2, tasks=2)
    assert run_points(one.parts, 3) == []
    assert (tmp_path / "tasks/runs/alibi/seed0/evaluation.json").exists()
    assert not (tmp_path / "language").exists()
    assert run_points(one.parts) == []
    path = tmp_path / "tasks/runs/alibi/seed0/run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"device": "a machine elsewhere"}))
    again, output = atlas(corpus, tmp_path, schemes="rope,alibi")
    page = again.write_report("the command").read_text()
    assert ", a machine elsewhere." in page
    # Cells at the floor are hidden in the page, and a tiny run has many.
    table = atlas_data.read(tmp_path / "atlas")
    assert {"text 2x", "copy 1x", COST} <= {*table["question"]}
    single = (tmp_path / "atlas/schemes/rope.html").read_text()
    assert "Which rotary pairs decide" in single and "RoPE: 0 parameters" in single
    assert run_points(again.parts) == [] and output.getvalue().count("2 of 2 were done before") == 2
