"""Finds from the table of ``studies/copying.py`` when models begin to copy, and draws it.

A row of that table is one number that was measured at a step of a run.
"""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy.stats import CensoredData, ecdf

from experiments.results.drawing import SOFT, finish, styles_of
from experiments.results.table import Table

ONSET = 0.1  # bits per byte
RUN = ["study", "scheme", "depth", "rate", "seed"]
# The losses that are compared: on source code of packages that no model was trained on.
_UNSEEN = "code/"


def onsets(table: pd.DataFrame) -> pd.DataFrame:
    """Returns a row for each run: its onset and whether that is censored, and its last numbers.

    The ``onset`` is the number of tokens at the first score above ``ONSET``. A run that has none up
    to its last measurement is censored there. ``copied`` is its last score, and ``loss`` its last
    loss on unseen code in bits, NaN for a run that is not finished.
    """
    rows = []
    for run, of_run in table.sort_values("step").groupby(RUN):
        scores = of_run[of_run["measure"] == "score"]
        above = scores.loc[scores["value"] > ONSET, "tokens"]
        last = of_run[of_run["is_last"] & of_run["measure"].str.startswith(_UNSEEN)]
        rows.append(
            dict(zip(RUN, run, strict=True))
            | {"onset": above.iloc[0] if len(above) else scores["tokens"].iloc[-1]}
            | {"is_censored": above.empty, "is_finished": bool(of_run["is_last"].any())}
            | {"copied": scores["value"].iloc[-1], "loss": last["value"].mean()}
        )
    return pd.DataFrame(rows)


def of_models(table: pd.DataFrame) -> pd.DataFrame:
    """Returns the ``onsets`` with one row a model: two studies may train the same, and one end."""
    runs = onsets(table).sort_values("is_finished", ascending=False, kind="stable")
    return runs.drop_duplicates(RUN[1:]).sort_index()


def share_that_copies(runs: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Returns numbers of tokens, and the share of runs that copy by then.

    It is Kaplan and Meier's estimate, which takes a run without an onset as one that may begin
    later.
    """
    seen, censored = (runs.loc[runs["is_censored"] == it, "onset"] for it in (False, True))
    share = ecdf(CensoredData(seen, right=censored)).cdf
    return np.r_[0, share.quantiles], np.r_[0, share.probabilities]


def ahead(runs: pd.DataFrame) -> pd.DataFrame:
    """Returns finished runs with ``ahead``, the loss of the same run of RoPE minus their own."""
    finished = runs.dropna(subset="loss")
    others = [name for name in RUN if name != "scheme"]
    rope = finished.loc[finished["scheme"] == "rope", [*others, "loss"]]
    both = finished.merge(rope, on=others, suffixes=("", "_of_rope"))
    return both.assign(ahead=both["loss_of_rope"] - both["loss"])


def summary(table: pd.DataFrame) -> Table:
    """Returns how many runs of each scheme and depth copy, and when half of them do."""
    words = {}
    for (depth, scheme), of in of_models(table).groupby(["depth", "scheme"]):
        tokens, share = share_that_copies(of)
        half = tokens[share >= 0.5]
        words[scheme, f"{depth} layers"] = f"{(~of['is_censored']).sum()} of {len(of)}" + (
            f", half by {half[0] / 1e6:.1f} M tokens" if len(half) else ""
        )
    cells = pd.Series(words).unstack(fill_value="-").rename_axis("scheme")
    return Table("Runs that copy", cells, f"A run copies from its first score above {ONSET} on.")


def figure(table: pd.DataFrame) -> Figure:
    """Draws a dot for each finished model, and beside it the share that copies, by scheme."""
    runs = of_models(table)
    dots, depths = ahead(runs[runs["scheme"] != "nope"]), sorted(runs["depth"].unique())
    drawn = Figure(figsize=(3.1 * (1 + len(depths)), 3.4), layout="constrained")
    axes, *others = drawn.subplots(1, 1 + len(depths))
    styles = styles_of(runs["scheme"])
    for scheme, of in dots.groupby("scheme"):
        axes.plot(of["copied"], of["ahead"], "o", ms=4, color=styles[scheme]["color"])
    axes.axvline(ONSET, color=SOFT, linewidth=0.8)
    axes.set(xlabel="copying score, bits per byte", ylabel="bits ahead of RoPE on unseen code")
    finish(axes)
    for side, depth in zip(others, depths, strict=True):
        for scheme, of in runs[runs["depth"] == depth].groupby("scheme"):
            tokens, share = share_that_copies(of)
            side.step(tokens / 1e6, share, where="post", label=scheme, **styles[scheme])
        side.set(title=f"{depth} layers", xlabel="million tokens", ylim=(-0.03, 1.03))
        finish(side)
    others[0].set_ylabel("share of runs that copy")
    drawn.legend(
        *others[-1].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=7
    )
    return drawn
