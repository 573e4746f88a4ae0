"""Writes the tables of ``docs/results.md`` that show answers of the atlas, from its data.

    python -m experiments.results.reports.atlas_tables --atlas=docs/atlas --page=docs/results.md

Each is the first table below its heading. The text around it stays as it is. The table of models
that were trained longer has the results of ``configs/extrapolation.py:long`` in an archive.
"""

import argparse
import dataclasses
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from experiments.command import exit_status
from experiments.results import atlas_data
from experiments.results.record import read_json, write_files
from experiments.results.reports.multimodal_tables import rewritten
from experiments.results.reports.other_answers import LONGER, read_longer
from experiments.results.reports.page import markdown_table
from experiments.results.statistics import with_margin

Answer = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Rows:
    """Describes a table of some schemes and some questions of the atlas.

    Attributes:
      heading: the heading above the table.
      schemes: the names of the schemes, row by row.
      columns: the topic of a question and the multiple of the trained length, by the column's name.
      is_share: whether the answers are shares, which are written as percentages.
    """

    heading: str
    schemes: str
    columns: dict[str, tuple[str, float]]
    is_share: bool = False


TEXT = Rows(
    "What every scheme does",
    "transformer_xl cable kerple_power fox dape grape_a kerple_log sandwich alibi rnope_swa "
    "dual_base t5 rerope fire nope yarn ntk pi rope sinusoidal learned",
    {f"{n}x ({64 * n})": ("text", n) for n in (1, 2, 4, 8, 16)},
)
TASKS = Rows(
    "What every scheme learns",
    "kerple_power dape grape_a path alibi fox cable t5 transformer_xl cope kv_shift randomized "
    "rope nope sinusoidal",
    {
        "passkey 1x": ("passkey", 1),
        "passkey 4x": ("passkey", 4),
        "recall 4x": ("recall", 4),
        "flip-flop 4x": ("flip_flop", 4),
        "variables 4x": ("variable_tracking", 4),
        "copy 2x": ("copy, answers", 2),
    },
    is_share=True,
)
GAINS = Rows(
    "Which schemes gain from more context",
    "rnope_swa beam transformer_xl t5 alibi grape_a path kerple_log kerple_power dape cable fox",
    {
        "sources 2x": ("gain", 2),
        "sources 16x": ("gain", 16),
        "manual 2x": ("gain, manual", 2),
        "manual 4x": ("gain, manual", 4),
        "manual 16x": ("gain, manual", 16),
    },
)
TRAINED_LONGER = Rows(
    "With more training",
    "alibi fox kerple_log transformer_xl",
    {
        "loss 1x (256)": (f"text, {LONGER}", 1),
        "loss 4x": (f"text, {LONGER}", 4),
        "gain 2x": (f"gain, {LONGER}", 2),
        "gain 4x": (f"gain, {LONGER}", 4),
        "gain 16x": (f"gain, {LONGER}", 16),
        "manual, gain 2x": (f"gain, manual, {LONGER}", 2),
        "manual, gain 4x": (f"gain, manual, {LONGER}", 4),
        "manual, gain 16x": (f"gain, manual, {LONGER}", 16),
    },
)


def of_atlas(table: Rows, answers: Iterable[Answer], trained: dict[str, str]) -> str:
    """Returns a table of the atlas in Markdown.

    Args:
      table: its schemes and questions.
      answers: the answers of the atlas.
      trained: the scheme whose model a scheme is evaluated on, by the scheme's name.

    Raises:
      ValueError: an answer is missing.
    """
    found = {(a["scheme"], a["topic"], a["multiple"]): a for a in answers}
    rows = []
    for scheme in table.schemes.split():
        on = "" if trained[scheme] == scheme else f" (on `{trained[scheme]}`)"
        row = [f"`{scheme}`{on}"]
        for topic, multiple in table.columns.values():
            if (scheme, topic, multiple) not in found:
                raise ValueError(
                    f"no result has {scheme} at {topic} {multiple}x; run it, or take it out of the "
                    f"table {table.heading!r} in experiments/results/reports/atlas_tables.py"
                )
            row.append(_cell(found[scheme, topic, multiple], table.is_share))
        rows.append(row)
    return markdown_table(["scheme", *table.columns], rows)


def _cell(answer: Answer, is_share: bool) -> str:
    """Writes an answer; a gain that exceeds its margin is bold."""
    if is_share:
        return f"{100 * answer['mean']:.0f} ± {100 * answer['margin']:.0f}"
    cell = with_margin(answer["mean"], answer["margin"])
    is_gain = answer["topic"].startswith("gain") and answer["mean"] > answer["margin"]
    return f"**{cell}**" if is_gain else cell


def written(page: str, folder: Path, packed: Path) -> str:
    """Returns a page with its tables of the atlas in ``folder`` and of longer training.

    Raises:
      ValueError: the page has no such table, or the atlas or an answer is missing.
    """
    atlas = read_json(folder / atlas_data.JSON)
    if atlas is None:
        raise ValueError(f"{folder} has no {atlas_data.JSON}; give the folder of an atlas")
    answers = atlas_data.read(folder) + read_longer(packed)
    for table in (TEXT, GAINS, TASKS, TRAINED_LONGER):
        page = rewritten(page, table.heading, of_atlas(table, answers, atlas["trained"]))
    return page


@exit_status
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--atlas", type=Path, default=Path("docs/atlas"))
    parser.add_argument("--longer", type=Path, default=Path("docs/data/extrapolation_long.tar.xz"))
    parser.add_argument("--page", type=Path, default=Path("docs/results.md"))
    args = parser.parse_args()
    text = written(args.page.read_text(), args.atlas, args.longer)
    write_files(args.page.parent, {args.page.name: text})
    print(f"tables: {args.page}")


if __name__ == "__main__":
    sys.exit(main())
