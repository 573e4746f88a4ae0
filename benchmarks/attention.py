"""Measures attention alone: time and memory of every implementation.

    python -m benchmarks.attention --schemes=rope,alibi --lengths=512,1024
    python -m benchmarks.attention --implementations=blockwise --lengths=2048,4096,8192
    python -m benchmarks.attention --of=output --implementations=usual,dense --lengths=1024

The implementation ``usual`` is the one that ``attend`` chooses by itself.

Each round times one gradient (by queries, keys, values and the encoding's parameters), or one
output without a gradient, under every scheme and implementation. A ratio is the median over rounds
of the ratio of two times of the same round, so that a busy machine slows both. Memory is what XLA
plans for temporaries. With several lengths the exponents of time and memory against length are
fitted too.
"""

import argparse
import functools
import itertools
import sys

from experiments.training.host import keep_freed_memory

if __name__ == "__main__":  # before JAX starts threads
    keep_freed_memory()

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from benchmarks.accelerator.attention import Shape, build, run
from benchmarks.ours import device, exponent, interleaved, ratios
from experiments.command import count, counts, exit_status, schemes, some_of
from posenc_jax.attention import IMPLEMENTATIONS


def program(args, name: str, implementation: str, length: int):
    """Returns the compiled gradient or output of one layer's attention, and its arguments."""
    encoding = build(name, Shape(length, args.head_dim, args.heads, args.batch))
    rng = np.random.default_rng(0)
    shape = args.batch, length, args.heads, args.head_dim
    q, k, v, weight = (
        jnp.asarray(rng.standard_normal(shape, np.float32), args.dtype) for _ in range(4)
    )
    x_BTD = weight.reshape(*shape[:2], -1)

    def output(encoding, q, k, v):
        return run(encoding, q, k, v, x_BTD, None if implementation == "usual" else implementation)

    @functools.partial(jax.grad, argnums=(0, 1, 2, 3))
    def gradient(encoding, q, k, v):
        return (output(encoding, q, k, v) * weight).sum().astype(jnp.float32)

    measured = jax.jit(gradient if args.of == "gradient" else output)
    return measured.lower(encoding, q, k, v).compile(), (encoding, q, k, v)


def measure(args, points, length: int):
    """Returns the seconds of each round, and the bytes of temporaries, of every point."""
    calls, memory = {}, {}
    for point in points:
        compiled, arguments = program(args, *point, length)
        memory[point] = compiled.memory_analysis().temp_size_in_bytes
        calls[point] = functools.partial(compiled, *arguments)
    return interleaved(calls, args.rounds, warm_up=1), memory


def print_table(length: int, times: pd.DataFrame, memory) -> None:
    """Prints a row for each scheme and implementation at one length."""

    def ratio(point, base) -> str:
        if point == base or base not in times:
            return ""
        return f"{ratios(times, base)[point]:.2f}"

    for name, implementation in times:
        point = name, implementation
        print(
            f"| `{name}` | {implementation} | {length} | {1e3 * times[point].median():.1f} "
            f"| {ratio(point, (name, 'dense'))} | {ratio(point, ('nope', implementation))} "
            f"| {memory[point] / 2**20:.1f} |"
        )


@exit_status
def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--schemes", type=schemes, default="nope,rope,alibi,t5,kerple_log,fire,shaw"
    )
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
    points = list(itertools.product(args.schemes, args.implementations))
    print(
        f"batch {args.batch}, {args.heads} heads of {args.head_dim}, {args.dtype}, {args.rounds} "
        f"rounds, {args.of} {device()}"
    )
    print("| scheme | implementation | length | ms | x dense | x NoPE | temporaries, MiB |")
    print("|---|---|---|---|---|---|---|")
    measured = {}
    for length in args.lengths:
        measured[length] = measure(args, points, length)
        print_table(length, *measured[length])
    if len(measured) > 1:
        for name, implementation in points:
            point = name, implementation
            times = [seconds[point].median() for seconds, _ in measured.values()]
            sizes = [memory[point] for _, memory in measured.values()]
            print(
                f"{name} {implementation}: time ~ length^{exponent(args.lengths, times):.2f}, "
                f"temporaries ~ length^{exponent(args.lengths, sizes):.2f}"
            )


if __name__ == "__main__":
    sys.exit(main())
