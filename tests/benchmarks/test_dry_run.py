"""Tests what an experiment is said to take before it runs, and the count of its operations."""

import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import FrozenConfigDict
from rich.console import Console

from benchmarks.dry_run import print_dry_run
from configs.extrapolation import get_config
from experiments.studies.text import Comparison
from experiments.training.cost import products, step_flops
from experiments.training.recipe import Recipe
from experiments.training.text import Text

B, T, D, L, F, V = 4, 32, 16, 3, 48, 64


@pytest.mark.parametrize("scan", [False, True])
@pytest.mark.parametrize("name", ["nope", "rope"])
def test_flops_of_a_step_are_those_of_the_formula(name, scan):
    """A step is three forward passes of projections, feed-forward, attention and output."""
    model = dict(vocab_size=V, model_dim=D, num_layers=L, num_heads=2, mlp_dim=F)
    model |= dict(scan=scan, remat=scan)
    spec = FrozenConfigDict({"encoding": {"name": name}, "model": model})
    task = Text(Recipe(length=T, batch_size=B, steps=1), None, spec)
    flops = step_flops(task, np.zeros((B, T + 1), np.int32))
    a_token = L * (4 * D * D + 3 * D * F + 2 * T * D) + V * D
    assert flops == 3 * 2 * B * T * a_token


def test_flops_of_loops_and_branches():
    matrix = jnp.zeros((8, 8))
    one = products(jax.make_jaxpr(lambda x: x @ x)(matrix))
    assert one == 2 * 8**3

    def loop(x):
        return jax.lax.scan(lambda x, _: (x @ x, None), x, length=5)[0]

    def branch(x):
        return jax.lax.cond(x[0, 0] > 0, lambda x: x @ x @ x, lambda x: x @ x, x)

    assert products(jax.make_jaxpr(loop)(matrix)) == 5 * one
    assert products(jax.make_jaxpr(branch)(matrix)) == 2 * one


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
