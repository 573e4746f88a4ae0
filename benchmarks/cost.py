"""Measures what each encoding costs, against the same model without positions.

    python -m benchmarks.cost --of=step --length=1024 --batch=2
    python -m benchmarks.cost --of=token --length=4096 --schemes=all --out=decode.csv

It times a training step, or decoding of one more token after ``--length`` tokens. Each round times
every encoding once, NoPE among them; the figure is the median over rounds of the ratio to NoPE of
the same round, so that a busy machine slows both.
"""

import dataclasses
import functools
import sys
from collections.abc import Callable
from pathlib import Path

from experiments.training.host import keep_freed_memory

if __name__ == "__main__":  # before JAX starts threads
    keep_freed_memory()

import jax
import jax.numpy as jnp
import pandas as pd
from flax import nnx

from benchmarks.common import (
    VOCAB,
    about,
    factor_of,
    interleaved,
    ratios,
    shape_parser,
    table,
    training_step,
)
from experiments.command import count, exit_status, schemes
from posenc_jax import REGISTRY, Cache, Layers, Transformer, make

SCHEMES = "rope,yarn,xpos,alibi,t5,kerple_log,sandwich,fire,shaw,transformer_xl,deberta,dape"


def decoder(args, name: str) -> Callable:
    """Returns a function that reads ``--tokens`` tokens one by one, after ``--length`` others."""
    rngs, sizes = nnx.Rngs(0), dict(num_heads=args.heads, num_kv_heads=args.kv_heads or args.heads)
    sizes |= dict(model_dim=args.dim, num_layers=args.layers, head_dim=args.dim // args.heads)
    reach = 2 * args.length
    encoding = make(name, rngs=rngs, train_length=reach, **sizes, **factor_of(name))
    if isinstance(encoding, Layers):
        encoding = encoding.over(args.layers)
    model = Transformer(encoding, vocab_size=VOCAB, rngs=rngs, **sizes)
    holder = {"cache": Cache.empty(model, args.batch, args.length + args.tokens)}

    @functools.partial(jax.jit, donate_argnames="cache")
    def run(model, cache):
        cache = dataclasses.replace(cache, count=jnp.int32(args.length))

        def read(cache, token):
            x_BTD, cache = model.extend(jnp.full((args.batch, 1), token), cache)
            return cache, x_BTD.sum()

        return jax.lax.scan(read, cache, jnp.arange(args.tokens))

    def step():
        holder["cache"], sums = run(model, holder["cache"])
        return sums

    return step


@exit_status
def main() -> None:
    parser = shape_parser(__doc__, batch=1, length=1024)
    parser.add_argument("--of", choices=("step", "token"), default="step")
    parser.add_argument("--schemes", default=SCHEMES, help="names with commas, or all")
    parser.add_argument("--tokens", type=count, default=16, help="decoded in a round")
    parser.add_argument("--kv_heads", type=count, help="of the decoder; default: all heads")
    parser.add_argument("--out", type=Path, help="a CSV file for the same table")
    args = parser.parse_args()
    chosen = [*REGISTRY] if args.schemes == "all" else schemes(args.schemes)
    names = dict.fromkeys(("nope", *chosen))
    if args.of == "step":
        times = interleaved({name: training_step(args, name)[0] for name in names}, args.rounds)
    else:
        calls = {name: decoder(args, name) for name in names}
        times = interleaved(calls, args.rounds, warm_up=1) / args.tokens
    figures = {"milliseconds": 1e3 * times.median(), "times_nope": ratios(times, "nope")}
    costs = pd.DataFrame(figures).round(2).rename_axis("scheme").reset_index()
    print(about(args))
    print(table(("scheme", "ms", "x NoPE"), costs.itertuples(index=False)))
    if args.out:
        costs.to_csv(args.out, index=False)


if __name__ == "__main__":
    sys.exit(main())
