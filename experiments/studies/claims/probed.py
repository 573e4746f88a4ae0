"""Compares schemes as a rung of the ladder does, and looks into the models of all seeds."""

import dataclasses

import numpy as np

from experiments.evaluation.mechanisms import measured
from experiments.studies.ladder.study import Rung


class Probed(Rung):
    """Is a rung whose records have those of ``mechanisms.measured`` too, for each seed."""

    def evaluate(self, point, model):
        evaluation = super().evaluate(point, model)
        length = self.recipe.length
        windows_NL = np.concatenate([texts[:, : length + 1] for texts in self.documents.values()])
        who = {"scheme": point.scheme, "seed": point.seed}
        return evaluation | {"probes": [who | row for row in measured(model, windows_NL)]}

    def study(self, command):
        study = super().study(command)
        evaluations, _, _ = self.results()
        probes = [row for evaluation in evaluations for row in evaluation["probes"]]
        return dataclasses.replace(study, records=study.records + probes)
