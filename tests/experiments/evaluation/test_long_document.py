"""A document read in chunks is the document read at once, however often the run was killed."""

import json
import re
import sys

import common
import jax
import numpy as np
import pytest
from ml_collections import FrozenConfigDict
from rich.console import Console

from experiments.evaluation import long_document
from experiments.evaluation.long_document import score_document
from experiments.results.record import open_run
from experiments.training.checkpoint import Checkpoints
from experiments.training.encodings import make_encoding
from experiments.training.recipe import Recipe
from experiments.training.text import token_losses

TOKENS = np.random.default_rng(0).integers(0, common.VOCAB, 39)


def score(model, folder, tokens=TOKENS, **options):
    return score_document(model, tokens, folder, Console(quiet=True), **{"chunk": 16} | options)


@pytest.mark.parametrize("name", ["alibi", "dynamic_ntk", "path", "randomized"])
def test_all_losses_of_a_forward_pass(tmp_path, name):
    """A scheme that adapts to the length adapts to the document's."""
    model = common.build_model(name, scan=True)
    losses = score(model, tmp_path)
    expected = jax.jit(token_losses)(model, TOKENS[None])[0]
    np.testing.assert_allclose(losses, expected, rtol=1e-4, atol=1e-4)
    assert not (tmp_path / "chunks").exists()
    np.testing.assert_array_equal(score(model, tmp_path), losses)


class KilledError(Exception):
    pass


@pytest.mark.parametrize(("name", "dtype"), [("fox", "float32"), ("rope", "bfloat16")])
def test_a_killed_run_goes_on_with_the_same_numbers(tmp_path, monkeypatch, name, dtype):
    model = common.build_model(name, scan=True, dtype=dtype)
    uninterrupted = score(model, tmp_path / "whole")
    write, read = long_document._write, long_document.read_chunk
    with monkeypatch.context() as patch:

        def half_written(path, save):
            if path.name.startswith("000000000032"):
                path.with_name(f".{path.name}.1").write_bytes(b"PK half of it")
                raise KilledError
            write(path, save)

        patch.setattr(long_document, "_write", half_written)
        with pytest.raises(KilledError):
            score(model, tmp_path / "killed")
    calls = []

    def counted(*arguments):
        calls.append(arguments)
        return read(*arguments)

    monkeypatch.setattr(long_document, "read_chunk", counted)
    np.testing.assert_array_equal(score(model, tmp_path / "killed"), uninterrupted)
    assert len(calls) == 1, "two of three chunks were done"


def test_a_folder_is_of_one_document_and_model(tmp_path):
    model = common.build_model("rope", scan=True)
    score(model, tmp_path)
    others = [{"model": common.build_model("rope", scan=True, seed=1)}, {"chunk": 8}]
    others += [{"tokens": TOKENS[::-1]}, {"encoding": common.build("pi")}]
    for other in others:
        given = {"model": model, "folder": tmp_path} | other
        common.refuses(re.escape(str(tmp_path)), lambda given=given: score(**given))


ENCODING = {"name": "rope", "base": 20.0}
MODEL = {"vocab_size": 256, "model_dim": 16, "num_layers": 2, "num_heads": 4}
TRAIN = {"length": 8, "batch_size": 2, "steps": 4}


@pytest.fixture
def trained(tmp_path):
    """Makes a run, and returns its folder and the model in it."""
    spec, recipe = FrozenConfigDict({"encoding": ENCODING, "model": MODEL}), Recipe(**TRAIN)
    state = common.text_state(jax.random.key(7), spec, recipe)
    open_run(tmp_path / "run", {"encoding": ENCODING, "model": MODEL, "train": TRAIN})
    checkpoints = Checkpoints(tmp_path / "run" / "checkpoints")
    checkpoints.save(4, state)
    checkpoints.close()
    return tmp_path / "run", state.model


@pytest.mark.slow
def test_command(tmp_path, trained, monkeypatch, capsys):
    folder, model = trained
    text, other = b"What has it got in its pockets?", {"name": "pi", "factor": 4.0}
    (tmp_path / "text").write_bytes(text)
    arguments = [f"--run={folder}", f"--document={tmp_path / 'text'}", f"--out={tmp_path / 'out'}"]
    arguments += ["--chunk=16", f"--encoding={json.dumps(other)}"]
    monkeypatch.setattr(long_document, "join_job", lambda: None)  # JAX is at work already
    monkeypatch.setattr(sys, "argv", ["long_document", *arguments])
    assert long_document.main() == 0
    # What the encoding does not say is as it was trained.
    encoding = make_encoding(other | {"base": 20.0}, MODEL, 8, rngs=None)
    expected = token_losses(model.under(encoding), np.frombuffer(text, np.uint8)[None])
    result = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert result["loss"] == pytest.approx(float(expected.mean()), rel=1e-5)
    assert f"{result['loss']:.4f} nats per token over 30 tokens" in capsys.readouterr().out

    monkeypatch.setattr(sys, "argv", ["long_document", f"--run={tmp_path}", *arguments[1:]])
    assert long_document.main() == 2
    assert "is not the folder of a trained run" in capsys.readouterr().err
