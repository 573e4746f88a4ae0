"""Tests published claims, and writes the ledger of verdicts."""

import dataclasses

import numpy as np

from experiments.evaluation.mechanisms import measured
from experiments.results import archive, ledger
from experiments.results.reports import ledger_page
from experiments.results.statistics import BASELINE, Study
from experiments.studies.claims import claims_of
from experiments.studies.claims.token_order import CAUSAL, order_study
from experiments.studies.combined import Studies
from experiments.studies.ladder import Rung
from posenc_jax import REGISTRY


class Claims(Studies):
    """Runs the studies that claims need besides the atlas' own; see ``configs/claims.py``."""

    def write_report(self, command):
        studies = {name: part.study(command) for name, part in self.parts.items()}
        read = self.config["read"]
        read = {name: fills.format(workdir=self.workdir) for name, fills in read.items()}
        for name, fills in read.items():
            records = archive.measured(self.workdir / name)
            studies[name] = Study(records, [], [], {"command": fills})
        # The schemes of the atlas that were trained; any others wait until they are.
        trained = {record["scheme"] for record in studies["language"].records}
        seeing = [name for name in REGISTRY if name in trained.difference((BASELINE, *CAUSAL))]
        studies["order"] = order_study(seeing, seeds=self.config["seeds"])
        setup = {name: self.setup(name) for name in self.parts}
        setup |= {name: f"results of {fills}" for name, fills in read.items()}
        about = self.about(command) | {"setup": setup}
        del about["config"]
        rows = ledger.ledger_of(claims_of(seeing), studies)
        ledger_page.print_ledger(rows, self.console)
        return ledger_page.write(self.workdir / "claims", rows, about)


class Probed(Rung):
    """Is a rung that also records ``mechanisms.measured``, for each seed."""

    def evaluate(self, point, model):
        evaluation = super().evaluate(point, model)
        length = self.recipe.length
        windows_NL = np.concatenate([texts[:, : length + 1] for texts in self.documents.values()])
        who = {"scheme": point.scheme, "seed": point.seed}
        return evaluation | {"probes": [who | row for row in measured(model, windows_NL)]}

    def study(self, command):
        study = super().study(command)
        probes = self.all_of("probes")
        return dataclasses.replace(study, records=study.records + probes)
