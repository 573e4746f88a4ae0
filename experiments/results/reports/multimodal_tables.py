"""Writes the tables of ``docs/multimodal.md`` anew, from archives of the results.

    python -m experiments.results.reports.multimodal_tables

The tables are the first ones below their headings. The text around them stays as it is, and so does
a table whose archive is missing. ``experiments.results.archive`` makes the archives.
"""

import dataclasses
import re
import sys
from pathlib import Path

from experiments.command import exit_status
from experiments.results import archive
from experiments.results.panels import Panel, PanelStudy, X
from experiments.results.record import write_files
from experiments.results.reports.page import markdown_table
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
    columns: dict[str, tuple[str, X]]
    is_error: bool = False

    def topic(self, column: X) -> str:
        """Returns the name of a column that no column of another table has."""
        return f"{self.heading.lower()}, {column}"

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
                    f"configs/{self.experiment}.py:small, or correct TABLES in multimodal_tables.py"
                )
            records += [r | {"condition": self.heading, "x": name} for r in column]
        return PanelStudy(records, [], [], {}, [], (panel,))


TABLES = (
    Table(
        "images",
        "Images",
        "accuracy",
        {
            "28": ("pasted", 28),
            "rescaled 42": ("rescaled", 42),
            "rescaled 84": ("rescaled", 84),
            "pasted 42": ("pasted", 42),
            "pasted 56": ("pasted", 56),
            "pasted 84": ("pasted", 84),
        },
    ),
    Table(
        "pointing",
        "Pointing",
        "accuracy",
        {
            "1 up, 8 x 8": ("1 up", "8 x 8"),
            "1 up, 16 x 16": ("1 up", "16 x 16"),
            "place, 8 x 8": ("place", "8 x 8"),
            "place, 8 x 16": ("place", "8 x 16"),
            "place, 16 x 8": ("place", "16 x 8"),
            "place, 16 x 16": ("place", "16 x 16"),
        },
    ),
    Table(
        "video",
        "Video",
        "accuracy",
        {
            "32 frames": ("length", 32),
            "64 frames": ("length", 64),
            "128 frames": ("length", 128),
            "128, gap 12": ("gap, 128 frames", 12),
            "128, gap 35": ("gap, 128 frames", 35),
            "128, gap 53": ("gap, 128 frames", 53),
            "128, gap 106": ("gap, 128 frames", 106),
        },
    ),
    Table(
        "story",
        "Story time",
        "error in frame widths",
        {
            "1x": ("pace", "1x"),
            "4x": ("pace", "4x"),
            "backwards": ("warp", "reverse"),
            "with pauses": ("warp", "pause"),
            "random": ("warp", "random"),
            "from time 64": ("later in the story", 64),
            "from time 256": ("later in the story", 256),
        },
        is_error=True,
    ),
)


def markdown(study: PanelStudy) -> str:
    """Returns the panel of a study as a table in Markdown, the best of each column in bold."""
    (panel,) = study.panels
    by_scheme = rows(study, panel).items()
    lines = [[f"`{scheme}`", *(cell.markdown for cell in row)] for scheme, row in by_scheme]
    return markdown_table(["scheme", *map(str, panel.xs)], lines)


def rewritten(page: str, heading: str, table: str) -> str:
    """Returns a page with the first table below a heading replaced by another.

    Raises:
      ValueError: the page has no such table.
    """
    # Lines between the heading and the table begin neither a table nor another section. What was
    # compared in a table is said below it.
    table_and_families = r"(?:\|.*\n)+(?:\nFamilies of comparisons(?:.+\n)+)?"
    place = re.compile(rf"(\n##+ {re.escape(heading)}\n(?:(?![|#]).*\n)*){table_and_families}")
    text, count = place.subn(lambda match: match[1] + table, page, count=1)
    if not count:
        raise ValueError(
            f"the page has no table below {heading!r}; add one, of any content, or correct the "
            "heading in the program that writes the table"
        )
    return text


@exit_status
def main() -> None:
    page = Path("docs/multimodal.md")
    text = page.read_text()
    for table in TABLES:
        if study := table.read(Path("docs/data")):
            text = rewritten(text, table.heading, markdown(study))
    write_files(page.parent, {page.name: text})
    print(f"tables: {page}")


if __name__ == "__main__":
    sys.exit(main())
