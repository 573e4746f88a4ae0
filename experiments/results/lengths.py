"""Holds the records of a length study, and selects them by how losses were measured."""

import dataclasses
import math
from collections.abc import Iterable
from typing import NamedTuple

import pandas as pd

from experiments.results import table
from experiments.results.statistics import Record, Study, or_nan


class Evaluation(NamedTuple):
    """Names one way to measure losses; see ``LengthStudy`` for the fields."""

    split: str
    protocol: str
    stride: int | None = None


MAIN = Evaluation("test", "last")
# RoPE that is read through a window of the trained length, as a scheme of its own.
WINDOWED = "rope_windowed"


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

    @property
    def main(self) -> Evaluation:
        """Returns the evaluation that is shown first, ``MAIN`` if texts of that split were read."""
        return next(iter(evaluations(self)), MAIN)


def records_of(records: Iterable[Record], evaluation: Evaluation = MAIN) -> list[Record]:
    """Returns the records of one evaluation; with stride None, of any stride."""
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


def by_text(record: Record) -> list[tuple[float, float]]:
    """Returns the number of each text and its loss in bits per byte, NaN if it diverged.

    Where the losses of single texts are not known, there is one loss, and its number is NaN.
    """
    bits, texts = or_nan(record["bits_per_byte"]), record.get("by_text")
    if texts is None:
        return [(math.nan, bits)]
    bits /= or_nan(record["loss"])
    return [(number, or_nan(loss) * bits) for number, loss in enumerate(texts)]


def evaluations(study: LengthStudy) -> list[Evaluation]:
    """Returns all evaluations of the study, that of ``LengthStudy.main`` first."""
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


def tidy(study: str, records: Iterable[Record], curves: Iterable[Record] = ()) -> pd.DataFrame:
    """Returns losses of texts as a tidy table; RoPE through a window, ``WINDOWED``, is added.

    A measure is a protocol of ``evaluation/lengths.py``, with its stride if it is "sliding", and x
    is the length over that of training. Losses by position in the longest context, ``curves``, are
    the measure "position", where x is the position.
    """
    rows: list[Record] = []
    for r in with_window(records):
        measure = r["protocol"] + (f", stride {r['stride']}" if r["protocol"] == "sliding" else "")
        row = {key: r[key] for key in ("scheme", "seed", "split")}
        row |= {"measure": measure, "x": r["multiple"], "unit": "bits per byte"}
        rows += [row | {"text": text, "value": bits} for text, bits in by_text(r)]
    for curve in curves:
        row = {key: curve[key] for key in ("scheme", "seed", "split")}
        row |= {"measure": "position", "unit": "nats per token"}
        points = zip(curve["positions"], curve["loss"], strict=True)
        rows += [row | {"x": x, "value": loss} for x, loss in points]
    return table.tidy(study, rows)


def gains(frame: pd.DataFrame) -> pd.DataFrame:
    """Returns by how much longer contexts lower the loss of the last tokens, as measure "gain".

    The loss that is lowered is that of the same model, fed only its most recent tokens.
    """
    longer = frame[(frame["measure"] == "last") & (frame["x"] > 1) & (frame["scheme"] != WINDOWED)]
    keys = [k for k in ("scheme", "seed", "split", "text") if k in frame]
    alone = frame.loc[frame["measure"] == "windowed", [*keys, "value"]]
    both = longer.merge(alone, on=keys, suffixes=("", "_alone"))
    lower = both.pop("value_alone") - both["value"]
    return both.assign(value=lower.where(lower.abs() < math.inf, math.inf), measure="gain")
