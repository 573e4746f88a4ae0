"""Measures attention alone: time and memory of every implementation.

    python -m benchmarks.attention --schemes=rope,alibi --lengths=512,1024
    python -m benchmarks.attention --implementations=blockwise --lengths=2048,4096,8192
    python -m benchmarks.attention --of=output --implementations=usual,dense --lengths=1024

The implementation ``usual`` is the one that ``attend`` chooses by itself.

Each round times one gradient (by queries, keys, values, the layer's input and the encoding's
parameters), or one output without a gradient, under every scheme and implementation. A ratio is the
median over rounds of the ratio of two times of the same round, so that a busy machine slows both.
Memory is what XLA plans for temporaries.
"""

import argparse
import dataclasses
import functools
import itertools
import sys
from collections.abc import Callable
from typing import Any

from experiments.training.host import keep_freed_memory

if __name__ == "__main__":  # before JAX starts threads
    keep_freed_memory()

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import AxisType

import posenc_jax
from benchmarks.common import about, factor_of, interleaved, ratios, table
from experiments.command import count, counts, exit_status, schemes, some_of
from posenc_jax.attention import IMPLEMENTATIONS
from posenc_jax.positions import text


@dataclasses.dataclass(frozen=True)
class Shape:
    """Describes the operands of attention."""

    length: int
    head_dim: int
    heads: int
    batch: int
    dtype: str = "bfloat16"

    @property
    def width(self) -> int:
        """Returns the width of the model: the channels of all heads."""
        return self.heads * self.head_dim

    @property
    def sizes(self) -> list[tuple[int, ...]]:
        """Returns the shapes of queries, keys, values and the layer's input."""
        heads = self.batch, self.length, self.heads, self.head_dim
        return [heads, heads, heads, (self.batch, self.length, self.width)]

    @property
    def logits(self) -> int:
        """Returns the number of pairs of a query and a key, masked ones included."""
        return self.batch * self.heads * self.length**2

    def record(self, name: str, who: str, seconds: float, with_gradient: bool) -> dict[str, Any]:
        """Returns one time of one scheme as a record; ``who`` is an implementation or a library.

        Operations are those of the causal half of two products, and 3.5 times that with gradients.
        """
        teraflops = 2e-12 * self.logits * self.head_dim * (3.5 if with_gradient else 1.0) / seconds
        return {
            "kind": "attention",
            "scheme": name,
            "who": who,
            "shape": f"{self.batch} x {self.length} tokens, {self.heads} heads of {self.head_dim}",
            "pass": "forward and backward" if with_gradient else "forward",
            "ms": round(1e3 * seconds, 3),
            "figure": f"{1e3 * seconds:.2f} ({teraflops:.1f})",
        }


def build(name: str, shape: Shape):
    """Returns a scheme for one layer of a model of this shape."""
    sizes = dict(num_heads=shape.heads, head_dim=shape.head_dim, model_dim=shape.width)
    sizes |= dict(train_length=shape.length, rngs=nnx.Rngs(0))
    return posenc_jax.make(name, **sizes, **factor_of(name))


def operands(shape: Shape) -> list[jax.Array]:
    """Returns random queries, keys, values and the layer's input."""
    rng = np.random.default_rng(0)
    drawn = (rng.standard_normal(size, np.float32) for size in shape.sizes)
    return [jnp.asarray(array, shape.dtype) for array in drawn]


def run(encoding, q, k, v, x_BTD, implementation=None) -> jax.Array:
    """Returns causal attention, the rotation of queries and keys included."""
    here = encoding.at(text(q.shape[1]))
    return posenc_jax.attend(here, q, k, v, x=x_BTD, implementation=implementation)


def one_device():
    """Returns a context for programs of one device, which ``fused`` on a TPU must know of."""
    device = jax.devices()[:1]
    return jax.set_mesh(jax.make_mesh((1,), ("data",), (AxisType.Auto,), devices=device))


def gradient(call: Callable) -> Callable:
    """Returns a function for the gradient of the sum of squares of ``call`` by all arguments."""

    def loss(*arguments):
        return (call(*arguments).astype(jnp.float32) ** 2).sum()

    return lambda *arguments: jax.grad(loss, argnums=range(len(arguments)))(*arguments)


def measure(args: argparse.Namespace, length: int):
    """Yields a row of the table for each scheme and implementation at one length."""
    shape = Shape(length, args.head_dim, args.heads, args.batch, args.dtype)
    calls, memory = {}, {}
    for name, implementation in itertools.product(args.schemes, args.implementations):
        chosen = None if implementation == "usual" else implementation
        call = functools.partial(run, implementation=chosen)
        arguments = build(name, shape), *operands(shape)
        program = jax.jit(gradient(call) if args.of == "gradient" else call)
        compiled = program.lower(*arguments).compile()
        memory[name, implementation] = compiled.memory_analysis().temp_size_in_bytes
        calls[name, implementation] = functools.partial(compiled, *arguments)
    times = interleaved(calls, args.rounds, warm_up=1)
    for name, implementation in times:
        point, milliseconds = (name, implementation), 1e3 * times[name, implementation].median()
        bases = (name, "dense"), ("nope", implementation)
        cells = [
            f"{ratios(times, base)[point]:.2f}" if base in times and base != point else ""
            for base in bases
        ]
        size = f"{memory[point] / 2**20:.1f}"
        yield f"`{name}`", implementation, length, f"{milliseconds:.1f}", *cells, size


@exit_status
def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    usual = "nope,rope,alibi,t5,kerple_log,fire,shaw"
    parser.add_argument("--schemes", type=schemes, default=usual)
    known = ("usual", *IMPLEMENTATIONS)
    parser.add_argument("--implementations", type=some_of(known), default="blockwise,dense")
    parser.add_argument("--of", choices=("gradient", "output"), default="gradient")
    parser.add_argument("--lengths", type=counts, default="512")
    parser.add_argument("--batch", type=count, default=1)
    parser.add_argument("--heads", type=count, default=4)
    parser.add_argument("--head_dim", type=count, default=64)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--rounds", type=count, default=11)
    args = parser.parse_args()
    print(about(args))
    heads = "scheme", "implementation", "length", "ms", "x dense", "x NoPE", "temporaries, MiB"
    print(table(heads, itertools.chain(*(measure(args, length) for length in args.lengths))))


if __name__ == "__main__":
    sys.exit(main())
