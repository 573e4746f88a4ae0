"""Says which advantages of schemes last, from the results of the ladder's rungs.

Most functions read one tidy table, a row for each loss that was measured, with the columns

    rung        the name of the study, as in ``configs/ladder.py``
    length      tokens of a training sequence
    tokens      tokens of training
    parameters  parameters of the model, its encoding's included
    width       width of the model
    trained     the scheme whose training made the model
    scheme, seed, split, protocol, multiple
    bits        bits per byte
    texts       bits per byte of each text, float ``[N]``

and judge by two losses. "Trained" is that of all tokens of texts of the trained length. "Beyond" is
that of all tokens after the first trained length of texts that are longer, see
``evaluation/controls.py``; there RoPE through a window, which is fed the same tokens in windows of
the trained length, is the line to beat.

Training losses of one rung are another table, with a row for each number of tokens and a column for
each ``scheme, seed``.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy import interpolate, stats

from experiments.results.answers import GAIN, OWN_WINDOW, table
from experiments.results.comparisons import over_texts
from experiments.results.lengths import WINDOWED
from experiments.results.statistics import mean_and_margin

TRAINED, BEYOND, CUT = "non_overlapping", "beyond", "cut"
ROPE = "rope"
# The topics that findings are about, each with what schemes are compared with. Where texts are of
# several kinds, these topics are asked of each kind too.
OPPONENTS = {"text": ROPE, "text, beyond": WINDOWED, "gain": OWN_WINDOW}
# A scheme is far behind on a rung if its loss is so many bits per byte above RoPE's or, beyond the
# trained length, above that of RoPE through a window. Whatever the others do, schemes that are far
# behind would keep a rank correlation of rungs high.
FAR = 0.2
_DRAWS = 2000
# How much more compute than its largest model, or less than its smallest, RoPE's line is drawn to.
CONTINUED = 4.0


def losses(records: pd.DataFrame, rung: str, protocol: str) -> pd.DataFrame:
    """Returns the losses of one rung: ``scheme, seed, text, value``, a row for each text.

    Texts of all splits count; for "trained" they have the trained length. For "beyond" RoPE through
    a window is one of the schemes, named ``WINDOWED``.
    """
    chosen = _of(records, rung, protocol)
    if protocol == BEYOND:
        windowed = _of(records, rung, CUT)
        windowed = windowed[windowed["scheme"] == ROPE].assign(scheme=WINDOWED)
        chosen = pd.concat([chosen, windowed])
    long = chosen[["scheme", "seed", "split", "texts"]].explode("texts", ignore_index=True)
    number = long.groupby(["scheme", "seed", "split"]).cumcount().astype(str)
    long["text"] = long["split"] + " " + number
    return long.rename(columns={"texts": "value"}).drop(columns="split").astype({"value": float})


def values(records: pd.DataFrame, rung: str) -> pd.DataFrame:
    """Returns the numbers of one rung as ``results/answers.py`` has them.

    The topics are "text", the loss at the trained length; "text, beyond"; "gain", by how much that
    is lower than through a window of the trained length; "order", by how much the loss of the last
    tokens is lower than where the far context is shuffled; and "sight", by how much "beyond" is
    lower than where every layer sees the nearest tokens alone. Each topic is a family of questions
    of its own: beyond the trained length nearly every scheme is better than RoPE, which in a common
    family would lower the bar at the trained length.

    Where texts are of several kinds, the topics of ``OPPONENTS`` are asked of each kind too, as in
    "text of code". A mean over kinds hides a scheme that is better on one and worse on another.
    """
    multiple = records.loc[records["rung"] == rung, "multiple"].max()
    trained, whole, cut, hidden = (
        losses(records, rung, protocol) for protocol in (TRAINED, BEYOND, CUT, "window")
    )
    last, shuffled = (
        losses(records[records["multiple"] == multiple], rung, protocol)
        for protocol in ("last", "shuffled")
    )
    loss, is_loss = f"loss, {rung}", {"is_error": True}
    tables = [
        trained.assign(topic="text", multiple=1.0, family=loss, **is_loss),
        whole.assign(topic="text, beyond", multiple=multiple, family=f"{loss}, beyond", **is_loss),
    ]
    differences = {"gain": (cut, whole), "order": (shuffled, last), "sight": (hidden, whole)}
    for topic, (more, less) in differences.items():
        both = more.merge(less, on=["scheme", "seed", "text"], suffixes=("", "_less"))
        both["value"] -= both.pop("value_less")
        family = f"{GAIN}, {rung}" if topic == "gain" else f"{GAIN}, {topic}, {rung}"
        tables.append(both.assign(topic=topic, multiple=multiple, family=family, is_error=False))
    asked = pd.concat(tables, ignore_index=True)
    kind = asked["text"].str.split().str[0]
    if kind.nunique() > 1:
        of_kinds = asked.assign(
            topic=asked["topic"] + " of " + kind, family=asked["family"] + ", by kind"
        )
        asked = pd.concat([asked, of_kinds[asked["topic"].isin(OPPONENTS)]], ignore_index=True)
    return table(asked.assign(unit="bits per byte", says=""))


def extensions(records: pd.DataFrame) -> set[str]:
    """Returns the schemes that read a model which another scheme has trained."""
    return set(records.loc[records["scheme"] != records["trained"], "scheme"])


def mean_losses(records: pd.DataFrame, rungs: Sequence[str], protocol: str) -> pd.DataFrame:
    """Returns the mean losses of schemes in the columns ``rungs``, over texts of all of them."""
    tables = {rung: losses(records, rung, protocol) for rung in rungs}
    texts = set.intersection(*(set(table["text"]) for table in tables.values()))
    return pd.DataFrame(
        {
            rung: table[table["text"].isin(texts)].groupby("scheme")["value"].mean()
            for rung, table in tables.items()
        }
    )


def window_points(records: pd.DataFrame, rungs: Sequence[str]) -> dict[str, pd.DataFrame]:
    """Returns the points of ``maps.beyond_window`` of each rung, over texts of all of them."""
    whole, window = (mean_losses(records, rungs, protocol) for protocol in (BEYOND, CUT))
    return {
        rung: pd.DataFrame({"window": window[rung], "above": whole[rung] - window[rung]}).dropna()
        for rung in rungs
    }


def _of(records: pd.DataFrame, rung: str, protocol: str) -> pd.DataFrame:
    is_chosen = (records["rung"] == rung) & (records["protocol"] == protocol)
    if protocol == TRAINED:
        is_chosen &= records["multiple"] == 1
    return records[is_chosen]


def correlation(
    records: pd.DataFrame, one: str, other: str, protocol: str
) -> dict[str, Any] | None:
    """Returns the rank correlation of two rungs over the schemes of both, or None below three.

    Schemes that are far behind on either rung, by more than ``FAR``, are left out. Beside the
    arguments the result has ``schemes``, how many are ranked; ``seeds``, how many each rung has;
    ``rho``, Spearman's rank correlation of the means over seeds and texts; and ``low, high``, its
    95 % interval, in which texts are drawn again, the same ones for both rungs, and the error over
    seeds is drawn from Student's distribution, as in ``comparisons.over_texts``.
    """
    sides = [losses(records, rung, protocol) for rung in (one, other)]
    texts = sorted(set(sides[0]["text"]) & set(sides[1]["text"]))
    shared = sorted(_near(sides[0], protocol) & _near(sides[1], protocol))
    if len(shared) < 3:
        return None
    arrays = [_array(side, shared, texts) for side in sides]
    rng = np.random.default_rng(0)
    weights_DT = rng.multinomial(len(texts), np.full(len(texts), 1 / len(texts)), size=_DRAWS)
    means = [np.nanmean(array_CNT.mean(axis=2), axis=1) for array_CNT in arrays]
    drawn = [_drawn_means(array_CNT, rng, weights_DT / len(texts)) for array_CNT in arrays]
    rhos = [stats.spearmanr(*pair).statistic for pair in zip(*drawn, strict=True)]
    rho = stats.spearmanr(*means).statistic
    low, high = np.nanquantile(rhos, [0.025, 0.975])
    counts = {"schemes": len(shared), "seeds": [int(side["seed"].nunique()) for side in sides]}
    numbers = counts | {"rho": float(rho), "low": float(low), "high": float(high)}
    return {"one": one, "other": other, "protocol": protocol} | numbers


def _near(table: pd.DataFrame, protocol: str) -> set[str]:
    """Returns the schemes not far behind RoPE; beyond the trained length, RoPE through a window."""
    means = table.groupby("scheme")["value"].mean()
    line = means.get(WINDOWED if protocol == BEYOND else ROPE, math.inf)
    return set(means.index[means <= line + FAR])


def _array(table: pd.DataFrame, schemes: list[str], texts: list[str]) -> np.ndarray:
    """Returns losses as ``[schemes, seeds, texts]``, NaN where a scheme lacks a seed."""
    wide = table.pivot(index=["scheme", "seed"], columns="text", values="value")[texts]
    seeds = sorted(table["seed"].unique())
    rows = pd.MultiIndex.from_product([schemes, seeds])
    return wide.reindex(rows).to_numpy().reshape(len(schemes), len(seeds), -1)


def _drawn_means(array_CNT, rng: np.random.Generator, weights_DT: np.ndarray) -> np.ndarray:
    """Returns the mean of each scheme over weighted texts for each draw, ``[D, C]``.

    To each is added an error over seeds, from Student's distribution. What a seed does to all
    schemes is no part of it. One seed has no error.
    """
    by_seed_CN = array_CNT.mean(axis=2)
    seeds_C = np.isfinite(by_seed_CN).sum(axis=1)
    by_seed_CN = by_seed_CN - np.nanmean(by_seed_CN, axis=0)
    spread_C = np.nanstd(by_seed_CN, axis=1, ddof=0) / np.sqrt(np.maximum(seeds_C - 1, 1))
    draws_DC = rng.standard_t(np.maximum(seeds_C - 1, 1), size=(len(weights_DT), len(seeds_C)))
    return weights_DT @ np.nanmean(array_CNT, axis=1).T + spread_C * draws_DC


def speed_ups(records: pd.DataFrame, rungs: Iterable[str], protocol: str) -> pd.DataFrame:
    """Returns how much compute RoPE needs for the loss of each scheme, over the scheme's own.

    Compute is ``6 N D`` operations for N parameters and D tokens (2001.08361). RoPE's loss as a
    function of compute goes through the rungs, which are sizes of one model; between two of them,
    and by a factor ``CONTINUED`` of compute beyond the ends, the logarithm of the loss is a line in
    the logarithm of compute. For "beyond" it is the loss of RoPE through a window. The columns are
    ``rung, scheme, speed_up, is_beyond, limit``. ``is_beyond`` says that the loss lies outside all
    of RoPE's, and ``limit`` is ">" or "<" where it lies outside the line too: ``speed_up`` is that
    of the line's end, and more or less than that is needed.
    """
    tables = []
    for rung in rungs:
        bits = losses(records, rung, protocol).groupby("scheme")["value"].mean()
        runs = _of(records, rung, TRAINED).groupby("scheme")[["parameters", "tokens"]].mean()
        table = pd.DataFrame({"bits": bits, "compute": 6 * runs.prod(axis=1)})
        table.loc[WINDOWED, "compute"] = table["compute"].get(ROPE, math.nan)
        tables.append(table.dropna().assign(rung=rung).reset_index(names="scheme"))
    columns = ["rung", "scheme", "speed_up", "is_beyond", "limit"]
    if len(tables) < 2:
        return pd.DataFrame(columns=columns)
    table = pd.concat(tables, ignore_index=True)
    line = table[table["scheme"] == (WINDOWED if protocol == BEYOND else ROPE)]
    line = line.sort_values("compute")
    if len(line) < 2:
        return pd.DataFrame(columns=columns)
    known = np.log(line[["bits", "compute"]]).T.to_numpy()
    needed = np.exp(interpolate.interp1d(*known, fill_value="extrapolate")(np.log(table["bits"])))
    least, most = line["compute"].min() / CONTINUED, line["compute"].max() * CONTINUED
    table["speed_up"] = needed.clip(least, most) / table["compute"]
    table["limit"] = np.select([needed > most, needed < least], [">", "<"], "")
    table["is_beyond"] = ~table["bits"].between(line["bits"].min(), line["bits"].max())
    return table[columns]


def oracle(records: pd.DataFrame, rung: str, longer: str) -> pd.DataFrame:
    """Compares schemes in long texts with the same schemes trained on texts of that length.

    Both read the same tokens, and are scored on the same last ones, after as many steps. ``longer``
    is the rung that was trained on long texts, the oracle. By scheme, the columns are the losses
    ``window``, through the window of ``rung``, ``extrapolated`` and ``oracle``, and by how much the
    oracle is lower, ``lost``, with ``margin`` and ``p``.
    """
    length = records.loc[records["rung"] == longer, "length"].max()
    multiple = length / records.loc[records["rung"] == rung, "length"].max()
    sides = {
        "window": _last(records, rung, "windowed", 1),
        "extrapolated": _last(records, rung, "last", multiple),
        "oracle": _last(records, longer, "last", 1),
    }
    rows = {}
    shared = set.intersection(*(set(side.index.unique("scheme")) for side in sides.values()))
    for scheme in sorted(shared):
        row = {name: side[scheme].mean() for name, side in sides.items()}
        lost = (sides["extrapolated"][scheme] - sides["oracle"][scheme]).dropna()
        difference_NT = lost.unstack("seed").to_numpy().T
        if len(difference_NT) > 1:
            row["lost"], row["margin"], row["p"] = over_texts(difference_NT)
        rows[scheme] = row
    return pd.DataFrame.from_dict(rows, orient="index")


def _last(records: pd.DataFrame, rung: str, protocol: str, multiple: float) -> pd.Series:
    """Returns the losses of the last tokens by scheme, seed and text."""
    table = losses(records[records["multiple"] == multiple], rung, protocol)
    return table.set_index(["scheme", "seed", "text"])["value"]


def mean_curves(runs: pd.DataFrame) -> pd.DataFrame:
    """Returns the mean training losses over seeds, by tokens and scheme.

    A run that was stopped and went on has one loss more, at the step where it stopped. Only the
    tokens at which all runs have a loss are kept.
    """
    return runs.dropna().T.groupby(level="scheme", sort=False).mean().T


def crossings(curves: pd.DataFrame) -> list[tuple[str, int, float]]:
    """Returns where the training losses of schemes cross RoPE's for the last time.

    ``curves`` has smoothed losses, by tokens and scheme. A crossing is a scheme, tokens and a loss;
    a scheme that never crosses is left out.
    """
    rows = []
    for scheme, is_below in curves.lt(curves[ROPE], axis=0).items():
        changes = np.flatnonzero(np.diff(is_below))
        if len(changes):
            tokens = curves.index[changes[-1] + 1]
            rows.append((str(scheme), int(tokens), float(curves.loc[tokens, scheme])))
    return rows


def leads(runs: pd.DataFrame) -> list[dict[str, Any]]:
    """Returns by how much training losses are below RoPE's, after a tenth of the tokens and all.

    A row has ``tokens``, the number of tokens, and ``by_scheme``: for each scheme ``lead``, in
    nats, which is negative where the scheme is behind, and ``margin``, half of its 95 % interval
    over seeds, each with RoPE's same seed; None below two seeds.
    """
    shared = runs.dropna()
    last = shared.index[-1]
    rows = []
    for tokens in (next(count for count in shared.index if 10 * count >= last), last):
        by_scheme = {}
        for scheme in runs.columns.unique("scheme").drop(ROPE):
            by_seed = (shared[ROPE] - shared[scheme]).loc[tokens]
            lead, margin, _ = mean_and_margin(by_seed.dropna())
            by_scheme[scheme] = {"lead": lead, "margin": None if math.isnan(margin) else margin}
        rows.append({"tokens": int(tokens), "by_scheme": by_scheme})
    return rows
