"""Holds the records of an extension study, by length and by steps of fine-tuning."""

import dataclasses
import math
from collections.abc import Iterable

from experiments.results.lengths import LengthStudy
from experiments.results.statistics import Cell, Record, mean_and_margin, or_nan, quotient

PLAIN = "rope"  # the scheme of the trained model as it is
# The protocols of records, see ``studies/extension/evaluations.py``.
LAST, THROUGH_WINDOW, SHORT = "last", "windowed", "short"
PROMISED = 0.95  # the share of short-context accuracy that papers say methods keep


@dataclasses.dataclass(frozen=True)
class ExtensionStudy(LengthStudy):
    """Holds the results of one trained model under every method, before and after tuning.

    A record has the fields of a ``LengthStudy``'s and ``steps``, for how many steps the model was
    tuned (0 if it was not). ``loss`` and ``accuracy`` of protocol "short" are of windows of the
    training length under the encoding for the target length. Protocol "windowed" is of the
    plain model. ``about`` has ``target``, the target length over the training length.
    """

    @property
    def steps(self) -> list[int]:
        """Returns the steps of fine-tuning that there are, ascending from 0."""
        return sorted({r["steps"] for r in self.records})

    def at(self, steps: int) -> LengthStudy:
        """Returns the results after ``steps`` steps, and the windowed plain model's."""
        records = [r for r in self.records if r["steps"] == steps and r["protocol"] == LAST]
        windowed = [r for r in self.records if r["protocol"] == THROUGH_WINDOW]
        for scheme in dict.fromkeys(r["scheme"] for r in records):
            records += [r | {"scheme": scheme} for r in windowed]
        about = self.about | {"judged_at": self.about["target"], "windowed": "the plain model"}
        return LengthStudy(records, [], [], about, [])


def windowed(study: ExtensionStudy) -> Cell | None:
    """Returns bits per byte of the plain model that sees no more than its training length."""
    values = [r["bits_per_byte"] for r in study.records if r["protocol"] == THROUGH_WINDOW]
    return mean_and_margin(values) if values else None


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
