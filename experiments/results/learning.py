"""Holds what models have learned of one task each as a tidy table, and sums it up by scheme.

A row of the table is the share that one model has right in rows of one length. Its columns:

study, scheme, seed   the model
steps                 how many steps the model was trained
to_0.9, to_0.95       after how many steps it had this share of the held-out rows; NaN for never
is_trained            whether the rows are of the task and the length that the model was trained on
task, tokens          the task of the rows, and how many tokens a row has
metric                "exact match" for the share of rows whose answers are all right, or "answers
                      right" for the share of answers
right, chance         the share, and the share of a blind guess
"""

from collections.abc import Iterable, Iterator
from typing import Any

import pandas as pd

from experiments.results import answers
from experiments.results.answers import SOLVED, TASKS
from experiments.results.panels import EXACT

# The shares of held-out rows to which steps are counted.
SHARES = (SOLVED, 0.95)


def rows_of(study: str, task: str, evaluations: Iterable[dict[str, Any]]) -> Iterator[dict]:
    """Yields the rows of the study of this name, whose models were trained on ``task``.

    ``evaluations`` are the results of its points, with ``records``, ``steps_to`` and ``training``.
    """
    for evaluation in evaluations:
        records = evaluation["records"]
        length = min(record["x"] for record in records)
        model = {"study": study, "steps": evaluation["training"]["steps"]}
        model |= {f"to_{share:g}": evaluation["steps_to"][f"{share:g}"] for share in SHARES}
        for record in records:
            row = {key: record[key] for key in ("scheme", "seed", "metric", "chance")}
            row |= {"task": record["condition"], "tokens": record["x"], "right": record["value"]}
            is_trained = (row["task"], row["tokens"]) == (task, length)
            yield model | row | {"is_trained": is_trained}


def values_of(table: pd.DataFrame) -> pd.DataFrame:
    """Returns the shares of right rows as ``results/answers.py`` has them; topics are studies.

    Rows of another task than the trained one are left out.
    """
    shortest = table.groupby("study")["tokens"].transform("min")
    trained = table["study"].map(table[table["is_trained"]].groupby("study")["task"].first())
    rows = table.assign(
        topic=table["study"],
        multiple=table["tokens"] / shortest,
        family=TASKS,
        says="",
        unit="share right",
        is_error=False,
        value=table["right"],
    )
    return answers.table(rows[(table["metric"] == EXACT) & (table["task"] == trained)])


def summary(values: pd.DataFrame, metric: str = EXACT) -> pd.DataFrame:
    """Returns what the schemes of one study have learned, in words, the best and quickest first.

    The index is the scheme. The columns are ``learned``, which counts the models that have learned
    the task; for each of ``SHARES`` the steps that each model took to it; and for each task and
    length the percentages, by ``metric``, of the models that have learned the task, if most have.
    The last row has the percentages of a blind guess.
    """
    is_trained = values["is_trained"] & (values["metric"] == EXACT)
    models = values[is_trained].set_index(["scheme", "seed"])
    is_learned = models["right"] >= SOLVED
    counts = is_learned.groupby("scheme").agg(["sum", "size"])
    is_most = 2 * counts["sum"] > counts["size"]
    quick = models[f"to_{SOLVED:g}"].groupby("scheme").mean()
    schemes = pd.DataFrame({"fail": -counts["sum"], "to": quick}).sort_values(["fail", "to"]).index
    table = pd.DataFrame(index=schemes)
    table["learned"] = counts["sum"].astype(str) + " of " + counts["size"].astype(str)
    for share in SHARES:
        steps = _by_scheme(models[f"to_{share:g}"].dropna(), "{:,.0f}")
        table[f"steps to {share:.0%}"] = steps.reindex(schemes, fill_value="-")
    guesses = {}
    of_metric = values[values["metric"] == metric].set_index(["scheme", "seed"])
    for (task, tokens), rows in of_metric.groupby(["task", "tokens"], sort=False):
        name = f"{task}, {tokens}"
        shares = _by_scheme(100 * rows["right"][is_learned.reindex(rows.index)], "{:.0f}")
        table[name] = shares.reindex(schemes).where(is_most, "not learned")
        guesses[name] = f"{100 * rows['chance'].iloc[0]:.0f}"
    table.loc["chance"] = pd.Series(guesses)
    return table.fillna("")


def _by_scheme(numbers: pd.Series, form: str) -> pd.Series:
    """Returns the sorted numbers of each scheme as one text."""
    texts = numbers.sort_values().map(form.format).astype(str)
    return texts.groupby("scheme").agg(" ".join)
