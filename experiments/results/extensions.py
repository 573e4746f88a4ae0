"""Holds the records of an extension study, by length and by steps of fine-tuning."""

import dataclasses
import math
from collections.abc import Iterable

import pandas as pd

from experiments.results import table
from experiments.results.lengths import WINDOWED, with_window
from experiments.results.statistics import Cell, Record, mean_and_margin, or_nan, quotient

PLAIN = "rope"  # the scheme of the trained model as it is
# The protocols of records, see ``studies/extension/evaluations.py``.
LAST, THROUGH_WINDOW, SHORT = "last", "windowed", "short"
PROMISED = 0.95  # the share of short-context accuracy that papers say methods keep


def tidy(study: str, records: Iterable[Record]) -> pd.DataFrame:
    """Returns the results of an extension study as a tidy table.

    A split is how many steps the model was tuned, such as "0 steps", and x is the length over that
    of training. RoPE through a window, ``WINDOWED``, is in every split. The measures "short" and
    "short accuracy" are of windows of the training length, under the encoding for the target.
    """
    records = list(records)
    plain = with_window(r for r in records if r["steps"] == 0)
    window = [r for r in plain if r["scheme"] == WINDOWED and r["protocol"] == LAST]
    rows: list[Record] = []
    for steps in sorted({r["steps"] for r in records}):
        for r in [*(r for r in records if r["steps"] == steps), *window]:
            row = {"scheme": r["scheme"], "seed": r["seed"], "split": f"{steps} steps"}
            row |= {"x": r["multiple"]}
            bits = {"measure": r["protocol"], "value": r["bits_per_byte"], "unit": "bits per byte"}
            rows.append(row | bits)
            if r["protocol"] == SHORT:
                right = {"value": r["accuracy"], "unit": "share"}
                rows.append(row | {"measure": f"{SHORT} accuracy"} | right)
    return table.tidy(study, rows)


@dataclasses.dataclass(frozen=True)
class Retention:
    """Says how much of the plain model's ability at short context a method has kept.

    Attributes:
      change: by which share the loss grew.
      accuracy: the share of the accuracy that is left.
    """

    change: Cell
    accuracy: Cell

    @property
    def verdict(self) -> str:
        """Returns whether more than ``PROMISED`` of the accuracy is left."""
        mean, margin, seeds = self.accuracy
        if not math.isfinite(mean):
            return "no"
        if abs(mean - PROMISED) <= margin:
            return "undecided"
        return ("yes" if mean > PROMISED else "no") + ", one seed" * (seeds == 1)

    @property
    def words(self) -> dict[str, str]:
        """Returns ``change`` and ``accuracy`` ± half of their 95 % intervals, in percent."""
        growth, left = _percent(self.change, "+"), _percent(self.accuracy)
        return {"growth of the short loss": growth, "short accuracy kept": left}


def _percent(share: Cell, sign: str = "") -> str:
    if share.mean == math.inf:
        return "not finite"
    margin = f" ± {share.margin:.1%}" if math.isfinite(share.margin) else ""
    return f"{share.mean:{sign}.1%}{margin}"


def retention(records: Iterable[Record]) -> dict[tuple[str, int], Retention]:
    """Returns what is kept, by scheme and steps, in the order of the records of an extension."""
    shorts = [r for r in records if r["protocol"] == SHORT]
    plain = {r["seed"]: r for r in shorts if (r["scheme"], r["steps"]) == (PLAIN, 0)}
    ratios: dict[tuple[str, int], list[tuple[float, float]]] = {}
    for r in shorts:
        if base := plain.get(r["seed"]):
            loss, accuracy = (
                quotient(or_nan(r[key]), or_nan(base[key])) for key in ("loss", "accuracy")
            )
            ratios.setdefault((r["scheme"], r["steps"]), []).append((loss - 1, accuracy))
    return {
        key: Retention(*map(mean_and_margin, zip(*pairs, strict=True)))
        for key, pairs in ratios.items()
    }
