"""Tests published claims, and writes the ledger of verdicts.

python launch.py --config=configs/claims.py:small --workdir=runs/answers
"""

from experiments.results import archive, ledger
from experiments.results.reports import ledger_page
from experiments.results.statistics import Study
from experiments.studies.claims import CLAIMS
from experiments.studies.claims.tasks import SEEING
from experiments.studies.combined import Studies
from experiments.studies.order_sensitivity import order_study


class Claims(Studies):
    """Runs the studies that claims need besides the atlas' own; see ``configs/claims.py``."""

    def write_report(self, command):
        studies = {name: part.study(command) for name, part in self.parts.items()}
        read = self.config["read"]
        read = {name: fills.format(workdir=self.workdir) for name, fills in read.items()}
        for name, fills in read.items():
            records = archive.measured(self.workdir / name)
            studies[name] = Study(records, [], [], {"command": fills})
        chosen = [name.strip() for name in self.config["schemes"].split(",")]
        seeing = [name for name in SEEING if name in chosen]
        studies["order"] = order_study(seeing, seeds=self.config["seeds"])
        about = next(iter(self.parts.values())).about(command) | self.environment()
        setup = {name: self.setup(name) for name in self.parts}
        setup |= {name: f"results of {fills}" for name, fills in read.items()}
        about |= {"config": self.config, "setup": setup}
        rows = ledger.ledger_of(CLAIMS, studies)
        ledger_page.print_ledger(rows, self.console)
        return ledger_page.write(self.workdir / "claims", rows, about)
