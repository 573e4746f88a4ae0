"""Tests the atlas and the claims: what is learned, and one tiny run of all their studies."""

import io

import common
import pytest
from rich.console import Console
from study_records import panel_records

from configs import atlas, claims
from experiments.registry import make_experiment
from experiments.results import panels, table
from experiments.running.pool import run_points

LOW, HIGH = (0.2, 0.1, 0.3), (0.99, 0.95, 1.0)


def shares(**of):
    panel = panels.Panel("copy", "exact match", "tokens of a row", (32, 64), (32,))
    return panels.tidy("tasks", panel_records(panel, of))


def test_a_task_counts_for_schemes_that_have_learned_it():
    tasks = shares(
        nope=(LOW, LOW), rope=(HIGH, LOW), alibi=(HIGH, HIGH), t5=((0.95, 0.1, 0.9), LOW)
    )
    assert set(panels.learned(tasks)["scheme"]) == {"rope", "alibi", "t5"}
    cells = panels.solved_table(tasks).cells
    assert list(cells.columns) == ["copy 1x", "copy 2x"] and cells.index[0] == "alibi"
    assert list(cells.loc["alibi"]) == ["3 of 3", "3 of 3"]
    assert list(cells.loc["rope"]) == ["3 of 3", "0 of 3"]
    assert list(cells.loc["t5"]) == ["2 of 3", "0 of 3"]
    assert list(cells.loc["nope"]) == ["0 of 3", "-"]


def made(config, workdir):
    output = io.StringIO()
    return make_experiment(config, workdir, Console(file=output, width=160)), output


@pytest.mark.slow
def test_atlas_and_claims_read_the_same_texts(corpus, tmp_path):
    config = atlas.get_config("tiny")
    for name in [name for name in config.studies if name.startswith("tasks_")]:
        del config.studies[name]
    common.changed(config, schemes="rope,alibi", studies__tasks__task__tasks="copy")
    config.studies.language.corpus = corpus
    one, _ = made(config, tmp_path)
    assert {name: len(part.points) for name, part in one.parts.items()} == dict(language=2, tasks=2)
    assert run_points(one) == []
    path = one.write_report("the command")
    frame = table.read(path.with_name(table.FILE))
    assert set(frame["study"]) == {"language", "tasks"}
    assert {"last", "windowed", "exact match", "parameters"} <= set(frame["measure"])

    tested = claims.get_config("tiny")
    for name in [name for name in tested.studies if name not in ("language", "probed")]:
        del tested.studies[name]
    common.changed(tested, schemes="rope,alibi")
    tested.studies.language.corpus = corpus
    tested.studies.probed.train.batch_size = 8  # a multiple of the tests' devices
    one, output = made(tested, tmp_path)
    assert run_points(one) == []
    page = one.write_report("the command").read_text()
    assert "sinusoidal_fails: no data yet in ladder/c_l256_t20" in page
    lines = [line.split() for line in output.getvalue().splitlines() if " pi_bound " in line]
    assert lines and "missing" not in lines[0]
