"""Cuts a hook's program into a part that runs ahead of a kernel and a part that runs inside.

Compilers of kernels support few operations and no captured arrays. So a hook is traced once. What
it computes from parameters alone (slopes, the rows of a head, products of tables) runs ahead, as
ordinary JAX with JAX's gradients. The rest runs inside the kernel, on arrays of one tile.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import Literal


class Program:
    """Holds the program of ``function(known, given)``, two pytrees of arrays or their shapes.

    Attributes:
      used: bool for each leaf of ``given``: whether the part inside reads it.
      operations: how many operations run inside.
      returns_first: whether the output is the first leaf of ``given``, unchanged.
    """

    def __init__(self, function, known, given):
        closed = jax.make_jaxpr(function)(known, given)
        # Again, without calls of other programs, and without equations in vain.
        closed = jax.make_jaxpr(lambda *x: _outputs(closed, x, {}))(*closed.in_avals)
        jaxpr = closed.jaxpr
        count = len(jax.tree.leaves(known))
        self._known, self._given = jaxpr.invars[:count], jaxpr.invars[count:]
        self._outputs = jaxpr.outvars
        self._constants = dict(zip(jaxpr.constvars, closed.consts, strict=True))
        self._ahead, late, known_ahead = _cut(jaxpr.eqns, [*self._constants, *self._known])
        self._inside, needed = _needed(late, self._outputs)
        self._carried = [v for v in known_ahead if v in needed]
        self.operations = len(self._inside)
        self.returns_first = self._outputs == self._given[:1]
        self.used = [v in needed for v in self._given]

    def ahead(self, known) -> list[jax.Array]:
        """Returns the arrays, computed from ``known``, that the part inside reads."""
        values = self._constants | dict(zip(self._known, jax.tree.leaves(known), strict=True))
        _run(self._ahead, values, {})
        return [jnp.asarray(values[v]) for v in self._carried]

    def inside(self, carried, given):
        """Returns the outputs, from the arrays of ``ahead`` and the leaves of ``given``.

        A leaf that is not used may be None.
        """
        values = dict(zip(self._carried, carried, strict=True))
        values |= dict(zip(self._given, given, strict=True))
        _run(self._inside, values, {})
        return [_read(values, v) for v in self._outputs]


def on_matrices(function, *arguments):
    """Runs ``function(*arguments)``, lists of arrays, in operations that kernels know."""
    closed, shapes = jax.make_jaxpr(function, return_shape=True)(*arguments)
    outputs = _outputs(closed, jax.tree.leaves(arguments), _RULES)
    return jax.tree.unflatten(jax.tree.structure(shapes), outputs)


def _cut(eqns, known):
    """Returns the equations that run ahead, the others, and the variables known after the first.

    An equation without inputs (such as iota) is in both parts: each computes it for itself.
    """
    known = dict.fromkeys(known)  # a set that keeps its order
    free: set[Any] = set()
    ahead = []
    for eqn in eqns:
        inputs = _variables(eqn)
        if free.issuperset(inputs):
            free.update(eqn.outvars)
            ahead.append(eqn)
        elif _may_run_ahead(eqn) and known.keys() >= set(inputs) - free:
            known |= dict.fromkeys(eqn.outvars)
            ahead.append(eqn)
    return ahead, [eqn for eqn in eqns if known.keys().isdisjoint(eqn.outvars)], [*known]


def _outputs(closed, arguments, rules):
    values = dict(zip(closed.jaxpr.constvars, closed.consts, strict=True))
    values |= dict(zip(closed.jaxpr.invars, arguments, strict=True))
    eqns, _ = _needed(closed.jaxpr.eqns, closed.jaxpr.outvars)
    _run(eqns, values, rules)
    return [_read(values, v) for v in closed.jaxpr.outvars]


def _needed(eqns, outputs):
    """Returns the equations that ``outputs`` depend on, and every variable that they need."""
    needed = {v for v in outputs if not isinstance(v, Literal)}
    needing = []
    for eqn in reversed(eqns):
        if needed.intersection(eqn.outvars):
            needing.append(eqn)
            needed.update(_variables(eqn))
    return needing[::-1], needed


def _run(eqns, values, rules):
    for eqn in eqns:
        arguments = [_read(values, v) for v in eqn.invars]
        name = eqn.primitive.name
        if name in ("jit", "closed_call", "custom_vjp_call"):
            inner = eqn.params["call_jaxpr" if name != "jit" else "jaxpr"]
            results = _outputs(inner, arguments, rules)
        elif name in rules:
            results = [rules[name](*arguments, **eqn.params)]
        else:
            params = eqn.primitive.get_bind_params(eqn.params)
            results = eqn.primitive.bind(*arguments, **params)
            results = results if eqn.primitive.multiple_results else [results]
        values.update(zip(eqn.outvars, results, strict=True))


def _read(values, variable):
    return variable.val if isinstance(variable, Literal) else values[variable]


def _variables(eqn):
    return [v for v in eqn.invars if not isinstance(v, Literal)]


def _may_run_ahead(eqn):
    """Returns False if the equation broadcasts a scalar to the size of a tile."""
    sizes = [math.prod(v.aval.shape) for v in (*eqn.outvars, *eqn.invars)]
    return eqn.primitive.name != "broadcast_in_dim" or sizes[0] == sizes[1]


# Kernels work on matrices. A tile of one head and sequence is a matrix but for axes of size 1.


def _product(x, y, *, dimension_numbers, preferred_element_type, precision, **_):
    """Multiplies arrays that are matrices but for axes of size 1, or element by element."""
    (x_sum, y_sum), (x_batch, y_batch) = dimension_numbers
    if x.dtype != y.dtype:
        # A float32 gradient is multiplied with a narrower operand; it is rounded as in dense.
        narrow = x.dtype if x.dtype.itemsize < y.dtype.itemsize else y.dtype
        x, y = x.astype(narrow), y.astype(narrow)
    x_free = [a for a in range(x.ndim) if a not in (*x_sum, *x_batch)]
    y_free = [a for a in range(y.ndim) if a not in (*y_sum, *y_batch)]
    shape = [x.shape[a] for a in (*x_batch, *x_free)] + [y.shape[a] for a in y_free]
    if any(x.shape[a] > 1 for a in x_batch):
        raise NotImplementedError("a product with a batch axis inside a kernel")
    summed = math.prod(x.shape[a] for a in x_sum)
    if x.ndim == y.ndim == 2 and min(*shape, summed) > 1:
        return lax.dot_general(
            x,
            y,
            dimension_numbers,
            precision=precision,
            preferred_element_type=preferred_element_type,
        )
    x = _transpose(x, permutation=(*x_batch, *x_free, *x_sum)).reshape(-1, summed)
    y = _transpose(y, permutation=(*y_batch, *y_sum, *y_free)).reshape(summed, -1)
    if summed == 1:
        out = x.astype(preferred_element_type) * y.astype(preferred_element_type)
    elif x.shape[0] == 1 or y.shape[1] == 1:
        x, y = x.astype(preferred_element_type), y.astype(preferred_element_type)
        if y.shape[1] == 1:
            out = (x * y.reshape(1, -1)).sum(1, keepdims=True)
        else:
            out = (x.reshape(-1, 1) * y).sum(0, keepdims=True)
    else:
        out = lax.dot(x, y, precision=precision, preferred_element_type=preferred_element_type)
    return out.reshape(shape)


def _transpose(x, *, permutation):
    order = [a for a in permutation if x.shape[a] > 1]
    shape = [x.shape[a] for a in permutation]
    if order == sorted(order):
        return x.reshape(shape)
    matrix = x.reshape([x.shape[a] for a in sorted(order)])
    return matrix.transpose([sorted(order).index(a) for a in order]).reshape(shape)


_RULES = {"dot_general": _product, "transpose": _transpose}
