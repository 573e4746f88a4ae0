"""Runs many rows through a model, in batches on the mesh."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from experiments import preemption
from experiments.training.mesh import batch_sharding, row_shards


def rows_of_pass(batch_tokens: int, tokens: int, mesh: Mesh) -> int:
    """Returns how many rows are in one forward pass, at least one for each part of a batch.

    A row has ``tokens`` that pass through the model; ``batch_tokens`` is the most of a pass, over
    all devices.
    """
    shards = row_shards(mesh)
    return max(1, batch_tokens // (tokens * shards)) * shards


def in_batches(compute: Callable, rows: Any, size: int, mesh: Mesh) -> Iterator[Any]:
    """Yields the results of ``compute`` for ``size`` rows at a time, as NumPy.

    A short last batch is padded for the computation; the results of the padding are left out.
    ``compute`` takes a batch and returns a pytree with a result for each of its rows; ``rows`` is a
    pytree of NumPy arrays with the rows along axis 0; ``size`` is a multiple of ``row_shards``.
    Raises a PreemptedError if the scheduler asked to stop.
    """
    count = len(jax.tree.leaves(rows)[0])
    for start in range(0, count, size):
        batch = jax.tree.map(lambda x, start=start: x[start : start + size], rows)
        real = len(jax.tree.leaves(batch)[0])

        def on_mesh(x, real=real):
            # Padded with its first row, a short batch runs through the same program.
            full = np.concatenate([x, np.repeat(x[:1], size - real, axis=0)])
            return jax.make_array_from_callback(full.shape, batch_sharding(mesh), full.__getitem__)

        if preemption.requested():
            raise preemption.PreemptedError("asked to stop in an evaluation: run again")
        with jax.set_mesh(mesh):
            results = compute(jax.tree.map(on_mesh, batch))
        yield jax.tree.map(lambda x, real=real: np.asarray(x)[:real], results)
