"""Saves and restores a train state with Orbax, and computes fingerprints of states."""

import contextlib
import functools
import hashlib
import math
import sys
from collections.abc import Mapping
from logging import getLogger
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from absl import logging
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding, PartitionSpec

from experiments.results.bucket import absolute
from experiments.results.record import (
    RefusedError,
    agreed,
    differences,
    json_digest,
    read_run,
)
from experiments.training.mesh import by_path

_SUMS, _KINDS, _STEP, _RUN = "sums", "kinds", "step", "run"
_DAMAGED = "damaged_step_"
# Orbax and TensorStore raise these if files are missing, cut off or altered. Other errors, such as
# running out of memory, do not mean that a checkpoint is damaged.
_UNREADABLE = (
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    EOFError,
    FileNotFoundError,
    NotADirectoryError,
)


def _loss(metrics: Mapping[str, float]) -> float:
    return metrics.get("loss", math.inf)


_PRESERVED = ocp.checkpoint_managers.AnyPreservationPolicy(
    [
        ocp.checkpoint_managers.LatestN(2),
        ocp.checkpoint_managers.BestN(
            get_metric_fn=_loss, reverse=True, n=1, keep_checkpoints_without_metrics=False
        ),
    ]
)


class _Manager(ocp.CheckpointManager):
    """Changes what Orbax does by itself at the start and at each save."""

    def metrics(self, step):
        """Returns the loss of a checkpoint, or None if it is damaged; restoring finds that.

        Orbax reads the losses of all checkpoints at the start, to know which to keep.
        """
        with contextlib.suppress(*_UNREADABLE):
            return super().metrics(step)

    def reached_preemption(self, step):
        """Returns False, because ``preemption.requested`` asks JAX.

        JAX counts the calls of all who ask, so that Orbax's would hide a signal from the others.
        """
        return False


@functools.cache
def _silence_orbax() -> None:
    """Hides Orbax's log of errors that it also raises, which this program tells in a sentence.

    When one array fails, Orbax closes the event loop of all arrays. Each array that TensorStore
    still reads or writes then fails too, and would be logged twice.
    """
    log, hook = logging.get_absl_logger(), sys.unraisablehook
    log.addFilter(lambda record: "orbax" not in Path(record.pathname).parts)
    getLogger("asyncio").addFilter(
        lambda record: not any(name in record.getMessage() for name in ("OCDBT", "orbax"))
    )

    def tell(unraisable):
        if str(unraisable.exc_value) != "Event loop is closed":
            hook(unraisable)

    sys.unraisablehook = tell


class Checkpoints:
    """Saves the checkpoints of one run in the background; keeps the newest two and the best.

    The best is the one that was saved with the lowest loss; of equal ones, the newest.

    Orbax writes into a temporary folder and renames it when all is on disk; in a bucket it writes
    a marker of completion last. So a full disk or a kill leaves the previous checkpoint as it was.
    On disk a state is a flat dict from path to array, which can be read without this project's
    classes. The entry ``sums`` has a checksum of each array, in the order of the state's leaves.
    The step's metadata have ``kinds``, a digest of all names, shapes and types and of the loss,
    which Orbax keeps in other files than these. They also have the step and a digest of the run's
    config, so that a folder of another step or run is noticed.
    """

    def __init__(self, folder: Path):
        _silence_orbax()
        self._folder = absolute(folder)
        run = read_run(folder.parent)
        self._run = None if run is None else json_digest(run["config"])[:16]
        try:
            self._manager = self._open()
        except _UNREADABLE as error:
            # Orbax does not say which step's file this is. Without it arrays still have their sums.
            agreed(self._put_metadata_aside)
            logging.warning("metadata of a checkpoint in %s is damaged (%s)", folder, error)
            self._manager = self._open()

    def _open(self) -> "_Manager":
        return _Manager(
            self._folder,
            options=ocp.CheckpointManagerOptions(
                preservation_policy=_PRESERVED, best_fn=_loss, best_mode="min"
            ),
            item_handlers=ocp.StandardCheckpointHandler(),
        )

    def _put_metadata_aside(self) -> None:
        for path in self._folder.glob("*/_CHECKPOINT_METADATA"):
            path.rename(path.with_name("damaged_metadata"))

    def latest_step(self) -> int | None:
        """Returns the step of the newest checkpoint that is whole, or None."""
        return self._manager.latest_step()

    def best_step(self) -> int | None:
        """Returns the step of the best checkpoint, or None if none has a loss."""
        return self._manager.best_step()

    def save(self, step: int, state: Any, loss: float | None = None) -> None:
        """Starts saving; returns when the arrays are copied, not when they are on disk.

        The best checkpoint is chosen by ``loss``; without one the checkpoint is never the best.
        """
        arrays = by_path(state) | {_SUMS: _sums(state)}
        metrics = None if loss is None else {"loss": loss}
        self._manager.save(
            step,
            args=ocp.args.StandardSave(arrays),
            metrics=metrics,
            custom_metadata={
                _KINDS: json_digest(_kinds(arrays) | (metrics or {}))[:16],
                _STEP: step,
                _RUN: self._run,
            },
        )

    def newest(self, abstract_state: Any) -> tuple[int, Any] | None:
        """Returns the newest undamaged state and its step, or None if nothing was saved.

        A damaged checkpoint is moved out of the way, and the one before it is restored. The
        shardings of ``abstract_state``, the expected state, say where arrays are placed. Raises a
        RefusedError if the saved arrays have other names, shapes or types, which Orbax alone would
        cast silently; or if every checkpoint is damaged.
        """
        steps = sorted(self._manager.all_steps(), reverse=True)
        for step in steps:
            try:
                return step, self._restore(step, abstract_state)
            except _DamagedError as damage:
                aside = self._put_aside(step)
                logging.warning(
                    f"the checkpoint of step {step} is damaged ({damage}): it is now {aside}, and "
                    "the one before it is taken"
                )
        # Perhaps put aside at an earlier start: training from step 0 would hide the damage.
        folders = self._folder.parent.glob(f"{_DAMAGED}*")
        if aside := agreed(lambda: sorted(path.name for path in folders)):
            raise RefusedError(
                f"every checkpoint in {self._folder} was damaged, and is now in "
                f"{', '.join(aside)} beside it: restore one from a copy, or delete the folder of "
                "the run to train again"
            )
        return None

    def best(self, abstract_state: Any) -> tuple[int, Any] | None:
        """Returns the state with the lowest loss and its step, or None if none has a loss."""
        step = self.best_step()
        if step is None:
            return None
        try:
            return step, self._restore(step, abstract_state)
        except _DamagedError as damage:
            raise RefusedError(
                f"the best checkpoint in {self._folder}, of step {step}, is damaged ({damage}): "
                "restore it from a copy, or take the newest one"
            ) from None

    def _restore(self, step, abstract_state):
        expected, saved = by_path(abstract_state), self._saved(step)
        sharding = next(getattr(array, "sharding", None) for array in expected.values())
        if isinstance(sharding, NamedSharding):
            sharding = NamedSharding(sharding.mesh, PartitionSpec())
        sums = jax.ShapeDtypeStruct((len(expected),), jnp.uint32, sharding=sharding)
        wanted = expected | {_SUMS: sums}
        self._check_same(step, saved, wanted)
        arguments = ocp.args.StandardRestore(wanted)
        try:
            arrays = self._manager.restore(step, args=arguments)
        except Exception as error:
            if isinstance(error, AssertionError) and "name mismatch" in str(error):
                raise _DamagedError("another process could not read its part of it") from None
            # Orbax passes on the error of one array as the cause of a plain Exception.
            cause = error.__cause__ if type(error) is Exception else error
            if not isinstance(cause, _UNREADABLE):
                raise
            _tell_the_others()
            raise _DamagedError(_first_line(cause)) from None
        leaves = [arrays[name] for name in expected]
        if (changed := np.asarray(_sums(leaves)) != np.asarray(arrays[_SUMS])).any():
            raise _DamagedError(f"the numbers of {[*expected][changed.argmax()]} changed")
        return jax.tree.unflatten(jax.tree.structure(abstract_state), leaves)

    def _saved(self, step) -> dict[str, Any]:
        """Returns shapes and types, by path, of what this run saved, or raises a _DamagedError."""
        try:
            about: Any = self._manager.metadata(step)
            saved = dict(about.item_metadata)
            digest = json_digest(_kinds(saved) | dict(about.metrics or {}))[:16]
        except _UNREADABLE as error:
            raise _DamagedError(_first_line(error)) from None
        known = about.custom_metadata or {}  # earlier versions have less
        # Otherwise a name that was altered on disk would look like a state of another config.
        if known.get(_KINDS, digest) != digest:
            raise _DamagedError("its loss or the names, shapes or types of its arrays changed")
        if known.get(_STEP, step) != step:
            raise _DamagedError(f"it was saved after step {known[_STEP]}")
        if known.get(_RUN) not in (None, self._run):
            raise _DamagedError("it belongs to another run")
        return saved

    def _check_same(self, step, saved, expected) -> None:
        """Raises a RefusedError if arrays have other paths, shapes or types than expected."""
        if changes := differences(_kinds(saved), _kinds(expected)):
            more = f"; and {len(changes) - 3} more" if len(changes) > 3 else ""
            raise RefusedError(
                f"the checkpoint of step {step} in {self._folder} holds another state than this "
                f"config trains: {'; '.join(changes[:3])}{more}. Give the old config, or another "
                "--workdir"
            )

    def _put_aside(self, step) -> Path:
        aside = self._folder.parent / f"{_DAMAGED}{step}"
        while aside.exists():
            aside = aside.with_name(f"{aside.name}_again")
        multihost_utils.sync_global_devices("all have seen the damage")
        if jax.process_index() == 0:
            (self._folder / str(step)).rename(aside)
        multihost_utils.sync_global_devices("it is out of the way")
        self._manager.reload()
        return aside

    def close(self) -> None:
        """Waits until everything is on disk."""
        self._manager.wait_until_finished()
        self._manager.close()


class _DamagedError(Exception):
    """Says that a checkpoint cannot be read, or reads as other numbers than were saved."""


def _tell_the_others() -> None:
    """Releases the processes that have read their parts and wait for this one at a barrier.

    Processes that wait at barriers of different names all get an AssertionError.
    """
    with contextlib.suppress(AssertionError):
        multihost_utils.sync_global_devices("a part of the checkpoint is damaged")


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:200]


@jax.jit
def _sums(tree) -> jax.Array:
    """Returns a checksum of each array, uint32, which changes with every bit of the array.

    Sums of integers do not depend on their order, so checksums are the same on any mesh.
    """

    def sum_of(array):
        # Numbers of more than 4 bytes are taken as several of 4 bytes.
        size = min(array.dtype.itemsize, 4)
        bits = array.reshape(-1).view(f"uint{8 * size}").astype(jnp.uint32)
        return (bits * (2 * jnp.arange(bits.size, dtype=jnp.uint32) + 1)).sum(dtype=jnp.uint32)

    return jnp.array([sum_of(jnp.asarray(leaf)) for leaf in jax.tree.leaves(tree)], jnp.uint32)


def fingerprint(tree: Any) -> str:
    """Returns a digest of all arrays in ``tree``, computed on the devices that hold them."""
    return hashlib.sha256(np.asarray(_sums(tree)).tobytes()).hexdigest()[:16]


def _kinds(arrays) -> dict[str, Any]:
    # Orbax may give a type back in another form than an array has it.
    return {name: f"{jnp.dtype(a.dtype)} {tuple(a.shape)}" for name, a in arrays.items()}
