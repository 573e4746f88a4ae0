"""Reads what the points of a study have left in its workdir, for further runs and for reports."""

import abc
import dataclasses
import datetime
import math
from pathlib import Path
from typing import Any

from experiments.results.environment import each_once, environment_of
from experiments.results.record import RefusedError, agreed, as_json, read_json, read_lines
from experiments.results.seal import read_finished
from experiments.running.points import Point
from experiments.training.corpus import Corpus
from experiments.training.recipe import RULES

# The name that a config has for the digest of its data.
DATA = "corpus_digest"
# The fields that ``evaluation.json`` must have in every study.
EVALUATION = {"config": dict, "training": dict}


class Finished(abc.ABC):
    """Holds the results of a study's points; ``Study`` makes them.

    The results of a point that lacks nothing do not change any more, so they are read once.
    """

    points: list[Point]

    def __init__(self, config: dict[str, Any], workdir: Path):
        self.config, self.workdir = config, workdir
        self._whole: dict[Point, tuple[dict[str, Any], dict[str, Any]]] = {}
        self._curves: dict[Point, list[tuple[int, float]]] = {}

    @abc.abstractmethod
    def describe(self, point: Point) -> dict[str, Any]:
        """Returns all settings that decide what is trained."""

    @abc.abstractmethod
    def describe_evaluation(self, point: Point) -> dict[str, Any]:
        """Returns all settings that decide the results of an evaluation."""

    def folder(self, point: Point) -> Path:
        """Returns the folder of a point's run."""
        return self.workdir / "runs" / point.name

    def finished(self, point: Point) -> dict[str, Any] | None:
        """Returns the results of a point, or None if it has none under this config.

        The results may lack extensions that the config asks for by now, see ``missing_in``. They
        may be of other data with the same name, such as the sources of another Python;
        ``corpus_digest`` shows that, and ``check_data`` refuses to add to them.
        """
        files = self.files(point)
        return files and files[0]

    def files(self, point: Point) -> tuple[dict[str, Any], dict[str, Any]] | None:
        """Returns what ``finished`` does, and the content of ``run.json``, or None."""
        if point in self._whole:
            return self._whole[point]
        files = self._read(point)
        if files is not None and not missing_in(files[0], point):
            self._whole[point] = files
        return files

    def _read(self, point):
        files = read_finished(self.folder(point), EVALUATION)
        if files is None:
            return None
        evaluation, run = files
        try:
            evaluated = dataclasses.replace(point, extensions=_extensions_in(evaluation, point))
            if "extend" in evaluation["config"]:  # without extensions that are not asked for
                old = evaluation["config"]["extend"]
                extend = {name: old[name] for name in evaluated.extensions}
                evaluation |= of_schemes(evaluation, evaluated.schemes)
                evaluation["config"] = evaluation["config"] | {"extend": extend}
            configs = (evaluation, self.describe_evaluation(evaluated)), (run, self.describe(point))
            same = all(_but_for_data(old["config"]) == _but_for_data(new) for old, new in configs)
            return (evaluation, run) if same else None
        except ValueError:  # the point that this one starts from is missing
            return None

    def is_done(self, point: Point) -> bool:
        """Returns whether nothing is left to run: missing extensions need the point's checkpoint.

        Results that were restored from an archive have no checkpoints, and stay as they are.
        """
        if not (finished := self.finished(point)):
            return False
        has_checkpoint = agreed((self.folder(point) / "checkpoints").exists)
        return not (has_checkpoint and missing_in(finished, point))

    def failure(self, point: Point) -> dict[str, Any] | None:
        """Returns the scheme and the seed of a point that failed and the reason, or None."""
        try:
            record = read_json(self.folder(point) / "failure.json", {"reason": str})
        except ValueError as error:  # it is damaged, and says that there was a failure
            record = {"reason": str(error)}
        return record and {"scheme": point.label, "seed": point.seed, "reason": record["reason"]}

    def check_data(self) -> None:
        """Raises a ValueError if a finished run was trained on other data of the same name."""
        for point in self.points:
            if not (files := self.files(point)):
                continue
            (_, run), here = files, self.describe(point).get(DATA)
            if run["config"].get(DATA) != here:
                raise RefusedError(
                    f"{self.folder(point)} was trained on other data of the same name: digest "
                    f"{run['config'].get(DATA)}, and here it is {here}. Where it is the sources of "
                    f"Python, go on with Python {run['versions'].get('python')}, or give another "
                    "--workdir; --report shows what is there"
                )

    def chosen(self) -> list[Point]:
        """Returns the points that reports are about: of several rates, those of the best."""
        rates = self.rates()
        best = {label: min(losses, key=losses.__getitem__) for label, losses in rates.items()}
        return [point for point in self.points if point.rate == best.get(point.label)]

    def evaluations(self) -> list[dict[str, Any]]:
        """Returns the results of all chosen points that are finished."""
        return [finished for point in self.chosen() if (finished := self.finished(point))]

    def all_of(self, key: str) -> list[dict[str, Any]]:
        """Returns what all evaluations have in their lists ``key``, as one list."""
        return [one for evaluation in self.evaluations() for one in evaluation[key]]

    def costs(self) -> list[dict[str, Any]]:
        """Returns what the training of each chosen point has cost, once for each of its schemes.

        A cost has ``scheme``, and ``trained``, the scheme of its checkpoint. A model that was given
        has none.
        """
        finished = [(p, evaluation) for p in self.chosen() if (evaluation := self.finished(p))]
        return [
            evaluation["training"] | {"scheme": scheme, "trained": point.label}
            for point, evaluation in finished
            for scheme in (point.label, *_extensions_in(evaluation, point))
            if evaluation["training"]["tokens"]
        ]

    def failures(self) -> list[dict[str, Any]]:
        """Returns the scheme, the seed and the reason of each chosen point that failed."""
        unfinished = [point for point in self.chosen() if not self.finished(point)]
        return [failure for point in unfinished if (failure := self.failure(point))]

    def rates(self, only: str | None = None) -> dict[str, dict[float, float]]:
        """Returns the final training loss of each scheme, or one, by the learning rate.

        The loss is the mean over seeds, and over the last tenth of the logged steps. It is infinite
        if a seed is not finished, or has lost its lines.
        """
        losses: dict[str, dict[float, list[float]]] = {}
        for point in self.points:
            if point.rate is not None and only in (None, point.label):
                curve = self.curve(point) if self.finished(point) else []
                last = [loss for _, loss in curve[-max(1, len(curve) // 10) :]]
                final = sum(last) / len(last) if last else math.inf
                losses.setdefault(point.label, {}).setdefault(point.rate, []).append(final)
        return {
            label: {rate: sum(of_seeds) / len(of_seeds) for rate, of_seeds in of_label.items()}
            for label, of_label in losses.items()
        }

    def curve(self, point: Point) -> list[tuple[int, float]]:
        """Returns the training loss of a finished point at each step that was logged."""
        if point not in self._curves:
            lines = read_lines(self.folder(point) / "metrics.jsonl")
            self._curves[point] = [(line["step"], line["loss"]) for line in lines]
        return self._curves[point]

    def about(self, command: str) -> dict[str, Any]:
        """Returns what every report says about how its results were made."""
        return environment_of(self.finished_runs()) | {
            "rates": self.rates(),
            "command": command,
            "config": as_json(self.config),
            "date": datetime.date.today().isoformat(),
            "rules": RULES,
        }

    def finished_runs(self) -> list[dict[str, Any]]:
        """Returns the ``run.json`` of each finished run."""
        return [files[1] for point in self.points if (files := self.files(point))]

    def about_corpus(self, corpus: Corpus) -> dict[str, str]:
        """Returns what reports say about the corpus.

        The digests are of the data of all finished runs; without any, of the data here.
        """
        digests = [run["config"].get(DATA) for run in self.finished_runs()]
        return corpus.described | {DATA: each_once(filter(None, digests)) or corpus.digest}

    def holes(self) -> list[str]:
        """Returns a line for each finished point that lacks extensions of the config."""
        return [
            f"{point.name} lacks {', '.join(missing)}"
            for point in self.points
            if (finished := self.finished(point)) and (missing := missing_in(finished, point))
        ]


def missing_in(finished: dict[str, Any] | None, point: Point) -> tuple[str, ...]:
    """Returns the extensions of a point that its results lack; all where there are no results."""
    has = _extensions_in(finished, point) if finished else ()
    return tuple(name for name in point.extensions if name not in has)


def _extensions_in(evaluation: dict[str, Any], point: Point) -> tuple[str, ...]:
    """Returns those extensions of a point that an evaluation has been made for."""
    made = evaluation["config"].get("extend", point.extensions)
    return tuple(name for name in point.extensions if name in made)


def of_schemes(evaluation: dict[str, Any], schemes: tuple[str, ...]) -> dict[str, Any]:
    """Returns the lists of an evaluation with the records of some schemes alone."""
    lists = {key: value for key, value in evaluation.items() if isinstance(value, list)}
    return {key: [r for r in records if r["scheme"] in schemes] for key, records in lists.items()}


def _but_for_data(config: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in as_json(config).items() if key != DATA}
