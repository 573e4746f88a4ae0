"""Tests what an experiment is said to take before it runs."""

import io

import pytest
from rich.console import Console

from configs.extrapolation import get_config
from experiments.running.dry_run import print_dry_run
from experiments.studies.text import Comparison


@pytest.fixture
def config(corpus):
    tiny = get_config("tiny")
    tiny.update(corpus=corpus, schemes="rope,t5,yarn", seeds=2)
    tiny.mesh.update(fsdp=8)
    return tiny


@pytest.mark.slow
def test_nothing_is_written_and_everything_is_said(config, tmp_path):
    console = Console(file=io.StringIO(), width=120)
    print_dry_run(Comparison(config, tmp_path / "work", console), 0.4, console)
    text = console.file.getvalue()
    assert not (tmp_path / "work").exists()
    assert "mesh: data 1 x fsdp 8 x model 1 x context 1, 8 of cpu" in text
    assert "4 points, 4 of them trained" in text, "yarn is not trained"
    assert "step of t5, compiled" in text, "it has parameters of its own, rope none"
    kernel = next(line for line in text.splitlines() if "mlp/up/kernel" in line)
    # The parameter and two moments of 2 x 32 x 128 numbers, on each device an eighth of them.
    assert kernel.split()[1:] == ["float32[2,32,128]", "-,", "fsdp,", "model", "3", "12.0", "KiB"]
