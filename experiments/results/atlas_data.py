"""Keeps the atlas as data in three small files.

``values.csv.gz`` has a row for each number that was measured: question, scheme, seed, value.
``atlas.csv.gz`` has a row for each scheme at each question, with the columns of
``answers.judged``, such as the mean over seeds and the verdicts. ``atlas.json`` has, for each
question, what all its answers share, such as its words and its unit, and how everything was made.
"""

import gzip
import json
from pathlib import Path

import pandas as pd

from experiments.results.answers import AGAINST, OF_QUESTION, OWN_WINDOW
from experiments.results.atlas import Atlas
from experiments.results.record import read_json

CSV, VALUES, JSON = "atlas.csv.gz", "values.csv.gz", "atlas.json"
# Pages show three decimals. Files have more digits, so that whatever reads them ranks the schemes
# as the pages do.
_DIGITS = "%.6g"


def files(atlas: Atlas) -> dict[str, str | bytes]:
    """Returns the content of all files by name, or raises a ValueError if nothing has an answer."""
    if atlas.values.empty:
        raise ValueError("no study has any result yet: there is no atlas to draw")
    questions = atlas.questions.astype(object)
    shared = {
        "about": {key: value for key, value in atlas.about.items() if key != "config"},
        "families": atlas.families.to_dict("records"),
        "questions": questions.where(questions.notna(), None).to_dict("records"),
        "unanswered": atlas.unanswered,
        "controls": atlas.controls,
        "trained": atlas.trained,
        "failures": atlas.failures,
    }
    columns = [c for c in atlas.answers.columns if c not in OF_QUESTION or c == "question"]
    by_seed = atlas.values.groupby(["question", "scheme", "seed"], sort=False)["value"].mean()
    return {
        CSV: _packed(atlas.answers[columns]),
        VALUES: _packed(by_seed.reset_index()),
        JSON: json.dumps(shared, indent=1, default=str) + "\n",
    }


def _packed(table: pd.DataFrame) -> bytes:
    """Returns a table as compressed CSV; the same table gives the same bytes."""
    text = table.to_csv(index=False, float_format=_DIGITS)
    return gzip.compress(text.encode(), mtime=0)


def load(folder: Path) -> Atlas:
    """Returns the atlas in a folder; the error is that of ``read``."""
    shared = read_json(folder / JSON)
    rest = {key: shared[key] for key in ("unanswered", "controls", "trained", "failures", "about")}
    families = pd.DataFrame(shared["families"])
    return Atlas(values=read_values(folder), answers=read(folder), families=families, **rest)


def read(folder: str | Path) -> pd.DataFrame:
    """Returns the answers in a folder, see ``answers.judged``; empty if there is no atlas yet.

    Raises a ValueError if another revision has written the folder.
    """
    return _read(
        Path(folder), CSV, ["scheme", "learned", *(f"vs_{a}_p" for a in (*AGAINST, OWN_WINDOW))]
    )


def read_values(folder: str | Path) -> pd.DataFrame:
    """Returns the values in a folder, see ``answers.py``; the error is that of ``read``."""
    return _read(Path(folder), VALUES, ["scheme", "seed", "value"])


def _read(folder: Path, name: str, needs: list[str]) -> pd.DataFrame:
    if not (folder / JSON).exists():
        return pd.DataFrame(columns=[*OF_QUESTION, *needs])
    questions = pd.DataFrame(read_json(folder / JSON)["questions"])
    table = pd.read_csv(folder / name) if (folder / name).exists() else pd.DataFrame()
    missing = [key for key in OF_QUESTION if key not in questions]
    missing += [key for key in needs if key not in table]
    if missing:
        raise ValueError(
            f"{folder} was written by another revision: it has no {missing[0]!r}; write it again "
            "by the command in its atlas.json with --report"
        )
    return questions.astype({"chance": float})[OF_QUESTION].merge(table, on="question")
