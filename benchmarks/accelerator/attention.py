"""Times attention under our schemes, forward alone and with gradients."""

import dataclasses
import functools
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import AxisType

import posenc_jax
from posenc_jax.attention import IMPLEMENTATIONS
from posenc_jax.positions import text

# Dense attention holds all logits in float32, several times over.
_MOST_DENSE_LOGITS = 2**31
_SECONDS = 0.5  # of timing, for each figure


@dataclasses.dataclass(frozen=True)
class Shape:
    """Describes the operands of attention, in bfloat16."""

    length: int
    head_dim: int
    heads: int
    batch: int

    @property
    def width(self) -> int:
        """Returns the width of the model: the channels of all heads."""
        return self.heads * self.head_dim

    @property
    def logits(self) -> int:
        """Returns the number of pairs of a query and a key, masked ones included."""
        return self.batch * self.heads * self.length**2

    def teraflops(self, seconds: float, with_gradient: bool) -> float:
        """Returns teraflops a second: the causal half of two products, 3.5 times with gradients."""
        products = 2 * self.logits * self.head_dim * 2 / 2
        return products * (3.5 if with_gradient else 1.0) / seconds / 1e12

    def record(self, name: str, who: str, seconds: float, with_gradient: bool) -> dict[str, Any]:
        """Returns one figure of one scheme as a record; ``who`` is the implementation."""
        speed = self.teraflops(seconds, with_gradient)
        return {
            "kind": "attention",
            "scheme": name,
            "who": who,
            "pass": "forward and backward" if with_gradient else "forward",
            "ms": round(1e3 * seconds, 3),
            "teraflops": round(speed, 2),
        } | dataclasses.asdict(self)


def operands(shape: Shape) -> tuple[jax.Array, ...]:
    """Returns random queries, keys, values and the layer's input, all in bfloat16."""
    rng = np.random.default_rng(0)
    size = shape.batch, shape.length, shape.heads, shape.head_dim
    q, k, v = (jnp.asarray(rng.standard_normal(size, np.float32), jnp.bfloat16) for _ in range(3))
    x = rng.standard_normal((shape.batch, shape.length, shape.width), np.float32)
    return q, k, v, jnp.asarray(x, jnp.bfloat16)


def build(name: str, shape: Shape):
    """Returns a scheme for one layer of a model of this shape."""
    sizes = dict(num_heads=shape.heads, head_dim=shape.head_dim, model_dim=shape.width)
    return posenc_jax.make(name, train_length=shape.length, rngs=nnx.Rngs(0), **sizes)


def run(encoding, q, k, v, x_BTD, implementation=None) -> jax.Array:
    """Returns causal attention, the rotation of queries and keys included."""
    tokens = encoding.tokens(text(q.shape[1]))
    return posenc_jax.attend(encoding, q, k, v, tokens, x=x_BTD, implementation=implementation)


def ours(name: str, shape: Shape) -> Iterator[dict[str, Any]]:
    """Yields the times of a scheme under each implementation, forward and with all gradients."""
    encoding, arguments = build(name, shape), operands(shape)
    for implementation in IMPLEMENTATIONS:
        if implementation == "ring":  # on one device the same as blockwise
            continue
        if implementation == "dense" and shape.logits > _MOST_DENSE_LOGITS:
            continue
        for with_gradient in (False, True):
            call = functools.partial(run, implementation=implementation)
            if with_gradient:
                call = gradient(call)
            try:
                with one_device():
                    seconds = timed(functools.partial(jax.jit(call), encoding, *arguments))
            except ValueError:  # a scheme that this implementation cannot run
                break
            except Exception as error:
                about = {"kind": "error", "item": f"{name} {implementation} {shape.length}"}
                yield about | {"reason": f"{type(error).__name__}: {str(error)[:200]}"}
                break
            yield shape.record(name, implementation, seconds, with_gradient)


def one_device():
    """Returns a context for programs of one device, which ``fused`` on a TPU must know of."""
    device = jax.devices()[:1]
    return jax.set_mesh(jax.make_mesh((1,), ("data",), (AxisType.Auto,), devices=device))


def gradient(call: Callable) -> Callable:
    """Returns a function for the gradient of the sum of squares of ``call`` by all arguments."""

    def loss(*arguments):
        return (call(*arguments).astype(jnp.float32) ** 2).sum()

    return lambda *arguments: jax.grad(loss, argnums=range(len(arguments)))(*arguments)


def timed(call: Callable[[], Any], wait: Callable[[Any], Any] = jax.block_until_ready) -> float:
    """Returns the seconds of one call: the median of rounds that wait for their last call only."""
    wait(call())
    start = time.perf_counter()
    wait(call())
    once = time.perf_counter() - start
    repeats = max(1, min(20, round(_SECONDS / 5 / max(once, 1e-6))))
    rounds = []
    for _ in range(5 if once < _SECONDS else 1):
        start = time.perf_counter()
        for _ in range(repeats - 1):
            call()
        wait(call())
        rounds.append((time.perf_counter() - start) / repeats)
    return float(np.median(rounds))
