"""Attention operands that the tests of its implementations share."""

import dataclasses
import functools

import common
import jax
import jax.numpy as jnp
import numpy as np

import posenc_jax
from posenc_jax.attention import _tile
from posenc_jax.attention.dense import dense

B, H = 2, 2


@dataclasses.dataclass(frozen=True)
class Case:
    """One call of ``attend``; ``written`` is whether queries and keys are the same tokens."""

    T: int = 40
    S: int = 40
    kv_heads: int = H
    head_dim: int = common.HEAD_DIM
    dtype: str = "float32"
    causal: bool = True
    written: bool = True
    window: int | None = None
    segments: int | None = None  # documents a row
    scale: float | None = None

    @property
    def options(self):
        return dict(causal=self.causal, in_order=self.written, window=self.window)

    def operands(self):
        """x, q, k, v: what the layer reads and its projections."""
        q, k, v = (
            common.normal(seed, B, length, heads, self.head_dim)
            for seed, length, heads in (
                (0, self.T, H),
                (1, self.S, self.kv_heads),
                (2, self.S, self.kv_heads),
            )
        )
        x_BSD = 0.5 * common.normal(3, B, self.S, common.WIDTH)
        return x_BSD, *(jnp.asarray(x, self.dtype) for x in (q, k, v))

    def run(self, attention, encoding, x_BSD, q, k, v):
        """``attention`` of the case, by the door that ``attend`` has."""
        positions = np.arange(self.S, dtype=np.int32)[None]
        segment_ids = None
        if self.segments is not None:
            segment_ids = np.broadcast_to(np.arange(self.S) * self.segments // self.S, (B, self.S))
        k_tokens = posenc_jax.Tokens.of(encoding, positions, segment_ids).read(encoding, x_BSD)
        q_tokens = k_tokens
        if not self.written:
            # Some tokens, from another place: the first queries may see no key at all.
            which = np.arange(self.T) % self.S
            q_tokens = jax.tree.map(lambda x: x[:, which], k_tokens)
            index = jnp.asarray(np.random.default_rng(0).permutation(self.T) - 5, jnp.int32)[None]
            q_tokens = dataclasses.replace(q_tokens, index=index)
        tile = _tile(encoding, q, k, q_tokens, k_tokens, self.scale)
        segments = q_tokens.segment_ids, k_tokens.segment_ids
        return attention(encoding, tile, v, segments, **self.options)


def reference(*operands, in_order, **rule):
    """Dense attention, which has no use for the order."""
    del in_order
    return dense(*operands, **rule)


@functools.partial(jax.jit, static_argnums=(0, 1))
def values_and_gradients(attention, case, encoding, x_BSD, q, k, v):
    """The output, and the gradient of a sum of its squares by every operand and parameter."""

    def loss(*arguments):
        out = case.run(attention, *arguments)
        return (out.astype(jnp.float32) ** 2).sum(), out

    arguments = encoding, x_BSD, q, k, v
    gradients, out = jax.grad(loss, argnums=range(5), has_aux=True)(*arguments)
    return out, gradients


def assert_equals_dense(attention, encoding, case):
    operands = case.operands()
    actual = values_and_gradients(attention, case, encoding, *operands)
    expected = values_and_gradients(reference, case, encoding, *operands)
    half = case.dtype == "bfloat16"
    pairs = zip(common.parameter_paths(actual), common.parameter_paths(expected), strict=True)
    for (path, a), (_, b) in pairs:
        a, b = np.asarray(a, np.float32), np.asarray(b, np.float32)
        assert np.isfinite(a).all(), path
        scale = max(1.0, np.abs(b).max())
        tolerance = 2e-2 if half else 1e-5 if not path else 1e-4
        np.testing.assert_allclose(a / scale, b / scale, atol=tolerance, err_msg=str(path))
    return actual
