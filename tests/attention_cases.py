"""Makes the operands that the tests of attention's implementations share."""

import dataclasses
import functools
from typing import Any

import chex
import common
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AbstractDevice, AbstractMesh

import posenc_jax
from posenc_jax.attention.blockwise import blockwise
from posenc_jax.attention.context import zigzag
from posenc_jax.attention.dense import dense
from posenc_jax.positions import text

B, H, T = 2, 2, 40
DOCUMENTS = np.repeat([[0, 1], [1, 0]], (15, T - 15), axis=1)
POSITIONS = np.random.default_rng(0).integers(0, 30, (B, T))
WRITTEN = tuple(range(T))
# As tokens lie on the four devices of a ring: not in the order in which they were written.
ZIGZAG = tuple(zigzag(T, 4).tolist())


@dataclasses.dataclass(frozen=True)
class Case:
    """Describes a call of ``attend``; where ``written``, queries and keys are the same tokens."""

    T: int = 40
    S: int = 40
    kv_heads: int = H
    head_dim: int = common.HEAD_DIM
    dtype: str = "float32"
    causal: bool = True
    written: bool = True
    window: Any = None
    sinks: bool = False
    segments: int | None = None  # documents a row
    scale: float | None = None

    def operands(self):
        """Returns x, q, k and v: what the layer reads and its projections."""
        shapes = (self.T, H), (self.S, self.kv_heads), (self.S, self.kv_heads)
        qkv = (common.normal(i, B, *shape, self.head_dim) for i, shape in enumerate(shapes))
        x_BSD = 0.5 * common.normal(3, B, self.S, common.WIDTH)
        return x_BSD, *(jnp.asarray(x, self.dtype) for x in qkv)

    def run(self, attention, encoding, x_BSD, q, k, v):
        """Calls ``attention``, a name or a function, by way of ``attend``."""
        segment_ids = None
        if self.segments is not None:
            segment_ids = np.broadcast_to(np.arange(self.S) * self.segments // self.S, (B, self.S))
        here = encoding.at(text(self.S), segment_ids).see(x_BSD)[0]
        rule: Any = dict(causal=self.causal, window=self.window, scale=self.scale)
        if self.sinks:  # of each head, which depend on an operand for the sake of their gradient
            rule["sinks"] = 3 + q.astype(jnp.float32).sum((0, 1, 3))
        if self.written:
            return by(attention)(here, q, k, v, **rule)
        # The first tokens, as if written elsewhere: the first queries may see no key at all.
        first = here.part(0, self.T)
        index = np.random.default_rng(0).permutation(self.T) - 5
        tokens = dataclasses.replace(first.tokens, index=jnp.asarray(index, jnp.int32)[None])
        first = dataclasses.replace(first, tokens=tokens)
        return by(attention)(first, q, here.keys(k, v), **rule)


@functools.partial(jax.jit, static_argnums=(0, 1))
def values_and_gradients(attention, case, encoding, x_BSD, q, k, v):
    """Returns the output, and the gradient of a sum of its squares by operands and parameters."""

    def loss(*arguments):
        out = case.run(attention, *arguments)
        return (out.astype(jnp.float32) ** 2).sum(), out

    arguments = encoding, x_BSD, q, k, v
    gradients, out = jax.grad(loss, argnums=range(5), has_aux=True)(*arguments)
    return out, gradients


@functools.partial(jax.jit, static_argnames=("attend", "order"))
def of_documents(attend, encoding, q, k, v, positions=POSITIONS, order=ZIGZAG):
    """Returns attention over two documents a row, and its gradients by all that it is given.

    The tokens lie in ``order``, which need not be that in which they were written.
    """
    lie = np.array(order)

    def loss(encoding, q, k, v):
        index = None if order == WRITTEN else lie[None]
        here = seen(encoding, positions[:, lie], DOCUMENTS[:, lie], index=index)
        output = attend(here, q, k, v)
        return (output**2).sum(), output

    return jax.value_and_grad(loss, argnums=range(4), has_aux=True)(encoding, q, k, v)


def assert_equals_dense(attention, encoding, case):
    """Compares values and gradients with those of dense attention.

    Queries that see no key are among those of a case whose queries were written elsewhere.
    """
    operands = case.operands()
    actual = values_and_gradients(attention, case, encoding, *operands)
    expected = values_and_gradients(dense, case, encoding, *operands)
    half = case.dtype == "bfloat16"
    pairs = zip(common.parameter_paths(actual), common.parameter_paths(expected), strict=True)
    for (path, a), (_, b) in pairs:
        a, b = np.asarray(a, np.float32), np.asarray(b, np.float32)
        assert np.isfinite(a).all(), path
        scale = max(1.0, np.abs(b).max())
        tolerance = 2e-2 if half else 1e-5 if not path else 1e-4
        np.testing.assert_allclose(a / scale, b / scale, atol=tolerance, err_msg=str(path))
    sees_nothing = (np.asarray(actual[0], np.float32) == 0).all(axis=(2, 3))
    assert sees_nothing.any() == (not case.written)


def traced_for(platform, kind):
    """Returns a context in which programs are traced for a device that this host has not."""
    device = AbstractDevice(device_kind=kind, num_cores=1, platform=platform)
    return jax.sharding.use_abstract_mesh(AbstractMesh((), (), abstract_device=device))


def sides(num_kv_heads=2, q_length=40, k_length=40, dtype=np.float32):
    """Returns queries, keys and values."""
    shapes = ((q_length, common.HEADS), (k_length, num_kv_heads), (k_length, num_kv_heads))
    return [
        jnp.asarray(common.normal(seed, B, *shape, common.HEAD_DIM), dtype)
        for seed, shape in enumerate(shapes)
    ]


def seen(encoding, positions, segment_ids=None, **options):
    """Returns an encoding at the tokens of a layer, which it has seen."""
    x_BTD = 0.5 * common.normal(3, B, positions.shape[1], common.WIDTH)
    return encoding.at(positions, segment_ids, **options).see(x_BTD)[0]


def by(implementation):
    """Returns attention by an implementation."""
    return functools.partial(posenc_jax.attend, implementation=implementation)


TILED = by(functools.partial(blockwise, block=16))  # the last of three begins within the second


@functools.cache
def operands(name, num_kv_heads=2):
    """Returns a scheme, and q, k and v."""
    return common.build(name, num_kv_heads=num_kv_heads), *sides(num_kv_heads)


@functools.cache
def reference(name, num_kv_heads=2):
    """Returns what ``of_documents`` gives by dense attention."""
    return jax.device_get(of_documents(by(dense), *operands(name, num_kv_heads)))


def close_gradients(actual, expected, tolerance=2e-5):
    """Compares to ``tolerance`` of the largest number: some are what is left of large sums."""
    atol = tolerance * common.largest(expected)
    chex.assert_trees_all_close(actual, expected, rtol=0, atol=atol)


def close(actual, expected, tolerance=2e-5):
    """Compares outputs and gradients, as ``jax.value_and_grad`` returns both."""
    (_, output), gradients = actual
    (_, expected_output), expected_gradients = expected
    common.close(output, expected_output, rtol=0)
    close_gradients(gradients, expected_gradients, tolerance)
