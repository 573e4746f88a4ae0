"""Makes the tables of ``docs/multimodal.md``, from the archives of the results that there are."""

from pathlib import Path

from experiments.results import archive
from experiments.results.panels import Panel, PanelStudy
from experiments.results.reports import templates
from experiments.results.reports.markdown import markdown_table
from experiments.results.reports.panel_report import rows

TABLES = templates.tables("multimodal_tables")


def read(table: templates.Table, archives: Path) -> PanelStudy | None:
    """Returns the results of a table in a panel of their own, or None if there is no archive.

    Raises:
      ValueError: the archive lacks a column, or is damaged.
    """
    path = archives / f"{table.experiment}.tar.xz"
    if not path.exists():
        return None
    measured, records = archive.records(path), []
    for name, (condition, x) in table.columns.items():
        place = condition, table.metric, x
        column = [r for r in measured if (r["condition"], r["metric"], r["x"]) == place]
        if not column:
            raise ValueError(
                f"{path} has no {table.metric} of {condition} at {x}; make it of a run of "
                f"configs/{table.experiment}.py:small, or correct templates/tables.yaml"
            )
        records += [r | {"condition": table.heading, "x": name} for r in column]
    panel = Panel(table.heading, table.metric, "", tuple(table.columns), (), table.is_error)
    return PanelStudy(records, [], [], {}, [], (panel,))


def markdown(study: PanelStudy) -> str:
    """Returns the panel of a study as a table in Markdown, the best of each column in bold."""
    (panel,) = study.panels
    by_scheme = rows(study, panel).items()
    lines = [[f"`{scheme}`", *(cell.markdown for cell in row)] for scheme, row in by_scheme]
    return markdown_table(["scheme", *map(str, panel.xs)], lines)


def tables(archives: Path) -> dict[str, str]:
    """Returns the tables whose archives are in a folder, by their headings."""
    studies = {table.heading: read(table, archives) for table in TABLES}
    return {heading: markdown(study) for heading, study in studies.items() if study}
