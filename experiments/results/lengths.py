"""Holds the records of a length study, and computes what its tables and figures show."""

import dataclasses
import math
from collections.abc import Iterable
from typing import NamedTuple

import pandas as pd

from experiments.results.comparisons import compared, families, statement
from experiments.results.statistics import (
    BySeed,
    Cells,
    Record,
    Study,
    by_seed,
    cells_of,
    mean_and_margin,
    or_nan,
)


class Evaluation(NamedTuple):
    """Names one way to measure losses; see ``LengthStudy`` for the fields."""

    split: str
    protocol: str
    stride: int | None = None


MAIN = Evaluation("test", "last")
WINDOWED_COLUMN = math.inf  # the column of the windowed baseline, which sorts after every length
# RoPE that is read through a window of the trained length, as a scheme of its own.
WINDOWED = "rope_windowed"
# Bits per byte by which a longer context must lower the loss for a scheme to make use of it.
CLEAR_GAIN = 0.005


@dataclasses.dataclass(frozen=True)
class LengthStudy(Study):
    """Holds the results of every scheme at several lengths. Losses are in nats per token.

    A record has ``scheme, seed, split, protocol, stride, length, multiple, loss, bits_per_byte,
    perplexity, tokens``, and ``by_text``, the loss of each text, where it is known. Protocol
    "windowed" scores the tokens of "last" with a model that sees only its last train_length tokens;
    "shuffled", if it was run, with all tokens before those in a random order. ``about`` has
    ``train_length, last_tokens, corpus, corpus_digest`` besides every study's fields.

    Attributes:
      curves: ``scheme, seed, split, positions, loss``: loss in the longest context, by the right
        edges of buckets of positions.
    """

    curves: list[Record]


def summarise(
    records: Iterable[Record], evaluation: Evaluation = MAIN, metric: str = "bits_per_byte"
) -> Cells:
    """Returns the cells of ``metric`` by scheme and length in tokens, both in order.

    Raises a ValueError if two records claim the same measurement.
    """
    cells = cells_of(_by_seed(records, evaluation, metric))
    return {scheme: dict(sorted(cells[scheme].items())) for scheme in sorted(cells)}


def _by_seed(records: Iterable[Record], evaluation: Evaluation, metric: str) -> BySeed:
    name = f"{evaluation.split}, {evaluation.protocol}"
    return by_seed(_records_of(records, evaluation), "length", metric, name)


def _records_of(records: Iterable[Record], evaluation: Evaluation) -> list[Record]:
    split, protocol, stride = evaluation
    records = [r for r in records if (r["split"], r["protocol"]) == (split, protocol)]
    return [r for r in records if stride in (None, r["stride"])]


def with_window(records: Iterable[Record]) -> list[Record]:
    """Returns records with the scheme ``WINDOWED`` added, if RoPE was read through a window.

    Longer texts than in training are read through a window of the trained length, so the loss
    is the same at each of these lengths where the same tokens are scored; where they are others,
    there is none. In texts of the trained length a window changes nothing.
    """
    records = [r for r in records if r["scheme"] != WINDOWED]
    of_rope = [r for r in records if r["scheme"] == "rope"]
    windows = {(r["split"], r["seed"]): r for r in of_rope if r["protocol"] == "windowed"}
    windowed = []
    for r in of_rope:
        window = windows.get((r["split"], r["seed"]))
        if window and r["protocol"] in ("last", "windowed"):
            scored = window if r["multiple"] > 1 else r
            if scored["tokens"] != r["tokens"]:
                continue
            where = {key: r[key] for key in ("protocol", "stride", "length", "multiple")}
            windowed.append(scored | where | {"scheme": WINDOWED})
    return records + windowed


class View:
    """Shows one evaluation of a study as a table.

    Attributes:
      study, evaluation: the study, and its evaluation that is shown.
      train_length: tokens of a training sequence.
      bits: bits per byte, which judge the schemes whatever metric ``cells`` show.
      shuffled: bits per byte where the far context is shuffled.
      cells: the numbers that are shown.
      columns: lengths in tokens, and ``WINDOWED_COLUMN``.
      comparable: the columns for the same documents as at the training length and in the windowed
        baseline; at a greater length fewer documents may be read.
      order: the schemes, best first.
      gains: the cells, by scheme and column, that are better than the same model fed only its most
        recent tokens; compared by seed and corrected.
      ahead: the cells that are better than ``WINDOWED`` at the same length; compared so, too.
      statement: says what was compared and corrected.
    """

    def __init__(
        self, study: LengthStudy, evaluation: Evaluation = MAIN, metric: str = "bits_per_byte"
    ):
        self.study, self.evaluation = study, evaluation
        split, protocol, stride = evaluation
        as_column = {"protocol": "last", "stride": stride, "length": WINDOWED_COLUMN}
        records = [r | as_column if r["protocol"] == "windowed" else r for r in study.records]
        self.train_length = usual = study.about["train_length"]
        self.bits = _by_seed(records, evaluation, "bits_per_byte")
        self.shuffled = _by_seed(records, Evaluation(split, "shuffled"), "bits_per_byte")
        self.cells = summarise(records, evaluation, metric)
        self.columns = sorted({column for row in self.cells.values() for column in row})
        counts = {r["length"]: r.get("documents") for r in records if r["protocol"] == protocol}
        same = {WINDOWED_COLUMN, *(c for c in counts if counts[c] == counts.get(usual, counts[c]))}
        self.comparable = [column for column in self.columns if column in same]
        at = max((c for c in self.columns if c < WINDOWED_COLUMN), default=usual)
        judged = study.about.get("judged_at", 4) * usual
        at = judged if judged in self.columns else at
        means = {s: mean_and_margin(row.get(at, {}).values())[0] for s, row in self.bits.items()}
        self.order = sorted(means, key=lambda scheme: (means[scheme], scheme))
        longer = [c for c in self.comparable if usual < c < WINDOWED_COLUMN]
        extensions = {r["scheme"] for r in study.training if r["trained"] != r["scheme"]}
        shown = _records_of(records, evaluation)
        self.gains, self.ahead, self.statement = _compared(shown, longer, extensions)

    def worse(self, scheme: str, column) -> float:
        """Returns the share by which the scheme is worse here than at its training length."""
        row = self.bits[scheme]
        is_known = column in row and self.train_length in row
        if not is_known or column == WINDOWED_COLUMN or column not in self.comparable:
            return 0.0
        loss, usual = (mean_and_margin(row[c].values())[0] for c in (column, self.train_length))
        return loss / usual - 1

    def effective(self, scheme: str) -> int:
        """Returns the longest context that the scheme makes use of, in tokens.

        At that length and at every longer one the loss must be lower by ``CLEAR_GAIN`` than with
        the context that was effective so far, on average over seeds; several seeds must show a
        gain; and, where it is known, the loss with a shuffled far context must be higher by
        ``CLEAR_GAIN``. The first context is that of the windowed baseline, if there is one: in
        texts of the training length the first scored tokens have almost no context.
        """
        row, shuffled = self.bits[scheme], self.shuffled.get(scheme, {})
        best, *longer = (c for c in self.comparable if c in row and c < WINDOWED_COLUMN)
        losses = row.get(WINDOWED_COLUMN, row[best])
        for i, column in enumerate(longer):
            uses = all(_gain(losses, row[c]) >= CLEAR_GAIN for c in longer[i:])
            is_clear = len(row[column]) == 1 or (scheme, column) in self.gains
            is_real = column not in shuffled or _gain(shuffled[column], row[column]) >= CLEAR_GAIN
            if uses and is_clear and is_real:
                best, losses = column, row[column]
        return best

    def marks(self, scheme: str, column) -> str:
        """Returns the signs of what a cell is better than."""
        signs = (("✓", self.gains), ("▲", self.ahead))
        return "".join(sign for sign, cells in signs if (scheme, column) in cells)


def _gain(losses: dict[int, float], longer: dict[int, float]) -> float:
    """Returns by how much the loss with a longer context is lower, on average over seeds."""
    gain = mean_and_margin(losses[seed] - longer[seed] for seed in losses.keys() & longer.keys())[0]
    return gain if math.isfinite(gain) else -math.inf


def by_text(record: Record) -> list[tuple[float, float]]:
    """Returns the number of each text and its loss in bits per byte, NaN if it diverged.

    Where the losses of single texts are not known, there is one loss, and its number is NaN.
    """
    bits, texts = or_nan(record["bits_per_byte"]), record.get("by_text")
    if texts is None:
        return [(math.nan, bits)]
    bits /= or_nan(record["loss"])
    return [(number, or_nan(loss) * bits) for number, loss in enumerate(texts)]


def _compared(
    records: list[Record], columns: list[int], extensions: set[str]
) -> tuple[set, set, str]:
    """Returns the ``gains``, the ``ahead`` and the ``statement`` of a view."""
    who, keys = ["scheme", "question", "seed", "text"], ["scheme", "seed", "text"]
    rows = [
        (r["scheme"], r["length"], r["seed"], text, bits if math.isfinite(bits) else math.inf)
        for r in records
        for text, bits in by_text(r)
    ]
    losses = pd.DataFrame(rows, columns=[*who, "value"]).assign(family="loss", is_error=True)
    windowed = losses[losses["question"] == WINDOWED_COLUMN]
    losses = losses[losses["question"].isin(columns)]
    gains = losses[losses["scheme"] != WINDOWED]
    gains = gains.merge(windowed[[*keys, "value"]], on=keys)
    gains["value"] = gains.pop("value_y") - gains.pop("value_x")
    gains = gains.assign(family="gain over the own window", is_error=False)
    tables = [compared(gains, None, extensions), compared(losses, WINDOWED, extensions)]
    is_gain, is_ahead = (
        {tuple(row) for row in table.loc[table["verdict"] == "better", who[:2]].to_numpy()}
        for table in tables
    )
    said = statement(families(pd.concat(tables))) if any(map(len, tables)) else ""
    return is_gain, is_ahead, said


def heading(study: LengthStudy, column) -> tuple[str, str]:
    """Returns the two lines above a column."""
    if column == WINDOWED_COLUMN:
        return "windowed", "1x"
    return f"{column / study.about['train_length']:g}x", str(column)


def evaluations(study: LengthStudy) -> list[Evaluation]:
    """Returns all evaluations of the study, the main one first."""
    made = {Evaluation(r["split"], r["protocol"], r["stride"]) for r in study.records}

    def place(of: Evaluation) -> tuple:
        return of.split != "test", of.split, of.protocol != "last", of.protocol, -(of.stride or 0)

    return sorted((e for e in made if e.protocol not in ("windowed", "shuffled")), key=place)


def evaluation_name(study: LengthStudy, evaluation: Evaluation) -> str:
    """Returns the name of an evaluation within its split."""
    _, protocol, stride = evaluation
    if protocol == "last":
        return f"last {study.about['last_tokens']} tokens"
    return protocol.replace("_", "-") + (f", stride {stride}" if stride else "")
