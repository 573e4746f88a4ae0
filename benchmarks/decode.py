"""Times decoding of one more token after a long text, under every scheme and against NoPE.

    python -m benchmarks.decode --length=4096 --out=docs/data/decode.csv

The model has six layers of SmolLM2-135M's width and random weights. Each round times every scheme
once; the figure is the median over rounds of the scheme's time over NoPE's.
"""

import argparse
import dataclasses
import functools
import statistics
import sys
import time
from pathlib import Path

from experiments.training.host import keep_freed_memory

keep_freed_memory()

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
from flax import nnx  # noqa: E402
from rich.console import Console  # noqa: E402

from experiments.command import count, exit_status, schemes  # noqa: E402
from experiments.progress import stage  # noqa: E402
from posenc_jax import REGISTRY, Cache, Layers, Transformer, make  # noqa: E402

LAYERS, TRAIN_LENGTH = 6, 8192
SIZES = dict(num_heads=9, num_kv_heads=3, head_dim=64, model_dim=576)


def stepper(name: str, batch: int, length: int, count: int):
    """Returns a function that reads ``count`` tokens, one by one, and returns seconds a token."""
    rngs = nnx.Rngs(0)
    encoding = make(name, rngs=rngs, num_layers=LAYERS, train_length=TRAIN_LENGTH, **SIZES)
    if isinstance(encoding, Layers):
        encoding = encoding.over(LAYERS)
    model = Transformer(
        encoding, vocab_size=256, num_layers=LAYERS, mlp_dim=1536, rngs=rngs, **SIZES
    )
    holder = {"cache": Cache.empty(model, batch, length + count)}

    @functools.partial(jax.jit, donate_argnames="cache")
    def run(model, cache):
        cache = dataclasses.replace(cache, count=jnp.int32(length))

        def read(cache, token):
            x_BTD, cache = model.extend(jnp.full((batch, 1), token), cache)
            return cache, x_BTD.sum()

        return jax.lax.scan(read, cache, jnp.arange(count))

    def step():
        start = time.perf_counter()
        holder["cache"], sums = run(model, holder["cache"])
        jax.block_until_ready(sums)
        return (time.perf_counter() - start) / count

    return step


@exit_status
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--schemes", type=schemes, default=",".join(REGISTRY))
    parser.add_argument("--batch", type=count, default=1)
    parser.add_argument("--length", type=count, default=4096, help="tokens before the timed ones")
    parser.add_argument("--count", type=count, default=16, help="tokens that are timed in a round")
    parser.add_argument("--rounds", type=count, default=7)
    parser.add_argument("--out", type=Path, help="a CSV file for the same table")
    args = parser.parse_args()
    names = ["nope", *(n for n in args.schemes if n != "nope")]
    rows: dict[str, list[float]] = {name: [] for name in names}
    with stage("decode", len(names) * (args.rounds + 1), Console(stderr=True)) as advance:
        steps = {}
        for name in names:
            steps[name] = stepper(name, args.batch, args.length, args.count)
            steps[name]()
            advance(name)
        for _ in range(args.rounds):
            for name in names:
                rows[name].append(steps[name]())
                advance(f"{name}  {1e3 * rows[name][-1]:.1f} ms")
    print(f"batch {args.batch}, after {args.length} tokens (jax {jax.__version__})")
    table = []
    for name in names:
        ratio = statistics.median(a / b for a, b in zip(rows[name], rows["nope"], strict=True))
        table.append((name, f"{1e3 * statistics.median(rows[name]):.2f}", f"{ratio:.2f}"))
    print("| scheme | ms a token | x NoPE |\n|---|---|---|")
    for name, milliseconds, ratio in table:
        print(f"| `{name}` | {milliseconds} | {ratio} |")
    if args.out:
        lines = ["scheme,milliseconds,times_nope", *(",".join(row) for row in table)]
        args.out.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    sys.exit(main())
