"""Computes what a table of a length study shows: losses, marks, and effective contexts."""

import dataclasses
import math

import pandas as pd

from experiments.results import answers
from experiments.results.comparisons import compared, families, statement
from experiments.results.lengths import MAIN, WINDOWED, Evaluation, LengthStudy, records_of
from experiments.results.statistics import Record, best_first, by_seed, cells_of

WINDOWED_COLUMN = math.inf  # the column of the windowed baseline, which sorts after every length
# Bits per byte by which a longer context must lower the loss for a scheme to make use of it.
CLEAR_GAIN = 0.005


@dataclasses.dataclass(frozen=True)
class LengthTable:
    """Shows one evaluation of a study.

    Attributes:
      study, evaluation: the study, and its evaluation that is shown.
      columns: lengths in tokens, and ``WINDOWED_COLUMN``.
      cells: ``scheme, x, mean, margin, seeds`` of the metric that is shown, where x is the column;
        ``worse``, the share by which bits per byte are worse than at the trained length;
        ``is_gain``, whether they are better than the same model's, fed only its most recent tokens;
        and ``is_ahead``, whether they are better than those of ``WINDOWED`` at the same length.
        Both are compared by seed and corrected. The best scheme comes first.
      effective: the longest context that each scheme makes use of, in tokens, if last tokens are
        scored.
      statement: says what was compared and corrected.
    """

    study: LengthStudy
    evaluation: Evaluation
    columns: list[float]
    cells: pd.DataFrame
    effective: dict[str, int]
    statement: str


def length_table(
    study: LengthStudy, evaluation: Evaluation = MAIN, metric: str = "bits_per_byte"
) -> LengthTable:
    """Returns the table of one evaluation of a study.

    Bits per byte judge the schemes, whatever ``metric`` is shown. Raises a ValueError if two
    records claim the same measurement.
    """
    split, protocol, stride = evaluation
    usual, what = study.about["train_length"], f"{split}, {protocol}"
    as_column = {"protocol": "last", "stride": stride, "length": WINDOWED_COLUMN}
    shown = [r | as_column if r["protocol"] == "windowed" else r for r in study.records]
    shown = records_of(shown, evaluation)
    bits = by_seed(shown, "length", "bits_per_byte", what)
    cells = cells_of(by_seed(shown, "length", metric, what))
    columns, comparable = sorted(cells["x"].unique()), _comparable(shown, usual)

    compared_at = {r["multiple"]: r["length"] for r in shown if usual < r["length"] < math.inf}
    compared_at = {m: length for m, length in compared_at.items() if length in comparable}
    extensions = {r["scheme"] for r in study.training if r["trained"] != r["scheme"]}
    windows = study.records if protocol == "last" else []
    gain = answers.gain(windows, split, "gain over the own window")
    loss = answers.losses(records_of(study.records, evaluation), split, protocol, "loss", "loss")
    gains, has_gain = _better(gain, None, extensions, compared_at)
    ahead, is_ahead = _better(loss, WINDOWED, extensions, compared_at)
    said = statement(families(pd.concat([gains, ahead]))) if len(gains) or len(ahead) else ""

    means, where = cells_of(bits), list(zip(cells["scheme"], cells["x"], strict=True))
    cells["worse"] = _worse(means, usual, comparable)
    cells["is_gain"] = [cell in has_gain for cell in where]
    cells["is_ahead"] = [cell in is_ahead for cell in where]
    judged = study.about.get("judged_at", 4) * usual
    at = judged if judged in columns else max((x for x in columns if x < math.inf), default=usual)
    order = best_first(means, at)["scheme"].unique()
    cells = cells.set_index("scheme").loc[order].reset_index()

    effective = {}
    if protocol == "last":
        control = records_of(study.records, Evaluation(split, "shuffled"))
        control = by_seed(control, "length", "bits_per_byte", f"{split}, shuffled")
        for scheme, losses in bits.groupby("scheme"):
            shuffled = control[control["scheme"] == scheme]
            gains_at = {x for name, x in has_gain if name == scheme}
            effective[scheme] = _effective(losses, shuffled, comparable, gains_at)
    return LengthTable(study, evaluation, columns, cells, effective, said)


def heading(study: LengthStudy, column: float) -> tuple[str, str]:
    """Returns the two lines above a column."""
    if column == WINDOWED_COLUMN:
        return "windowed", "1x"
    return f"{column / study.about['train_length']:g}x", f"{column:.0f}"


def _comparable(records: list[Record], usual: int) -> list[float]:
    """Returns the columns whose documents are those of the trained length, ``usual``, in order.

    At a greater length fewer documents may be read. The windowed column has the same ones.
    """
    counts = {r["length"]: r.get("documents") for r in records}
    same = counts.get(usual)
    return sorted(
        x for x in counts if x == WINDOWED_COLUMN or usual not in counts or counts[x] == same
    )


def _worse(means: pd.DataFrame, usual: int, comparable: list[float]) -> pd.Series:
    """Returns the share by which each mean is worse than its scheme's at the trained length.

    It is 0 where that is not known, in the windowed column, and where documents are others.
    """
    at_usual = means[means["x"] == usual].set_index("scheme")["mean"]
    worse = means["mean"] / means["scheme"].map(at_usual) - 1
    is_length = means["x"].isin(comparable) & (means["x"] != WINDOWED_COLUMN)
    return worse.where(is_length, 0.0).fillna(0.0)


def _better(
    values: pd.DataFrame, against: str | None, extensions: set[str], lengths: dict[float, float]
) -> tuple[pd.DataFrame, set[tuple[str, float]]]:
    """Compares values at the given lengths, which are told by their multiple of the trained one.

    Returns the table of ``compared``, and the scheme and length of each verdict "better".
    """
    values = values[values["multiple"].isin(lengths)]
    table = compared(values, against, extensions)
    multiples = values.drop_duplicates("question").set_index("question")["multiple"]
    better = table[table["verdict"] == "better"]
    at = better["question"].map(multiples).map(lengths)
    return table, set(zip(better["scheme"], at, strict=True))


def _effective(
    losses: pd.DataFrame, shuffled: pd.DataFrame, comparable: list[float], gains: set[float]
) -> int:
    """Returns the longest context that a scheme makes use of, in tokens.

    Losses are rows of ``by_seed``, and ``gains`` the lengths with a gain over the windowed
    baseline. At the effective length and at every longer one the loss must be lower by
    ``CLEAR_GAIN`` than with the context that was effective so far, on average over seeds; several
    seeds must show a gain; and, where it is known, the loss with a shuffled far context must be
    higher by ``CLEAR_GAIN``. The first context is that of the windowed baseline, if there is one:
    in texts of the training length the first scored tokens have almost no context.
    """
    loss_X, shuffled_X = (
        {x: rows.set_index("seed")["value"] for x, rows in of.groupby("x")}
        for of in (losses, shuffled)
    )
    best, *longer = (x for x in comparable if x in loss_X and x < WINDOWED_COLUMN)
    so_far = loss_X.get(WINDOWED_COLUMN, loss_X[best])
    for i, x in enumerate(longer):
        uses = all(_lower(loss_X[further], so_far) >= CLEAR_GAIN for further in longer[i:])
        is_clear = len(loss_X[x]) == 1 or x in gains
        is_real = x not in shuffled_X or _lower(loss_X[x], shuffled_X[x]) >= CLEAR_GAIN
        if uses and is_clear and is_real:
            best, so_far = x, loss_X[x]
    return int(best)


def _lower(loss: pd.Series, other: pd.Series) -> float:
    """Returns by how much a loss is lower than another one, on average over the seeds of both."""
    shared = loss.index.intersection(other.index)
    lower = (other[shared] - loss[shared]).mean(skipna=False)
    return lower if math.isfinite(lower) else -math.inf
