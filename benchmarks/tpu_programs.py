"""Lowers the programs that ``benchmarks/tpu_check.py`` compiles, for chips not on this machine.

Each function returns a program and the floating-point operations of its products over all chips,
counted with dense attention as ``experiments/training/cost.py`` does.
"""

import dataclasses
import functools
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

import posenc_jax
from benchmarks.accelerator.attention import Shape, build, gradient, run
from configs import extension
from experiments.evaluation.lengths import scorer_program
from experiments.training.cost import products, step_flops
from experiments.training.loop import abstract_state, lower_step
from experiments.training.mesh import batch_sharding, replicated, row_shards
from experiments.training.recipe import Recipe
from experiments.training.step import Task
from experiments.training.text import Text, spec_of, token_losses
from posenc_jax.model.cache import Cache
from posenc_jax.model.decode import read
from posenc_jax.model.transformer import ROWS
from posenc_jax.registry import PATTERNS

HEADS, HEAD_DIM = 8, 128
SCHEMES = tuple(name for name in posenc_jax.REGISTRY if name not in PATTERNS)

# A decoder of the shape of Llama 2 7B (2307.09288).
SEVEN_B = {"vocab_size": 32000} | extension.get_config("paper").model.to_dict()

Program = tuple[jax.stages.Lowered, int]


@dataclasses.dataclass(frozen=True, eq=False)
class Blank(Text):
    """Trains on batches of zeros: lowering needs only their shape, and no corpus."""

    def batch(self, seed, step, part, parts):
        del seed, step, part
        return np.zeros((self.recipe.batch_size // parts, self.recipe.length + 1), np.int32)


def seven_b(encoding: str, rows: int, length: int) -> tuple[Task, Recipe]:
    """Returns a task and a recipe for a decoder of 7B parameters and batches of ``rows`` rows."""
    recipe = Recipe(length=length, batch_size=rows, steps=1000)
    spec = spec_of({"name": encoding}, SEVEN_B)
    windows: Any = None  # Blank reads no corpus
    return Blank(recipe, windows, spec), recipe


def one_of_each_kind() -> list[str]:
    """Returns the first scheme of every set of hooks, with and without whole rows of logits."""
    first: dict[Any, str] = {}
    for name in SCHEMES:
        encoding = _encoding(name, 64)
        first.setdefault((encoding.hooks(), encoding.whole_rows), name)
    return list(first.values())


def attention(name: str, implementation: str, backward: bool, length: int, mesh: Mesh) -> Program:
    """Lowers attention in bfloat16, 8 heads of 128, one row on each part of the axis ``data``.

    Rows lie over ``data``, tokens over ``context`` and heads over ``model``, as far as the mesh has
    these axes. Raises a ValueError if the implementation does not support the scheme.
    """

    def under(implementation):
        forward = functools.partial(run, implementation=implementation)
        return gradient(forward) if backward else forward

    axes = [axis if axis in mesh.shape else None for axis in ("data", "context", "model")]
    on_mesh = functools.partial(_abstract, mesh=mesh, dtype="bfloat16", spec=P(*axes))
    encoding = jax.tree.map(functools.partial(_abstract, mesh=mesh), _encoding(name, length))
    rows = mesh.shape.get("data", 1)
    shape = jax.ShapeDtypeStruct((rows, length, HEADS, HEAD_DIM), "bfloat16")
    x_BTD = jax.ShapeDtypeStruct((rows, length, HEADS * HEAD_DIM), "bfloat16")
    arguments = encoding, *(on_mesh(shape),) * 3, on_mesh(x_BTD)
    flops = products(jax.make_jaxpr(under("dense"))(*arguments))
    with jax.set_mesh(mesh):
        return jax.jit(under(implementation)).lower(*arguments), flops


def training(task: Task, recipe: Recipe, mesh: Mesh) -> Program:
    """Lowers a training step."""
    return lower_step(task, recipe, mesh), step_flops(task, task.batch(0, 1, 0, 1))


def evaluation(task: Task, recipe: Recipe, mesh: Mesh, *, rows: int, length: int) -> Program:
    """Lowers the losses of ``rows`` windows of text."""
    model = abstract_state(task.init, recipe, mesh).model
    tokens = jax.ShapeDtypeStruct((rows, length + 1), "int32", sharding=batch_sharding(mesh))

    def dense(model, tokens_BL):
        model.implementation = "dense"
        return token_losses(model, tokens_BL)

    flops = products(jax.make_jaxpr(dense)(model, tokens))
    with jax.set_mesh(mesh):
        return scorer_program(mesh).lower(token_losses, model, None, tokens), flops


def decoding(task: Task, recipe: Recipe, mesh: Mesh, *, slots: int) -> Program:
    """Lowers a step that reads one token of each row, with one row for each shard of rows.

    Weights are in bfloat16. Rows and heads of the cache are spread like those of activations.
    """
    model = jax.tree.map(
        lambda p: jax.ShapeDtypeStruct(p.shape, "bfloat16", sharding=p.sharding),
        abstract_state(task.init, recipe, mesh).model,
    )
    rows = row_shards(mesh)

    def spread(slots):
        spec = P(None, ROWS, "model") if slots.ndim == 5 else P()
        return _abstract(slots, mesh=mesh, spec=spec)

    cache = jax.tree.map(spread, jax.eval_shape(lambda: Cache.empty(model, rows, slots)))
    token = jax.ShapeDtypeStruct((rows, 1), "int32", sharding=batch_sharding(mesh))
    flops = products(jax.make_jaxpr(read)(model, (token, None, None), cache))
    with jax.set_mesh(mesh):
        return read.lower(model, (token, None, None), cache), flops


def _encoding(name: str, length: int) -> Any:
    return jax.eval_shape(lambda: build(name, Shape(length, HEAD_DIM, HEADS, batch=1)))


def _abstract(array, *, mesh, dtype=None, spec=None):
    sharding = replicated(mesh) if spec is None else NamedSharding(mesh, spec)
    return jax.ShapeDtypeStruct(array.shape, dtype or array.dtype, sharding=sharding)
