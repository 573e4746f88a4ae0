"""Saving and restoring a train state with Orbax."""

from pathlib import Path

import jax
import orbax.checkpoint as ocp

from experiments.mesh import path_name


class Checkpoints:
    """The checkpoints of one run, saved in the background, the newest two kept.

    Orbax writes into a temporary folder and renames it when all is on disk: a full disk or a kill
    leaves the previous checkpoint as it was. On disk a state is a flat dict from path to array, so
    it can be read without this project's classes.
    """

    def __init__(self, folder: Path):
        options = ocp.CheckpointManagerOptions(max_to_keep=2, enable_async_checkpointing=True)
        self._manager = ocp.CheckpointManager(folder.absolute(), options=options)

    def latest_step(self) -> int | None:
        return self._manager.latest_step()

    def save(self, step: int, state) -> None:
        """Starts saving; returns when the arrays are copied, not when they are on disk."""
        self._manager.save(step, args=ocp.args.StandardSave(_flat(state)))

    def restore(self, step: int, abstract_state):
        """The state saved at ``step``, placed as the shardings of ``abstract_state`` say."""
        arrays = self._manager.restore(step, args=ocp.args.StandardRestore(_flat(abstract_state)))
        paths = jax.tree_util.tree_flatten_with_path(abstract_state)[0]
        leaves = [arrays[path_name(path)] for path, _ in paths]
        return jax.tree.unflatten(jax.tree.structure(abstract_state), leaves)

    def close(self) -> None:
        """Waits until everything is on disk."""
        self._manager.wait_until_finished()
        self._manager.close()


def _flat(state):
    return {path_name(p): leaf for p, leaf in jax.tree_util.tree_flatten_with_path(state)[0]}
