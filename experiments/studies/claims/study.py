"""Tests published claims: runs the studies that they need, and decides."""

import numpy as np
import pandas as pd

from experiments.evaluation import mechanisms
from experiments.results import archive
from experiments.results.ledger import RULE, Answers, measured, tested
from experiments.results.record import write_files
from experiments.results.statistics import with_margin
from experiments.results.table import Table
from experiments.studies.claims import CLAIMS
from experiments.studies.claims.effects import PROBED
from experiments.studies.combined import Studies
from experiments.studies.ladder import Rung

VERDICTS = "verdicts.csv"


class Claims(Studies):
    """Runs the studies that claims need besides the atlas' own; see ``configs/claims.py``."""

    title = "Published claims"
    folder_of_report = "claims"  # the workdir is that of the atlas too: both read the same study

    def _measured(self) -> tuple[pd.DataFrame, list[str]]:
        records = {
            name: [
                {"seed": run["training"]["seed"]} | record
                for run in part.evaluations()
                for record in run["records"] + (run["probes"] if name == PROBED else [])
            ]
            for name, part in self.parts.items()
        }
        filled_by = {
            name: command.format(workdir=self.workdir)
            for name, command in self.config["read"].items()
        }
        records |= {name: archive.measured(self.workdir / name) for name in filled_by}
        return measured(CLAIMS, Answers(records, filled_by))

    def frame(self):
        """Returns the numbers of all claims; their schemes are the names of claims."""
        return self._measured()[0]

    def holes(self):
        return [*super().holes(), *self._measured()[1]]

    def tables(self, frame, comparisons):
        numbers = tested(CLAIMS, frame)
        return [claims_table(numbers), sayings_table(numbers), numbers_table(numbers)]

    def write_report(self, command):
        verdicts = tested(CLAIMS, self.frame()).to_csv(index=False, float_format="%.6g")
        write_files(self.workdir / self.folder_of_report, {VERDICTS: verdicts})
        return super().write_report(command)


def claims_table(numbers: pd.DataFrame) -> Table:
    """Returns the verdict on each claim."""
    columns = ["claim_verdict", "claim_after_correction", "paper"]
    words = numbers.groupby("claim", sort=False)[columns].first()
    heads = dict(zip(columns, ("verdict", "after correction", "paper"), strict=True))
    return Table("Published claims", words.rename(columns=heads), RULE)


def sayings_table(numbers: pd.DataFrame) -> Table:
    """Returns what each claim says, and at what scale it was made."""
    words = numbers.groupby("claim", sort=False)[["claim_says", "made_at"]].first()
    heads = {"claim_says": "it says", "made_at": "made at"}
    return Table("What the papers claim", words.rename(columns=heads))


def numbers_table(numbers: pd.DataFrame) -> Table:
    """Returns the numbers behind the verdicts."""
    ranges = zip(numbers["low"], numbers["high"], strict=True)
    cells = pd.DataFrame(
        {
            "number": numbers["says"],
            "range": [f"{low:g} to {high:g}" for low, high in ranges],
            "mean": list(map(with_margin, numbers["mean"], numbers["margin"])),
            "verdict": numbers["verdict"],
        }
    ).set_index(numbers["claim"])
    return Table("The numbers of each claim", cells)


class Probed(Rung):
    """Is a rung that also records ``mechanisms.measured``, for each seed."""

    def evaluate(self, point, model):
        evaluation = super().evaluate(point, model)
        length = self.recipe.length
        windows_NL = np.concatenate([texts[:, : length + 1] for texts in self.documents.values()])
        who = {"scheme": point.scheme, "seed": point.seed}
        return evaluation | {
            "probes": [who | row for row in mechanisms.measured(model, windows_NL)]
        }
