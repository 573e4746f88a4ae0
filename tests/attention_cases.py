"""Makes the operands that the tests of attention's implementations share."""

import dataclasses
import functools

import common
import jax
import jax.numpy as jnp
import numpy as np

import posenc_jax
from posenc_jax.attention.dense import dense
from posenc_jax.positions import text

B, H = 2, 2


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
    window: int | None = None
    segments: int | None = None  # documents a row
    scale: float | None = None

    def operands(self):
        """Returns x, q, k and v: what the layer reads and its projections."""
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
        """Calls ``attention``, a name or a function, by way of ``attend``."""
        segment_ids = None
        if self.segments is not None:
            segment_ids = np.broadcast_to(np.arange(self.S) * self.segments // self.S, (B, self.S))
        inner = encoding.encoding if isinstance(encoding, posenc_jax.HeadShard) else encoding
        k_tokens = inner.tokens(text(self.S), segment_ids).observed(inner, x_BSD)
        q_tokens = k_tokens
        if not self.written:
            # The first tokens, as if written elsewhere: the first queries may see no key at all.
            q_tokens = k_tokens.part(0, self.T)
            index = np.random.default_rng(0).permutation(self.T) - 5
            q_tokens = dataclasses.replace(q_tokens, index=jnp.asarray(index, jnp.int32)[None])
        rule = dict(causal=self.causal, window=self.window, scale=self.scale)
        return posenc_jax.attend(
            encoding, q, k, v, q_tokens, k_tokens, **rule, implementation=attention
        )


@functools.partial(jax.jit, static_argnums=(0, 1))
def values_and_gradients(attention, case, encoding, x_BSD, q, k, v):
    """Returns the output, and the gradient of a sum of its squares by operands and parameters."""

    def loss(*arguments):
        out = case.run(attention, *arguments)
        return (out.astype(jnp.float32) ** 2).sum(), out

    arguments = encoding, x_BSD, q, k, v
    gradients, out = jax.grad(loss, argnums=range(5), has_aux=True)(*arguments)
    return out, gradients


def assert_equals_dense(attention, encoding, case):
    """Compares values and gradients with those of dense attention, and returns them."""
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
    return actual
