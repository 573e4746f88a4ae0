"""Counts the bytes that devices send each other for attention over the mesh axis ``context``."""

import contextlib
import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from experiments.training.cost import summed
from experiments.training.mesh import STRATEGIES
from experiments.training.precision import PRODUCTS
from experiments.training.recipe import Recipe
from experiments.training.step import Task, under
from posenc_jax.attention import MOST_GATHERED, choose
from posenc_jax.attention.context import gathered_bytes


def traffic(task: Task, recipe: Recipe, mesh: Mesh) -> tuple[dict[str, float], str, str]:
    """Returns what a device sends for attention in a step, and the strategy chosen, and why.

    The first is bytes by strategy, forwards and backwards, as the collectives of the traced
    gradient send them; a strategy that cannot run is missing.
    """
    devices, key = mesh.shape["context"], jax.eval_shape(jax.random.key, 0)
    batch, model = task.batch(0, 1, 0, 1), jax.eval_shape(task.init, key)
    calls: list[tuple[int, str, bool]] = []

    def note(encoding, pairs, v_BSKC, rule):
        chosen: Any = choose(encoding, pairs, v_BSKC, rule)
        calls.append((gathered_bytes(pairs, v_BSKC), chosen.__name__, encoding.whole_rows))
        return jnp.zeros((*pairs.q.shape[:3], v_BSKC.shape[3]), v_BSKC.dtype)

    def loss(model, key, by=""):
        if not by:
            model.implementation = note
        return task.loss(PRODUCTS[recipe.products](under(model, by)), batch, key)

    sent = {}
    with jax.set_mesh(mesh):
        jax.eval_shape(loss, model, key)
        for by in filter(None, STRATEGIES):
            gradient = jax.grad(functools.partial(loss, by=by), allow_int=True)
            with contextlib.suppress(ValueError):  # ulysses needs a multiple of the kv heads
                total = summed(
                    functools.partial(_sent, devices), jax.make_jaxpr(gradient)(model, key)
                )
                sent[by] = total * devices / mesh.size  # the other axes share rows and heads
    gathered, chosen, whole_rows = max(calls)
    if whole_rows:
        return sent, chosen, "the scheme needs all keys at once"
    few = "at most" if gathered <= MOST_GATHERED else "more than"
    size = f"{gathered / 2**20:,.1f} MiB a device"
    why = f"all keys and values of a layer take {size}, {few} {MOST_GATHERED / 2**20:,.0f} MiB"
    return sent, chosen, why


def _sent(devices: int, equation: Any) -> float:
    """Returns the bytes that a collective of one device sends to others along ``context``."""
    share = {
        "all_gather": devices - 1,
        "reduce_scatter": (devices - 1) / devices,
        "all_to_all": (devices - 1) / devices,
        "ppermute": 1,
    }.get(equation.primitive.name, 0)
    return share and share * sum(x.aval.size * x.aval.dtype.itemsize for x in equation.invars)
