"""Runs several experiments as one, each in its own folder, with one report on all of them."""

from pathlib import Path
from typing import Any

import pandas as pd
from ml_collections import ConfigDict
from rich.console import Console

from experiments.registry import make_experiment
from experiments.results.environment import environment_of
from experiments.results.report import Reported


class Studies(Reported):
    """Runs the experiments in ``config.studies``; see ``make_experiment`` for the arguments.

    Each runs in a folder of its own in the workdir, one after the other. A study that several
    configs have is run only once if its name and the workdir are the same. The report says nothing
    of costs, because the models of several studies have different sizes.
    """

    def __init__(self, config: ConfigDict, workdir: Path, console: Console):
        self.config = config.to_dict()
        self.workdir = workdir
        self.console = console
        self.parts: dict[str, Any] = {}
        for name, study in config.studies.items():
            try:
                self.parts[name] = make_experiment(study, workdir / name, console)
            except ValueError as error:
                raise ValueError(f"studies.{name}: {error}") from error

    def frame(self) -> pd.DataFrame:
        """Returns the results of all studies as one tidy table."""
        frames = [part.frame().assign(study=name) for name, part in self.parts.items()]
        return pd.concat([f for f in frames if len(f)] or frames[:1], ignore_index=True)

    def about(self, command: str) -> dict[str, Any]:
        """Returns what the first study says about how results were made, and where all were."""
        first, *_ = self.parts.values()
        runs = [run for part in self.parts.values() for run in part.finished_runs()]
        return first.about(command) | environment_of(runs) | {"config": self.config, "rates": {}}

    def extensions(self) -> set[str]:
        """Returns the schemes that read a model which another scheme has trained."""
        points = (point for part in self.parts.values() for point in part.points)
        return {name for point in points for name in point.extensions}

    def failures(self) -> list[dict[str, Any]]:
        """Returns the runs that failed, each with the name of its study."""
        return [
            failure | {"scheme": f"{name}: {failure['scheme']}"}
            for name, part in self.parts.items()
            for failure in part.failures()
        ]

    def holes(self) -> list[str]:
        """Returns what finished runs lack."""
        return [f"{name}: {words}" for name, part in self.parts.items() for words in part.holes()]
