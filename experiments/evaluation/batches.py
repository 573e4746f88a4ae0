"""Runs many rows through a model, in batches on the mesh."""

import functools
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
        end = min(start + size, count)
        # Padded with its first row, a short batch runs through the same program.
        numbers = [*range(start, end), *[start] * (start + size - end)]
        preemption.stop_if_requested("in an evaluation")
        with jax.set_mesh(mesh):
            batch = jax.tree.map(functools.partial(_rows_on_mesh, numbers, mesh), rows)
            results = compute(batch)
        yield jax.tree.map(lambda x, real=end - start: np.asarray(x)[:real], results)


def _rows_on_mesh(numbers, mesh, x):
    x = np.asarray(x)[numbers]
    return jax.make_array_from_callback(x.shape, batch_sharding(mesh), x.__getitem__)
