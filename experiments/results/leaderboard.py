"""Keeps the records of the leaderboard, and makes its table.

A record says what one scheme reached on the track, ``configs/ladder.py:track``: a fixed corpus,
model, number of tokens and evaluation, with three seeds. It is the file ``NAME/result.json`` in the
folder ``records``. Rules and data have a version; only records of one version can be compared.
"""

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from experiments.results.comparisons import compared, families, statement
from experiments.results.ladder import BEYOND, CUT, ROPE, TRAINED, losses
from experiments.results.lengths import WINDOWED
from experiments.results.record import json_digest, read_json, write_files

# Raise the second number where rules change so little that orders stay, else the first.
TRACK = "1.0"
SEEDS = 3
# The losses of a record by the name of their column, and the protocols that measure them.
LOSSES = {"trained": TRAINED, "beyond": BEYOND, "window": CUT}
# A record is compared with RoPE's only if these fields are equal.
_SHARED = ("corpus_digest", "tokens", "length")
_FIELDS: dict[str, type] = {"track": str, "scheme": str, "corpus_digest": str, "seeds": list}
_FIELDS |= {"losses": dict, "parameters": int, "tokens": int, "length": int}


def rules_of(studies: Mapping[str, Any]) -> str:
    """Returns a digest of everything in the track's studies but the names of the schemes."""
    rules = {
        name: {key: value for key, value in study.items() if key != "schemes"}
        for name, study in studies.items()
    }
    return json_digest(rules)[:16]


def record_of(
    records: pd.DataFrame, rung: str, scheme: str, about: Mapping[str, Any]
) -> dict[str, Any]:
    """Returns the record of a scheme on the rung that is the track.

    ``about`` is what else the record says, with ``corpus_digest``. Raises a ValueError if a seed is
    missing.
    """
    chosen = records[(records["rung"] == rung) & (records["scheme"] == scheme)]
    seeds = sorted(int(seed) for seed in chosen["seed"].unique())
    if len(seeds) < SEEDS:
        raise ValueError(
            f"{scheme} has {len(seeds)} of the {SEEDS} seeds of the track: run the same command "
            "until all are finished"
        )
    numbers = {}
    for protocol in LOSSES.values():
        table = losses(chosen, rung, protocol)
        wide = table[table["scheme"] == scheme].pivot(index="seed", columns="text", values="value")
        numbers[protocol] = wide.round(5).to_dict("list")
    run = chosen.iloc[0]
    sizes = {key: int(run[key]) for key in ("parameters", "tokens", "length")}
    head = {"track": TRACK, "rung": rung, "scheme": scheme, "seeds": seeds}
    return {**head, **sizes, **about, "losses": numbers}


def write(folder: Path, record: dict[str, Any]) -> Path:
    """Writes a record to ``folder/SCHEME/result.json`` and returns the path.

    Raises a ValueError if the file has a record of this track with other losses.
    """
    path = folder / record["scheme"] / "result.json"
    before = read_json(path, _FIELDS)
    if before and before["track"] == TRACK and not _are_equal(before["losses"], record["losses"]):
        raise ValueError(f"{path} is of other runs, and is kept; remove it to write the new record")
    # The numbers of a text stay on one line, so that a pull request shows what it changes.
    text = re.sub(
        r"\[[^][{}]*]", lambda match: " ".join(match[0].split()), json.dumps(record, indent=1)
    )
    write_files(path.parent, {path.name: text + "\n"})
    return path


def read(folder: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """Returns the records in a folder that can be compared, and a sentence on each of the others.

    Raises a ValueError if the record of RoPE, with which all are compared, is missing.
    """
    records, refused = [], []
    for path in sorted(folder.glob("*/result.json")):
        try:
            records.append(_read(path))
        except ValueError as error:
            refused.append(str(error))
    base = next((record for record in records if record["scheme"] == ROPE), None)
    if base is None:
        missing = f"{folder} has no record of {ROPE}, with which all others are compared"
        raise ValueError("; ".join([missing, *refused]))
    same = []
    for record in records:
        others = [f"{key} {record[key]}" for key in _SHARED if record[key] != base[key]]
        if _texts(record) != _texts(base):  # some texts are easier than others
            others.append("other texts")
        if others:
            said = f"{folder / record['scheme']} cannot be compared with {ROPE}: it has "
            refused.append(said + ", ".join(others))
        else:
            same.append(record)
    return same, refused


def _read(path: Path) -> dict[str, Any]:
    """Returns the record in a file, or raises a ValueError if it is none of this track."""
    record = read_json(path, _FIELDS)
    if record["track"] != TRACK:
        raise ValueError(
            f"{path} is of track {record['track']}, and this one is {TRACK}: run the track again"
        )
    if record["seeds"] != [*range(SEEDS)]:
        raise ValueError(f"{path} has the seeds {record['seeds']}, and the track 0 to {SEEDS - 1}")
    if not _has_all_losses(record):
        raise ValueError(
            f"{path} lacks losses: {', '.join(LOSSES.values())} must each have a number for each "
            "text and seed; run the track again"
        )
    if record["scheme"] != path.parent.name:  # a copy would count the scheme twice
        raise ValueError(
            f"{path} is a record of {record['scheme']}: a record lies in the folder of its "
            "scheme's name; move it there, or out of the records"
        )
    return record


def _has_all_losses(record: Mapping[str, Any]) -> bool:
    """Returns whether a record has a number for each protocol, text and seed."""
    for protocol in LOSSES.values():
        by_text = record["losses"].get(protocol)
        if not by_text or not isinstance(by_text, dict):
            return False
        for of_seeds in by_text.values():
            if not isinstance(of_seeds, list) or [*map(type, of_seeds)] != [float] * SEEDS:
                return False
    return True


def _texts(record: Mapping[str, Any]) -> dict[str, set[str]]:
    """Returns the names of a record's texts by protocol."""
    return {protocol: set(record["losses"][protocol]) for protocol in LOSSES.values()}


def _are_equal(losses: Any, others: Any) -> bool:
    """Returns whether losses are equal; a loss that is not finite equals another such one."""
    return json.dumps(losses, sort_keys=True) == json.dumps(others, sort_keys=True)


def table(records: Iterable[Mapping[str, Any]]) -> tuple[pd.DataFrame, str]:
    """Returns the leaderboard by scheme, best first, and how its verdicts were corrected.

    Schemes are ranked by the loss beyond the trained length. The columns are those fields of a
    record that are no lists; the mean losses ``trained``, ``beyond`` and ``window``, and of each
    kind of text, such as ``beyond of code``; ``vs_trained`` and the like, the verdicts of the first
    two against RoPE, and against RoPE through a window; and ``over``, the difference beyond the
    trained length, ``margin``, half of its 95 % interval, and its corrected ``p``.
    """
    records = list(records)
    losses_of = {
        name: pd.concat([_values(record, protocol) for record in records])
        for name, protocol in LOSSES.items()
    }
    window = losses_of["window"]
    windowed = window[window["scheme"] == ROPE].assign(scheme=WINDOWED)
    asked = {
        "trained": (losses_of["trained"], ROPE),
        "beyond": (pd.concat([losses_of["beyond"], windowed]), WINDOWED),
    }
    verdicts = [
        compared(_questions(values, name), against) for name, (values, against) in asked.items()
    ]
    told = {key for key, value in records[0].items() if not isinstance(value, (list, dict))}
    rows = pd.DataFrame([{key: r.get(key, "") for key in told} for r in records])
    rows = rows.set_index("scheme").assign(seeds=[len(record["seeds"]) for record in records])
    for name, values in losses_of.items():
        for question, of_question in _questions(values, name).groupby("question"):
            rows[question] = of_question.groupby("scheme")["value"].mean()
    judged = pd.concat(verdicts)
    for question, verdict in judged.groupby("question"):
        rows[f"vs_{question}"] = verdict.set_index("scheme")["verdict"]
    beyond = judged[judged["question"] == "beyond"].set_index("scheme")
    rows["over"], rows["margin"] = -beyond["difference"], beyond["margin"]
    rows["p"] = beyond["p_corrected"]
    return rows.sort_values("beyond"), statement(families(judged))


def questions(records: Iterable[Mapping[str, Any]], name: str) -> list[str]:
    """Returns the columns of ``table`` for one loss: of all texts, and of each kind of them."""
    of_each = [{text.split()[0] for text in record["losses"][BEYOND]} for record in records]
    return [name, *(f"{name} of {kind}" for kind in sorted(set.intersection(*of_each)))]


def _questions(values: pd.DataFrame, name: str) -> pd.DataFrame:
    """Returns losses as questions about all texts, and about each kind of them."""
    of_kinds = name + " of " + values["text"].str.split().str[0]
    asked = [
        values.assign(question=name, family="leaderboard"),
        values.assign(question=of_kinds, family="leaderboard, by kind"),
    ]
    return pd.concat(asked).assign(is_error=True)


def _values(record: Mapping[str, Any], protocol: str) -> pd.DataFrame:
    """Returns the losses of a record: ``scheme, seed, text, value``."""
    by_text = pd.DataFrame(record["losses"][protocol], index=record["seeds"])
    long = by_text.rename_axis("seed").reset_index().melt("seed", var_name="text")
    # A model may give no number at lengths that it was not trained at.
    value = long["value"].where(np.isfinite(long["value"]), np.inf)
    return long.assign(scheme=record["scheme"], value=value)
