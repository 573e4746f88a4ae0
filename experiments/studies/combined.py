"""Runs several experiments as one, each in its own folder, with one report on all of them."""

import abc
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict
from rich.console import Console

from experiments.registry import make_experiment
from experiments.results.environment import environment_of


class Studies(abc.ABC):
    """Runs the experiments in ``config.studies``; see ``make_experiment`` for the arguments.

    Each runs in a folder of its own in the workdir, one after the other. A study that several
    configs have is run only once if its name and the workdir are the same.
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

    def about(self, command: str) -> dict[str, Any]:
        """Returns what the first study says about how results were made, and where all were."""
        first, *_ = self.parts.values()
        runs = [run for part in self.parts.values() for run in part.finished_runs()]
        return first.about(command) | environment_of(runs)

    def setup(self, name: str) -> str:
        """Says how large the models of a study are, on what they were trained, and how long."""
        part = self.parts[name]
        recipe, model = part.recipe_of(part.points[0]), part.config["model"]
        if recipe is None:  # its checkpoint was given
            return "a model that was trained before"
        rates = sorted({point.rate for point in part.points if point.rate is not None})
        rate = f"a rate of {recipe.learning_rate:g}"
        if rates:
            rate = f"the best rate of {', '.join(f'{one:g}' for one in rates)} for each scheme"
        return (
            f"models of depth {model['num_layers']} and width {model['model_dim']}, trained by "
            f"{recipe.optimizer} at {rate} for {recipe.steps} steps of {recipe.batch_size} rows of "
            f"at most {recipe.length} tokens"
        )

    @abc.abstractmethod
    def write_report(self, command: str) -> Path:
        """Writes the report of all finished points and returns its path."""
