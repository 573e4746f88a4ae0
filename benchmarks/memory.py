"""Finds the temporary memory of a training step, with and without recomputation.

    python -m benchmarks.memory --length=8192

Compiles the gradient with dense attention and in tiles, with and without remat, and with the loss
of all logits at once or of pieces of the vocabulary. The figure is what the compiler reserves for
temporaries; nothing is run.

Remat is measured with a scan over the layers, because without a scan XLA:CPU removes remat and
keeps all activations.
"""

import itertools
import sys

import jax
import optax

from benchmarks.common import about, model_sizes, shape_parser, table
from experiments.command import count, exit_status
from experiments.training.recipe import Recipe
from experiments.training.text import Text, spec_of, token_losses
from posenc_jax import positions


def losses_of_all_logits(model, tokens_BL):
    """Returns the loss of each token after the first, from logits of the whole vocabulary."""
    inputs_BT, targets_BT = tokens_BL[:, :-1], tokens_BL[:, 1:]
    logits_BTV = model(inputs_BT, positions.text(inputs_BT.shape[1]))
    return optax.softmax_cross_entropy_with_integer_labels(logits_BTV, targets_BT)


LOSSES = {"all logits": losses_of_all_logits, "in pieces": token_losses}


def temporaries(args, implementation: str, remat: bool, loss: str) -> int:
    """Returns the bytes that one gradient needs besides its arguments and its result."""
    choices = dict(scan=remat, remat=remat, implementation=implementation)
    spec = spec_of({"name": args.encoding}, model_sizes(args, vocab_size=args.vocab, **choices))
    recipe = Recipe(length=args.length, batch_size=args.batch, steps=1)
    model = jax.eval_shape(Text(recipe, None, spec).init, jax.random.key(0))
    tokens = jax.ShapeDtypeStruct((args.batch, args.length + 1), "int32")
    gradient = jax.jit(jax.grad(lambda model, tokens: LOSSES[loss](model, tokens).mean()))
    compiled = gradient.lower(model, tokens).compile()
    return compiled.memory_analysis().temp_size_in_bytes


@exit_status
def main() -> None:
    parser = shape_parser(__doc__, batch=1, length=8192)
    parser.add_argument("--vocab", type=count, default=32768)
    parser.add_argument("--encoding", default="rope")
    args = parser.parse_args()
    print(about(args))
    rows = []
    for implementation, remat, loss in itertools.product(
        ("dense", "blockwise"), (False, True), LOSSES
    ):
        mebibytes = temporaries(args, implementation, remat, loss) / 2**20
        rows.append((implementation, "yes" if remat else "no", loss, f"{mebibytes:.0f}"))
    print(table(("attention", "remat", "loss", "temporaries, MiB"), rows))


if __name__ == "__main__":
    sys.exit(main())
