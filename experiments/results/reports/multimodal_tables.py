"""Makes the tables of ``docs/multimodal.md``, from the archives of the results that there are."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from experiments.results import archive
from experiments.results.panels import Panel, PanelStudy, X
from experiments.results.reports import templates
from experiments.results.reports.markdown import markdown_table
from experiments.results.reports.panel_report import rows


@dataclasses.dataclass(frozen=True)
class Table:
    """Describes a table of some columns that an experiment has measured.

    Attributes:
      experiment: the name of the experiment and of its archive.
      heading: the heading above the table.
      metric: the metric of all columns.
      columns: the condition and the x of each column, by its name. The scheme that is best in the
        last one comes first.
      is_error: whether lower is better.
    """

    experiment: str
    heading: str
    metric: str
    columns: Mapping[str, tuple[str, X]]
    is_error: bool = False

    def read(self, archives: Path) -> PanelStudy | None:
        """Returns the results in a panel of their own, or None if there is no archive.

        Raises:
          ValueError: the archive lacks a column, or is damaged.
        """
        path = archives / f"{self.experiment}.tar.xz"
        if not path.exists():
            return None
        measured = archive.records(path)
        panel = Panel(self.heading, self.metric, "", tuple(self.columns), (), self.is_error)
        records = []
        for name, (condition, x) in self.columns.items():
            place = condition, self.metric, x
            column = [r for r in measured if (r["condition"], r["metric"], r["x"]) == place]
            if not column:
                raise ValueError(
                    f"{path} has no {self.metric} of {condition} at {x}; make it of a run of "
                    f"configs/{self.experiment}.py:small, or correct templates/tables.yaml"
                )
            records += [r | {"condition": self.heading, "x": name} for r in column]
        return PanelStudy(records, [], [], {}, [], (panel,))


TABLES = [Table(**fields) for fields in templates.tables("multimodal_tables")]


def markdown(study: PanelStudy) -> str:
    """Returns the panel of a study as a table in Markdown, the best of each column in bold."""
    (panel,) = study.panels
    by_scheme = rows(study, panel).items()
    lines = [[f"`{scheme}`", *(cell.markdown for cell in row)] for scheme, row in by_scheme]
    return markdown_table(["scheme", *map(str, panel.xs)], lines)


def tables(archives: Path) -> dict[str, str]:
    """Returns the tables whose archives are in a folder, by their headings."""
    studies = {table.heading: table.read(archives) for table in TABLES}
    return {heading: markdown(study) for heading, study in studies.items() if study}
