"""Tests the measurement of what a model gains from its context."""

import json
import math

import numpy as np
import pytest

from experiments.evaluation import context


def test_targets_are_the_same_after_each_kind_of_context():
    """The score is a sum of the row, so it says which tokens were before the targets."""
    texts = np.arange(24).reshape(3, 8)

    def score(rows_NL, encoding):
        assert encoding is None
        return np.broadcast_to(rows_NL.sum(axis=1, keepdims=True), rows_NL[:, 1:].shape)

    losses = context.measure(score, texts, targets=2)
    ends = texts[:, -3:].sum(axis=1)
    assert losses[context.NONE] * math.log(2) == pytest.approx(ends)
    assert losses[context.OWN] * math.log(2) == pytest.approx(texts.sum(axis=1))
    before = texts[:, :-3].sum(axis=1)[[2, 0, 1]]
    assert losses[context.OTHER] * math.log(2) == pytest.approx(before + ends)
    shown = context.table(losses, 6, 2).cells
    assert [*shown.index] == [context.OWN, context.OTHER, context.NONE]
    assert shown["more than after its own"][context.OWN] == ""


def test_the_command_reads_a_run(workdir, corpus, tmp_path, capsys):
    out = tmp_path / "context.json"
    run, more = f"--model={workdir}/runs/rope/seed0", ["--targets=8", "--documents=4"]
    where = [run, f"--corpus={corpus}", "--context=16", f"--out={out}"]
    assert context.main([*where, *more]) == 0
    assert "another's" in capsys.readouterr().out
    assert len(json.loads(out.read_text())[context.OWN]) == 4
    assert context.main([run, f"--corpus={corpus}", "--context=100000"]) == 2
