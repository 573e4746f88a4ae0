"""Times the parts of RoPE's training step, ours and PyTorch's, interleaved in one process.

    python -m benchmarks.parts --batch=8 --length=256

Parts are timed alone, forward and backward, in one layer, and count for all layers:

    products   of the dense layers, and the gradients by their inputs and by their weights
    attention  without rotation
    head       logits and cross-entropy

With ``--precision=bfloat16`` products have factors in bfloat16, as in ``benchmarks.train``. With
``--forward`` products and attention are timed without gradients, as a prompt needs them.
The rest of a step is what is left of the whole: norms, residuals, activations, rotations, the
embedding and the optimizer. It is negative where a part takes longer alone than in the step.
"""

import functools
import operator
import sys
from collections.abc import Callable
from typing import Any

from experiments.training.host import keep_freed_memory

if __name__ == "__main__":  # before JAX starts threads
    keep_freed_memory()

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import torch
from torch.nn import functional

import posenc_jax
from benchmarks import ours
from benchmarks.train import torch_step
from experiments.command import exit_status
from experiments.results.reports.markdown import markdown_table
from experiments.training import precision
from posenc_jax.model.transformer import usual_mlp_dim

STEP = "whole step"
PARTS_OF_PROMPT = ["products", "attention"]
Shapes = list[tuple[int, ...]]


def shapes(args) -> dict[str, tuple[Shapes, Shapes]]:
    """Returns the shapes of the inputs of each part in one layer, and of what it is summed with."""
    rows, hidden = args.batch * args.length, usual_mlp_dim(args.dim)
    weights = [(args.dim, args.dim)] * 4 + [(args.dim, hidden)] * 2 + [(hidden, args.dim)]
    heads = [(args.batch, args.length, args.heads, args.dim // args.heads)]
    return {
        "products": (
            [s for D, F in weights for s in ((rows, D), (D, F))],
            [(rows, F) for _, F in weights],
        ),
        "attention": (heads * 3, heads),
        "head": ([(rows, args.dim), (ours.VOCAB, args.dim)], []),
    }


def products(inputs, sums, product=operator.matmul):
    """Returns a weighted sum of products, of arrays of either library."""
    triples = zip(inputs[::2], inputs[1::2], sums, strict=True)
    return sum((product(x, w) * weight).sum() for x, w, weight in triples)


def our_parts(args, targets_N) -> dict[str, Callable[..., Any]]:
    """Returns our function of each part, whose result is a number."""
    encoding, is_rounded = posenc_jax.make("nope"), args.precision == "bfloat16"
    tokens = encoding.tokens(posenc_jax.positions.text(args.length))
    implementation = precision.attention_in_bfloat16(None) if is_rounded else None
    product = precision.product_in_bfloat16 if is_rounded else jnp.matmul

    def attention(qkv, sums):
        out = posenc_jax.attend(encoding, *qkv, tokens, implementation=implementation)
        return (out * sums[0]).sum()

    def head(inputs, _):
        x, table = inputs
        return posenc_jax.cross_entropy(x.astype(args.precision), table, targets_N).mean()

    of_layers = functools.partial(products, product=product)
    return {"products": of_layers, "attention": attention, "head": head}


def torch_parts(targets_N) -> dict[str, Callable[..., Any]]:
    """Returns PyTorch's function of each part."""
    targets = torch.from_numpy(targets_N).long()

    def attention(qkv, sums):
        q, k, v, weight = (x.transpose(1, 2) for x in (*qkv, *sums))
        return (functional.scaled_dot_product_attention(q, k, v, is_causal=True) * weight).sum()

    def head(inputs, _):
        return functional.cross_entropy(functional.linear(*inputs), targets)

    return {"products": products, "attention": attention, "head": head}


def calls(args) -> dict[tuple[str, str], Callable[[], Any]]:
    """Returns a call for each part on both sides, and without ``--forward`` for the whole step."""
    tokens, rng = ours.random_tokens(args), np.random.default_rng(0)
    targets_N = tokens[:, 1:].reshape(-1)
    of_jax, of_torch = our_parts(args, targets_N), torch_parts(targets_N)
    made: dict[tuple[str, str], Callable[[], Any]] = {}
    for part in PARTS_OF_PROMPT if args.forward else of_jax:
        drawn = [[rng.standard_normal(s, np.float32) for s in kind] for kind in shapes(args)[part]]
        function = of_jax[part] if args.forward else jax.value_and_grad(of_jax[part])
        made[part, "ours"] = functools.partial(jax.jit(function), *jax.tree.map(jnp.asarray, drawn))
        leaves, sums = jax.tree.map(torch.from_numpy, drawn)
        made[part, "PyTorch"] = _torch_call(args, torch.compile(of_torch[part]), leaves, sums)
    if args.forward:
        return made
    made[STEP, "ours"], _ = ours.jax_step(args, args.encoding, tokens)
    made[STEP, "PyTorch"], _ = torch_step(args, tokens)
    return made


def _torch_call(args, function, leaves, sums):
    leaves = [leaf.requires_grad_(not args.forward) for leaf in leaves]

    def call():
        with torch.autocast("cpu", torch.bfloat16, enabled=args.precision == "bfloat16"):
            result = function(leaves, sums)
        return result if args.forward else torch.autograd.grad(result, leaves)

    return call


def table(times: pd.DataFrame, layers: int) -> pd.DataFrame:
    """Returns milliseconds by part and side, with the rest of a step where a step was timed."""
    times.columns = pd.MultiIndex.from_tuples(times.columns)
    by_part = (1e3 * times.median()).unstack()
    by_part.loc[PARTS_OF_PROMPT] *= layers  # the head is there once
    if STEP not in by_part.index:
        return by_part.loc[PARTS_OF_PROMPT]
    by_part.loc["rest"] = 2 * by_part.loc[STEP] - by_part.sum()
    return by_part.loc[["products", "attention", "head", "rest", STEP]]


@exit_status
def main() -> None:
    parser = ours.shape_parser(__doc__, batch=8, length=256)
    parser.add_argument("--forward", action="store_true", help="time no gradients and no step")
    parser.set_defaults(encoding="rope")
    args = parser.parse_args()
    made = table(ours.interleaved(calls(args), args.rounds), args.layers)
    rows = [
        [part, f"{row['ours']:.0f}", f"{row['PyTorch']:.0f}", f"{row['PyTorch'] / row['ours']:.2f}"]
        for part, row in made.iterrows()
    ]
    print(f"{ours.shape_of(args)}, {args.rounds} rounds {ours.device()}, torch {torch.__version__}")
    print(markdown_table(["part", "ours, ms", "PyTorch, ms", "ratio"], rows))


if __name__ == "__main__":
    sys.exit(main())
