"""Counts an encoding's parameters, and the operations that it adds to attention."""

import dataclasses
import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, jaxpr_as_fun

from posenc_jax.attention import attend
from posenc_jax.checks import check_encoding
from posenc_jax.encoding import HOOKS, Encoding
from posenc_jax.positions import text


@dataclasses.dataclass(frozen=True)
class Description:
    """Says what one layer of attention costs over one sequence, forward.

    Attributes:
      name: the encoding's class.
      parameters: number of trained parameters.
      flops: floating-point operations of the layer under this encoding, without projections.
      flops_nope: operations of the same layer without an encoding.
      hooks: names of the hooks that the encoding overrides.
      per_layer: whether each layer has such parameters of its own; else all layers share them.
    """

    name: str
    parameters: int
    flops: float
    flops_nope: float
    hooks: tuple[str, ...]
    per_layer: bool

    @property
    def overhead(self) -> float:
        """Returns the share of operations that the encoding adds: 0.05 is five per cent more."""
        return self.flops / self.flops_nope - 1

    def __str__(self) -> str:
        whose = " in each layer" if self.per_layer else ""
        return (
            f"{self.name}: {self.parameters:,} parameters{whose}, {self.overhead:+.1%} operations "
            f"in attention; overrides {', '.join(self.hooks) or 'nothing'}"
        )


def describe(
    encoding: Encoding,
    *,
    num_heads: int,
    head_dim: int,
    length: int,
    num_kv_heads: int | None = None,
    model_dim: int | None = None,
) -> Description:
    """Counts the parameters of ``encoding`` and the operations it adds to causal attention.

    Args:
      encoding: from ``make``, without ``num_layers``: a per-layer scheme is counted for one layer.
      num_heads, head_dim, num_kv_heads: sizes of the layer.
      length: number of tokens in the sequence.
      model_dim: width of the residual stream. Default: ``num_heads * head_dim``.

    XLA counts the operations in the traced program of dense attention, before it optimises: a
    cosine counts as one. The numbers say what must be computed, not how long it takes;
    ``benchmarks/cost.py`` measures that.
    """
    check_encoding(encoding)
    model_dim = num_heads * head_dim if model_dim is None else model_dim
    num_kv_heads = num_heads if num_kv_heads is None else num_kv_heads
    parameters = sum(p.size for p in jax.tree.leaves(nnx.state(encoding, nnx.Param)))

    def layer(encoding, x_BTD, q, k, v):
        here = encoding.at(text(length))
        x_BTD = here.embed(x_BTD)
        # The sum keeps what ``embed`` adds, which attention itself does not use.
        return attend(here, q, k, v, x=x_BTD, implementation="dense"), x_BTD.sum()

    def flops(encoding):
        shapes = [(1, length, model_dim), (1, length, num_heads, head_dim)]
        shapes += [(1, length, num_kv_heads, head_dim)] * 2
        arrays = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
        return _count(jax.make_jaxpr(layer)(encoding, *arrays))

    hooks = tuple(filter(encoding.overrides, HOOKS))
    return Description(
        name=type(encoding).__name__,
        parameters=parameters,
        flops=flops(encoding),
        flops_nope=flops(Encoding()),
        hooks=hooks,
        per_layer=encoding.per_layer,
    )


def _count(program: ClosedJaxpr) -> float:
    """Returns the operations that XLA counts, with loops, running sums and solves corrected.

    XLA counts the body of a loop once, counts each result of a running sum as a sum of all numbers
    before it, and on a CPU counts a triangular solve as -1.
    """
    total = _of_xla(jaxpr_as_fun(program), program.in_avals)
    for step in _steps(program.jaxpr):
        if step.primitive.name == "scan":
            body = step.params["jaxpr"]
            once = _of_xla(jaxpr_as_fun(body), body.in_avals)
            total += step.params["length"] * _count(body) - once
        elif step.primitive.name == "cumsum":
            summed: Any = step.invars[0].aval
            total -= summed.size * (summed.shape[step.params["axis"]] - 2)
        elif step.primitive.name == "triangular_solve":
            solved: list[Any] = [operand.aval for operand in step.invars]
            alone = functools.partial(step.primitive.bind, **step.params)
            total += solved[0].shape[-1] * solved[1].size - _of_xla(alone, solved)
    return total


def _of_xla(function, arguments) -> float:
    cost = jax.jit(function).lower(*arguments).cost_analysis() or {}
    return cost.get("flops", 0.0) + cost.get("transcendentals", 0.0)


def _steps(program: Jaxpr) -> Iterator[JaxprEqn]:
    """Yields every step, nested steps too, except in the bodies of loops."""
    for step in program.eqns:
        yield step
        if step.primitive.name == "scan":
            continue
        within: Any = tuple(step.params.values())
        if step.primitive.name == "custom_linear_solve":
            within = step.params["jaxprs"].solve  # The others belong to its derivative.
        for inner in jax.tree.leaves(within):
            if isinstance(inner, ClosedJaxpr | Jaxpr):
                yield from _steps(inner.jaxpr if isinstance(inner, ClosedJaxpr) else inner)
