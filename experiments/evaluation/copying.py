"""Measures how well the models of a ladder copy, and adds them to a table.

    python -m experiments.evaluation.copying --workdir=runs/ladder --out=docs/data/copied.csv

A row of the table is a model: its ``rung``, ``scheme`` and ``seed``, and by how many bits it
predicts a token better that it has read before (``copied``, see ``mechanisms.py``). The texts are
192 of the test split, of the length that the model was trained on. Models that the table has are
not measured again, so it may have models whose checkpoints are gone.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from rich.console import Console

from experiments.command import exit_status
from experiments.evaluation.mechanisms import copied
from experiments.evaluation.probes import run_and_windows
from experiments.progress import stage
from experiments.results.record import write_files

TEXTS = 192
MODEL = ["rung", "scheme", "seed"]


@exit_status
def main(arguments: Sequence[str] | None = None) -> None:
    """Measures the finished models of a workdir that the table lacks."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workdir", type=Path, required=True, help="of configs/ladder.py")
    parser.add_argument("--out", type=Path, required=True, help="the table, a CSV file")
    args = parser.parse_args(arguments)
    table = pd.read_csv(args.out) if args.out.exists() else pd.DataFrame(columns=[*MODEL, "copied"])
    known = set(table[MODEL].itertuples(index=False, name=None))
    models = {
        (run.parts[-4], run.parts[-2], int(run.name.removeprefix("seed"))): run
        for run in sorted(args.workdir.glob("*/runs/*/seed*"))
        if (run / "evaluation.json").exists() and (run / "checkpoints").exists()
    }
    if not models and not len(table):
        raise ValueError(
            f"--workdir={args.workdir} has no finished model with a checkpoint: give the workdir "
            "in which configs/ladder.py was trained"
        )
    missing = {model: run for model, run in models.items() if model not in known}
    with stage("copying", len(missing), Console()) as advance:
        for model, run in missing.items():
            value = copied(*run_and_windows(str(run), TEXTS))["value"]
            table.loc[len(table)] = [*model, value]
            text = table.sort_values(MODEL).to_csv(index=False, float_format="%.3f")
            write_files(args.out.parent, {args.out.name: text})
            advance("{}/{}/seed{}".format(*model))
    print(f"{args.out}: {len(table)} models, {len(missing)} of them measured now")


if __name__ == "__main__":
    sys.exit(main())
