"""Compares the losses of two runs of one comparison, such as in float32 and with bfloat16 products.

    python launch.py --config=configs/extrapolation.py:small --workdir=runs/float32
    python launch.py --config=configs/extrapolation.py:small --workdir=runs/bfloat16 \\
        --config.train.products=bfloat16
    python -m benchmarks.precision_losses runs/float32 runs/bfloat16

A difference is the second run's loss less the first's at the same seed, averaged over seeds. Beside
it stands the standard deviation of the first run's loss over seeds. Rank correlations say whether
both runs put the schemes into one order.
"""

import argparse
import sys
from pathlib import Path

import pandas as pd

from experiments.command import exit_status
from experiments.results import table

_KEYS = ["scheme", "multiple", "seed"]


def losses(workdir: Path) -> pd.Series:
    """Returns the bits per byte of the main evaluation by scheme, multiple of length, and seed."""
    path = workdir / table.FILE
    if not path.exists():
        raise ValueError(f"{workdir} has no {table.FILE}: first run its command to the end")
    main = table.select(table.read(path), split="test", measure="last")
    return table.by_seed(main).rename(columns={"x": "multiple"}).set_index(_KEYS)["value"]


def compared(first: pd.Series, second: pd.Series) -> pd.DataFrame:
    """Returns ``first``, ``difference`` and ``deviation`` by scheme and multiple of the length."""
    both = pd.DataFrame({"first": first, "second": second}).dropna()
    both["difference"] = both["second"] - both["first"]
    groups = both.groupby(["scheme", "multiple"])
    means = groups[["first", "second", "difference"]].mean()
    return means.assign(deviation=groups["first"].std())


@exit_status
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("workdirs", nargs=2, type=Path, metavar="WORKDIR")
    table = compared(*map(losses, parser.parse_args().workdirs))
    if table.empty:
        raise ValueError("the two runs share no scheme, length and seed, so nothing is compared")
    ends = [min(table.index.unique("multiple")), max(table.index.unique("multiple"))]
    heads = "".join(f" {multiple:g}x | difference | deviation |" for multiple in ends)
    print(f"| scheme |{heads}\n|---|{'---|' * 6}")
    for scheme in table.index.unique("scheme"):
        rows = (table.loc[scheme, multiple] for multiple in ends)
        cells = (f"{x['first']:.3f} | {x['difference']:+.3f} | {x['deviation']:.3f}" for x in rows)
        print(f"| `{scheme}` | {' | '.join(cells)} |")
    for multiple, group in table.groupby("multiple"):
        rho = group["first"].corr(group["second"], method="spearman")
        print(f"rank correlation at {multiple:g}x: {rho:.3f} over {len(group)} schemes")


if __name__ == "__main__":
    sys.exit(main())
