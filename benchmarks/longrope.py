"""Measures candidates a second of LongRoPE's search, by the number of tokens in a forward pass.

    python -m benchmarks.longrope --length=512 --batch=16

A candidate reads ``--batch`` documents of ``--length`` tokens. Each round times the same candidates
with every number of ``--pass-tokens``; the figure is the median of the rounds. Candidates in the
same forward pass share what does not depend on their factors: the embedding, and the projections of
the first layer.
"""

import sys

from experiments.training.host import keep_freed_memory

keep_freed_memory()

import jax  # noqa: E402
from flax import nnx  # noqa: E402

from benchmarks.ours import (  # noqa: E402
    device,
    interleaved,
    model_sizes,
    random_tokens,
    shape_parser,
)
from experiments.command import counts, exit_status  # noqa: E402
from experiments.studies.longrope.fitness import text_loss  # noqa: E402
from experiments.studies.longrope.search import Genome  # noqa: E402
from experiments.training.mesh import make_mesh, state_shardings  # noqa: E402
from posenc_jax import Transformer, make  # noqa: E402

CANDIDATES = 8


@exit_status
def main() -> None:
    parser = shape_parser(__doc__, batch=16, length=512)
    parser.add_argument("--pass-tokens", type=counts, default="512,2048,8192,32768,131072")
    args = parser.parse_args()
    mesh = make_mesh()
    head_dim = args.dim // args.heads
    rope = make("rope", head_dim=head_dim)
    model = Transformer(rope, **model_sizes(args), rngs=nnx.Rngs(0))
    model = jax.device_put(model, state_shardings(model, mesh))
    documents, ways = random_tokens(args), {}
    for tokens in args.pass_tokens:
        rest = dict(attention_factor=1.2, mesh=mesh, batch_tokens=tokens)
        ways[tokens] = text_loss(model, rope, documents, **rest)
    genomes = [Genome((1.0 + n / 10,) * (head_dim // 2)) for n in range(CANDIDATES)]
    calls = {
        tokens: lambda fitness=fitness: list(fitness(genomes)) for tokens, fitness in ways.items()
    }
    times = interleaved(calls, args.rounds, warm_up=1)
    print(
        f"{args.batch} documents of {args.length} tokens, width {args.dim}, layers {args.layers}, "
        f"{args.rounds} rounds {device()}"
    )
    print("| tokens of a pass | candidates together | candidates/s |\n|---|---|---|")
    for tokens, fitness in ways.items():
        rate = CANDIDATES / times[tokens].median()
        print(f"| {tokens} | {fitness.together} | {rate:.1f} |")


if __name__ == "__main__":
    sys.exit(main())
