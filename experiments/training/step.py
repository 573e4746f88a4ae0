"""Defines what is trained and one step of it: the task, the state and the step."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from experiments.training.mesh import state_shardings
from experiments.training.parameters import parameters_of, with_parameters
from experiments.training.precision import PRODUCTS
from experiments.training.recipe import Recipe
from posenc_jax import Transformer
from posenc_jax.attention import IMPLEMENTATIONS, choose
from posenc_jax.attention.context import lies_over_context


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class State:
    """Holds all that a step changes; ``step``, an int32 scalar, says how many are done.

    The optimizer's state holds nothing of the model's constants.
    """

    model: Transformer
    opt_state: optax.OptState
    step: jax.Array


class Task(Protocol):
    """Gives the trainer a model and its batches; ``training/text.py`` has that for text.

    A task whose recipe may have phases also has ``at(number)``, the task within one phase.
    """

    def init(self, key) -> Transformer:
        """Returns the model at the start."""

    def batch(self, seed: int, step: int, part: int, parts: int) -> Any:
        """Returns a part of a batch's rows, a pytree of NumPy arrays with the rows along axis 0.

        This must be a pure function, because the step is the only state of a resumed run. The
        parts, concatenated, must be the same batch for any number of parts.
        """

    def loss(self, model, batch, key) -> jax.Array:
        """Returns the mean loss of the rows; ``key`` is fresh randomness for every step.

        The trainer adds the encodings' own objectives, ``model.aux_loss``.
        """


def in_phases(task: Any, recipe: Recipe) -> list[Task]:
    """Returns the task within each phase of a recipe; without phases, the task itself."""
    return [task.at(number) for number in range(len(recipe.phases))] or [task]


def initial_state(key, init: Callable[[Any], Transformer], recipe: Recipe) -> State:
    """Returns the state that training starts from; ``init`` is that of a task."""
    model = init(key)
    opt_state = recipe.transformation().init(parameters_of(model))
    return State(model, opt_state, jnp.zeros((), jnp.int32))


def further_state(model: Transformer, recipe: Recipe, mesh: Mesh) -> State:
    """Returns the first state of training a trained model further, with copies of its arrays.

    The model is under the encoding that it is trained under from now on. The optimizer is a fresh
    one, and the recipe's schedule starts from the beginning.
    """

    def build(model):
        return initial_state(None, lambda _: jax.tree.map(jnp.copy, model), recipe)

    shardings = state_shardings(jax.eval_shape(build, model), mesh)
    return jax.jit(build, out_shardings=shardings)(model)


@dataclasses.dataclass(frozen=True)
class _By:
    """Attends by a strategy where tokens lie over ``context``, and otherwise by default."""

    strategy: str

    def __call__(self, encoding, pairs, v_BSKC, rule) -> jax.Array:
        chosen: Any = IMPLEMENTATIONS[self.strategy]
        if not lies_over_context(pairs):
            chosen = choose(encoding, pairs, v_BSKC, rule)
        return chosen(encoding, pairs, v_BSKC, rule)


def under(model: Transformer, context_by: str) -> Transformer:
    """Returns the model with a strategy for attention, unless it has an implementation already."""
    if not context_by or model.implementation is not None:
        return model
    other = jax.tree.map(lambda x: x, model)
    other.implementation = _By(context_by)
    return other


def train_step(
    state: State,
    batch,
    key,
    *,
    loss: Callable[..., jax.Array],
    recipe: Recipe,
    context_by: str = "",
) -> tuple[State, dict[str, jax.Array]]:
    """Takes one optimizer step on ``batch``; ``loss`` is that of a task.

    Attention goes over the mesh axis ``context`` as ``context_by`` says, see ``make_mesh``.

    ``key`` is the run's key; the step number is folded into it. The returned loss is the task's,
    without the encodings' own objectives.
    """
    parameters, key = parameters_of(state.model), jax.random.fold_in(key, state.step)

    @functools.partial(jax.value_and_grad, has_aux=True)
    def gradient_of(parameters, batch, key):
        model = with_parameters(state.model, parameters)
        task_key, aux_key = jax.random.split(key)
        value = loss(PRODUCTS[recipe.products](under(model, context_by)), batch, task_key)
        return value + model.aux_loss(aux_key), value

    def value_and_gradient(batch, key):
        (_, value), gradient = gradient_of(parameters, batch, key)
        return value, gradient

    if recipe.accumulate == 1:
        value, gradient = value_and_gradient(batch, key)
    else:
        parts = jax.tree.map(lambda x: x.reshape(recipe.accumulate, -1, *x.shape[1:]), batch)
        # In float32, because a small term would be lost in a large sum of bfloat16 numbers.
        zero = jnp.zeros(()), jax.tree.map(lambda x: jnp.zeros_like(x, jnp.float32), parameters)

        def add(total, part):
            return jax.tree.map(jnp.add, total, value_and_gradient(*part)), None

        total, _ = jax.lax.scan(add, zero, (parts, jax.random.split(key, recipe.accumulate)))
        value, mean = jax.tree.map(lambda x: x / recipe.accumulate, total)
        gradient = optax.tree.cast_like(mean, parameters)

    updates, opt_state = recipe.transformation().update(gradient, state.opt_state, parameters)
    new_model = with_parameters(state.model, optax.apply_updates(parameters, updates))
    numbers = {"loss": value, "gradient_norm": optax.tree.norm(gradient)}
    return State(new_model, opt_state, state.step + 1), numbers
