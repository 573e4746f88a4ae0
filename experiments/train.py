"""Training one model on one task: state, step and loop."""

import dataclasses
import functools
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from rich.console import Console

from experiments import preemption
from experiments.checkpoint import Checkpoints
from experiments.mesh import batch_sharding, path_name, replicated, state_shardings
from experiments.progress import stage
from experiments.record import Metrics
from posenc_jax import Transformer

State = dict[str, Any]  # {"model": Transformer, "opt_state": ..., "step": int32 scalar}


class Task(Protocol):
    """What is trained on what. ``experiments/text.py`` has the one for text."""

    def init(self, key) -> Transformer:
        """The model at the start."""

    def batch(self, seed: int, step: int, process_index: int, process_count: int) -> Any:
        """This process' rows of a batch, any pytree of NumPy arrays with the rows along axis 0.

        A pure function: the step is all the state that a resumed run has. The global batch must
        not depend on ``process_count``.
        """

    def loss(self, model, batch, key) -> jax.Array:
        """A scalar, the mean over the rows; ``key`` is fresh randomness for every step.

        The trainer adds what an encoding has as ``aux_loss``.
        """


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How to train.

    Attributes:
      length: tokens of a training sequence.
      batch_size: sequences in a step, over all devices.
      steps: optimizer steps.
      learning_rate: at its peak, after ``warmup_steps`` of linear growth; then a cosine down to a
        tenth of it.
      weight_decay: AdamW's, on matrices only.
      beta2: AdamW's second decay.
      clip_norm: largest global norm of the gradient.
      accumulate: micro-batches a step is computed in, for memory.
      log_every, checkpoint_every: in steps. The last step does both.
      tensorboard: also write TensorBoard event files; needs ``posenc_jax[tensorboard]``.
    """

    length: int
    batch_size: int
    steps: int
    learning_rate: float = 3e-3
    warmup_steps: int = 50
    weight_decay: float = 0.1
    beta2: float = 0.95
    clip_norm: float = 1.0
    accumulate: int = 1
    log_every: int = 10
    checkpoint_every: int = 1000
    tensorboard: bool = False

    def __post_init__(self):
        for field in ("length", "batch_size", "steps", "accumulate", "log_every"):
            if getattr(self, field) < 1:
                raise ValueError(f"train.{field}={getattr(self, field)} must be at least 1")
        if self.batch_size % self.accumulate:
            raise ValueError(
                f"train.accumulate={self.accumulate} must divide train.batch_size={self.batch_size}"
            )

    def schedule(self) -> optax.Schedule:
        warmup = min(self.warmup_steps, self.steps - 1)
        return optax.warmup_cosine_decay_schedule(
            0.0, self.learning_rate, warmup, self.steps, self.learning_rate / 10
        )

    def optimizer(self) -> optax.GradientTransformation:
        return optax.chain(
            optax.clip_by_global_norm(self.clip_norm),
            optax.adamw(
                self.schedule(), b2=self.beta2, weight_decay=self.weight_decay, mask=_matrices
            ),
        )


def _matrices(model):
    return jax.tree_util.tree_map_with_path(lambda p, _: path_name(p).endswith("kernel"), model)


def initial_state(key, init: Callable[[Any], Transformer], recipe: Recipe) -> State:
    """What training starts from; ``init`` is a task's."""
    model = init(key)
    opt_state = recipe.optimizer().init(model)
    return {"model": model, "opt_state": opt_state, "step": jnp.zeros((), jnp.int32)}


def train_step(
    state: State, batch, key, *, loss: Callable[..., jax.Array], recipe: Recipe
) -> tuple[State, dict[str, jax.Array]]:
    """One optimizer step on ``batch``; ``loss`` is a task's.

    ``key`` is the run's; the step number makes it this step's. The loss reported is the task's,
    without what a scheme adds of its own.
    """
    model, key = state["model"], jax.random.fold_in(key, state["step"])

    @functools.partial(jax.value_and_grad, has_aux=True)
    def gradient_of(model, batch, key):
        task_key, aux_key = jax.random.split(key)
        value = loss(model, batch, task_key)
        return value + model.layers.aux_loss(aux_key), value

    def value_and_gradient(batch, key):
        (_, value), gradient = gradient_of(model, batch, key)
        return value, gradient

    if recipe.accumulate == 1:
        value, gradient = value_and_gradient(batch, key)
    else:
        parts = jax.tree.map(lambda x: x.reshape(recipe.accumulate, -1, *x.shape[1:]), batch)
        zero = (jnp.zeros(()), jax.tree.map(jnp.zeros_like, model))

        def add(total, part):
            return jax.tree.map(jnp.add, total, value_and_gradient(*part)), None

        total, _ = jax.lax.scan(add, zero, (parts, jax.random.split(key, recipe.accumulate)))
        value, gradient = jax.tree.map(lambda x: x / recipe.accumulate, total)

    updates, opt_state = recipe.optimizer().update(gradient, state["opt_state"], model)
    new_state = {
        "model": optax.apply_updates(model, updates),
        "opt_state": opt_state,
        "step": state["step"] + 1,
    }
    return new_state, {"loss": value, "gradient_norm": optax.tree.norm(gradient)}


def train(
    task: Task,
    recipe: Recipe,
    mesh: Mesh,
    *,
    seed: int,
    folder: Path,
    console: Console,
    name: str = "train",
) -> tuple[Transformer, dict[str, Any]]:
    """Trains to the last step, from the newest checkpoint in ``folder`` if there is one.

    Returns:
      The model and a summary: steps, tokens, seconds, final loss, number of parameters.

    Raises:
      FloatingPointError: the loss or the gradient is not finite; the last checkpoint is from
        before it.
      PreemptedError: the scheduler asked to stop; a checkpoint of this very step is saved.
    """
    init = functools.partial(initial_state, jax.random.key(seed), task.init, recipe)
    abstract = jax.eval_shape(init)
    shardings = state_shardings(abstract, mesh)
    abstract = jax.tree.map(
        lambda a, s: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=s), abstract, shardings
    )
    checkpoints = Checkpoints(folder / "checkpoints")
    try:
        first = checkpoints.latest_step()
        if first is None:
            first, state = 0, jax.jit(init, out_shardings=shardings)()
        else:
            state = checkpoints.restore(first, abstract)
        metrics = Metrics(folder / "metrics.jsonl", first, recipe.tensorboard)
        loop = _Loop(task, recipe, mesh, seed, checkpoints, shardings, metrics)
        try:
            with stage(name, recipe.steps - first, console) as advance, jax.set_mesh(mesh):
                state = loop.run(state, first, advance)
        finally:
            metrics.close()
    finally:
        checkpoints.close()
    return state["model"], {
        "steps": recipe.steps,
        "tokens": recipe.steps * recipe.batch_size * recipe.length,
        "seconds": metrics.last["seconds"],
        "final_loss": metrics.last["loss"],
        "parameters": sum(p.size for p in jax.tree.leaves(state["model"])),
    }


@dataclasses.dataclass
class _Loop:
    task: Task
    recipe: Recipe
    mesh: Mesh
    seed: int
    checkpoints: Checkpoints
    shardings: Any
    metrics: Metrics

    def run(self, state, first, advance):
        """Dispatches step n before it looks at the numbers of step n - 1, so no device waits."""
        recipe = self.recipe
        step_function = jax.jit(
            train_step,
            static_argnames=("loss", "recipe"),
            donate_argnames="state",
            out_shardings=(self.shardings, replicated(self.mesh)),
        )
        key = jax.random.key(self.seed)
        clock = _Clock(first, self.metrics.last.get("seconds", 0.0))
        pending = None
        for step in range(first + 1, recipe.steps + 1):
            batch = self._batch(step)
            state, numbers = step_function(state, batch, key, loss=self.task.loss, recipe=recipe)
            if pending:
                self._record(*pending, clock, advance)
            pending = step, numbers
            stop = preemption.requested()
            if stop or step == recipe.steps or step % recipe.checkpoint_every == 0:
                self._record(*pending, clock, advance, is_saved=True)
                pending = None
                self.checkpoints.save(step, state)
            if stop:
                raise preemption.PreemptedError(f"asked to stop at step {step}: saved, run again")
        return state

    def _batch(self, step):
        rows = self.task.batch(self.seed, step, jax.process_index(), jax.process_count())
        place = functools.partial(jax.make_array_from_process_local_data, batch_sharding(self.mesh))
        return jax.tree.map(place, rows)

    def _record(self, step, numbers, clock, advance, is_saved=False):
        loss, gradient_norm = float(numbers["loss"]), float(numbers["gradient_norm"])
        if not (math.isfinite(loss) and math.isfinite(gradient_norm)):
            saved = self.checkpoints.latest_step()
            raise FloatingPointError(
                f"loss {loss}, gradient norm {gradient_norm} at step {step}; the last good "
                + (f"checkpoint is of step {saved}" if saved else "checkpoint: none yet")
                + "; try a smaller train.learning_rate or train.clip_norm"
            )
        speed = clock.steps_per_second(step) * self.recipe.batch_size * self.recipe.length
        # A saved step is always logged, so that a resumed run knows its time and its loss.
        if is_saved or step % self.recipe.log_every == 0:
            self.metrics.write(
                step=step,
                loss=loss,
                gradient_norm=gradient_norm,
                learning_rate=float(self.recipe.schedule()(step)),
                tokens_per_second=speed,
                seconds=clock.seconds(),
            )
        advance(f"loss {loss:.3f}  {speed / 1e3:.0f}k tok/s")


class _Clock:
    """Seconds spent on the steps of a run, those of earlier starts included."""

    def __init__(self, first: int, seconds_before: float):
        self._first, self._before, self._start = first, seconds_before, time.monotonic()

    def seconds(self) -> float:
        return self._before + time.monotonic() - self._start

    def steps_per_second(self, step: int) -> float:
        """Speed since this start."""
        return (step - self._first) / (time.monotonic() - self._start)
