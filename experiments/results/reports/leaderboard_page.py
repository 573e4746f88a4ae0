"""Writes the page of the leaderboard, from the records in a folder.

    python -m experiments.results.reports.leaderboard_page --records=records --out=leaderboard.html

docs/experiments.md says how a scheme takes part.
"""

import argparse
import sys
from pathlib import Path

import pandas as pd
from rich.console import Console

from experiments.command import exit_status
from experiments.results import leaderboard
from experiments.results.lengths import WINDOWED
from experiments.results.record import write_files
from experiments.results.reports.page import terminal_table
from experiments.results.reports.templates import document, fill
from experiments.results.statistics import number, with_margin

# What the page calls the losses.
_CALLED = {"trained": "trained", "beyond": "beyond", "window": "own window"}


def write(folder: Path, out: Path, console: Console) -> None:
    """Writes the page from the records in a folder, and prints its table.

    A record that cannot be compared is told in a sentence, and so is that there are none.
    """
    rows, said, told, columns = pd.DataFrame(), "", [], {}
    try:
        records, refused = leaderboard.read(folder)
        rows, said = leaderboard.table(records)
        columns = {name: leaderboard.questions(records, name) for name in leaderboard.LOSSES}
        told = [said, *refused, f"leaderboard: {out}"]
    except ValueError as error:
        refused = told = [str(error)]
    answers = rows.reset_index().to_dict("records")
    body = fill(
        "leaderboard.html",
        rows=answers,
        columns=columns,
        names=_CALLED,
        # On all texts, and on each kind of them.
        ahead=[
            row["scheme"]
            for row in answers
            if all(row[f"vs_{question}"] == "better" for question in columns["beyond"])
        ],
        statement=said,
        refused=refused,
        window=WINDOWED,
    )
    write_files(out.parent, {out.name: document("The leaderboard", body)})
    heads = ["trained", "beyond", f"over\n{WINDOWED}", "p", "seeds"]
    shown = terminal_table(f"leaderboard, track {leaderboard.TRACK}, bits per byte", heads)
    for row in answers:
        over = with_margin(row["over"], row["margin"])
        cells = [number(row["trained"]), number(row["beyond"]), over, number(row["p"])]
        shown.add_row(row["scheme"], *cells, str(row["seeds"]))
    if answers:
        console.print(shown)
    for words in told:
        console.print(words, highlight=False)


@exit_status
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--records", type=Path, default=Path("records"))
    parser.add_argument("--out", type=Path, default=Path("build/results/leaderboard.html"))
    args = parser.parse_args()
    write(args.records, args.out, Console())


if __name__ == "__main__":
    sys.exit(main())
