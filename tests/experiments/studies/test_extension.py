"""Tests the study of extension, at a size that runs in seconds."""

import functools
import json

import common
import jax
import numpy as np
import pytest
from study_records import record
from tiny_runs import comparison
from tokenizers import Tokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel

from configs.extension import METHODS, get_config
from experiments.pretrained.export import _as_llama, export
from experiments.pretrained.trained import Source, load_run
from experiments.results.extensions import tidy
from experiments.results.lengths import WINDOWED
from experiments.results.table import select
from experiments.running.pool import run_points
from experiments.studies.extension.study import Extension
from experiments.training.checkpoint import fingerprint
from experiments.training.data import load_corpus
from experiments.training.mesh import make_mesh
from experiments.training.text import token_losses
from experiments.training.windows import eval_windows
from posenc_jax import make
from posenc_jax.pretrained import load


def config(files, preset="tiny", **changes):
    config = get_config(preset)
    config.corpus = files
    config.methods = "rope,pi,resonance_yarn"
    config.tuned = "yarn,drope"
    return common.changed(config, **changes)


experiment = functools.partial(comparison, kind=Extension)


def results(workdir):
    """Returns the records of all points in a workdir."""
    paths = sorted(workdir.glob("runs/**/evaluation.json"))
    return [record for path in paths for record in json.loads(path.read_text())["records"]]


def losses(records, protocol="last"):
    records = (r for r in records if r["protocol"] == protocol)
    return {(r["scheme"], r["steps"], r["multiple"]): r["loss"] for r in records}


@pytest.fixture(scope="module")
def finished(corpus, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("finished")
    one, _ = experiment(config(corpus), workdir)
    assert run_points(one) == []
    return workdir, one.write_report("the command")


@pytest.mark.slow
def test_results_hold_every_method_before_and_after(finished):
    workdir, path = finished
    actual = losses(results(workdir))
    zero_shot = {(s, 0, m) for s in ("rope", "pi", "resonance_yarn") for m in (1, 2)}
    assert set(actual) == zero_shot | {(s, 2, m) for s in ("yarn", "drope") for m in (1, 2)}
    assert set(losses(results(workdir), "windowed")) == {("rope", 0, 1)}
    shorts = [r for r in results(workdir) if r["protocol"] == "short"]
    assert {(r["scheme"], r["steps"]) for r in shorts} == {key[:2] for key in actual}
    assert all(0 <= r["accuracy"] <= 1 for r in shorts)
    assert "After 2 steps" in path.read_text()


@pytest.mark.slow
def test_a_method_is_read_as_it_would_be_by_hand(finished, corpus):
    workdir, _ = finished
    state, _ = load_run(workdir / "runs/rope/seed0")
    documents = eval_windows(load_corpus(corpus), "test", length=2 * 32 + 1, count=2)[:1]
    pi = make("pi", head_dim=8, factor=2.0)
    by_hand = jax.jit(token_losses)(state.model.under(pi), documents)[:, -16:].mean()
    actual = losses(results(workdir))
    assert actual["pi", 0, 2] == pytest.approx(float(by_hand), rel=1e-5)
    # At the trained length PI's factor is 1: the model as it is.
    assert actual["pi", 0, 1] == actual["rope", 0, 1]


@pytest.mark.slow
def test_tuning_starts_from_the_trained_model_and_says_so(finished, corpus, tmp_path):
    """At a learning rate of 0 a tuned model is the zero-shot one."""
    workdir, _ = finished
    state, _ = load_run(workdir / "runs/rope/seed0")
    run = json.loads((workdir / "runs/yarn/steps2/seed0/run.json").read_text())["config"]
    assert run["start"] == {"digest": fingerprint(state.model)}
    assert run["train"]["length"] == 64 and run["train_length"] == 32
    drope = json.loads((workdir / "runs/drope/steps2/seed0/run.json").read_text())["config"]
    assert drope["train"]["length"] == 32
    assert drope["train"]["batch_size"] == 2 * run["train"]["batch_size"]
    frozen = {"tuning__learning_rate": 0.0, "methods": "yarn", "tuned": "yarn"}
    given = {"checkpoint": f"{workdir}/runs/rope/seed{{seed}}"}
    one, _ = experiment(config(corpus, **frozen, **given), tmp_path)
    assert run_points(one) == []
    for protocol, multiple in (("last", 2), ("short", 1)):
        actual = losses(results(tmp_path), protocol)
        assert actual["yarn", 2, multiple] == pytest.approx(actual["yarn", 0, multiple], rel=1e-6)
        assert actual["yarn", 0, multiple] != pytest.approx(actual["rope", 0, multiple], rel=1e-9)


def test_a_fingerprint_knows_every_number():
    tree = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.ones(3, np.int32)}
    prints = {fingerprint(tree), fingerprint(tree | {"a": tree["a"][::-1].copy()})}
    for name in tree:
        for index in np.ndindex(tree[name].shape):
            other = {key: value.copy() for key, value in tree.items()}
            other[name][index] += 1
            prints.add(fingerprint(other))
    assert len(prints) == 2 + 9


@pytest.mark.slow
def test_a_checkpoint_must_fit(finished, corpus, tmp_path):
    workdir, _ = finished
    given = {"checkpoint": f"{workdir}/runs/rope/seed0"}
    with pytest.raises(ValueError, match=r"model\.num_layers"):
        experiment(config(corpus, model__num_layers=4, **given), tmp_path)
    common.refuses("drope", lambda: Source.of(f"{workdir}/runs/drope/steps2/seed0", make_mesh()))
    common.refuses("YaRN", lambda: Source.of(f"{workdir}/runs/yarn/steps2/seed0", make_mesh()))
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_published_weights_are_tuned_and_published_again(finished, corpus, tmp_path):
    """The weights, the length and the tokenizer of docs/extension.md's five commands."""
    published, longer = tmp_path / "published", tmp_path / "longer"
    export(finished[0] / "runs/rope/seed0", published, None)
    of_bytes = Tokenizer(BPE({byte: n for n, byte in enumerate(sorted(ByteLevel.alphabet()))}, []))
    of_bytes.pre_tokenizer = ByteLevel(add_prefix_space=False)
    of_bytes.save(str(published / "tokenizer.json"))

    sizes = dict(last_tokens=16, window_stride=8, short_windows=8, lengths=((1, 2), (2, 1)))
    changes = {f"eval__{name}": value for name, value in sizes.items()}
    changes |= dict(target=2, tuning_steps=(2,), tuning__warmup_steps=1, tuning__batch_size=8)
    own = config(corpus, "own", checkpoint=str(published), methods="rope", tuned="yarn", **changes)
    study, _ = experiment(own, tmp_path / "workdir")
    assert run_points(study) == []
    run = study.workdir / "runs/yarn/steps2/seed0"
    common.refuses("--checkpoint", lambda: export(run, longer, None))
    export(run, longer, str(published))

    before, after = (load(path, scan=True) for path in (published, longer))
    source = Source.of(str(published), make_mesh(), own.loading.to_dict())
    tuned, _ = load_run(run, source=source)
    assert fingerprint(after.model) == fingerprint(tuned.model) != fingerprint(before.model)
    assert after.model.distinct()[0].frequencies.factor == 2.0
    assert after.config["max_position_embeddings"] == 2 * before.config["max_position_embeddings"]
    assert after.tokenizer.to_str() == of_bytes.to_str()


@pytest.mark.parametrize(
    ("setting", "refusal"),
    [({"qk_norm": "head"}, "qk_norm"), ({"post_norm": True}, "post_norm"), ({"tied": False}, None)],
)
def test_what_a_llama_has_not_is_not_exported_as_one(setting, refusal):
    """It would open without an error and compute something else."""
    model = common.build_model("rope", **setting)
    if refusal is None:
        assert _as_llama(model, 32)["tie_word_embeddings"] is False
        return
    common.refuses(rf"model\.{refusal}", lambda: _as_llama(model, 32))


def test_every_method_is_made_of_the_trained_rope(corpus, tmp_path):
    one, _ = experiment(config(corpus, rope__base=77.0, methods=METHODS), tmp_path)
    for name in METHODS.split(","):
        keywords = one.methods.keywords(name, 2)
        assert keywords["name"] == "nope" or keywords["base"] == 77.0, keywords["name"]
    yarn, flat = (one.methods.encoding(n, 2) for n in ("yarn", "yarn_untempered"))
    assert yarn.frequencies(8, 77.0, 64)[1] == pytest.approx(1.0693, abs=1e-4)
    assert flat.frequencies(8, 77.0, 64)[1] == 1.0
    windows = {n: one.methods.encoding(n, 2).window for n in ("rerope", "self_extend")}
    assert windows == {"rerope": 16, "self_extend": 4}
    assert one.methods.encoding("yarn", 1) is None


def test_a_window_stands_beside_every_number_of_steps():
    """At a great length fewer texts are read, which may be easier, so there it has no loss."""
    records = [record("rope", 0, 1, 2.0, protocol="windowed", steps=0)]
    for scheme, steps, bits in (("rope", 0, 3.0), ("yarn", 0, 2.5), ("yarn", 25, 1.5)):
        short = dict(protocol="short", accuracy=0.5, steps=steps)
        records.append(record(scheme, 0, 1, bits, **short))
        records += [record(scheme, 0, m, bits, steps=steps) for m in (1, 8)]
        records.append(record(scheme, 0, 16, bits, steps=steps, tokens=10))
    frame = tidy("extension", records)
    last = select(frame, measure="last").set_index(["split", "scheme", "x"])["value"].to_dict()
    window = {(split, WINDOWED, x): 2.0 for split in ("0 steps", "25 steps") for x in (8,)}
    window |= {(split, WINDOWED, 1): 3.0 for split in ("0 steps", "25 steps")}
    assert window == {key: value for key, value in last.items() if key[1] == WINDOWED}
    assert last["25 steps", "yarn", 8] == 1.5 and last["0 steps", "yarn", 16] == 2.5
    assert set(select(frame, measure="short accuracy")["value"]) == {0.5}
