"""Reads answers of experiments beside the atlas, in the form of the atlas' own, for the guide.

The answers about trained models that are made longer come from the records of
``configs/extension.py``, those about models that gain from more context from an archive of
``configs/extrapolation.py:long``, and those about images, screens, videos and stories from the
tables of ``docs/multimodal.md``.
"""

import csv
import dataclasses
import json
import math
import re
from pathlib import Path
from typing import Any

from experiments import archive
from experiments.report.atlas import AGAINST, Question, answers_to, gains
from experiments.report.study import margin_of

Answer = dict[str, Any]
# A cell of a table, such as "**0.917** ± 0.005": the mean over seeds and its standard error.
_CELL = re.compile(r"\**(-?\d+\.(\d+))\** ± (\d+\.\d+)")
# The topic of models that were trained for longer than those of the atlas.
GAIN = "gain after longer training"
# The tables of docs/multimodal.md say what three seeds found.
_SEEDS = 3


@dataclasses.dataclass(frozen=True)
class Table:
    """Describes the first table below a heading of ``docs/multimodal.md``.

    Attributes:
      heading: the heading.
      unit: the unit of its numbers, in words.
      stands_for: the rows that others are compared with; they are called "nope" and "rope".
      is_error: whether lower is better.
    """

    heading: str
    unit: str
    stands_for: dict[str, str]
    is_error: bool = False


TABLES = (
    Table("Images", "share right", {"nope": "nope"}),
    Table("Pointing", "share right", {"nope": "nope", "rope": "rope"}),
    Table("Video", "share right", {"nope": "nope", "rope": "vanilla"}),
    Table("Story time", "frame widths", {"rope": "frame_index"}, is_error=True),
)


def read_extension(path: Path) -> list[Answer]:
    """Returns the loss of every way to make a model longer, or none if there are no records.

    A topic is "made longer, 0 steps" before any fine-tuning, and so on.
    """
    if not path.exists():
        return []
    values: dict[tuple[int, float], dict[str, dict[int, float]]] = {}
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            if (row["split"], row["protocol"]) == ("test", "last"):
                key = int(row["steps"]), float(row["multiple"])
                seeds = values.setdefault(key, {}).setdefault(row["scheme"], {})
                seeds[int(row["seed"])] = float(row["bits_per_byte"])
    found: list[Answer] = []
    for (steps, multiple), by_scheme in values.items():
        topic = f"made longer, {steps} steps"
        question = Question(topic, multiple, "", "bits per byte", True, by_scheme)
        found += answers_to(question, by_scheme)
    return [a | {"mean": a["mean"] if math.isfinite(a["mean"]) else None} for a in found]


def read_gains(path: Path) -> list[Answer]:
    """Returns the gains in an archive of results on text, or none if there is no archive."""
    if not path.exists():
        return []
    points = archive.read(path).values()
    records = [r for files in points for r in json.loads(files["evaluation.json"])["records"]]
    found = [dataclasses.replace(question, topic=GAIN) for question in gains(records)]
    return [answer for question in found for answer in answers_to(question, question.values)]


def read_tables(path: Path) -> list[Answer]:
    """Returns the answers in ``TABLES`` of a Markdown page, or none if there is no page.

    Two rows differ where the 95 % interval of their difference excludes 0. It is made of both
    standard errors, as the page does not have each seed's number. A topic is a heading and a
    column, such as "images, 28", and the multiple is 0.

    Raises:
      ValueError: the page lacks one of the tables, or the row that others are compared with.
    """
    if not path.exists():
        return []
    page = path.read_text()
    return [answer for table in TABLES for answer in _of_table(table, _rows(table, page, path))]


def _rows(table, page, path) -> list[list[str]]:
    """Returns the cells of a table, the head of the columns first."""
    _, _, section = page.partition(f"\n## {table.heading}\n")
    lines = section.partition("\n## ")[0].splitlines()
    first = next((n for n, line in enumerate(lines) if line.startswith("| scheme |")), None)
    rows = []
    for line in lines[first:] if first is not None else []:
        if not line.startswith("|"):
            break
        rows.append([cell.strip().replace("`", "") for cell in line.strip("|").split("|")])
    missing = {*table.stands_for.values()} - {row[0] for row in rows}
    if missing:
        raise ValueError(
            f"{path} has no table of schemes under {table.heading!r} with a row of "
            f"{', '.join(sorted(missing))}; add it, or correct TABLES in experiments/beside.py"
        )
    return [rows[0], *rows[2:]]


def _of_table(table, rows) -> list[Answer]:
    answers = []
    names = {row: name for name, row in table.stands_for.items()}
    for place, column in enumerate(rows[0][1:], 1):
        cells = {names.get(row[0], row[0]): cell for row in rows[1:] if (cell := _cell(row[place]))}
        for scheme, (mean, stderr) in cells.items():
            answer = {"scheme": scheme, "topic": f"{table.heading.lower()}, {column}"}
            answer |= {"multiple": 0.0, "unit": table.unit, "is_error": table.is_error}
            answer |= {"mean": mean, "margin": margin_of((mean, stderr, _SEEDS)), "chance": None}
            for name in AGAINST:
                other = cells.get(name)
                answer[f"vs_{name}"] = other and _word(table, (mean, stderr), other)
            answers.append(answer)
    return answers


def _cell(text) -> tuple[float, float] | None:
    """Returns the mean and the standard error; rounding may have hidden half of the last digit."""
    found = _CELL.fullmatch(text)
    if found is None:
        return None
    mean, decimals, stderr = found.groups()
    return float(mean), float(stderr) + 0.5 * 10 ** -len(decimals)


def _word(table, one, other) -> str:
    difference = (other[0] - one[0]) if table.is_error else (one[0] - other[0])
    margin = margin_of((difference, math.hypot(one[1], other[1]), _SEEDS))
    if margin is None or abs(difference) <= margin:
        return "no difference"
    return "better" if difference > 0 else "worse"
