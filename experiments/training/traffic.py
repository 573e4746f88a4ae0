"""Counts the bytes that devices send each other for attention over the mesh axis ``context``."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from experiments.training.precision import PRODUCTS
from experiments.training.recipe import Recipe
from experiments.training.step import Task
from posenc_jax.attention import MOST_GATHERED, choose
from posenc_jax.attention.context import gathered_bytes
from posenc_jax.pairs import Pairs


@dataclasses.dataclass(frozen=True)
class Call:
    """Describes a layer's call of attention on a mesh, by shapes.

    Attributes:
      pairs, v_BSKC: all queries and keys with their tokens, and all values.
      chosen: the strategy that ``attend`` would choose.
      gathered: the bytes that all keys and values take on a device.
      whole_rows: whether the scheme needs all keys at once.
    """

    pairs: Pairs
    v_BSKC: Any
    chosen: str
    gathered: int
    whole_rows: bool

    def sent(self, devices: int, others: int, *, again: bool) -> dict[str, float]:
        """Returns the bytes that a device sends forwards and backwards, by strategy.

        Args:
          devices: the size of the axis ``context``.
          others: the devices along all other axes, which share rows and heads.
          again: whether the backward pass computes the forward pass again (``model.remat``).

        Keys and values are sent in both passes, and their gradients in float32 where devices add
        them up. The gradients of the scheme's own parameters are not counted. Where ulysses cannot
        run, because the axis does not divide the kv heads, it is missing.
        """

        def piece(*tree, itemsize=None):
            """Returns the bytes of the part of arrays on a device, or of their gradients."""
            arrays = jax.tree.leaves(tree)
            if itemsize is not None:
                arrays = [x for x in arrays if jnp.issubdtype(x.dtype, jnp.floating)]
            total = sum(math.prod(x.shape) * (itemsize or x.dtype.itemsize) for x in arrays)
            return total / (devices * others)

        pairs, v = self.pairs, self.v_BSKC
        keys, tokens = (pairs.k, v, pairs.k_tokens), (pairs.q_tokens, pairs.k_tokens)
        row = jax.ShapeDtypeStruct(pairs.q.shape[:3], jnp.float32)
        out = jax.ShapeDtypeStruct((*row.shape, v.shape[3]), v.dtype)
        passes = 3 if again else 2
        by_key = passes * piece(keys) + piece(keys, itemsize=4)
        sent = {"gather": (devices - 1) * by_key}
        sent["ring"] = sent["gather"] if self.whole_rows else devices * by_key
        if v.shape[2] % devices == 0:
            moved = (passes + 1) * piece(pairs.q, pairs.k, v) + passes * piece(out)
            # Log-sum-exps of rows forwards; backwards their products with the gradient as well.
            moved += (passes + 1) * piece(row)
            by_token = passes * piece(tokens) + piece(tokens, itemsize=4)
            sent["ulysses"] = (devices - 1) * (moved / devices + by_token)
        return sent


def calls_of(task: Task, recipe: Recipe, mesh: Mesh) -> tuple[list[Call], Any]:
    """Returns the calls of attention that are traced in a forward pass, and the abstract model."""
    calls: list[Call] = []

    def note(encoding, pairs, v_BSKC, rule):
        chosen: Any = choose(encoding, pairs, v_BSKC, rule)
        q_and_k, v = jax.eval_shape(lambda: (pairs, v_BSKC))
        gathered = gathered_bytes(pairs, v_BSKC)
        calls.append(Call(q_and_k, v, chosen.__name__, gathered, encoding.whole_rows))
        return jnp.zeros((*pairs.q.shape[:3], v_BSKC.shape[3]), v_BSKC.dtype)

    def loss(key, batch):
        model = task.init(key)
        model.implementation = note
        return task.loss(PRODUCTS[recipe.products](model), batch, key)

    key = jax.eval_shape(jax.random.key, 0)
    with jax.set_mesh(mesh):
        jax.eval_shape(loss, key, task.batch(0, 1, 0, 1))
    return calls, jax.eval_shape(task.init, key)


def traffic(task: Task, recipe: Recipe, mesh: Mesh) -> tuple[dict[str, float], str, str]:
    """Returns what a device sends for attention in a step, and the strategy chosen, and why.

    The first is bytes by strategy, as ``Call.sent`` has them, over all layers.
    """
    calls, model = calls_of(task, recipe, mesh)
    devices = mesh.shape["context"]
    sent = [call.sent(devices, mesh.size // devices, again=model.remat) for call in calls]
    layers = model.num_layers / len(calls)  # a loop over layers is traced once
    total = {by: layers * sum(one[by] for one in sent) for by in sent[0]}
    largest = max(calls, key=lambda call: call.gathered)
    if largest.whole_rows:
        why = "the scheme needs all keys at once"
    else:
        few = "at most" if largest.gathered <= MOST_GATHERED else "more than"
        size = f"{largest.gathered / 2**20:,.1f} MiB a device"
        why = f"all keys and values of a layer take {size}, {few} {MOST_GATHERED / 2**20:,.0f} MiB"
    return total, largest.chosen, why
