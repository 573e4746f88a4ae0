"""Measures the cost of each encoding in a training step, against the same model without positions.

    python -m benchmarks.cost --length=1024

Each round times one step under every encoding, NoPE among them; the figure is the median over
rounds of the ratio to NoPE's step of the same round, so that a busy machine slows both.
"""

import sys

from experiments.training.host import keep_freed_memory

if __name__ == "__main__":  # before JAX starts threads
    keep_freed_memory()

from benchmarks import ours
from experiments.command import exit_status, schemes

SCHEMES = "rope,yarn,xpos,alibi,t5,kerple_log,sandwich,fire,shaw,transformer_xl,deberta,dape"


@exit_status
def main() -> None:
    parser = ours.shape_parser(__doc__, batch=2, length=1024)
    parser.add_argument("--schemes", type=schemes, default=SCHEMES)
    args = parser.parse_args()
    tokens = ours.random_tokens(args)
    steps = {name: ours.jax_step(args, name, tokens)[0] for name in ("nope", *args.schemes)}
    times = ours.interleaved(steps, args.rounds)
    nope_ms = 1e3 * times["nope"].median()
    print(
        f"{ours.shape_of(args)}, {args.rounds} rounds, NoPE {nope_ms:.0f} ms a step {ours.device()}"
    )
    print("| scheme | step, NoPE = 1 |\n|---|---|")
    for name, ratio in ours.ratios(times, "nope").drop("nope").items():
        print(f"| `{name}` | {ratio:.2f} |")


if __name__ == "__main__":
    sys.exit(main())
