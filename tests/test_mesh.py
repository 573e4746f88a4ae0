"""Tests that a mesh of any shape gives the numbers of one device, and that parameters are cut."""

import dataclasses
import io
import json
import re

import common
import jax
import numpy as np
import pytest
from flax import nnx
from jax.sharding import AxisType
from ml_collections import FrozenConfigDict
from rich.console import Console

from experiments import preemption
from experiments.data import Corpus, window_index
from experiments.loop import lower_step, train
from experiments.mesh import AXES, make_mesh
from experiments.text import NextToken, Text
from experiments.train import Recipe
from posenc_jax import Transformer

RECIPE = Recipe(length=16, batch_size=8, steps=6, warmup_steps=2, log_every=1)


@dataclasses.dataclass(frozen=True, eq=False)
class Mixed(NextToken):
    """Trains a model whose layers rotate, score and read."""

    def init(self, key):
        names = "rope", "shaw", "fox"
        layers = [common.build(name, trained=False, num_layers=1) for name in names]
        sizes = dict(vocab_size=common.VOCAB, model_dim=common.WIDTH, num_heads=common.HEADS)
        return Transformer(layers, num_layers=len(layers), **sizes, rngs=nnx.Rngs(key))


def windows():
    tokens = np.random.default_rng(0).integers(0, common.VOCAB, 4000).astype(np.uint8)
    splits = np.zeros(1, np.int8)
    corpus = Corpus("toy", tokens, np.array([0, 4000]), splits, common.VOCAB, 1.0, "digest")
    return window_index(corpus, "train", RECIPE.length)


def losses(folder, mesh):
    task, console = Mixed(RECIPE, windows()), Console(file=io.StringIO())
    train(task, RECIPE, mesh, seed=0, folder=folder, console=console)
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["loss"] for line in lines]


@pytest.fixture(scope="module")
def on_one_device(tmp_path_factory):
    kinds = (AxisType.Auto,) * len(AXES)
    mesh = jax.make_mesh((1,) * len(AXES), AXES, axis_types=kinds, devices=jax.devices()[:1])
    return losses(tmp_path_factory.mktemp("one"), mesh)


def test_a_run_that_goes_on_upon_other_meshes_has_the_losses_of_one_device(
    tmp_path, on_one_device, monkeypatch
):
    """It is preempted twice, and each time other devices go on with the same batches."""
    shapes = {"data": 2, "fsdp": 2, "model": 2}, {"fsdp": 2, "model": 2, "context": 2}
    for shape in shapes:
        answers = iter([False, True])
        with monkeypatch.context() as patch:
            patch.setattr(preemption, "requested", lambda answers=answers: next(answers))
            with pytest.raises(preemption.PreemptedError):
                losses(tmp_path, make_mesh(**shape))
    found = losses(tmp_path, make_mesh())
    assert len(found) == RECIPE.steps
    np.testing.assert_allclose(found, on_one_device, rtol=1e-5)


def compiled_step(**shape):
    """Returns the compiled training step of a model whose layers are stacked."""
    model = dict(vocab_size=common.VOCAB, model_dim=32, num_layers=2, num_heads=4)
    model |= dict(scan=True, remat=True)
    spec = FrozenConfigDict({"encoding": {"name": "rope"}, "model": model})
    return lower_step(Text(RECIPE, windows(), spec), RECIPE, make_mesh(**shape)).compile()


def test_fsdp_brings_parameters_together_and_never_activations():
    """Each device holds an eighth of the state, and works on rows of its own."""
    cut, whole = compiled_step(fsdp=8), compiled_step(data=8)
    size = [step.memory_analysis().argument_size_in_bytes for step in (cut, whole)]
    assert size[0] < size[1] / 6
    moved = re.findall(
        r"= f32\[([\d,]*)\]\S* (?:all-gather|all-reduce|all-to-all)\(", cut.as_text()
    )
    assert "32,32" in moved, "no kernel is brought together"
    activations = [shape for shape in moved if str(RECIPE.length) in shape.split(",")]
    assert not activations
