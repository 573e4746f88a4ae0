"""Records and saves one training run in its folder."""

import contextlib
import math
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.results.metrics import Metrics
from experiments.results.record import RefusedError, check_writable
from experiments.training.checkpoint import Checkpoints
from experiments.training.host import peak_memory
from experiments.training.mesh import by_path
from experiments.training.recipe import Goal, Recipe
from experiments.training.step import State


class Run:
    """Records and saves one run in its folder.

    Attributes:
      first: how many steps of the run were done when it was opened.
      saved: the state after those steps, until the loop takes it; None without a checkpoint.
      is_done: whether the run's last step is saved.
    """

    def __init__(self, recipe: Recipe, seed: int, folder: Path, abstract: Any, goal: Goal | None):
        self.seed, self.folder, self.goal = seed, folder, goal
        self.checkpoints = Checkpoints(folder / "checkpoints")
        newest = self.checkpoints.newest(abstract)
        self.first = newest[0] if newest else 0
        self.saved: State | None = newest[1] if newest else None
        lines = folder / "metrics.jsonl"
        self.metrics = Metrics(lines, self.first, recipe.tensorboard, recipe.wandb)
        if self.metrics.last.get("step", 0) != self.first:
            raise RefusedError(
                f"{lines} has lost the line of step {self.first}, the step of a checkpoint; put "
                "the file back, or delete the folder to train again"
            )
        self._recipe = recipe
        self._learned_at = self.metrics.last.get("learned_at")
        self.is_done = self._is_last(self.first)
        self._before = self.metrics.last.get("seconds", 0.0)

    def begin(self, at_peak: float | None) -> None:
        """Starts the clock; ``at_peak`` is steps a second at the devices' peak, if it is known."""
        self._start, self._at_peak = time.monotonic(), at_peak
        self._line = self.first, 0.0  # the step and the seconds of the newest line

    def record(
        self,
        step: int,
        numbers: dict[str, jax.Array],
        is_saved: bool = False,
        measured: dict[str, float] | None = None,
    ) -> str:
        """Writes the numbers of a step if they are due, and returns a note for the progress bar.

        ``is_saved`` says whether the state is about to be saved, and ``measured`` has the numbers
        of the run's goal, where they are due. Raises a FloatingPointError if the numbers are not
        finite.
        """
        loss, gradient_norm = float(numbers["loss"]), float(numbers["gradient_norm"])
        if not (math.isfinite(loss) and math.isfinite(gradient_norm)):
            raise self._not_finite(f"loss {loss}, gradient norm {gradient_norm} at step {step}")
        seconds = time.monotonic() - self._start
        done = step - self.first
        tokens = done * self._recipe.batch_size * self._recipe.length
        extra = {"mfu": done / seconds / self._at_peak} if self._at_peak else {}
        if self.goal is not None and measured is not None:
            extra |= measured
            if self._learned_at is None and measured["score"] >= self.goal.enough:
                self._learned_at = step
        if self._learned_at is not None:
            extra["learned_at"] = self._learned_at  # in every line, so that a resumed run knows it
        # A saved step is always logged, so that a resumed run knows its time and its loss.
        if is_saved or step % self._recipe.log_every == 0:
            (line_step, line_seconds), self._line = self._line, (step, seconds)
            self.metrics.write(
                step=step,
                loss=loss,
                gradient_norm=gradient_norm,
                learning_rate=float(self._recipe.schedule()(step - 1)),  # which made this step
                tokens_per_second=tokens / seconds,
                seconds=self._before + seconds,
                step_seconds=(seconds - line_seconds) / (step - line_step),
                memory_bytes=peak_memory(),
                **extra,
            )
        return f"loss {loss:.3f}  {tokens / seconds:,.0f} tokens/s"

    def save(self, step: int, state: State) -> None:
        """Saves the state after ``step``.

        Raises a FloatingPointError if the state is not finite, because the step's loss is from
        before the update; and an OSError if this state could not be written, or the one before it.
        """
        largest = jax.tree.map(np.asarray, _largest(state))
        if bad := [name for name, value in largest.items() if not np.isfinite(value)]:
            what = f"{bad[0]} is not finite ({len(bad)} of {len(largest)} arrays)"
            raise self._not_finite(f"after step {step} {what}; the state was not saved")
        self.metrics.flush()  # a run cannot resume from a checkpoint without its line
        check_writable(self.folder / "checkpoints")
        with self._writing():
            self.checkpoints.save(step, state)  # which first waits for the one before
        self.is_done = self._is_last(step)

    def _not_finite(self, what: str) -> FloatingPointError:
        return FloatingPointError(
            f"{what}; {self._last_good()}; try a smaller train.learning_rate or train.clip_norm"
        )

    def _is_last(self, step) -> bool:
        """Returns whether ``step``, whose line is written, is the run's last one."""
        is_learned = self._learned_at is not None and step >= 2 * self._learned_at
        return step == self._recipe.steps or is_learned

    def close(self) -> None:
        """Closes the files, once all is on disk; raises an OSError if something is not written."""
        try:
            self.metrics.close()
        finally:
            with self._writing():
                self.checkpoints.close()

    @contextlib.contextmanager
    def _writing(self):
        """Says in one sentence what went wrong on disk.

        TensorStore raises ValueError where a disk is full. That would look like a mistake in the
        config, which all processes of a job make; a disk may be full for one of them alone.
        """
        try:
            yield
        except (OSError, ValueError) as error:
            first_line = (str(error) or type(error).__name__).splitlines()[0]
            # TensorStore names every file on the way, and says last what is wrong, and its number.
            last = first_line.rsplit(": ", 1)[-1].partition(" [")[0]
            raise OSError(
                f"a checkpoint in {self.folder / 'checkpoints'} could not be written "
                f"({getattr(error, 'strerror', None) or last}): {self._last_good()}, and once this "
                "is mended the same command goes on"
            ) from error

    def _last_good(self) -> str:
        with contextlib.suppress(Exception):  # what is being written may become the last one
            self.checkpoints.wait()
        saved = self.checkpoints.latest_step()
        which = f"is of step {saved}" if saved else "does not exist yet"
        return f"the last good checkpoint {which}"


@jax.jit
def _largest(state) -> dict[str, jax.Array]:
    """Returns the largest absolute value of each array, or NaN if the array has one."""
    return {name: jnp.abs(array).max() for name, array in by_path(state).items()}
