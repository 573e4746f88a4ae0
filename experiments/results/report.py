"""Writes the report of a study: one page for every kind, ``report.html``, and its numbers.

A study is a subclass of ``Reported``. ``page`` makes other pages that look the same.
"""

import abc
import base64
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import pandas as pd
from matplotlib.figure import Figure
from rich.console import Console
from rich.text import Text

from experiments.results import comparisons as compare
from experiments.results import drawing
from experiments.results.record import write_files
from experiments.results.statistics import number
from experiments.results.table import FILE, Table, packed

_PAGE = Path(__file__).with_name("page.html")
COMPARISONS = "comparisons.csv"
_COSTS = ["parameters", "steps", "tokens", "seconds", "final_loss"]


class Reported(abc.ABC):
    """Has a report: a study, or several studies together.

    Attributes:
      title: the heading of the page.
      workdir: the folder of the runs.
      console: where its first table is printed.
      folder_of_report: the folder of its report within the workdir, by default the workdir itself.
    """

    title: str
    workdir: Path
    console: Console
    folder_of_report = ""

    @abc.abstractmethod
    def frame(self) -> pd.DataFrame:
        """Returns all that was measured as a tidy table, see ``table.py``."""

    @abc.abstractmethod
    def about(self, command: str) -> dict[str, Any]:
        """Returns how the results were made."""

    @abc.abstractmethod
    def failures(self) -> list[dict[str, Any]]:
        """Returns the scheme, the seed and the reason of each run that failed."""

    @abc.abstractmethod
    def holes(self) -> list[str]:
        """Returns a line for each run that lacks a part of what the config asks for."""

    def comparisons(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Returns comparisons of schemes, as ``comparisons.compared`` does; by default none."""
        return pd.DataFrame()

    def tables(self, frame: pd.DataFrame, comparisons: pd.DataFrame) -> list[Table]:
        """Returns the tables that are shown, by default none; the first one is printed too."""
        return []

    def figures(self, frame: pd.DataFrame) -> dict[str, Figure]:
        """Returns the figures that are shown by file names without ending, by default none."""
        return {}

    def costs(self) -> list[dict[str, Any]]:
        """Returns what each training has cost; by default nothing is told."""
        return []

    def write_report(self, command: str) -> Path:
        """Prints and writes the report of all that is finished, and returns its path."""
        return write(self, command)


class Section(NamedTuple):
    """Holds a part of a page; what is empty is left out.

    Attributes:
      title: its heading.
      text: a paragraph.
      code: a text with lines as they are.
      items: a list.
      html: a table, as HTML.
      figure: a drawing.
      caption: a small paragraph below.
      is_folded: whether readers unfold it.
    """

    title: str = ""
    text: str = ""
    code: str = ""
    items: Sequence[str] = ()
    html: str = ""
    figure: str = ""
    caption: str = ""
    is_folded: bool = False


def page(title: str, sections: Iterable[Section]) -> str:
    """Returns a page that stands alone."""
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(_PAGE.read_text()).render(title=title, sections=sections)


def section_of(shown: Table) -> Section:
    """Returns a table as a part of a page."""
    return Section(shown.title, html=shown.html(), caption=shown.caption)


def drawn(svg: str, title: str = "", caption: str = "") -> Section:
    """Returns a drawing as a part of a page."""
    source = "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode()
    return Section(title, figure=source, caption=caption)


def write(study: Reported, command: str) -> Path:
    """Prints the first table of a study, writes its report, and returns the path of the page.

    Beside the page are ``results.csv.gz``, ``comparisons.csv`` and the figures. Raises a ValueError
    if there is nothing to report, or if two records claim the same measurement.
    """
    frame, failures = study.frame(), study.failures()
    if frame.empty and not failures:
        raise ValueError(
            "no point has a result, so there is nothing to report: the same command with --status "
            "says what each point waits for"
        )
    comparisons = study.comparisons(frame) if len(frame) else pd.DataFrame()
    tables = study.tables(frame, comparisons) if len(frame) else []
    with drawing.style():
        figures = study.figures(frame) if len(frame) else {}
        svgs = {name: drawing.svg(figure) for name, figure in figures.items()}
    about = study.about(command)
    failed = ["{scheme}, seed {seed}: {reason}".format(**failure) for failure in failures]
    for words in failed:
        study.console.print(Text(f"failed: {words}", "red"))
    for table in tables[:1]:
        study.console.print(table.rich())
    sections = [
        *(Section("Best mean", items=winners(table)) for table in tables[:1]),
        Section(code=command.replace(" --", " \\\n  --")),
        Section("Runs that failed", items=failed),
        Section("What is missing", items=study.holes()),
        *(section_of(table) for table in tables[:1]),
        *(drawn(svg) for svg in svgs.values()),
        *(section_of(table) for table in tables[1:]),
        *map(section_of, filter(None, [families(comparisons), cost(study), rates(about)])),
        Section("How the results were made", text=about["rules"]),
        Section(
            "Configuration and versions",
            code=json.dumps(about, indent=1, default=str),
            is_folded=True,
        ),
    ]
    files: dict[str, str | bytes] = {
        "report.html": page(study.title, [s for s in sections if any(s[1:-1])]),
        FILE: packed(frame),
        **{f"{name}.svg": svg for name, svg in svgs.items()},
    }
    if len(comparisons):
        files[COMPARISONS] = comparisons.to_csv(index=False, float_format="%.6g")
    folder = study.workdir / study.folder_of_report
    write_files(folder, files)
    return folder / "report.html"


def winners(shown: Table) -> list[str]:
    """Returns each scheme that is best in some columns of a table, and these columns."""
    columns = pd.Series(
        {head.partition("\n")[0]: name for head, name in shown.best.items()}, dtype=str
    )
    return [f"{scheme}: {', '.join(of)}" for scheme, of in columns.groupby(columns).groups.items()]


def families(comparisons: pd.DataFrame) -> Table | None:
    """Returns how many comparisons of each family there are, and their verdicts."""
    rows = compare.families(comparisons) if len(comparisons) else comparisons
    if not len(rows) or not rows["comparisons"].any():
        return None
    words = rows[rows["comparisons"] > 0].set_index("family").map(str)
    return Table("Families of comparisons", words, compare.RULE)


def cost(study: Reported) -> Table | None:
    """Returns what training has cost, the mean over seeds by scheme."""
    runs = pd.DataFrame(study.costs(), columns=["scheme", "trained", *_COSTS])
    runs = runs[runs["scheme"] == runs["trained"]]
    if not len(runs):
        return None
    words = runs.groupby("scheme")[_COSTS].mean().astype(float).map(number)
    return Table("Cost of training", words.rename(columns=lambda name: name.replace("_", " ")))


def rates(about: Mapping[str, Any]) -> Table | None:
    """Returns the final training loss of each scheme by learning rate, if several were tried."""
    tried = pd.DataFrame.from_dict(about.get("rates", {}), orient="index")
    if tried.empty:
        return None
    words = tried.map(lambda loss: number(loss) if loss < math.inf else "no result")
    words = words.sort_index().sort_index(axis=1).rename_axis("scheme")
    caption = "The final training loss. Other tables are of each scheme's best rate."
    return Table("Learning rates", words.rename(columns="{:g}".format), caption)
