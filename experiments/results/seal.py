"""Seals the results of a run, so that changed files and files of other runs are noticed.

``evaluation.json`` names the SHA-256 of ``metrics.jsonl``. Its ``seal`` is the digest of everything
else in it together with the run's config.
"""

import functools
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from absl import logging

from experiments.results.record import (
    RefusedError,
    agreed,
    json_digest,
    read_json,
    read_run,
    write_json,
)

_FILE, _SEAL, _METRICS = "evaluation.json", "seal", "metrics.jsonl"


def write_evaluation(folder: Path, evaluation: Mapping[str, Any]) -> None:
    """Writes the ``evaluation.json`` of the run in ``folder``, with its seal."""
    write_json(folder / _FILE, sealed(evaluation, read_run(folder) or {}, _metrics(folder)))


def sealed(
    evaluation: Mapping[str, Any], run: Mapping[str, Any], metrics: str | None
) -> dict[str, Any]:
    """Returns an evaluation with a new seal.

    ``run`` is the content of ``run.json``, and ``metrics`` the SHA-256 of ``metrics.jsonl``, or
    None for a model that was not trained here.
    """
    content = {key: value for key, value in evaluation.items() if key != _SEAL}
    content[_METRICS] = metrics
    return content | {_SEAL: json_digest([content, run.get("config")])}


def read_evaluation(
    folder: Path, fields: Mapping[str, type], run: Mapping[str, Any]
) -> dict[str, Any] | None:
    """Returns the ``evaluation.json`` in ``folder`` without its seal, or None if there is none.

    The file must have ``fields`` of these types, and ``run`` is the content of ``run.json`` beside
    it. Raises a ValueError if the file is damaged, has no seal, was changed, or belongs to another
    run or other metrics.
    """
    evaluation = read_json(folder / _FILE, fields)
    if evaluation is None:
        return None
    metrics = evaluation.get(_METRICS)
    if evaluation != sealed(evaluation, run, metrics):
        raise ValueError(
            f"{folder / _FILE} was changed, belongs to another run than the run.json beside it, or "
            "is of an earlier version"
        )
    if metrics != _metrics(folder):
        raise ValueError(f"{folder / _METRICS} is not the file that the evaluation knows")
    return {key: evaluation[key] for key in evaluation if key not in (_SEAL, _METRICS)}


def read_finished(
    folder: Path, fields: Mapping[str, type]
) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """Returns the ``evaluation.json`` and the ``run.json`` in ``folder``, or None without both.

    A file that is refused counts as missing, with a warning.
    """
    try:
        run = read_run(folder)
        evaluation = None if run is None else read_evaluation(folder, fields, run)
    except ValueError as error:
        _say_once(f"{error}: its results are not used")
        return None
    return None if run is None or evaluation is None else (evaluation, run)


def check_metrics(folder: Path) -> None:
    """Raises a RefusedError if a finished run has lost its metrics, or has others.

    An evaluation can be made again, and metrics cannot.
    """
    try:
        evaluation = read_json(folder / _FILE, {_SEAL: str}) or {}
    except ValueError:  # damaged, or without a seal
        return
    if _METRICS in evaluation and evaluation[_METRICS] != _metrics(folder):
        raise RefusedError(
            f"{folder / _METRICS} is not the file that this run wrote: put it back, or delete the "
            "folder to train again"
        )


@functools.cache
def _say_once(sentence: str) -> None:
    logging.warning(sentence)


def _metrics(folder: Path) -> str | None:
    def digest():
        try:
            return hashlib.sha256((folder / _METRICS).read_bytes()).hexdigest()
        except FileNotFoundError:  # a model that was given has none
            return None

    return agreed(digest)
