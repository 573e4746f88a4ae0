"""Says how much compute a scheme saves at the training loss that it reaches.

    effective speed-up = C_baseline(L) / C,    C = 6 N D

``L`` is the scheme's training loss at its end and ``C`` the compute of its run: six operations for
each of ``N`` parameters and ``D`` tokens (2001.08361). ``C_baseline(L)`` is the compute from which
on the baseline of the same seed is no worse than ``L``. Losses are means over the last tenth of the
lines of ``metrics.jsonl`` up to a step, and between two lines the baseline's is on a line.
"""

import itertools
import statistics
from collections.abc import Mapping, Sequence

from experiments.report.study import BASELINE, Record

Curve = Sequence[tuple[int, float]]  # steps, and the training loss of each


def with_speedups(
    training: Sequence[Record], curves: Mapping[tuple[str, int], Curve]
) -> list[Record]:
    """Returns what training cost, with ``speedup`` and ``speedup_above`` where they are known.

    ``speedup`` is None where the baseline has not come to the scheme's loss by its end; then it is
    above ``speedup_above``, which is what the whole run of the baseline would make of it.

    Args:
      training: ``scheme, seed, tokens, parameters, trained`` of each run.
      curves: the losses of each run, by scheme and seed.
    """
    baselines = {r["seed"]: r for r in training if r["scheme"] == BASELINE}
    found = []
    for run in training:
        baseline, seed = baselines.get(run["seed"]), run["seed"]
        theirs, own = (smoothed(curves.get((s, seed), ())) for s in (BASELINE, run["trained"]))
        if baseline is None or not theirs or not own:
            found.append(run)
            continue
        (last, _), (_, loss) = theirs[-1], own[-1]
        share, step = _compute(baseline) / _compute(run), reached(theirs, loss)
        speedup = None if step is None else step / last * share
        found.append(run | {"speedup": speedup, "speedup_above": share})
    return found


def _compute(run: Record) -> float:
    return 6.0 * run["parameters"] * run["tokens"]


def smoothed(curve: Curve) -> list[tuple[int, float]]:
    """Returns at each step the mean of the losses up to it, over a tenth of the curve."""
    width = max(len(curve) // 10, 1)
    losses = [loss for _, loss in curve]
    means = (
        statistics.fmean(losses[max(end - width, 0) : end]) for end in range(1, len(losses) + 1)
    )
    return [(step, mean) for (step, _), mean in zip(curve, means, strict=True)]


def reached(curve: Curve, loss: float) -> float | None:
    """Returns the step from which on a curve is at ``loss`` or below, or None where it is not."""
    if curve[-1][1] > loss:
        return None
    for (step, low), (earlier, high) in itertools.pairwise(reversed(curve)):
        if high > loss:
            return earlier + (step - earlier) * (high - loss) / (high - low)
    return float(curve[0][0])
