"""Sums up what models have learned of one task each.

A study's tidy table has the shares of right rows and of right answers, by task and by the tokens of
a row, and for each of ``SHARES`` the measure of ``steps_to``: after how many steps a model had this
share of the held-out rows, inf for never.
"""

import numpy as np
import pandas as pd

from experiments.results.panels import EXACT, SOLVED
from experiments.results.table import Table, select

# The shares of held-out rows to which steps are counted.
SHARES = (SOLVED, 0.95)


def steps_to(share: float) -> str:
    """Returns the measure of steps to a share of the held-out rows."""
    return f"steps to {share:.0%}"


def learned_table(study: str, frame: pd.DataFrame, task: str, metric: str = EXACT) -> Table:
    """Returns what the schemes of one study have learned of a task, the best and quickest first.

    Columns are how many models have learned the task; for each of ``SHARES`` the steps that each
    model took to it; and for each task and length the percentages, by ``metric``, of the models
    that have learned the task, if most have.
    """
    models = frame.set_index(["scheme", "seed"])
    own = select(models, split=task, measure=EXACT)
    is_learned = own.loc[own["x"] == own["x"].min(), "value"] >= SOLVED
    counts = is_learned.groupby("scheme").agg(["sum", "size"])
    quick = select(models, measure=steps_to(SOLVED))["value"].groupby("scheme").mean()
    order = pd.DataFrame({"fail": -counts["sum"], "quick": quick})
    schemes = order.sort_values(["fail", "quick"], kind="stable").index
    cells = pd.DataFrame(index=schemes)
    cells["learned"] = counts["sum"].astype(str) + " of " + counts["size"].astype(str)
    for share in SHARES:
        steps = select(models, measure=steps_to(share))["value"]
        cells[steps_to(share)] = _by_scheme(steps[np.isfinite(steps)], "{:,.0f}").reindex(schemes)
    is_most = 2 * counts["sum"] > counts["size"]
    for (of, tokens), rows in select(models, measure=metric).groupby(["split", "x"], sort=False):
        shares = _by_scheme(100 * rows["value"][is_learned.reindex(rows.index)], "{:.0f}")
        cells[f"{of}, {tokens:g}"] = shares.reindex(schemes).where(is_most, "not learned")
    caption = (
        f"A model has learned a task if it has {SOLVED:.0%} of the rows of the trained length "
        "right. Steps and shares, in percent, are those of each model."
    )
    return Table(f"{study}: {metric}", cells.fillna("-").rename_axis("scheme"), caption)


def _by_scheme(numbers: pd.Series, form: str) -> pd.Series:
    """Returns the sorted numbers of each scheme as one text."""
    texts = numbers.sort_values().map(form.format).astype(str)
    return texts.groupby("scheme").agg(" ".join)
