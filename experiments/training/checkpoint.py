"""Saves and restores a train state with Orbax, and computes fingerprints of states."""

import functools
import hashlib
import json
import sys
from collections.abc import Callable
from logging import getLogger
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from orbax.checkpoint import v1 as ocp

from experiments.results import bucket
from experiments.results.record import (
    RefusedError,
    agreed,
    differences,
    json_digest,
    of_all,
    read_run,
)
from experiments.training.mesh import by_path

_DIGEST = "digest"
# Orbax and TensorStore raise these if files are missing, cut off or altered. Other errors, such as
# running out of memory, do not mean that a checkpoint is damaged.
_UNREADABLE = ValueError, KeyError, TypeError, AttributeError, EOFError, OSError, AssertionError


class Checkpoints:
    """Saves the checkpoints of one run in the background, and keeps the newest two.

    A kill or a full disk leaves the previous checkpoint as it was, because Orbax writes into a
    temporary folder and renames it when all is on disk. On disk a state is a flat dict from path to
    array, which can be read without this project's classes. The array ``digest`` among them is of
    the config of the run, the step, and the names, types and numbers of all other arrays.
    """

    def __init__(self, folder: Path):
        _quieten()
        self._folder, self._saving = bucket.absolute(folder), None
        self._damaged: set[int] = set()
        run = read_run(folder.parent)
        self._run = None if run is None else json_digest(run["config"])

    def steps(self) -> list[int]:
        """Returns the steps of the checkpoints on disk, without the ones known as damaged."""

        def find():
            # Orbax writes this file last, which matters in a bucket, where nothing is renamed.
            complete = self._folder.glob("*/commit_success.txt")
            names = (path.parent.name for path in complete)
            return sorted(int(name) for name in names if name.isdigit())

        return [step for step in agreed(find) if step not in self._damaged]

    def latest_step(self) -> int | None:
        """Returns the step of the newest checkpoint, or None."""
        return max(self.steps(), default=None)

    def save(self, step: int, state: Any) -> None:
        """Starts saving; returns when the arrays are copied, not when they are on disk.

        Raises the error of the checkpoint before, if that could not be written.
        """
        self.wait()
        arrays = by_path(state)
        self._damaged.discard(step)
        whole = arrays | {_DIGEST: self._digest(step, arrays)}
        context = ocp.Context()
        # Otherwise threads wait for five minutes for a folder that could not be made.
        context.asynchronous.create_directories_asynchronously = False
        with context:
            self._saving = ocp.save_async(self._folder / str(step), whole, overwrite=True)

    def wait(self) -> None:
        """Waits until everything is on disk, and then removes what is not kept any more."""
        saving, self._saving = self._saving, None
        if saving is None:
            return
        saving.result()
        kept = {str(step) for step in self.steps()[-2:]}

        def tidy():
            for path in self._folder.iterdir():
                if path.name not in kept:
                    bucket.remove(path)

        agreed(tidy)

    close = wait

    def newest(self, abstract_state: Any) -> tuple[int, Any] | None:
        """Returns the newest undamaged state and its step, or None if nothing was saved.

        A damaged checkpoint is left to be overwritten, and the one before it is restored. The
        shardings of ``abstract_state``, the expected state, say where arrays are placed. Raises a
        RefusedError if every checkpoint is damaged, as training from step 0 would hide that; or if
        one has arrays of other names, shapes or types, or is of an earlier version.
        """
        for step in reversed(self.steps()):
            try:
                return step, self._restore(step, abstract_state)
            except _DamagedError as damage:
                self._damaged.add(step)
                logging.warning(f"{damage}: the checkpoint before it is taken")
        if self._damaged:
            raise RefusedError(
                f"every checkpoint in {self._folder} is damaged: restore one from a copy, or "
                "delete the folder of the run to train again"
            )
        return None

    def _restore(self, step, abstract_state):
        path, expected = self._folder / str(step), by_path(abstract_state)
        saved, loss = _read(path, lambda: _about(path))
        if saved.pop(_DIGEST, None) is None:
            raise RefusedError(
                f"{path} does not say which run and step it is of, as checkpoints of earlier "
                "versions: delete the folder of the run to train again"
            )
        if changes := differences(kinds(saved), kinds(expected)):
            more = f"; and {len(changes) - 3} more" if len(changes) > 3 else ""
            raise RefusedError(
                f"{path} holds another state than this config trains: {'; '.join(changes[:3])}"
                f"{more}. Give the old config, or another --workdir"
            )
        context = ocp.Context()
        # Else a process whose part is damaged leaves the others waiting, before ``_read`` can tell.
        context.multiprocessing.active_processes = {jax.process_index()}
        with context:
            wanted = expected | {_DIGEST: np.empty(8, np.uint32)}
            arrays = _read(path, lambda: ocp.load(path, wanted))
        state = {name: arrays[name] for name in expected}
        if (arrays[_DIGEST] != self._digest(step, state, loss)).any():
            raise _DamagedError(f"{path} was changed, or is of another run or step")
        return jax.tree.unflatten(jax.tree.structure(abstract_state), [*state.values()])

    def _digest(self, step, arrays, loss: float | None = None) -> np.ndarray:
        """Returns the SHA-256 of arrays and of what they belong to, uint32 ``[8]``."""
        sums = np.asarray(_sums(arrays)).tolist()
        about = self._run, step, loss, kinds(arrays), sums
        digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).digest()
        return np.frombuffer(digest, np.uint32)


class _DamagedError(Exception):
    """Says that a checkpoint cannot be read, or reads as other numbers than were saved."""


def _about(path: Path) -> tuple[dict[str, Any], float | None]:
    """Returns the kinds of the arrays in a checkpoint, and the loss that earlier versions saved."""
    about = ocp.metadata(path)
    return dict(about.metadata), (about.custom_metadata or {}).get("loss")


def _read(path: Path, compute: Callable[[], Any]) -> Any:
    """Returns the result of ``compute``; all processes raise the _DamagedError of one of them."""
    value, damage = None, ""
    try:
        value = compute()
    except Exception as error:
        # Orbax passes on the error of one array as the cause of a plain Exception.
        cause = error.__cause__ if type(error) is Exception else error
        if not isinstance(cause, _UNREADABLE):
            raise
        damage = (str(cause) or type(cause).__name__).splitlines()[0][:200]
    if damages := [*filter(None, of_all(damage))]:
        raise _DamagedError(f"{path} cannot be read ({damages[0]})")
    return value


@functools.cache
def _quieten() -> None:
    """Hides what Orbax and its event loops log of errors that are raised too."""
    logging.get_absl_logger().addFilter(lambda record: "/orbax/" not in record.pathname)
    getLogger("asyncio").setLevel("CRITICAL")
    hook = sys.unraisablehook
    sys.unraisablehook = lambda it: None if "loop is closed" in str(it.exc_value) else hook(it)


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


def kinds(arrays) -> dict[str, str]:
    """Returns the type and the shape of each array, in words."""
    # Orbax may give a type back in another form than an array has it.
    return {name: f"{jnp.dtype(a.dtype)} {tuple(a.shape)}" for name, a in arrays.items()}
