"""Holds losses of texts at several lengths as a tidy table, compares them and shows them.

A record of a loss has ``scheme, seed, split, protocol, stride, length, multiple, loss,
bits_per_byte, tokens``, and ``by_text``, the loss of each text, where it is known; ``loss`` is in
nats per token. ``evaluation/lengths.py`` has the protocols.
"""

import dataclasses
import math
from collections.abc import Collection, Iterable
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from experiments.results import table
from experiments.results.comparisons import compared, marks
from experiments.results.drawing import curves
from experiments.results.statistics import BASELINE, Record, or_nan
from experiments.results.table import Table, by_seed, grid, means, select

# RoPE that is read through a window of the trained length, as a scheme of its own.
WINDOWED = "rope_windowed"
# The families of comparisons, for each split.
GAIN, LOSS = "gain over the own window, ", "loss, "


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
    is_longer = (frame["measure"] == "last") & (frame["x"] > 1) & (frame["scheme"] != WINDOWED)
    return table.lowered(frame[is_longer], select(frame, measure="windowed"), "gain")


def comparisons(frame: pd.DataFrame, extensions: Collection[str]) -> pd.DataFrame:
    """Compares losses with those of RoPE through a window, and with the model's own window.

    All tokens of a text count for the test split alone. ``extensions`` are the schemes that read a
    model which another scheme has trained.
    """
    losses = select(frame, measure=("last", "windowed", "non_overlapping"))
    losses = losses[(losses["split"] == "test") | (losses["measure"] != "non_overlapping")]
    gain = gains(frame)
    tables = [
        compared(losses.assign(family=LOSS + losses["split"], is_error=True), WINDOWED, extensions),
        compared(gain.assign(family=GAIN + gain["split"], is_error=False), None, extensions),
    ]
    return pd.concat([table for table in tables if len(table)] or tables[:1], ignore_index=True)


def as_columns(table: pd.DataFrame) -> pd.DataFrame:
    """Returns rows of a table with an infinite x for the windowed baseline, as the last column."""
    is_windowed = (table["measure"] == "windowed") & (table["x"] == 1)
    return table.assign(x=table["x"].where(~is_windowed, math.inf))


@dataclasses.dataclass(frozen=True)
class Shown:
    """Shows the losses of models that were trained on texts of ``length`` tokens."""

    length: int
    last_tokens: int

    def main(self, frame: pd.DataFrame, compared: pd.DataFrame, split: str) -> Table:
        """Returns the losses of the last tokens of one split, with the windowed baseline."""
        frame, compared = (select(table, split=split) for table in (frame, compared))
        last, windowed = (as_columns(select(frame, measure=m)) for m in ("last", "windowed"))
        windowed = windowed[windowed["scheme"] != WINDOWED]
        gain = marks(compared, "✓", "", measure="gain")
        losses = as_columns(select(compared, measure=("last", "windowed")))
        ahead = marks(losses, worse="")
        made = self.grid(
            pd.concat([last, windowed]),
            f"{split}: bits per byte of the last {self.last_tokens} tokens",
            marks={cell: gain.get(cell, "") + sign for cell, sign in ahead.items()},
            caption="Mean ± half of its 95 % interval over seeds; lower is better. A cell is "
            "darker where a scheme is worse than at its own 1x. "
            "✓ better than the same model when that sees only its last 1x tokens (windowed). "
            f"▲ better than {WINDOWED}, which is RoPE when it sees no more. Both are told "
            "after correction.",
        )
        mean = means(last).pivot(index="scheme", columns="x", values="mean")
        depth = (2 * (mean.div(mean[1], axis=0) - 1)).clip(0, 1) ** 0.5
        depth = depth.rename(columns=self._head).reindex_like(made.cells).fillna(0.0)
        return dataclasses.replace(made, shades=depth)

    def perplexity(self, frame: pd.DataFrame, split: str, bytes_per_token: float) -> Table:
        """Returns the perplexity of the last tokens of one split."""
        frame = by_seed(select(frame, split=split, measure="last"))
        nats = frame["value"] * math.log(2) * bytes_per_token
        frame = frame.assign(value=np.exp(nats.where(nats < 700, math.inf)))
        return self.grid(frame, f"{split}: perplexity per token of the last tokens")

    def others(self, frame: pd.DataFrame, split: str) -> list[Table]:
        """Returns the losses of one split by the other protocols."""
        frame = select(frame, split=split)
        return [
            self.grid(of_measure, f"{split}: bits per byte, {measure.replace('_', '-')}")
            for measure, of_measure in frame.groupby("measure", sort=False)
            if measure not in ("last", "windowed", "position")
        ]

    def grid(self, frame: pd.DataFrame, title: str, **more: Any) -> Table:
        """Returns one measure by multiple of the length; the best at 4x, if there is one, first."""
        xs = frame["x"].unique()
        best_at = 4 if 4 in xs else max(x for x in xs if x < math.inf)
        return grid(frame, title, best_at=best_at, heads=self._head, **more)

    def _head(self, multiple: float) -> str:
        """Returns the words above a column; the windowed baseline's multiple is infinite."""
        if multiple == math.inf:
            return "windowed\n1x"
        return f"{multiple:g}x\n{multiple * self.length:g}"

    def figure(self, frame: pd.DataFrame) -> Figure:
        """Draws the losses of the last tokens; texts of all splits count.

        If there are many schemes, the best four and the baselines are seen apart.
        """
        last = select(frame, measure="last").assign(split="all")
        best = means(select(last, x=4 if 4 in set(last["x"]) else last["x"].max()))
        best = best.sort_values("mean")["scheme"]
        named = {*best[:4], *best[best.isin(["rope", BASELINE, WINDOWED])]}
        return curves(
            last.assign(x=last["x"] * self.length),
            {*best} if len(best) < 8 else named,
            xlabel="context length in tokens",
            ylabel="bits per byte",
            trained=self.length,
        )
