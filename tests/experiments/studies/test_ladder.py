"""Tests the ladder: its controls, its equal treatment, its statistics and the leaderboard."""

import dataclasses
import io

import common
import jax
import numpy as np
import pandas as pd
import pytest
from ml_collections import FrozenConfigDict
from rich.console import Console
from toy import RECIPE, SPEC, run

from configs import ladder as config
from experiments.evaluation.controls import beyond, controls
from experiments.evaluation.lengths import Protocols
from experiments.pretrained.trained import load_run
from experiments.registry import make_experiment
from experiments.results import ladder, pages, table
from experiments.results.lengths import WINDOWED
from experiments.results.record import open_run
from experiments.running.pool import run_points, stages_of
from experiments.studies.ladder import narrowed
from experiments.training.own_schemes import digest, register
from experiments.training.text import make_model, spec_of
from posenc_jax import REGISTRY, make

LENGTH = 8
PROTOCOLS = Protocols(
    multiples=(1, 2, 4), last_tokens=4, documents=3, strides=(), window_stride=4, splits=("code",)
)


class Scorer(list):
    """Finds the token that follows to be the loss of a token, and holds the windows it has read."""

    def __call__(self, windows_NL, encoding):
        assert encoding is None
        self.append(windows_NL)
        return windows_NL[:, 1:].astype(float)


def test_controls_score_the_same_tokens_after_whole_cut_and_shuffled_texts():
    documents = np.random.default_rng(0).integers(0, 99, (3, PROTOCOLS.document_length(LENGTH)))
    whole, score = beyond(Scorer(), documents, PROTOCOLS, LENGTH, None), Scorer()
    records = controls(score, score, documents, PROTOCOLS, LENGTH)
    actual = {item["protocol"]: item for item in records}
    np.testing.assert_allclose(actual["cut"]["by_text"], whole["by_text"])
    np.testing.assert_allclose(actual["window"]["by_text"], whole["by_text"])
    targets = documents[:, -PROTOCOLS.last_tokens :].mean(axis=1)
    np.testing.assert_allclose(actual["shuffled"]["by_text"], targets, atol=1e-5)
    near, shown, shuffled = LENGTH + PROTOCOLS.last_tokens, score[0], score[-1]
    np.testing.assert_array_equal(shuffled[:, -near:], shown[:, -near:])
    assert (shuffled[:, :-near] != shown[:, :-near]).any()
    np.testing.assert_array_equal(np.sort(shuffled, axis=1), np.sort(shown, axis=1))


@pytest.mark.parametrize("scheme", ["rope", "transformer_xl", "path"])
def test_models_of_all_schemes_have_equally_many_parameters(scheme):
    study = config.study(64, scheme)
    encoding = {"name": scheme} | study.encodings[scheme].to_dict()
    spec = narrowed(spec_of(encoding, study.model.to_dict(), vocab_size=256), 64)
    model = jax.eval_shape(lambda: make_model(jax.random.key(0), spec, 64))
    count = sum(leaf.size for leaf in jax.tree.leaves(model))
    assert abs(count / config.parameters(128) - 1) < 0.03


def _rung(by_measure, split="code", seeds=3):
    """Returns a tidy table of losses by measure and scheme, with the same noise for each scheme."""
    noise = np.random.default_rng(0).normal(0, 0.001, (seeds, 8))
    rows = [
        dict(scheme=scheme, seed=seed, split=split, measure=measure, x=x, unit="bits per byte")
        | dict(text=text, value=mean + noise[seed, text])
        for (measure, x), losses in by_measure.items()
        for scheme, mean in losses.items()
        for seed in range(seeds)
        for text in range(8)
    ]
    return table.tidy("c", rows)


MEASURES = {
    ("non_overlapping", 1): {"rope": 2.0, "alibi": 1.8},
    ("last", 4): {"rope": 3.0, "alibi": 1.7},
    ("shuffled", 4): {"rope": 3.0, "alibi": 1.9},
    ("beyond", 4): {"rope": 3.0, "alibi": 1.7},
    ("cut", 4): {"rope": 2.0, "alibi": 1.8},
    ("window", 4): {"rope": 2.5, "alibi": 1.75},
}
PROSE = MEASURES | {("non_overlapping", 1): {"rope": 2.0, "alibi": 2.1}}
PROSE |= {("cut", 4): {"rope": 1.5, "alibi": 1.8}}


def test_a_rung_has_five_measures_of_each_kind_of_text_and_of_all():
    frame = pd.concat([_rung(MEASURES), _rung(PROSE, split="prose")])
    means = ladder.asked(frame).groupby(["split", "measure", "scheme"])["value"].mean()
    for split, trained in (("all", 1.95), ("code", 1.8), ("prose", 2.1)):
        assert means[split, "trained", "alibi"] == pytest.approx(trained, abs=0.01)
    expected = {"beyond": 1.7, "gain": 0.1, "order": 0.2, "sight": 0.05}
    for measure, value in expected.items():
        assert means["code", measure, "alibi"] == pytest.approx(value, abs=0.01)
    assert means["code", "beyond", WINDOWED] == pytest.approx(2.0, abs=0.01)
    assert means["prose", "beyond", WINDOWED] == pytest.approx(1.5, abs=0.01)
    assert set(ladder.asked(_rung(MEASURES))["split"]) == {"all"}


def test_schemes_of_a_rung_are_compared_on_each_kind_of_text_too():
    frame = pd.concat([_rung(MEASURES), _rung(PROSE, split="prose")])
    compared = ladder.comparisons(frame, [])
    told = compared.set_index(["measure", "split", "scheme"])["verdict"]
    assert told["trained", "code", "alibi"] == "better"
    assert told["trained", "prose", "alibi"] == "worse"
    assert told["beyond", "all", "alibi"] == "better"
    assert told["beyond", "prose", "alibi"] == "worse"
    assert told["gain", "all", "alibi"] == "better" and told["gain", "all", "rope"] == "worse"
    assert set(compared["family"]) == {*ladder.OPPONENTS} | {
        f"{measure} by kind" for measure in ("trained", "beyond", "gain")
    }


def test_tables_of_the_kept_ladder_have_its_rungs_and_schemes():
    """The numbers are those of the archive, by which texts are counted one by one."""
    main = pages.ladder_main().splitlines()
    assert main[0] == "| scheme | loss at 256 | loss beyond | gain beyond |"
    assert "| `alibi` | 2.046 ±0.012 | 1.889 ±0.024 ▲ | 0.045 ±0.005 ▲ |" in main
    trained = pages.ladder_rungs().splitlines()
    assert len(trained) == 12


ROOTED = """
from posenc_jax import Encoding
class Rooted(Encoding):
    def score(self, logits_BHTS, pairs):
        return logits_BHTS - (1 + abs(pairs.distance())) ** 0.5
"""


@pytest.fixture
def rooted(tmp_path, monkeypatch):
    """Makes a file of a scheme in the current folder, whose name is forgotten after the test."""
    monkeypatch.setitem(REGISTRY, "rooted", "")
    del REGISTRY["rooted"]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rooted.py").write_text(ROOTED)


@pytest.mark.usefixtures("rooted")
def test_a_run_of_a_scheme_of_a_file_is_read_back_with_the_same_file(tmp_path):
    register(["rooted"])
    assert common.hooks(make("rooted")) == {"score"}
    spec = SPEC.to_dict() | {"encoding": {"name": "rooted"}}
    config = spec | {"train": dataclasses.asdict(RECIPE), "own_file": digest("rooted")}
    open_run(tmp_path / "run", config)
    model, _ = run(tmp_path / "run", spec=FrozenConfigDict(spec))
    del REGISTRY["rooted"]  # as in another program
    state, _ = load_run(tmp_path / "run")
    np.testing.assert_array_equal(state.model.embedding, model.embedding)
    (tmp_path / "rooted.py").write_text(f"{ROOTED}# changed")
    common.refuses(r"rooted\.py, and this one was changed", lambda: load_run(tmp_path / "run"))


@pytest.mark.usefixtures("rooted")
def test_a_file_with_the_name_of_a_known_scheme_is_refused(tmp_path):
    (tmp_path / "alibi.py").write_text(ROOTED)
    common.refuses("alibi is a scheme of the registry", lambda: register(["alibi"]))
    (tmp_path / "path.py").write_text("from pathlib import Path")  # a file that only has the name
    register(["path"])


def tiny(workdir, schemes="rope,alibi,nope", seeds=2):
    """Returns the tiny ladder, and what it will print."""
    studies = config.get_config("tiny")
    studies.corpus = "stdlib"
    for study in studies.studies.values():
        study.schemes, study.seeds = schemes, seeds
        study.eval.splits = ("test",)
        study.train.batch_size = 8  # a multiple of the tests' devices
    output = io.StringIO()
    return make_experiment(studies, workdir, Console(file=output, width=200)), output


def test_a_rung_waits_for_the_rates_of_another(tmp_path):
    experiment, _ = tiny(tmp_path)
    rung = experiment.parts["c_l32_t20"]
    first, second = stages_of(experiment.parts)
    assert {job.part for job in first} == {"b_l32_t2"}
    assert {job.part for job in second} == {"c_l32_t20"}
    common.refuses("rate", lambda: rung.describe(rung.points[0]))
    assert rung.finished(rung.points[0]) is None


def test_a_tiny_ladder_shows_its_rungs_beside_kept_ones(tmp_path):
    experiment, output = tiny(tmp_path, "rope", seeds=1)
    assert run_points(experiment) == []
    experiment.write_report("the command")
    frame = table.read(tmp_path / table.FILE)
    assert set(frame["study"]) == {"b_l32_t2", "c_l32_t20"}
    assert {ladder.PARAMETERS, "beyond", "cut", "window", "shuffled"} <= set(frame["measure"])
    assert "loss beyond" in output.getvalue() and "rope_windowed" in output.getvalue()
    kept = frame[frame["scheme"] == "rope"].assign(scheme="other").drop(columns="text")
    (tmp_path / "kept.csv.gz").write_bytes(table.packed(kept))
    experiment.config["beside"] = str(tmp_path / "kept.csv.gz")
    experiment.write_report("the command")
    assert "other" in (tmp_path / "report.html").read_text()
