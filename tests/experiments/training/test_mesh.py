"""Tests that a mesh of any shape gives the numbers of one device, and that parameters are cut."""

import dataclasses
import re
import types
from typing import NamedTuple

import common
import numpy as np
import pytest
import toy
from flax import nnx
from ml_collections import FrozenConfigDict
from toy import mesh_of, preempted

from experiments.training import mesh
from experiments.training.loop import lower_step
from experiments.training.mesh import AXES, make_mesh
from experiments.training.recipe import Recipe
from experiments.training.text import NextToken, Text
from posenc_jax import Transformer
from posenc_jax.encoding import HOOKS
from posenc_jax.encodings.wrappers.randomized import Randomized
from posenc_jax.lookup import rows

# Muon learns the matrices, and AdamW all else.
RECIPE = Recipe(length=16, batch_size=8, steps=8, warmup_steps=2, log_every=1, optimizer="muon")


class Held(Randomized):
    """Draws positions, by which it rotates queries, keys and values, and adds a row of a table.

    The table has an objective of its own.
    """

    def __init__(self):
        super().__init__(over=common.build("value_rope"), max_length=64)
        self.table = nnx.Param(0.1 * common.normal(0, 64, common.WIDTH))

    def embed(self, x_BTD, tokens):
        return x_BTD + rows(self.table[...], tokens.positions.astype(np.int32))

    def aux_loss(self, key):
        del key
        return (self.table[...] ** 2).sum()


def schemes_of_layers():
    """Returns a scheme for each layer, which have every hook between them."""
    return [
        Held(),
        common.build("shaw", trained=False, num_layers=1),
        common.build("fox", trained=False, num_layers=1),
    ]


@dataclasses.dataclass(frozen=True, eq=False)
class Mixed(NextToken):
    """Trains a model whose layers have different schemes."""

    def init(self, key):
        layers = schemes_of_layers()
        sizes = dict(vocab_size=common.VOCAB, model_dim=common.WIDTH, num_heads=common.HEADS)
        return Transformer(layers, num_layers=len(layers), **sizes, rngs=nnx.Rngs(key))


def losses(folder, on):
    task = Mixed(RECIPE, toy.toy_windows(RECIPE.length, common.VOCAB))
    toy.run(folder, RECIPE, task=task, mesh=on)
    return toy.losses(folder)


@pytest.fixture(scope="module")
def on_one_device(tmp_path_factory):
    return losses(tmp_path_factory.mktemp("one"), mesh_of())


# In the order of AXES.
SHAPES = (2, 2, 2, 1), (1, 2, 2, 2), (1, 8, 1, 1), (1, 1, 1, 8)


def test_the_schemes_that_are_trained_have_every_hook():
    assert frozenset.union(*(common.hooks(scheme) for scheme in schemes_of_layers())) == set(HOOKS)


def test_losses_are_those_of_one_device(tmp_path, on_one_device):
    on_mesh = losses(tmp_path, make_mesh(fsdp=2, model=2, context=2))
    np.testing.assert_allclose(on_mesh, on_one_device, rtol=1e-5)


@pytest.mark.slow
def test_a_run_that_goes_on_upon_other_meshes_has_the_losses_of_one_device(tmp_path, on_one_device):
    """It is preempted after each step, and other devices go on with the same batches.

    A wrong gradient on one mesh is seen in the loss on the next.
    After one step on each mesh, the rest is trained on all devices along ``data``.
    """
    for shape in SHAPES:
        with preempted():
            losses(tmp_path, make_mesh(**dict(zip(AXES, shape, strict=True))))
    on_meshes = losses(tmp_path, make_mesh())
    assert len(on_meshes) == RECIPE.steps
    np.testing.assert_allclose(on_meshes, on_one_device, rtol=1e-5)


class Device(NamedTuple):
    process_index: int
    number: int


@pytest.mark.parametrize(
    ("shards", "expected"),
    [
        ([[0, 1], [2, 3]], (0, 2)),
        ([[0, 2], [1, 3]], (0, 2)),  # as devices of a pod may lie
        ([[1], [1], [0], [0]], (1, 2)),  # two processes have the heads of the same rows
        ([[0, 0], [0, 1], [1, 1]], None),
    ],
)
def test_a_process_draws_the_rows_that_its_devices_hold(monkeypatch, shards, expected):
    count = 1 + max(row for rows in shards for row in rows)
    places = {
        Device(process, number): (slice(row, row + 1),)
        for process, rows in enumerate(shards)
        for number, row in enumerate(rows)
    }
    sharding = types.SimpleNamespace(devices_indices_map=lambda shape: places)
    monkeypatch.setattr(mesh, "batch_sharding", lambda _: sharding)
    on = types.SimpleNamespace(shape={"data": count, "fsdp": 1, "model": 2, "context": 1})
    if expected is None:
        common.refuses(r"mesh=\(data=2", lambda: mesh.part_of_process(on))
    else:
        assert mesh.part_of_process(on) == expected


def compiled_step(**shape):
    """Returns the compiled training step of a model whose layers are stacked."""
    model = dict(vocab_size=common.VOCAB, model_dim=32, num_layers=2, num_heads=4)
    model |= dict(scan=True, remat=True)
    spec = FrozenConfigDict({"encoding": {"name": "rope"}, "model": model})
    task = Text(RECIPE, toy.toy_windows(RECIPE.length, common.VOCAB), spec)
    return lower_step(task, RECIPE, make_mesh(**shape)).compile()


@pytest.mark.slow
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
