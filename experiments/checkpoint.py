"""Saves and restores a train state with Orbax, and tells one from another."""

import hashlib
from pathlib import Path
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from experiments.mesh import path_name
from experiments.record import differences


class Checkpoints:
    """Saves the checkpoints of one run in the background, and keeps the newest two.

    Orbax writes into a temporary folder and renames it when all is on disk: a full disk or a kill
    leaves the previous checkpoint as it was. On disk a state is a flat dict from path to array, so
    it can be read without this project's classes.
    """

    def __init__(self, folder: Path):
        self._folder = folder.absolute()
        self._manager = ocp.CheckpointManager(
            self._folder,
            options=ocp.CheckpointManagerOptions(max_to_keep=2, enable_async_checkpointing=True),
            item_handlers=ocp.StandardCheckpointHandler(),
        )

    def latest_step(self) -> int | None:
        """Returns the step of the newest checkpoint that is whole, or None."""
        return self._manager.latest_step()

    def save(self, step: int, state: Any) -> None:
        """Starts saving; returns when the arrays are copied, not when they are on disk."""
        self._manager.save(step, args=ocp.args.StandardSave(_flat(state)))

    def restore(self, step: int, abstract_state: Any) -> Any:
        """Returns the state saved at ``step``, placed as the shardings of ``abstract_state`` say.

        Raises:
          ValueError: the saved arrays are others than the expected ones, or have other shapes or
            types. Orbax alone would cast a type without a word.
        """
        expected, saved = _flat(abstract_state), dict(self._manager.item_metadata(step))
        try:
            chex.assert_trees_all_equal_shapes_and_dtypes(saved, expected)
        except AssertionError:
            changes = differences(_kinds(saved), _kinds(expected))
            raise ValueError(
                f"the checkpoint of step {step} in {self._folder} holds another state than this "
                f"config trains: {'; '.join(changes[:3])}"
                + (f"; and {len(changes) - 3} more" if len(changes) > 3 else "")
                + ". Give the old config, or another --workdir"
            ) from None
        arrays = self._manager.restore(step, args=ocp.args.StandardRestore(expected))
        paths = jax.tree_util.tree_flatten_with_path(abstract_state)[0]
        leaves = [arrays[path_name(path)] for path, _ in paths]
        return jax.tree.unflatten(jax.tree.structure(abstract_state), leaves)

    def close(self) -> None:
        """Waits until everything is on disk."""
        self._manager.wait_until_finished()
        self._manager.close()


@jax.jit
def _sums(tree) -> list[jax.Array]:
    """Returns one number for each array, which a change of any of its bits changes.

    Sums of whole numbers are the same in any order, so they are the same on any mesh.
    """

    def sum_of(array):
        bits = array.view(f"uint{8 * array.dtype.itemsize}").astype(jnp.uint32).reshape(-1)
        return (bits * (2 * jnp.arange(bits.size, dtype=jnp.uint32) + 1)).sum(dtype=jnp.uint32)

    return [sum_of(jnp.asarray(leaf)) for leaf in jax.tree.leaves(tree)]


def fingerprint(tree: Any) -> str:
    """Returns a digest of all arrays in ``tree``, wherever they are; no array is brought here."""
    sums = np.array([np.asarray(each) for each in _sums(tree)], np.uint32)
    return hashlib.sha256(sums.tobytes()).hexdigest()[:16]


def _flat(state) -> dict[str, Any]:
    return {path_name(p): leaf for p, leaf in jax.tree_util.tree_flatten_with_path(state)[0]}


def _kinds(arrays) -> dict[str, str]:
    return {name: f"{array.dtype} {tuple(array.shape)}" for name, array in arrays.items()}
