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


def test_wandb_has_the_same_numbers_and_one_run_a_folder(tmp_path, monkeypatch):
    """Weights & Biases is a stand-in that notes what it is told; it needs an account."""
    started, logged = [], []
    log = lambda values, step: logged.append((step, values))  # noqa: E731
    project = types.SimpleNamespace(log=log, finish=lambda: logged.append("finished"))
    init = lambda **keywords: started.append(keywords) or project  # noqa: E731
    monkeypatch.setitem(sys.modules, "wandb", types.SimpleNamespace(init=init))
    for step in (3, 4):
        metrics = Metrics(tmp_path / "metrics.jsonl", step - 1, wandb="mine")
        metrics.write(step=step, loss=1.5)
        metrics.close()
    assert logged == [(3, {"loss": 1.5}), "finished", (4, {"loss": 1.5}), "finished"]
    assert started[0] == started[1] and started[0]["project"] == "mine"
