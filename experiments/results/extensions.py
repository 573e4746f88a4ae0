"""Holds the records of an extension study, by length and by steps of fine-tuning."""

from collections.abc import Iterable

import pandas as pd

from experiments.results import table
from experiments.results.lengths import WINDOWED, with_window
from experiments.results.statistics import Record

PLAIN = "rope"  # the scheme of the trained model as it is
# The protocols of records, see ``studies/extension/evaluations.py``.
LAST, THROUGH_WINDOW, SHORT = "last", "windowed", "short"


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
