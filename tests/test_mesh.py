"""Tests that a mesh of any shape gives the numbers of one device, and that parameters are cut."""

import dataclasses
import functools
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

from experiments.data import Corpus, window_index
from experiments.loop import abstract_state, train
from experiments.mesh import AXES, batch_sharding, make_mesh, replicated
from experiments.text import NextToken, Text, mean_loss
from experiments.train import Recipe, train_step
from posenc_jax import Transformer

LENGTH, STEPS = 16, 6


@dataclasses.dataclass(frozen=True, eq=False)
class Mixed(NextToken):
    """Trains a model whose layers embed, rotate, score and read."""

    def init(self, key):
        names = "sinusoidal", "rope", "shaw", "fox"
        layers = [common.build(name, trained=False, num_layers=1) for name in names]
        sizes = dict(vocab_size=common.VOCAB, model_dim=common.WIDTH, num_heads=common.HEADS)
        return Transformer(layers, num_layers=len(layers), **sizes, rngs=nnx.Rngs(key))


def losses(folder, mesh):
    tokens = np.random.default_rng(0).integers(0, common.VOCAB, 4000).astype(np.uint8)
    splits = np.zeros(1, np.int8)
    corpus = Corpus("toy", tokens, np.array([0, 4000]), splits, common.VOCAB, 1.0, "digest")
    recipe = Recipe(length=LENGTH, batch_size=8, steps=STEPS, warmup_steps=2, log_every=1)
    task = Mixed(recipe, window_index(corpus, "train", LENGTH))
    train(task, recipe, mesh, seed=0, folder=folder, console=Console(file=io.StringIO()))
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["loss"] for line in lines]


@pytest.fixture(scope="module")
def on_one_device(tmp_path_factory):
    kinds = (AxisType.Auto,) * len(AXES)
    mesh = jax.make_mesh((1,) * len(AXES), AXES, axis_types=kinds, devices=jax.devices()[:1])
    return losses(tmp_path_factory.mktemp("one"), mesh)


@pytest.mark.parametrize(
    "shape",
    [{"data": 2, "fsdp": 2, "model": 2}, {"fsdp": 2, "model": 2, "context": 2}],
    ids=["no_context", "no_data"],
)
def test_every_axis_gives_the_losses_of_one_device(tmp_path, on_one_device, shape):
    assert len(on_one_device) == STEPS
    np.testing.assert_allclose(losses(tmp_path, make_mesh(**shape)), on_one_device, rtol=1e-5)


def compiled_step(**shape):
    """Returns the compiled training step of a model whose layers are stacked."""
    mesh, recipe = make_mesh(**shape), Recipe(length=LENGTH, batch_size=8, steps=2)
    model = dict(vocab_size=64, model_dim=32, num_layers=2, num_heads=4, scan=True, remat=True)
    spec = FrozenConfigDict({"encoding": {"name": "rope"}, "model": model})
    state = abstract_state(Text(recipe, None, spec), recipe, mesh)
    tokens = jax.ShapeDtypeStruct((8, LENGTH + 1), np.int32, sharding=batch_sharding(mesh))
    places = jax.tree.map(lambda array: array.sharding, state)
    step = functools.partial(train_step, loss=mean_loss, recipe=recipe)
    with jax.set_mesh(mesh):
        step = jax.jit(step, donate_argnums=0, out_shardings=(places, replicated(mesh)))
        return step.lower(state, tokens, jax.eval_shape(jax.random.key, 0)).compile()


def test_fsdp_brings_parameters_together_and_never_activations():
    """Each device holds an eighth of the state, and works on rows of its own."""
    cut, whole = compiled_step(fsdp=8), compiled_step(data=8)
    size = [step.memory_analysis().argument_size_in_bytes for step in (cut, whole)]
    assert size[0] < size[1] / 6
    moved = re.findall(
        r"= f32\[([\d,]*)\]\S* (?:all-gather|all-reduce|all-to-all)\(", cut.as_text()
    )
    assert "32,32" in moved, "no kernel is brought together"
    activations = [shape for shape in moved if f"{LENGTH}" in shape.split(",")]
    assert not activations
