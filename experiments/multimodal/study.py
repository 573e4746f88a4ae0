"""The records of a multimodal experiment, and what tables and figures read from them."""

import dataclasses
import math
from typing import Any

from experiments.study import Cell, mean_and_stderr

X = int | float | str


@dataclasses.dataclass(frozen=True)
class Panel:
    """One table and one plot.

    Attributes:
      condition: what is varied, or how.
      metric: what is measured, "accuracy" or an error.
      xlabel: of x, with its unit.
      xs: the columns, in order.
      trained: those of them that training had.
      is_error: lower is better.
    """

    condition: str
    metric: str
    xlabel: str
    xs: tuple[X, ...]
    trained: tuple[X, ...] = ()
    is_error: bool = False


@dataclasses.dataclass(frozen=True)
class Result:
    """One number: of the panel ``condition``, at ``x``; ``chance`` is what a blind guess gets."""

    condition: str
    x: X
    metric: str
    value: float
    chance: float | None = None


@dataclasses.dataclass(frozen=True)
class Map:
    """What one query reads of a grid.

    Attributes:
      caption: the same for every scheme.
      weights: ``[rows][columns]``.
      query: the query's row and column, if it is one of the grid.
    """

    caption: str
    weights: list[list[float]]
    query: tuple[int, int] | None = None


@dataclasses.dataclass(frozen=True)
class Study:
    """Everything a report is made of, but for pictures.

    Attributes:
      records: ``scheme, seed`` and the fields of a ``Result``.
      maps: ``scheme`` and the fields of a ``Map``, of seed 0.
      training, failures: as in ``experiments.study.Study``.
      panels: what was measured.
      about: ``title, summary, axes, data, command, versions, device, git, config, date``.
    """

    records: list[dict]
    maps: list[dict]
    training: list[dict]
    failures: list[dict]
    panels: tuple[Panel, ...]
    about: dict[str, Any]


def cells(study: Study, panel: Panel) -> dict[str, dict[X, Cell]]:
    """Mean, standard error and number of seeds by scheme and x, the best at the last x first.

    Raises:
      ValueError: two records claim the same measurement.
    """
    values: dict[str, dict[X, dict[int, float]]] = {}
    for r in study.records:
        if (r["condition"], r["metric"]) != (panel.condition, panel.metric):
            continue
        seeds = values.setdefault(r["scheme"], {}).setdefault(r["x"], {})
        if r["seed"] in seeds:
            raise ValueError(
                f"two records of {r['scheme']}, seed {r['seed']}, {panel.condition}, x {r['x']}: "
                "counted twice they would shrink the standard error; keep one"
            )
        seeds[r["seed"]] = r["value"]
    found = {
        scheme: {x: mean_and_stderr(row[x].values()) for x in panel.xs if x in row}
        for scheme, row in values.items()
    }

    def place(scheme):
        mean = found[scheme].get(panel.xs[-1], (math.inf, None, 0))[0]
        return (mean if panel.is_error or mean == math.inf else -mean), scheme

    return {scheme: found[scheme] for scheme in sorted(found, key=place)}


def chances(study: Study, panel: Panel) -> dict[X, float]:
    """What a blind guess gets, by x."""
    return {
        r["x"]: r["chance"]
        for r in study.records
        if (r["condition"], r["metric"]) == (panel.condition, panel.metric)
        and r["chance"] is not None
    }
