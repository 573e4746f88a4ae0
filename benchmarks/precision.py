"""Times training steps with products in float32 and in bfloat16.

    python -m benchmarks.precision --shapes=8x256,2x1024

Each round times one step of each; figures are medians over rounds, and the ratio is the median over
rounds of bfloat16's time over float32's. Below 1 bfloat16 is faster.
"""

import argparse
import sys
from collections.abc import Callable

from experiments.training.host import keep_freed_memory

if __name__ == "__main__":  # before JAX starts threads
    keep_freed_memory()

from benchmarks import ours
from experiments.command import count, exit_status, schemes
from experiments.training.precision import PRODUCTS


def steps_of(scheme: str, shape: str) -> dict[str, Callable[[], float]]:
    """Returns a function that runs a training step, by its precision."""
    batch, length = map(int, shape.split("x"))
    parser = ours.shape_parser(__doc__, batch=batch, length=length)
    steps = {}
    for precision in PRODUCTS:
        args = parser.parse_args([f"--precision={precision}"])
        steps[precision], _ = ours.jax_step(args, scheme, ours.random_tokens(args))
    return steps


@exit_status
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--schemes", type=schemes, default="rope")
    parser.add_argument("--shapes", default="8x256,2x1024", help="batch x length")
    parser.add_argument("--rounds", type=count, default=30)
    args = parser.parse_args()
    for scheme in args.schemes:
        for shape in args.shapes.split(","):
            times = ours.interleaved(steps_of(scheme, shape), args.rounds)
            for name, ratio in ours.ratios(times, "float32").items():
                milliseconds = 1e3 * times[name].median()
                print(f"| `{scheme}` | {shape} | {name} | {milliseconds:.0f} | {ratio:.2f} |")


if __name__ == "__main__":
    sys.exit(main())
