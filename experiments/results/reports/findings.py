"""Writes what README.md says that the experiments found, from the atlas and the ledger.

    python -m experiments.results.reports.findings

Only the lines between the two marks change: ``<!-- findings -->`` and ``<!-- end of findings -->``.
"""

import argparse
import re
import sys
import textwrap
from pathlib import Path
from typing import Any

import pandas as pd

from experiments.command import exit_status
from experiments.results import atlas_data
from experiments.results.answers import TASKS
from experiments.results.ledger import WORDS
from experiments.results.lengths import WINDOWED
from experiments.results.record import read_json, write_files

_MARKED = re.compile(r"(<!-- findings -->\n).*(<!-- end of findings -->)", re.DOTALL)


def rewritten(page: str, answers: pd.DataFrame, ledger: dict[str, Any]) -> str:
    """Returns the page with its findings anew.

    Args:
      page: the text of the page.
      answers: the answers of the atlas, see ``answers.summary``.
      ledger: the ledger of claims as ``docs/claims/claims.json`` has it.

    Raises:
      ValueError: the page lacks the two marks.
    """
    lines = [_flat(answers), _recall(answers), _learned(answers), _claims(ledger)]
    text = "".join(textwrap.fill(f"- {line}", 115, subsequent_indent="  ") + "\n" for line in lines)
    page, count = _MARKED.subn(lambda marks: marks[1] + text + marks[2], page)
    if count != 1:
        raise ValueError(
            f"the page has {count} places for findings, but must have one: put <!-- findings --> "
            "and <!-- end of findings --> on lines of their own"
        )
    return page


def _flat(answers):
    """Says which schemes are better than windowed RoPE far beyond the trained length."""
    loss = answers[answers["topic"] == "text"]
    far = loss["multiple"].max()
    verdicts = loss[loss["multiple"] == far].set_index("scheme")[f"vs_{WINDOWED}"]
    better = [f"`{scheme}`" for scheme in verdicts.index[verdicts == "better"]]
    alibi = {"worse": "is worse", "better": "is better"}.get(
        verdicts["alibi"], "cannot be told from it"
    )
    return (
        f"**Flat is not yet good.** At {far:.0f} times the trained length, {len(better)} schemes "
        f"are better than RoPE through a window of the trained length: {', '.join(better)}. "
        f"{(verdicts == 'worse').sum()} are worse. ALiBi, which is flat too, {alibi}."
    )


def _recall(answers):
    """Says which schemes solve recall and flip-flop past the trained length in every seed."""
    solved = {}
    for topic in ("recall", "flip_flop"):
        rows = answers[(answers["topic"] == topic) & (answers["multiple"] == 4)]
        every = rows[rows["learned"] & (rows["solved"] == rows["seeds"])]["scheme"]
        solved[topic] = ", ".join(f"`{scheme}`" for scheme in every)
    return (
        f"**Recall at 4 times the trained length** is solved in every seed by {solved['recall']}; "
        f"the last value written (flip-flop) by {solved['flip_flop']}."
    )


def _learned(answers):
    """Says how many tasks some scheme solves in every seed at the trained length."""
    tasks = answers[(answers["family"] == TASKS) & (answers["multiple"] == 1)]
    tasks = tasks.dropna(subset="solved")  # shares of right answers solve nothing
    by_task = (tasks["solved"] == tasks["seeds"]).groupby(tasks["topic"]).any()
    return (
        f"**{(~by_task).sum()} of the {len(by_task)} tasks** are learned by no scheme in every "
        "seed: of longer rows they say nothing."
    )


def _claims(ledger):
    """Says how many claims have which verdict."""
    counts = pd.Series([claim["verdict"] for claim in ledger["claims"]]).value_counts()
    parts = [f"{counts.get(verdict, 0)} are {verdict}" for verdict in WORDS]
    return f"**Of {counts.sum()} published claims**, {', '.join(parts)}."


@exit_status
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--atlas", type=Path, default=Path("docs/atlas"))
    parser.add_argument("--claims", type=Path, default=Path("docs/claims/claims.json"))
    parser.add_argument("--page", type=Path, default=Path("README.md"))
    args = parser.parse_args()
    ledger = read_json(args.claims, {"claims": list})
    text = rewritten(args.page.read_text(), atlas_data.read(args.atlas), ledger)
    write_files(args.page.parent, {args.page.name: text})
    print(f"findings: {args.page}")


if __name__ == "__main__":
    sys.exit(main())
