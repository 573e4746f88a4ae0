"""Times decoding of one more token after a long text, under every scheme and against NoPE.

    python -m benchmarks.decode --length=4096 --out=docs/data/decode.csv

The model has six layers of SmolLM2-135M's width and random weights. Each round times every scheme
once; the figure is the median over rounds of the scheme's time over NoPE's.
"""

import argparse
import dataclasses
import functools
import sys
from pathlib import Path

from experiments.training.host import keep_freed_memory

if __name__ == "__main__":  # before JAX starts threads
    keep_freed_memory()

import jax
import jax.numpy as jnp
from flax import nnx

from benchmarks.ours import interleaved, ratios
from experiments.command import count, exit_status, schemes
from posenc_jax import REGISTRY, Cache, Layers, Transformer, make

LAYERS, TRAIN_LENGTH = 6, 8192
SIZES = dict(num_heads=9, num_kv_heads=3, head_dim=64, model_dim=576)


def stepper(name: str, batch: int, length: int, count: int):
    """Returns a function that reads ``count`` tokens, one by one."""
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
        holder["cache"], sums = run(model, holder["cache"])
        return sums

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
    steps = {name: stepper(name, args.batch, args.length, args.count) for name in names}
    times = interleaved(steps, args.rounds, warm_up=1) / args.count
    print(f"batch {args.batch}, after {args.length} tokens (jax {jax.__version__})")
    print("| scheme | ms a token | x NoPE |\n|---|---|---|")
    lines = ["scheme,milliseconds,times_nope"]
    for name, ratio in ratios(times, "nope").items():
        milliseconds = 1e3 * times[name].median()
        print(f"| `{name}` | {milliseconds:.2f} | {ratio:.2f} |")
        lines.append(f"{name},{milliseconds:.2f},{ratio:.2f}")
    if args.out:
        args.out.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    sys.exit(main())
