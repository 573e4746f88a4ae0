"""Tests the ladder: its controls, its equal treatment, its statistics and the leaderboard."""

import dataclasses
import io
import json
import math
import shutil

import common
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from flax import nnx
from ml_collections import FrozenConfigDict
from rich.console import Console
from tiny_runs import untrained
from toy import RECIPE, SPEC, run

from configs import ladder as config
from experiments.evaluation.controls import CONTROLS, beyond, controls, within
from experiments.evaluation.lengths import Protocols
from experiments.pretrained.trained import load_run
from experiments.registry import make_experiment
from experiments.results import ladder, leaderboard
from experiments.results.lengths import WINDOWED
from experiments.results.record import open_run, write_json
from experiments.results.reports import ladder_page
from experiments.running.schedule import run_points
from experiments.running.status import print_status
from experiments.studies.ladder import narrowed
from experiments.training.own_schemes import digest, register
from experiments.training.text import make_model, spec_of
from posenc_jax import REGISTRY, Transformer, make, positions

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


def test_beyond_and_cut_score_the_same_tokens():
    documents = np.random.default_rng(0).integers(0, 99, (3, PROTOCOLS.document_length(LENGTH)))
    whole, score = beyond(Scorer(), documents, PROTOCOLS, LENGTH, None), Scorer()
    records = controls(score, score, documents, PROTOCOLS, LENGTH)
    actual = {item["protocol"]: item for item in records}
    np.testing.assert_allclose(actual["cut"]["by_text"], whole["by_text"])
    np.testing.assert_allclose(actual["window"]["by_text"], whole["by_text"])
    targets = documents[:, -PROTOCOLS.last_tokens :].mean(axis=1)
    np.testing.assert_allclose(actual["shuffled"]["by_text"], targets, atol=1e-5)


def test_shuffling_keeps_the_near_context_and_all_far_tokens():
    documents = np.arange(3 * PROTOCOLS.document_length(LENGTH)).reshape(3, -1)
    score = Scorer()
    assert len(list(controls(score, score, documents, PROTOCOLS, LENGTH))) == CONTROLS
    whole, shuffled = score[0], score[-1]
    near = LENGTH + PROTOCOLS.last_tokens
    np.testing.assert_array_equal(shuffled[:, -near:], whole[:, -near:])
    assert (shuffled[:, :-near] != whole[:, :-near]).any()
    np.testing.assert_array_equal(np.sort(shuffled, axis=1), np.sort(whole, axis=1))


def test_within_hides_keys_further_back_than_the_window():
    encoding = make("rope", head_dim=8)
    sizes = dict(vocab_size=16, model_dim=16, num_layers=1, num_heads=2)
    model = Transformer(encoding, **sizes, rngs=nnx.Rngs(0))
    ids = jax.random.randint(jax.random.key(1), (1, 12), 0, 16)
    other = ids.at[0, 0].set((ids[0, 0] + 1) % 16)
    places = positions.text(12)
    near = within(model, 4)
    changed = jnp.abs(near(ids, places) - near(other, places)).max(axis=-1)[0]
    assert (changed[:4] > 0).all() and (changed[4:] == 0).all()
    assert (jnp.abs(model(ids, places) - model(other, places)).max(axis=-1) > 0).all()


@pytest.mark.parametrize("scheme", ["rope", "transformer_xl", "inkling", "path", "fox"])
def test_models_of_all_schemes_have_equally_many_parameters(scheme):
    study = config.study(64, scheme)
    encoding = {"name": scheme} | study.encodings[scheme].to_dict()
    spec = narrowed(spec_of(encoding, study.model.to_dict(), vocab_size=256), 64)
    model = jax.eval_shape(lambda: make_model(jax.random.key(0), spec, 64))
    count = sum(leaf.size for leaf in jax.tree.leaves(model))
    assert abs(count / config.parameters(128) - 1) < 0.03


def _records(bits, *, rung="c", protocol=ladder.TRAINED, split="code", seeds=3, tokens=1000):
    """Returns a table of losses, with the same noise of texts for every scheme."""
    noise = np.random.default_rng(0).normal(0, 0.001, (seeds, 8))
    where = dict(rung=rung, split=split, protocol=protocol, multiple=1, length=64, width=8)
    where |= dict(tokens=tokens, parameters=100)
    return pd.DataFrame(
        where | dict(scheme=scheme, seed=seed, bits=mean, texts=mean + noise[seed])
        for scheme, mean in bits.items()
        for seed in range(seeds)
    ).explode("texts")


def test_each_kind_of_text_has_answers_of_its_own():
    by_kind = {"code": {"rope": 2.0, "alibi": 1.8}, "prose": {"rope": 2.0, "alibi": 2.1}}
    records = [_records(bits).assign(split=kind) for kind, bits in by_kind.items()]
    answers = ladder.values(pd.concat(records), "c").groupby(["topic", "scheme"])["value"].mean()
    for topic, expected in {"text": 1.95, "text of code": 1.8, "text of prose": 2.1}.items():
        assert answers[topic, "alibi"] == pytest.approx(expected, abs=0.01)
    assert set(ladder.values(records[0], "c")["topic"]) == {"text"}


def test_rank_correlation_counts_only_schemes_of_both_rungs():
    one = _records({"a": 1.0, "b": 2.0, "c": 3.0, "d": 4.0}, rung="one")
    other = _records({"a": 3.0, "b": 2.0, "c": 1.0}, rung="other")
    actual = ladder.correlation(pd.concat([one, other]), "one", "other", ladder.TRAINED)
    assert (actual["schemes"], actual["rho"]) == (3, -1.0)
    assert actual["low"] == actual["high"] == -1.0  # the noise is far below the differences
    assert ladder.correlation(pd.concat([one, other]), "one", "none", ladder.TRAINED) is None


def test_schemes_that_are_far_behind_are_in_no_rank_correlation():
    rungs = []
    for rung, a, b, far in (("one", 1.0, 1.05, 2.0), ("other", 1.05, 1.0, 1.1)):
        of_rung = {"nope": 9.0, "a": a, "b": b, "c": 1.1, "far": far}
        rungs.append(_records(of_rung | {"rope": 1.0}, rung=rung))
        rungs.append(_records(of_rung | {"rope": 4.0}, rung=rung, protocol=ladder.BEYOND))
        rungs.append(_records({"rope": 1.15}, rung=rung, protocol=ladder.CUT))
    trained, beyond = (
        ladder.correlation(pd.concat(rungs), "one", "other", protocol)
        for protocol in (ladder.TRAINED, ladder.BEYOND)
    )
    assert trained["schemes"] == 4  # with RoPE, which is the line
    # With RoPE through a window, and without RoPE.
    assert (beyond["schemes"], beyond["rho"]) == (4, pytest.approx(0.8))


def test_speed_up_is_the_compute_of_rope_at_the_same_loss():
    sizes = [
        _records({"rope": loss, "x": other, "far": far}, rung=rung, tokens=tokens)
        for rung, tokens, loss, other, far in (
            ("s", 1000, 4.0, 2.0, 9.0),
            ("l", 4000, 2.0, 1.5, 0.1),
        )
    ]
    actual = ladder.speed_ups(pd.concat(sizes), ["s", "l"], ladder.TRAINED).set_index(
        ["rung", "scheme"]
    )
    assert actual.loc[("s", "x"), "speed_up"] == pytest.approx(4.0, rel=1e-2)
    assert actual.loc[("l", "rope"), "speed_up"] == pytest.approx(1.0, rel=1e-2)
    # Half the loss costs four times the compute, so 3/4 of it costs (4/3) ** 2 times.
    assert actual.loc[("l", "x"), "speed_up"] == pytest.approx((4 / 3) ** 2, rel=1e-2)
    assert actual.loc[("l", "x"), "is_beyond"] and not actual.loc[("s", "x"), "is_beyond"]
    # The line ends at a fourth of the smallest compute and at four times the largest.
    assert list(actual["limit"]) == ["<", "", "", ">", "", ""]
    assert list(actual["speed_up"].xs("far", level="scheme")) == pytest.approx([0.25, 4.0])


def _training_losses(runs):
    """Returns the table of training losses of runs, which have losses by tokens."""
    columns = pd.MultiIndex.from_tuples(runs, names=["scheme", "seed"])
    return pd.DataFrame({key: pd.Series(run) for key, run in runs.items()}, columns=columns)


def test_curves_have_the_losses_that_all_runs_have():
    stopped = {10: 3.0, 17: 2.5, 20: 2.0}
    runs = {("rope", 0): {10: 5.0, 20: 4.0}, ("rope", 1): stopped, ("alibi", 0): stopped}
    curves = ladder.mean_curves(_training_losses(runs))
    assert curves.to_dict() == {"rope": {10: 4.0, 20: 3.0}, "alibi": {10: 3.0, 20: 2.0}}
    assert ladder.mean_curves(_training_losses({})).empty


def test_rungs_say_which_schemes_win_and_one_seed_tells_no_verdict():
    told = ladder_page.read(common.ROOT / "docs/ladder")
    largest = told["rungs"]["d8_w256_t20"]["wins"]["text"]
    assert largest["compared"] is None and "fox" in largest["schemes"]
    # A gain over the own window is compared with 0.
    assert told["rungs"]["d8_w256_t20"]["wins"]["gain"]["schemes"] == ["alibi", "kerple_log", "fox"]
    assert told["rungs"]["d7_l1024_t20"]["wins"]["text"]["compared"] == 3
    rates = [rung["tokens"] / rung["parameters"] for rung in told["ordered"]]
    assert rates == pytest.approx(sorted(rates), rel=0.05)
    assert "after training on texts of 1024 tokens (" in told["finding"][0]


def test_a_crossing_is_the_last_one():
    curves = {
        "rope": [5.0, 4.0, 3.0, 2.0, 1.0],
        "fast": [4.0, 4.1, 2.9, 2.2, 1.5],
        "slow": [6.0, 5.0, 4.0, 3.0, 2.0],
    }
    actual = ladder.crossings(pd.DataFrame(curves, index=[1, 2, 3, 4, 5]))
    assert actual == [("fast", 4, 2.2)]


def test_the_page_has_only_crossings_that_are_clear_in_the_end():
    ends = {"clear": (-0.2, 0.1), "lucky": (0.1, 0.2), "single": (0.1, None)}
    last = {name: {"lead": lead, "margin": margin} for name, (lead, margin) in ends.items()}
    crossings = [(name, 4, 2.2) for name in ends]
    assert ladder_page.clear(crossings, {"by_scheme": last}) == crossings[:1]


def test_leads_are_after_a_tenth_of_the_tokens_and_all():
    rope = {1: 5.0, 2: 4.0, 15: 2.0, 20: 1.0}
    fast = {1: 4.5, 2: 3.0, 15: 1.9, 20: 1.25}
    runs = {("rope", 0): rope, ("rope", 1): rope, ("fast", 1): fast}
    early, last = ladder.leads(_training_losses(runs))
    assert early == {"tokens": 2, "by_scheme": {"fast": {"lead": 1.0, "margin": None}}}
    assert last == {"tokens": 20, "by_scheme": {"fast": {"lead": -0.25, "margin": None}}}


def test_a_lead_has_an_interval_over_seeds():
    losses = {"rope": (3.0, 4.0, 5.0), "fast": (2.0, 3.0, 4.0), "lucky": (1.0, 4.0, 5.0)}
    runs = {(s, n): {10: loss} for s, of_seeds in losses.items() for n, loss in enumerate(of_seeds)}
    _, last = ladder.leads(_training_losses(runs))
    assert last["by_scheme"]["fast"] == {"lead": 1.0, "margin": 0.0}
    assert last["by_scheme"]["lucky"]["lead"] < last["by_scheme"]["lucky"]["margin"]


@pytest.fixture
def folder(tmp_path):
    """Returns a folder with the records of four schemes; "mixed" is good at code alone."""
    losses = {"rope": (1.0, 3.0, 1.1), "good": (1.0, 1.0, 1.0), "bad": (1.5, 1.4, 1.3)}
    losses["mixed"] = losses["good"]
    tables = [
        _records({scheme: bits + (scheme == "mixed" and split == "prose")}, protocol=p, split=split)
        for split in ("code", "prose")
        for scheme, item in losses.items()
        for p, bits in zip((ladder.TRAINED, ladder.BEYOND, ladder.CUT), item, strict=True)
    ]
    for scheme in losses:
        about = {"corpus_digest": "abc"}
        record = leaderboard.record_of(pd.concat(tables), "c", scheme, about)
        leaderboard.write(tmp_path, record)
    return tmp_path


def test_the_leaderboard_compares_with_rope_through_a_window(folder):
    records, refused = leaderboard.read(folder)
    table, _ = leaderboard.table(records)
    assert not refused
    assert list(table.index) == ["good", "bad", "mixed", "rope"]
    assert table.loc["good", "over"] == pytest.approx(-0.1, abs=0.01)
    assert (table.loc["good", "vs_beyond"], table.loc["bad", "vs_beyond"]) == ("better", "worse")
    assert table.loc["mixed", "vs_beyond of code"] == "better"
    assert table.loc["mixed", "vs_beyond of prose"] == "worse"
    assert WINDOWED not in table.index


# Losses of one text alone, and without numbers.
EASY = {protocol: {"code 0": [1.0, 1.0, 1.0]} for protocol in leaderboard.LOSSES.values()}
LOST = {protocol: {"code 0": ["1", None, 1.0]} for protocol in leaderboard.LOSSES.values()}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("track", "0.9"), ("corpus_digest", "other"), ("tokens", 9), ("parameters", "many")),
        *(("seeds", seeds) for seeds in ([0], [0, 0, 1], [5, 6, 7], [0, 1, 2, 3])),
        *(("losses", losses) for losses in ({}, EASY, EASY | {ladder.BEYOND: [1.0]}, LOST)),
    ],
)
def test_a_record_that_cannot_be_compared_is_left_out_and_told(folder, field, value):
    path = folder / "bad" / "result.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {field: value}))
    records, refused = leaderboard.read(folder)
    assert {record["scheme"] for record in records} == {"rope", "good", "mixed"}
    assert len(refused) == 1 and "bad" in refused[0]


def test_without_a_record_of_rope_all_that_was_refused_is_told(folder):
    path = folder / "rope" / "result.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"track": "0.9"}))
    common.refuses("no record of rope.*of track 0.9", lambda: leaderboard.read(folder))


def test_a_record_of_other_runs_is_kept(folder):
    path = folder / "bad" / "result.json"
    record, before = json.loads(path.read_text()), path.read_text()
    assert leaderboard.write(folder, record) == path and path.read_text() == before
    common.refuses("is kept", lambda: leaderboard.write(folder, record | {"losses": EASY}))
    assert path.read_text() == before
    path.write_text(json.dumps(record | {"track": "0.9"}))
    leaderboard.write(folder, record | {"losses": EASY})
    assert json.loads(path.read_text())["losses"] == EASY


def test_a_copied_record_is_left_out_and_told(folder):
    shutil.copytree(folder / "bad", folder / "bad_before")
    records, refused = leaderboard.read(folder)
    assert len(records) == 4
    assert len(refused) == 1 and "bad_before" in refused[0]


def test_a_scheme_without_a_finite_loss_is_last_and_leaves_the_others(folder):
    path = folder / "bad" / "result.json"
    record = json.loads(path.read_text())
    record["losses"][ladder.BEYOND]["code 0"][1] = math.nan
    path.write_text(json.dumps(record))
    table, _ = leaderboard.table(leaderboard.read(folder)[0])
    assert list(table.index) == ["good", "mixed", "rope", "bad"]
    assert (table.loc["good", "vs_beyond"], table.loc["bad", "vs_beyond"]) == ("better", "diverged")


ROOTED = """
from posenc_jax import Encoding
class Rooted(Encoding):
    def score(self, logits_BHTS, tile):
        return logits_BHTS - (1 + abs(tile.distance())) ** 0.5
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
    spec = SPEC.to_dict() | {"encoding": {"name": "rooted"}}
    config = spec | {"train": dataclasses.asdict(RECIPE), "own_file": digest("rooted")}
    open_run(tmp_path / "run", config)
    model, _ = run(tmp_path / "run", spec=FrozenConfigDict(spec))
    del REGISTRY["rooted"]  # as in another program
    state, _ = load_run(tmp_path / "run")
    np.testing.assert_array_equal(state.model.embedding, model.embedding)
    (tmp_path / "rooted.py").write_text(f"{ROOTED}# changed")
    common.refuses(r"rooted\.py, and this one was changed", lambda: load_run(tmp_path / "run"))
    del REGISTRY["rooted"]
    (tmp_path / "rooted.py").unlink()
    common.refuses(r"rooted\.py, and there is none", lambda: load_run(tmp_path / "run"))


@pytest.mark.usefixtures("rooted")
def test_a_scheme_of_a_file_is_registered(tmp_path):
    register(["rooted", "rope"])
    assert make("rooted").hooks() == {"score"}
    before = digest("rooted")
    (tmp_path / "rooted.py").write_text("another scheme")
    assert len({before, digest("rooted"), digest("rope")}) == 3 and digest("rope") is None
    (tmp_path / "broken.py").write_text("import no_such_module")
    common.refuses(r"broken\.py .* ModuleNotFoundError", lambda: register(["broken"]))
    (tmp_path / "alibi.py").write_text(ROOTED)
    common.refuses("alibi is a scheme of the registry", lambda: register(["alibi"]))
    (tmp_path / "path.py").write_text("from pathlib import Path")  # a file that only has the name
    register(["path"])


@pytest.mark.usefixtures("rooted")
def test_a_scheme_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "rooted.py").write_text(f"{ROOTED}    def __init__(self, *, head_dim, width): pass")
    message = r"rooted\.py cannot be made: .*'width'.* head_dim.*default"
    common.refuses(message, lambda: tiny(tmp_path / "workdir", "rooted"), TypeError)
    common.refuses(r"'rotted' .*no file rotted\.py", lambda: tiny(tmp_path, "rotted"))


def test_a_record_needs_all_seeds():
    records = _records({"rope": 1.0}, seeds=2)
    common.refuses("2 of the 3 seeds", lambda: leaderboard.record_of(records, "c", "rope", {}))


def test_the_track_has_the_runs_of_the_ladder():
    track, ladder = (config.get_config(preset).studies for preset in ("track", "small"))
    for name, study in track.items():
        assert study.to_dict() == ladder[name].to_dict() | {"schemes": study.schemes}


def test_only_the_track_as_it_is_makes_records():
    track = config.get_config("track")
    track.schemes = "rope,mine"
    assert leaderboard.rules_of(track.studies.to_dict()) == track.rules
    for field, value in (("train.steps", 4), ("encodings.rope.base", 77.0)):
        changed = config.get_config("track").studies
        changed.c_l256_t20.update_from_flattened_dict({field: value})
        assert leaderboard.rules_of(changed.to_dict()) != track.rules


def test_a_rung_of_rates_that_does_not_exist_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"c_l32_t20\.rates_of='b_l32' is unknown"):
        tiny(tmp_path, rates_of="b_l32")


def tiny(workdir, schemes="rope,alibi,nope", rates_of="b_l32_t2"):
    """Returns the tiny ladder, and what it will print."""
    studies = config.get_config("tiny")
    studies.studies.c_l32_t20.rates_of = rates_of
    studies.corpus = "stdlib"
    for study in studies.studies.values():
        study.schemes = schemes
        study.eval.splits = ("test", "manual")
        study.train.batch_size = 8  # a multiple of the tests' devices
    output = io.StringIO()
    return make_experiment(studies, workdir, Console(file=output, width=200)), output


def test_a_rung_waits_for_the_rates_of_another(tmp_path):
    experiment, _ = tiny(tmp_path)
    rung = experiment.parts["c_l32_t20"]
    name, missing = rung.needs(rung.points)
    assert {point.scheme for point in rung.needs(rung.points[:1])[1]} == {"rope"}
    assert {*missing} == {*experiment.parts[name].points}
    common.refuses("rate", lambda: rung.describe(rung.points[0]))
    assert rung.finished(rung.points[0]) is None
    assert math.isclose(rung.recipe_of(rung.points[0]).learning_rate, 6e-3)
    failed = {"rope": {3e-3: math.inf, 6e-3: math.inf}}
    rung.rung_of_rates.untried = lambda scheme: []
    rung.rung_of_rates.rates = lambda scheme: failed
    common.refuses("rope failed in b_l32_t2", lambda: rung.describe(rung.points[0]))


def test_a_scheme_whose_learning_rates_all_failed_leaves_the_others(tmp_path):
    experiment, output = tiny(tmp_path)
    for part in experiment.parts.values():
        part.points = [point for point in part.points if point.scheme != "alibi"]
        untrained(part)
    rates, rung = experiment.parts.values()
    for point in rates.points:
        write_json(rates.folder(point) / "failure.json", {"reason": "loss nan"})
    rates.points = [point for point in rates.points if point.scheme == "rope"]
    failures = run_points({"c_l32_t20": rung})
    assert {failure["scheme"] for failure in failures} == {"c_l32_t20: rope"}
    assert all(rung.finished(point) for point in rung.points if point.scheme == "nope")
    print_status(rung, rung.console)
    assert "2 done, 2 failed" in output.getvalue()
