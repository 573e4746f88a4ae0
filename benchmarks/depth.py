"""Times compilation of a model whose layers differ in some numbers, with and without scan.

    python -m benchmarks.depth --layers=26 --length=1024

The layers follow Gemma 3's pattern: two bases, and a window in five of six layers. The figures are
the seconds until a gradient can run, and the largest difference between the two models' logits.
"""

import sys
import time

import jax
import numpy as np
from flax import nnx

from benchmarks.ours import device, model_sizes, random_tokens, shape_of, shape_parser
from experiments.command import exit_status
from posenc_jax import Layers, Transformer, cross_entropy
from posenc_jax.encodings.patterns import dual_base
from posenc_jax.positions import text


def loss(model, inputs, targets):
    x_BTD = model.hidden(inputs, text(inputs.shape[1]))
    return cross_entropy(x_BTD, model.output_table, targets).mean()


def compiled(layers: Layers, tokens, scan: bool, args):
    """Returns the logits, and the seconds of tracing and of compiling a gradient."""
    model = Transformer(layers, **model_sizes(args), scan=scan, rngs=nnx.Rngs(0))
    inputs, targets = tokens[:, :-1], tokens[:, 1:]
    start = time.perf_counter()
    lowered = jax.jit(jax.grad(loss)).lower(model, inputs, targets)
    traced = time.perf_counter()
    lowered.compile()
    seconds = traced - start, time.perf_counter() - traced
    logits_BTV = jax.jit(lambda model: model(inputs, text(inputs.shape[1])))(model)
    return np.asarray(logits_BTV), seconds


@exit_status
def main() -> None:
    args = shape_parser(__doc__, batch=1, length=1024).parse_args()
    jax.config.update("jax_enable_compilation_cache", False)
    pattern = dual_base(head_dim=args.dim // args.heads, window=args.length // 2)
    layers, tokens = pattern.over(args.layers), random_tokens(args)
    runs = {scan: compiled(layers, tokens, scan, args) for scan in (False, True)}
    print(f"{shape_of(args)} {device()}")
    print("| | traced in, s | compiled in, s |\n|---|---|---|")
    for scan, (_, (traced, built)) in runs.items():
        print(f"| `scan={scan}` | {traced:.1f} | {built:.1f} |")
    difference = np.abs(runs[True][0] - runs[False][0]).max()
    print(f"largest difference of logits {difference:.1e}")


if __name__ == "__main__":
    sys.exit(main())
