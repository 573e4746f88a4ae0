"""The records of a length study, and what tables and figures read from them."""

import dataclasses
import math
import statistics
from collections.abc import Iterable
from typing import Any

Evaluation = tuple[str, str, int | None]  # split, protocol, stride
Cell = tuple[float, float | None, int]  # mean, standard error, number of seeds
Summary = dict[str, dict[Any, Cell]]  # by scheme, then by length or another column

MAIN: Evaluation = ("test", "last", None)
BASELINE = "nope"
WINDOWED = math.inf  # the column of the windowed baseline, which sorts after every length


@dataclasses.dataclass(frozen=True)
class Study:
    """Everything a report is made of. Losses are in nats per token.

    Attributes:
      records: ``scheme, seed, split, protocol, stride, length, multiple, loss, bits_per_byte,
        perplexity, tokens``. Protocol "windowed" scores the tokens of "last" with a model that
        sees only its last train_length tokens.
      curves: ``scheme, seed, split, positions, loss``: loss in the longest context, by the right
        edges of buckets of positions.
      training: ``scheme, seed, steps, tokens, seconds, final_loss, parameters, trained``; the last
        is the scheme the checkpoint was trained with.
      failures: ``scheme, seed, reason`` of the runs that have no records.
      about: ``command, train_length, last_tokens, corpus, corpus_digest, versions, device, git,
        config, date``.
    """

    records: list[dict]
    curves: list[dict]
    training: list[dict]
    failures: list[dict]
    about: dict[str, Any]


def summarise(
    records: Iterable[dict],
    *,
    split: str,
    protocol: str,
    stride: int | None = None,
    metric: str = "bits_per_byte",
) -> Summary:
    """Mean, standard error and number of seeds of ``metric``, by scheme and length in tokens.

    The standard error is None for one seed. A value that is not finite makes the mean inf, so
    that the scheme is never the best and sorts last.

    Raises:
      ValueError: the records have several strides and ``stride`` does not choose one, or two
        records claim the same measurement.
    """
    values = _by_seed(records, (split, protocol, stride), metric)
    return {
        scheme: {length: mean_and_stderr(lengths[length].values()) for length in sorted(lengths)}
        for scheme, lengths in sorted(values.items())
    }


def _by_seed(records, evaluation: Evaluation, metric) -> dict[str, dict[Any, dict[int, float]]]:
    split, protocol, stride = evaluation
    records = [r for r in records if (r["split"], r["protocol"]) == (split, protocol)]
    records = [r for r in records if stride in (None, r["stride"])]
    if len(strides := {r["stride"] for r in records} - {None}) > 1:
        raise ValueError(f"{protocol} has records of strides {sorted(strides)}; give one as stride")
    values: dict[str, dict[Any, dict[int, float]]] = {}
    for r in records:
        seeds = values.setdefault(r["scheme"], {}).setdefault(r["length"], {})
        if r["seed"] in seeds:
            raise ValueError(
                f"two records of {r['scheme']}, seed {r['seed']}, {split}, {protocol}, length "
                f"{r['length']}: counted twice they would shrink the standard error; keep one"
            )
        seeds[r["seed"]] = math.nan if r[metric] is None else float(r[metric])
    return values


def mean_and_stderr(values: Iterable[float | None]) -> Cell:
    known = [math.inf if value is None else value for value in values]
    if not known or not all(map(math.isfinite, known)):
        return math.inf, None, len(known)
    stderr = statistics.stdev(known) / len(known) ** 0.5 if len(known) > 1 else None
    return statistics.fmean(known), stderr, len(known)


@dataclasses.dataclass(frozen=True)
class View:
    """One evaluation as a table; whatever metric ``cells`` show, ``bits`` judge the schemes."""

    train_length: int
    bits: dict[str, dict[Any, dict[int, float]]]
    cells: Summary
    columns: list
    order: list[str]

    @classmethod
    def of(cls, study: Study, evaluation: Evaluation, metric: str = "bits_per_byte") -> "View":
        split, protocol, stride = evaluation
        as_column = {"protocol": "last", "stride": stride, "length": WINDOWED}
        records = [r | as_column if r["protocol"] == "windowed" else r for r in study.records]
        bits = _by_seed(records, evaluation, "bits_per_byte")
        cells = summarise(records, split=split, protocol=protocol, stride=stride, metric=metric)
        columns = sorted({column for row in cells.values() for column in row})
        own = study.about["train_length"]
        at = max((c for c in columns if c < WINDOWED), default=own)
        at = 4 * own if 4 * own in columns else at
        order = sorted(bits, key=lambda s: (mean_and_stderr(bits[s].get(at, {}).values())[0], s))
        return cls(own, bits, cells, columns, order)

    def is_best(self, scheme: str, column) -> bool:
        means = {s: row[column][0] for s, row in self.cells.items() if column in row}
        return scheme in means and means[scheme] == min(means.values()) < math.inf

    def uses_context(self, scheme: str, column) -> bool:
        row = self.bits[scheme]
        window = row.get(WINDOWED, {})
        is_longer = self.train_length < column < WINDOWED and column in row
        return is_longer and all(v < window.get(s, -math.inf) for s, v in row[column].items())

    def worse(self, scheme: str, column) -> float:
        """By what share the scheme is worse here than at its own training length."""
        row = self.bits[scheme]
        if column not in row or self.train_length not in row or column == WINDOWED:
            return 0.0
        loss, own = (mean_and_stderr(row[c].values())[0] for c in (column, self.train_length))
        return loss / own - 1

    def words(self, scheme: str, column) -> tuple[str, str, str]:
        """The mean, its standard error with whatever else must be said of it, and the mark."""
        if column not in self.cells[scheme]:
            return "-", "", " "
        mean, stderr, seeds = self.cells[scheme][column]
        most = max(cell[2] for row in self.cells.values() for cell in row.values())
        extra = f" ±{number(stderr, mean)}" if stderr is not None else ""
        extra += f" ({seeds} of {most} seeds)" if seeds < most else ""
        return number(mean), extra, "✓" if self.uses_context(scheme, column) else " "


def number(value: float, like: float | None = None) -> str:
    """``value`` with the decimals that suit ``like``, by default itself."""
    size = abs(value if like is None else like)
    if not math.isfinite(value):
        return "not finite"
    digits = 3 if size < 10 else 2 if size < 100 else 1 if size < 1000 else 0
    return f"{value:,.{digits}f}" if size < 1e5 else f"{value:.1e}"


def heading(study: Study, column) -> tuple[str, str]:
    if column == WINDOWED:
        return "windowed", "1x"
    return f"{column / study.about['train_length']:g}x", str(column)


def evaluations(study: Study) -> list[Evaluation]:
    """All that was measured, the main evaluation first."""
    found = {(r["split"], r["protocol"], r["stride"]) for r in study.records}
    key = {e: (e[0] != "test", e[0], e[1] != "last", e[1], -(e[2] or 0)) for e in found}
    return sorted((e for e in found if e[1] != "windowed"), key=key.__getitem__)


def evaluation_name(study: Study, evaluation: Evaluation) -> str:
    _, protocol, stride = evaluation
    if protocol == "last":
        return f"last {study.about['last_tokens']} tokens"
    return protocol.replace("_", "-") + (f", stride {stride}" if stride else "")
