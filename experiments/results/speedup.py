"""Says how much compute a scheme saves at the training loss that it reaches.

    effective speed-up = C_baseline(L) / C,    C = 6 N D

``L`` is the scheme's training loss at its end and ``C`` the compute of its run: six operations for
each of ``N`` parameters and ``D`` tokens (2001.08361). ``C_baseline(L)`` is the compute after which
the loss of the baseline with the same seed stays at or below ``L``. A loss at a step is a mean over
the lines of ``metrics.jsonl`` up to the step, as many as a tenth of all lines; between two lines
the baseline's loss is interpolated linearly.
"""

import itertools
import statistics
from collections.abc import Mapping, Sequence

from experiments.results.statistics import BASELINE, Record

Curve = Sequence[tuple[int, float]]  # steps, and the training loss of each


def with_speedups(
    training: Sequence[Record], curves: Mapping[tuple[str, int], Curve]
) -> list[Record]:
    """Returns ``training`` with ``speedup`` and ``speedup_above`` added where they are known.

    ``speedup`` is None if the baseline did not reach the scheme's loss. Then the speed-up is above
    ``speedup_above``, from the whole run of the baseline. ``curves`` has losses by scheme and seed.
    """
    baselines = {r["seed"]: r for r in training if r["scheme"] == BASELINE}
    runs = []
    for run in training:
        baseline, seed = baselines.get(run["seed"]), run["seed"]
        theirs, ours = (smoothed(curves.get((s, seed), ())) for s in (BASELINE, run["trained"]))
        if baseline is None or not theirs or not ours:
            runs.append(run)
            continue
        (last, _), (_, loss) = theirs[-1], ours[-1]
        share, step = _compute(baseline) / _compute(run), reached(theirs, loss)
        speedup = None if step is None else step / last * share
        runs.append(run | {"speedup": speedup, "speedup_above": share})
    return runs


def _compute(run: Record) -> float:
    return 6.0 * run["parameters"] * run["tokens"]


def smoothed(curve: Curve) -> list[tuple[int, float]]:
    """Returns the mean of the losses up to each step, over a window of a tenth of the curve."""
    width = max(len(curve) // 10, 1)
    losses = [loss for _, loss in curve]
    return [
        (step, statistics.fmean(losses[max(end - width, 0) : end]))
        for end, (step, _) in enumerate(curve, 1)
    ]


def reached(curve: Curve, loss: float) -> float | None:
    """Returns the step after which a curve stays at or below ``loss``, or None if it does not."""
    if curve[-1][1] > loss:
        return None
    for (step, low), (earlier, high) in itertools.pairwise(reversed(curve)):
        if high > loss:
            return earlier + (step - earlier) * (high - loss) / (high - low)
    return float(curve[0][0])
