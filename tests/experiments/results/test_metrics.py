"""Tests who else is told the numbers of a run: TensorBoard, and Weights & Biases."""

import json
import sys
import types

from experiments.results.metrics import Metrics


def test_tensorboard_gets_the_same_numbers(tmp_path, monkeypatch):
    written = []

    class Writer:
        def __init__(self, folder):
            assert folder == str(tmp_path / "tensorboard")

        def add_scalar(self, name, value, step):
            written.append((name, value, step))

        def close(self):
            written.append("closed")

    monkeypatch.setitem(sys.modules, "tensorboardX", types.SimpleNamespace(SummaryWriter=Writer))
    metrics = Metrics(tmp_path / "metrics.jsonl", 0, tensorboard=True)
    metrics.write(step=3, loss=1.5)
    metrics.close()
    assert written == [("loss", 1.5, 3), "closed"]
    assert json.loads((tmp_path / "metrics.jsonl").read_text()) == {"step": 3, "loss": 1.5}
