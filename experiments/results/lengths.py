"""Holds the records of a length study, and computes what its tables and figures show."""

import dataclasses
import math
from collections.abc import Iterable

from experiments.results import statistics
from experiments.results.statistics import (
    BySeed,
    Cells,
    Record,
    Study,
    by_seed,
    cells_of,
    mean_and_stderr,
)

Evaluation = tuple[str, str, int | None]  # split, protocol, stride

MAIN: Evaluation = ("test", "last", None)
WINDOWED_COLUMN = math.inf  # the column of the windowed baseline, which sorts after every length


@dataclasses.dataclass(frozen=True)
class LengthStudy(Study):
    """Holds the results of every scheme at several lengths. Losses are in nats per token.

    A record has ``scheme, seed, split, protocol, stride, length, multiple, loss, bits_per_byte,
    perplexity, tokens``. Protocol "windowed" scores the tokens of "last" with a model that sees
    only its last train_length tokens. ``about`` has ``train_length, last_tokens, corpus,
    corpus_digest`` besides every study's fields.

    Attributes:
      curves: ``scheme, seed, split, positions, loss``: loss in the longest context, by the right
        edges of buckets of positions.
    """

    curves: list[Record]


def summarise(
    records: Iterable[Record],
    *,
    split: str,
    protocol: str,
    stride: int | None = None,
    metric: str = "bits_per_byte",
) -> Cells:
    """Returns the cells of ``metric`` by scheme and length in tokens, both in order.

    Raises:
      ValueError: the records have several strides and ``stride`` does not choose one, or two
        records claim the same measurement.
    """
    found = cells_of(_by_seed(records, (split, protocol, stride), metric))
    return {scheme: dict(sorted(found[scheme].items())) for scheme in sorted(found)}


def _by_seed(records: Iterable[Record], evaluation: Evaluation, metric: str) -> BySeed:
    split, protocol, stride = evaluation
    records = [r for r in records if (r["split"], r["protocol"]) == (split, protocol)]
    records = [r for r in records if stride in (None, r["stride"])]
    if len(strides := {r["stride"] for r in records} - {None}) > 1:
        raise ValueError(f"{protocol} has records of strides {sorted(strides)}; give one as stride")
    return by_seed(records, "length", metric, f"{split}, {protocol}")


@dataclasses.dataclass(frozen=True)
class View:
    """Shows one evaluation as a table.

    Attributes:
      train_length: tokens of a training sequence.
      bits: bits per byte, which judge the schemes whatever metric ``cells`` show.
      cells: the numbers that are shown.
      columns: lengths in tokens, and ``WINDOWED_COLUMN``.
      comparable: the columns for the same documents as at the training length and in the windowed
        baseline; at a greater length fewer documents may be read.
      order: the schemes, best first.
    """

    train_length: int
    bits: BySeed
    cells: Cells
    columns: list
    comparable: list
    order: list[str]

    @classmethod
    def of(
        cls, study: LengthStudy, evaluation: Evaluation, metric: str = "bits_per_byte"
    ) -> "View":
        """Returns the table of one evaluation of ``study``."""
        split, protocol, stride = evaluation
        as_column = {"protocol": "last", "stride": stride, "length": WINDOWED_COLUMN}
        records = [r | as_column if r["protocol"] == "windowed" else r for r in study.records]
        bits = _by_seed(records, evaluation, "bits_per_byte")
        cells = summarise(records, split=split, protocol=protocol, stride=stride, metric=metric)
        columns = sorted({column for row in cells.values() for column in row})
        own = study.about["train_length"]
        counts = {r["length"]: r.get("documents") for r in records if r["protocol"] == protocol}
        same = {WINDOWED_COLUMN, *(c for c in counts if counts[c] == counts.get(own, counts[c]))}
        comparable = [column for column in columns if column in same]
        at = max((c for c in columns if c < WINDOWED_COLUMN), default=own)
        judged = study.about.get("judged_at", 4) * own
        at = judged if judged in columns else at
        order = sorted(bits, key=lambda s: (mean_and_stderr(bits[s].get(at, {}).values())[0], s))
        return cls(own, bits, cells, columns, comparable, order)

    def is_best(self, scheme: str, column) -> bool:
        """Returns whether no scheme has a smaller mean in this column."""
        means = {s: row[column][0] for s, row in self.cells.items() if column in row}
        return scheme in means and means[scheme] == min(means.values()) < math.inf

    def uses_context(self, scheme: str, column) -> bool:
        """Returns whether every seed is better here than the windowed baseline."""
        row = self.bits[scheme]
        window = row.get(WINDOWED_COLUMN, {})
        is_longer = self.train_length < column < WINDOWED_COLUMN and column in row
        return (
            is_longer
            and column in self.comparable
            and all(v < window.get(s, -math.inf) for s, v in row[column].items())
        )

    def worse(self, scheme: str, column) -> float:
        """Returns the share by which the scheme is worse here than at its training length."""
        row = self.bits[scheme]
        is_known = column in row and self.train_length in row
        if not is_known or column == WINDOWED_COLUMN or column not in self.comparable:
            return 0.0
        loss, own = (mean_and_stderr(row[c].values())[0] for c in (column, self.train_length))
        return loss / own - 1

    def effective(self, scheme: str) -> int | None:
        """Returns the longest context that still lowers the loss by more than its standard error.

        Each length is compared, seed by seed, with the best shorter one. The windowed baseline, if
        there is one, replaces the training length, because in texts of that length the first
        scored tokens have almost no context. The result is None for a single seed, which has no
        standard error.
        """
        row = self.bits[scheme]
        best, *longer = (c for c in self.comparable if c in row and c < WINDOWED_COLUMN)
        losses = row.get(WINDOWED_COLUMN, row[best])
        for column in longer:
            gains = [loss - row[column].get(seed, math.nan) for seed, loss in losses.items()]
            gain, stderr, count = mean_and_stderr(gains)
            if count < 2:
                return None
            if stderr is not None and gain > stderr:
                best, losses = column, row[column]
        return best

    def words(self, scheme: str, column) -> tuple[str, str, str]:
        """Returns the mean, its standard error with notes, and the mark."""
        mean, extra = statistics.words(self.cells, scheme, column)
        return mean, extra, "✓" if self.uses_context(scheme, column) else " "


def heading(study: LengthStudy, column) -> tuple[str, str]:
    """Returns the two lines above a column."""
    if column == WINDOWED_COLUMN:
        return "windowed", "1x"
    return f"{column / study.about['train_length']:g}x", str(column)


def evaluations(study: LengthStudy) -> list[Evaluation]:
    """Returns all evaluations of the study, the main one first."""
    found = {(r["split"], r["protocol"], r["stride"]) for r in study.records}
    key = {e: (e[0] != "test", e[0], e[1] != "last", e[1], -(e[2] or 0)) for e in found}
    return sorted((e for e in found if e[1] != "windowed"), key=key.__getitem__)


def evaluation_name(study: LengthStudy, evaluation: Evaluation) -> str:
    """Returns the name of an evaluation within its split."""
    _, protocol, stride = evaluation
    if protocol == "last":
        return f"last {study.about['last_tokens']} tokens"
    return protocol.replace("_", "-") + (f", stride {stride}" if stride else "")
