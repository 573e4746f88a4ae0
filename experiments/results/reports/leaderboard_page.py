"""Writes the page of the leaderboard, from the records in a folder.

    python -m experiments.results.reports.leaderboard_page --records=records --out=leaderboard.html

docs/experiments.md says how a scheme takes part.
"""

import argparse
import sys
from pathlib import Path

from rich.console import Console

from experiments.command import exit_status
from experiments.results import leaderboard
from experiments.results.lengths import WINDOWED
from experiments.results.record import write_files
from experiments.results.reports.page import terminal_table
from experiments.results.reports.templates import document, fill
from experiments.results.statistics import number, with_margin


def write(folder: Path, out: Path, console: Console) -> None:
    """Writes the page from the records in a folder, and prints its table.

    A record that cannot be compared is told in a sentence, and so is that there are none.
    """
    write_files(out.parent, {out.name: document("The leaderboard", body(folder))})
    try:
        records, refused = leaderboard.read(folder)
    except ValueError as error:
        console.print(str(error), highlight=False)
        return
    rows, said = leaderboard.table(records)
    heads = ["trained", "beyond", f"over\n{WINDOWED}", "p", "seeds"]
    shown = terminal_table(f"leaderboard, track {leaderboard.TRACK}, bits per byte", heads)
    for scheme, row in rows.iterrows():
        over = with_margin(row["over"], row["margin"])
        cells = [number(row["trained"]), number(row["beyond"]), over, number(row["p"])]
        shown.add_row(str(scheme), *cells, str(row["seeds"]))
    console.print(shown)
    for words in (said, *refused, f"leaderboard: {out}"):
        console.print(words, highlight=False)


def body(folder: Path) -> str:
    """Returns the page as HTML for a page of its own or of the site."""
    try:
        records, refused = leaderboard.read(folder)
    except ValueError as error:
        return fill("leaderboard.html", rows=[], refused=[str(error)], statement="", track="")
    rows, said = leaderboard.table(records)
    return fill(
        "leaderboard.html",
        rows=rows.reset_index().to_dict("records"),
        statement=said,
        refused=refused,
        track=leaderboard.TRACK,
        window=WINDOWED,
        digest=records[0]["corpus_digest"],
    )


@exit_status
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--records", type=Path, default=Path("records"))
    parser.add_argument("--out", type=Path, default=Path("build/results/leaderboard.html"))
    args = parser.parse_args()
    write(args.records, args.out, Console())


if __name__ == "__main__":
    sys.exit(main())
