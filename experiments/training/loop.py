"""Trains a model to its last step, across interruptions."""

import contextlib
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh
from rich.console import Console

from experiments import preemption
from experiments.progress import stage
from experiments.results.record import differences
from experiments.training.checkpoint import kinds
from experiments.training.cost import mean_flops, peak_flops
from experiments.training.mesh import (
    batch_sharding,
    by_path,
    part_of_process,
    replicated,
    state_shardings,
)
from experiments.training.parameters import parameter_count
from experiments.training.recipe import Goal, Recipe
from experiments.training.run import Run
from experiments.training.step import State, Task, in_phases, initial_state, train_step
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
    context_by: str = "",
) -> tuple[Transformer, dict[str, Any]]:
    """Trains to the last step, from the newest checkpoint in ``folder`` if there is one.

    It returns the model and a summary: steps, tokens, seconds, final loss, number of parameters.

    Args:
      task, recipe, mesh: what is trained, how, and on which devices.
      seed: the seed of the initial values and of the batches.
      folder: the folder of the checkpoints and of ``metrics.jsonl``.
      console, name: where progress is shown, and under which title.
      start: makes the first state if there is no checkpoint, see ``further_state``.
        Default: the task's model, with a fresh optimizer.
      context_by: how attention goes over the mesh axis ``context``, see ``make_mesh``.
      goal: says when the run ends before the recipe's last step. Default: never.

    Raises:
      FloatingPointError: the loss, the gradient or a state that was about to be saved is not
        finite; every checkpoint is finite.
      PreemptedError: the scheduler asked to stop; a checkpoint of this very step is saved.
      ValueError: the checkpoint holds another state than the one that is trained here.
    """
    abstract = abstract_states(task, recipe, mesh)
    with contextlib.closing(Run(recipe, seed, folder, abstract[0], goal)) as run:
        loop = _Loop(in_phases(task, recipe), recipe, mesh, run, abstract, context_by)
        state = loop.in_phase(recipe.phase_at(run.first + 1), loop.first_state(start))
        if not run.is_done:
            state = loop.run(state, console, name)
    steps = int(run.metrics.last["step"])
    return state.model, {
        "steps": steps,
        "tokens": steps * recipe.batch_size * recipe.length,
        "seconds": run.metrics.last["seconds"],
        "final_loss": run.metrics.last["loss"],
        "parameters": parameter_count(state.model),
    }


def abstract_state(init: Callable[[Any], Transformer], recipe: Recipe, mesh: Mesh) -> State:
    """Returns what ``initial_state`` does, with shapes and shardings instead of arrays."""
    first = functools.partial(initial_state, init=init, recipe=recipe)
    state = jax.eval_shape(first, jax.random.key(0))
    return jax.tree.map(
        lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
        state,
        state_shardings(state, mesh),
    )


def abstract_states(task: Task, recipe: Recipe, mesh: Mesh) -> list[State]:
    """Returns the state that a run has in each phase, with shapes and shardings instead of arrays.

    Raises a ValueError if the arrays are others in a later phase, because a run keeps its arrays.
    """
    states = [abstract_state(one.init, recipe, mesh) for one in in_phases(task, recipe)]
    arrays = [kinds(by_path(state.model)) for state in states]
    for number, later in enumerate(arrays):
        if changes := differences(arrays[0], later):
            raise ValueError(
                f"train.phases[{number}] needs other arrays than train.phases[0], and a run keeps "
                f"its arrays: {'; '.join(changes[:3])}; choose an encoding whose parameters fit"
            )
    return states


def lower_step(task: Task, recipe: Recipe, mesh: Mesh, context_by: str = "") -> jax.stages.Lowered:
    """Returns the step of the last phase, lowered; nothing is computed or held on a device."""
    task, state = in_phases(task, recipe)[-1], abstract_states(task, recipe, mesh)[-1]
    shardings = jax.tree.map(lambda array: array.sharding, state)
    rows = batch_sharding(mesh)
    batch = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=rows), task.batch(0, 1, 0, 1)
    )
    step = functools.partial(train_step, loss=task.loss, recipe=recipe, context_by=context_by)
    with jax.set_mesh(mesh):
        return _jitted(step, shardings, mesh).lower(state, batch, jax.eval_shape(jax.random.key, 0))


def _jitted(step, shardings, mesh):
    return jax.jit(step, donate_argnums=0, out_shardings=(shardings, replicated(mesh)))


class _Loop:
    """Runs the steps of one run; ``tasks`` and ``abstract`` have an element for each phase."""

    def __init__(
        self,
        tasks: list[Task],
        recipe: Recipe,
        mesh: Mesh,
        run: Run,
        abstract: list[State],
        context_by: str,
    ):
        self._tasks, self._recipe, self._mesh, self._run = tasks, recipe, mesh, run
        self._abstract, self._context_by = abstract, context_by
        self._shardings = [jax.tree.map(lambda array: array.sharding, a) for a in abstract]

    def first_state(self, start: Callable[[], State] | None) -> State:
        """Returns the state that the run goes on from; ``start`` makes that of a new run."""
        saved, self._run.saved = self._run.saved, None
        if saved is not None:
            return saved
        if start is not None:
            return start()
        init = functools.partial(initial_state, init=self._tasks[0].init, recipe=self._recipe)
        return jax.jit(init, out_shardings=self._shardings[0])(jax.random.key(self._run.seed))

    def in_phase(self, number: int, state: State) -> State:
        """Returns a state as a phase has it: the same arrays, under the encoding of the phase."""
        arrays, abstract = by_path(state), self._abstract[number]
        return jax.tree.unflatten(
            jax.tree.structure(abstract), [arrays[name] for name in by_path(abstract)]
        )

    def run(self, state: State, console: Console, name: str) -> State:
        """Runs all steps; dispatches each before reading the one before it, so no device waits."""
        run, recipe, mesh = self._run, self._recipe, self._mesh
        step_of = functools.partial(train_step, recipe=recipe, context_by=self._context_by)
        programs = [
            _jitted(functools.partial(step_of, loss=task.loss), shardings, mesh)
            for task, shardings in zip(self._tasks, self._shardings, strict=True)
        ]
        key, pending = jax.random.key(run.seed), None
        with contextlib.ExitStack() as stack:
            advance = stack.enter_context(stage(name, recipe.steps - run.first, console))
            stack.enter_context(jax.set_mesh(mesh))
            run.begin(self._steps_a_second_at_peak())
            trace = stack.enter_context(contextlib.ExitStack())
            before_trace, last_traced = recipe.profiled or (None, None)
            for step in range(run.first + 1, recipe.steps + 1):
                if step - 1 == before_trace:
                    trace.enter_context(jax.profiler.trace(run.folder / "profile"))
                before, phase = recipe.phase_at(step - 1), recipe.phase_at(step)
                if phase != before:
                    state = self.in_phase(phase, state)
                state, numbers = programs[phase](state, self._batch(step), key)
                if step == last_traced:
                    jax.block_until_ready(numbers)  # else the trace would lack the last step
                    trace.close()
                if pending:
                    advance(run.record(*pending))
                pending = step, numbers
                stop, measured = preemption.requested(), self._measured(step, state)
                is_due = step == recipe.steps or step % recipe.checkpoint_every == 0
                if stop or is_due or measured is not None:
                    advance(run.record(*pending, is_saved=True, measured=measured))
                    pending = None
                    run.save(step, state)
                if stop:
                    raise preemption.PreemptedError(
                        f"asked to stop at step {step}: saved, run again"
                    )
                if run.is_done:
                    break
        return state

    def _steps_a_second_at_peak(self) -> float | None:
        """Returns steps a second at the devices' peak, or None if it is not known."""
        peak = peak_flops(self._mesh.devices.flat[0].device_kind)
        if peak is None:
            return None
        return peak * self._mesh.size / mean_flops(self._tasks, self._recipe)

    def _batch(self, step):
        task = self._tasks[self._recipe.phase_at(step)]
        rows = task.batch(self._run.seed, step, *part_of_process(self._mesh))
        sharding = batch_sharding(self._mesh)
        to_mesh = functools.partial(jax.make_array_from_process_local_data, sharding)
        return jax.tree.map(to_mesh, rows)

    def _measured(self, step, state) -> dict[str, float] | None:
        """Returns what the model is measured by, if the run has a goal and it is due."""
        goal = self._run.goal
        if goal is None or (step % goal.every and step != self._recipe.steps):
            return None
        return goal.measured(state.model)
