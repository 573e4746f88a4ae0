"""Trains models on one task each until they have learned it, for several tasks.

python launch.py --config=configs/learned.py:small --workdir=runs/learned
"""

import pandas as pd

from experiments.results.learning import rows_of
from experiments.results.reports import learned_page
from experiments.studies.combined import Studies


class Learned(Studies):
    """Runs a study for each task; see ``configs/learned.py``."""

    def write_report(self, command):
        rows = [
            row
            for name, part in self.parts.items()
            for row in rows_of(name, part.learned.name, part.results()[0])
        ]
        if not rows:
            raise ValueError("no study has any result yet: there is nothing to report")
        values = pd.DataFrame(rows)
        summaries = {name: part.summary for name, part in self.parts.items()}
        about = next(iter(self.parts.values())).about(command) | self.environment()
        learned_page.print_tables(values, self.console)
        return learned_page.write(self.workdir, values, summaries, about)
