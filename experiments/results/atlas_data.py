"""Keeps the atlas as data in two small files, ``atlas.csv`` and ``atlas.json``.

``atlas.csv`` has a row for each answer. Its column ``question`` is a name in ``atlas.json``, which
holds the fields that all answers to a question share: what was asked, the unit, and the value of a
guess. A verdict is 1 for better, -1 for worse and 0 for no difference. If there is a difference but
no verdict, the two schemes share only one seed.
"""

import csv
import json
import math
from pathlib import Path
from typing import Any

from experiments.results.atlas import AGAINST, Atlas, answers, control_words
from experiments.results.record import read_json
from experiments.results.statistics import csv_of

CSV, JSON = "atlas.csv", "atlas.json"
# The decimals of answers and of differences, unless the two digits of a margin lie further behind.
# Pages show three. Answers have more, so that the guide ranks and rounds them as the pages do.
_OF_ANSWER, _OF_DIFFERENCE = 5, 3
_SIGNS = {"better": "1", "worse": "-1", "no difference": "0", "one seed": ""}
_WORDS = {sign: word for word, sign in _SIGNS.items()}
_OF_QUESTION = ("name", "topic", "multiple", "says", "unit", "is_error", "chance")


def files(atlas: Atlas) -> dict[str, str]:
    """Returns the texts of both files by name, or raises a ValueError if nothing has an answer."""
    rows = [_row(record) for record in answers(atlas)]
    if not rows:
        raise ValueError("no study has any result yet: there is no atlas to draw")
    shared = {
        "about": {key: value for key, value in atlas.about.items() if key != "config"},
        "questions": [{key: getattr(q, key) for key in _OF_QUESTION} for q in atlas.questions],
        "unanswered": atlas.unanswered,
        "controls": [control_words(control) for control in atlas.controls],
        "trained": atlas.trained,
        "failures": atlas.failures,
        "effective": atlas.effective,
    }
    text = json.dumps(shared, indent=1, default=str) + "\n"
    return {CSV: csv_of(rows, rows[0]), JSON: text}


def read(folder: Path) -> list[dict[str, Any]]:
    """Returns the answers in a folder, each with the fields of its question.

    A mean that is not finite is None. There are no answers if there is no atlas yet.

    Raises:
      ValueError: another revision has written the folder.
    """
    if not (folder / CSV).exists():
        return []
    questions = {each["name"]: each for each in read_json(folder / JSON)["questions"]}
    with (folder / CSV).open(newline="") as file:
        rows = list(csv.DictReader(file))
    try:
        return [questions[row["question"]] | _answer(row) for row in rows]
    except KeyError as error:
        raise ValueError(
            f"{folder} was written by another revision: it has no {error}; write it again by the "
            "command in its atlas.json with --report"
        ) from None


def _row(record: dict[str, Any]) -> dict[str, Any]:
    row = {"scheme": record["scheme"], "question": record["question"]}
    row["mean"], row["margin"] = _written(record["mean"], record["margin"], _OF_ANSWER)
    row["seeds"] = record["seeds"]
    for name in (f"vs_{against}" for against in AGAINST):
        both = record[f"{name}_difference"], record[f"{name}_margin"]
        row[name] = _SIGNS[record[name]] if record[name] else ""
        row[f"{name}_difference"], row[f"{name}_margin"] = _written(*both, _OF_DIFFERENCE)
    return row


def _written(mean: float | None, margin: float | None, least: int) -> tuple[str, str]:
    """Writes a mean and its margin with the decimals of the margin's two digits, or ``least``.

    A missing margin counts as a thousandth of the mean.
    """
    size = abs(mean or 0.0) / 1000 if margin is None else margin
    decimals = max(least, 1 - math.floor(math.log10(size))) if 0 < size < math.inf else least
    return _decimal(mean, decimals), _decimal(margin, decimals)


def _decimal(value: float | None, decimals: int) -> str:
    if value is None or not math.isfinite(value):
        return "" if value is None else str(value)
    return f"{round(value, decimals) + 0.0:.{decimals}f}".rstrip("0").rstrip(".")


def _answer(row: dict[str, str]) -> dict[str, Any]:
    mean, margin = float(row["mean"]), row["margin"]
    answer: dict[str, Any] = {"scheme": row["scheme"], "seeds": int(row["seeds"])}
    answer["mean"] = mean if math.isfinite(mean) else None
    answer["margin"] = float(margin) if margin else None
    for name in (f"vs_{against}" for against in AGAINST):
        answer[name] = _WORDS[row[name]] if row[f"{name}_difference"] else None
    return answer
