"""Trains models to their last step, across interruptions, one run or several as one program.

A model of a few million parameters leaves most of a machine idle. Runs of several seeds differ only
in the values of their arrays, so they can be trained side by side, as one program over arrays with
a leading axis for the run. Each run still has checkpoints and records of its own.
"""

import contextlib
import functools
import itertools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from rich.console import Console

from experiments import preemption
from experiments.progress import stage
from experiments.training.cost import peak_flops, step_flops
from experiments.training.mesh import batch_sharding, part_of_process, replicated, state_shardings
from experiments.training.parameters import parameter_count
from experiments.training.precision import gain
from experiments.training.recipe import Goal, Recipe
from experiments.training.run import Run
from experiments.training.step import State, Task, initial_state, train_step
from posenc_jax import Transformer


def train(
    task: Task,
    recipe: Recipe,
    mesh: Mesh,
    *,
    seed: int,
    folder: Path,
    console: Console,
    name: str = "train",
    start: Callable[[], State] | None = None,
    goal: Goal | None = None,
) -> tuple[Transformer, dict[str, Any]]:
    """Trains to the last step, from the newest checkpoint in ``folder`` if there is one.

    It returns the model and a summary: steps, tokens, seconds, final loss, number of parameters,
    and the step of the best checkpoint, see ``Checkpoints``.

    Args:
      task, recipe, mesh: what is trained, how, and on which devices.
      seed: the seed of the initial values and of the batches.
      folder: the folder of the checkpoints and of ``metrics.jsonl``.
      console, name: where progress is shown, and under which title.
      start: makes the first state if there is no checkpoint, see ``further_state``.
        Default: the task's model, with a fresh optimizer.
      goal: says when the run ends before the recipe's last step. Default: never.

    Raises:
      FloatingPointError: the loss, the gradient or a state that was about to be saved is not
        finite; every checkpoint is finite.
      PreemptedError: the scheduler asked to stop; a checkpoint of this very step is saved.
      ValueError: the checkpoint holds another state than the one that is trained here.
    """
    abstract = abstract_state(task.init, recipe, mesh)
    with contextlib.closing(Run(recipe, seed, folder, abstract, goal)) as run:
        state = _Loop(task, recipe, mesh, [run], abstract).run(console, name, start)
        if run.failure is not None:
            raise run.failure
    steps = int(run.metrics.last["step"])
    return state.model, {
        "steps": steps,
        "tokens": steps * recipe.batch_size * recipe.length,
        "seconds": run.metrics.last["seconds"],
        "final_loss": run.metrics.last["loss"],
        "parameters": parameter_count(state.model),
        "best_step": run.checkpoints.best_step(),  # of all that are on disk by now
    }


def train_together(
    task: Task,
    recipe: Recipe,
    mesh: Mesh,
    *,
    folders: Mapping[int, Path],
    console: Console,
    name: str = "train",
    goal: Goal | None = None,
) -> dict[int, FloatingPointError]:
    """Trains a task under several seeds as one program, each in a folder of its own.

    Afterwards each folder is as ``train`` would have left it, so that ``train`` returns the model
    at once. The numbers equal a lone run's but for rounding: products of several runs at once are
    summed in another order. A run whose numbers are not finite ends, and its error is returned by
    its seed; the others go on. Only runs that were stopped at the same step go on together.
    Arguments and errors are as for ``train``, but for the ``folders`` by seed.
    """
    abstract = abstract_state(task.init, recipe, mesh)
    with contextlib.ExitStack() as stack:
        runs = [
            stack.enter_context(contextlib.closing(Run(recipe, seed, folder, abstract, goal)))
            for seed, folder in folders.items()
        ]
        left = sorted((run for run in runs if not run.is_done), key=lambda run: run.first)
        for _, some in itertools.groupby(left, key=lambda run: run.first):
            _Loop(task, recipe, mesh, list(some), abstract).run(console, name)
        return {run.seed: run.failure for run in runs if run.failure is not None}


def abstract_state(init: Callable[[Any], Transformer], recipe: Recipe, mesh: Mesh) -> State:
    """Returns what ``initial_state`` does, with shapes and shardings instead of arrays."""
    first = functools.partial(initial_state, init=init, recipe=recipe)
    state = jax.eval_shape(first, jax.random.key(0))
    return jax.tree.map(
        lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
        state,
        state_shardings(state, mesh),
    )


def lower_step(task: Task, recipe: Recipe, mesh: Mesh) -> jax.stages.Lowered:
    """Returns the training step, lowered for the mesh; nothing is computed or held on a device."""
    state = abstract_state(task.init, recipe, mesh)
    shardings = jax.tree.map(lambda array: array.sharding, state)
    rows = batch_sharding(mesh)
    batch = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=rows), task.batch(0, 1, 0, 1)
    )
    step = functools.partial(train_step, loss=task.loss, recipe=recipe)
    with jax.set_mesh(mesh):
        return _jitted(step, shardings, mesh).lower(state, batch, jax.eval_shape(jax.random.key, 0))


def _jitted(step, shardings, mesh):
    return jax.jit(step, donate_argnums=0, out_shardings=(shardings, replicated(mesh)))


class _Loop:
    """Runs the steps of one run, or of several that are at the same step, as one program.

    The arrays of several runs have a leading axis for the run, which is not sharded; the
    arrays of one run alone have no such axis.
    """

    def __init__(self, task: Task, recipe: Recipe, mesh: Mesh, runs: list[Run], abstract: Any):
        self.task, self.recipe, self.mesh, self.runs = task, recipe, mesh, runs
        self._shardings_of_one = jax.tree.map(lambda array: array.sharding, abstract)
        self._shardings, self._rows = self._shardings_of_one, batch_sharding(mesh)
        if len(runs) > 1:
            self._one_of = jax.jit(_one_of, out_shardings=self._shardings_of_one)
            self._shardings = jax.tree.map(_after_runs, self._shardings_of_one)
            self._rows = _after_runs(self._rows)

    def run(self, console, name, start=None):
        """Runs all steps; dispatches each before reading the one before it, so no device waits."""
        first = self.runs[0].first
        steps = self.recipe.steps if self._going() else first
        state, keys = self._first_state(start), _joined([jax.random.key(r.seed) for r in self.runs])
        is_rounded = self.recipe.products == "bfloat16" and first < steps
        if is_rounded and (times := 1 / gain()) > 1:
            console.print(
                f"train.products=bfloat16: on this device products take {times:.1f} times as long "
                "as in float32"
            )
        with contextlib.ExitStack() as stack:
            advance = stack.enter_context(stage(name, steps - first, console))
            stack.enter_context(jax.set_mesh(self.mesh))
            one_step = functools.partial(train_step, loss=self.task.loss, recipe=self.recipe)
            all_steps = one_step if len(self.runs) == 1 else jax.vmap(one_step)
            step_function = _jitted(all_steps, self._shardings, self.mesh)
            at_peak = self._steps_a_second_at_peak()
            for run in self.runs:
                run.begin(len(self.runs), at_peak)
            trace = stack.enter_context(contextlib.ExitStack())
            before_trace, last_traced = self.recipe.profiled or (None, None)
            pending = None
            for step in range(first + 1, steps + 1):
                if step - 1 == before_trace:
                    trace.enter_context(jax.profiler.trace(self.runs[0].folder / "profile"))
                state, numbers = step_function(state, self._batch(step), keys)
                if step == last_traced:
                    jax.block_until_ready(numbers)  # else the trace would lack the last step
                    trace.close()
                if pending:
                    self._record(*pending, advance)
                pending = step, numbers
                stop, scores = preemption.requested(), self._scores(step, state)
                is_due = step == steps or step % self.recipe.checkpoint_every == 0
                if stop or scores or is_due:
                    self._record(*pending, advance, is_saved=True, scores=scores)
                    pending = None
                    for number, run in self._going():
                        run.save(step, self._state_of(state, number))
                if stop:
                    raise preemption.PreemptedError(
                        f"asked to stop at step {step}: saved, run again"
                    )
                if not self._going():
                    break
        return state

    def _steps_a_second_at_peak(self) -> float | None:
        """Returns steps a second at the devices' peak, or None if it is not known or needed."""
        peak = peak_flops(self.mesh.devices.flat[0].device_kind)
        if peak is None or self.runs[0].first == self.recipe.steps:
            return None
        rows = self.task.batch(self.runs[0].seed, 1, 0, 1)
        return peak * self.mesh.size / step_flops(self.task, rows)

    def _first_state(self, start):
        states = [run.saved for run in self.runs]
        if states[0] is None and start is not None:
            return start()
        if states[0] is None:
            # One by one, because the program for all runs at once takes XLA twice as long.
            init = functools.partial(initial_state, init=self.task.init, recipe=self.recipe)
            of_key = jax.jit(init, out_shardings=self._shardings_of_one)
            states = [of_key(jax.random.key(run.seed)) for run in self.runs]
        for run in self.runs:
            run.saved = None  # so that it is not held beside the state that is trained
        if len(states) == 1:
            return states[0]
        return jax.jit(_joined, out_shardings=self._shardings)(states)

    def _batch(self, step):
        part = part_of_process(self.mesh)
        rows = _joined([self.task.batch(run.seed, step, *part) for run in self.runs], np.stack)
        to_mesh = functools.partial(jax.make_array_from_process_local_data, self._rows)
        return jax.tree.map(to_mesh, rows)

    def _scores(self, step, states) -> dict[int, dict[str, float]]:
        """Returns what each model is measured by, by the number of its run, if it is due."""
        goal = self.runs[0].goal
        if goal is None or (step % goal.every and step != self.recipe.steps):
            return {}
        return {n: goal.measured(self._state_of(states, n).model) for n, _ in self._going()}

    def _state_of(self, states, number):
        return states if len(self.runs) == 1 else self._one_of(states, number)

    def _record(self, step, numbers, advance, is_saved=False, scores=None):
        scores = scores or {}
        of_runs = {name: np.atleast_1d(value) for name, value in numbers.items()}
        notes = []
        for number, run in self._going():
            of_run = {name: values[number] for name, values in of_runs.items()}
            notes.append(run.record(step, of_run, is_saved, scores.get(number)))
        advance(next(filter(None, notes), ""))

    def _going(self):
        """Returns the runs that are still trained, with their numbers."""
        runs = enumerate(self.runs)
        return [(n, run) for n, run in runs if run.failure is None and not run.is_done]


def _after_runs(sharding: NamedSharding) -> NamedSharding:
    return NamedSharding(sharding.mesh, P(None, *sharding.spec))


def _joined(trees, stack=jnp.stack):
    """Returns the only tree of some, or all with their arrays stacked along a leading axis."""
    return trees[0] if len(trees) == 1 else jax.tree.map(lambda *parts: stack(parts), *trees)


def _one_of(states, number):
    return jax.tree.map(lambda array: array[number], states)
