"""Tests every scheme on every question, in language and in tasks."""

import pandas as pd

from experiments.results import lengths, panels, table
from experiments.results.comparisons import compared, margins, marks
from experiments.results.table import Table, grid, select
from experiments.studies.combined import Studies

_PARAMETERS = "parameters"


class Atlas(Studies):
    """Runs a comparison on text, one on tasks, and the controls; see ``configs/atlas.py``.

    Losses of texts, through a window too, are compared with those of RoPE through a window of the
    trained length, and shares of right answers in rows longer than in training with RoPE's. A task
    counts only for schemes that have learned it.
    """

    title = "Every scheme on every question"
    folder_of_report = "atlas"  # the workdir is that of the claims too: both read the same studies

    def frame(self):
        language = self.parts["language"]
        rows = [
            dict(scheme=cost["scheme"], seed=cost["seed"], measure=_PARAMETERS, unit=_PARAMETERS)
            | dict(x=1, value=cost["parameters"])
            for cost in language.costs()
        ]
        frames = [language.frame().assign(study="language"), table.tidy("language", rows)]
        frames += [
            panels.tidy(name, part.all_of("records"))
            for name, part in self.parts.items()
            if name != "language"
        ]
        return pd.concat([frame for frame in frames if len(frame)], ignore_index=True)

    def comparisons(self, frame):
        text = self.parts["language"].comparisons(select(frame, study="language"))
        tasks = panels.learned(select(frame, study="tasks"))
        longer = tasks[tasks["x"] > tasks["x"].min()].assign(family="tasks", is_error=False)
        tables = [text, compared(longer, "rope", self.extensions())]
        return pd.concat([table for table in tables if len(table)] or tables, ignore_index=True)

    def tables(self, frame, comparisons):
        text, compared = select(frame, study="language"), select(comparisons, study="language")
        last, shown = select(text, measure="last"), self.parts["language"].shown
        tables = [shown.main(text, compared, split) for split in last["split"].unique()]
        tables += [gains_table(text, compared)] if len(last) else []
        tasks = select(frame, study="tasks")
        is_any = len(panels.learned(tasks)) > 0
        return [*tables, panels.solved_table(tasks)] if is_any else tables

    def figures(self, frame):
        text = select(frame, study="language")
        return self.parts["language"].figures(text) if (text["measure"] == "last").any() else {}


def gains_table(text: pd.DataFrame, comparisons: pd.DataFrame) -> Table:
    """Returns by how much longer contexts lower the loss, of each split."""

    def as_columns(table):
        return table.assign(x=table["split"] + table["x"].map(" {:g}x".format))

    shown, verdicts = as_columns(lengths.gains(text)), select(comparisons, measure="gain")
    verdicts = as_columns(verdicts)
    return grid(
        shown,
        "Gain from more context, in bits per byte",
        is_error=False,
        marks=marks(verdicts),
        margins=margins(verdicts),
        caption="By how much the loss of the last tokens is lower than that of the same model when "
        "it sees no more tokens before them than in training. ▲ better and ▼ worse than no gain.",
    )
