"""Compares schemes by seed, and corrects the verdicts for how many comparisons there are.

The input is a tidy table, see ``table.py``, with two columns more: ``is_error``, whether lower is
better, and ``family``. A question is what ``split, measure, x`` say. All comparisons of one family
of questions with one scheme are corrected together, by the procedure of Benjamini and Hochberg
(1995): among the verdicts "better" a share of at most ``Q / 2`` is expected to be due to
chance, and so among the verdicts "worse". Each direction is corrected by itself, because many
schemes that fall apart would otherwise make it easier to be called better.

**Pairs.** A seed gives every scheme the same batches in the same order. So a comparison is about
the differences of two schemes within each seed, and what a seed does to all schemes cancels.

**Few seeds.** The variance of three differences is hardly known: a t-test on them alone has two
degrees of freedom, and after correction for hundreds of comparisons it finds nothing. Therefore
each variance is drawn toward the one that the other schemes at the same question lead to expect,
as in limma (Smyth 2004, "Linear models and empirical Bayes methods for assessing differential
expression in microarray experiments"): variances are taken to be a common one, over a chi-square
with ``d`` degrees of freedom, times an error of estimation; the spread of their logarithms tells
``d``, and a comparison of n seeds has ``d + n - 1`` degrees of freedom. Four things differ here.

- All differences from one scheme contain its seeds. If the common variance were computed from these
  differences, a scheme whose seeds are close by chance would make all variances too small: in a
  simulation without any effect, up to 23 % of the families had a verdict. It is therefore computed
  from each scheme's own deviations, without what a seed does to all schemes, and a difference is
  expected to have the variance of both schemes together.
- Schemes that read one trained model, as RoPE and its extensions do, have nearly the same
  deviations. Counted as several they would take over what a seed does to all schemes, and RoPE's
  variance would seem to be 0. So extensions do not count beside trained schemes. RoPE through a
  window does, where its answers differ from RoPE's. A study of extensions alone counts all of them.
- Schemes that fall apart vary more. The common variance is a line in the rank of the mean (its
  logarithm is), as in limma's trend, if there are ``_TREND`` schemes or more.
- limma has thousands of genes. With 80 schemes ``d`` is uncertain, and a value that is too high
  gives too many verdicts (14 % of families without any effect). So ``d`` is computed from the upper
  end of the 90 % interval of the spread, and is at most the number of schemes minus 2.

In simulations without any effect, with three seeds, 0 to 7 % of the families of 80 schemes have a
verdict, and 0 to 10 % of those of 2 to 24 schemes, depending on how much the true variances differ;
see ``tests/experiments/results/test_comparisons.py``.
"""

import functools
import math
from collections.abc import Collection
from typing import Any

import numpy as np
import pandas as pd
import scipy
from scipy import special

from experiments.results.table import QUESTION, select

Q = 0.05  # the false discovery rate, half of it in each direction
RULE = (
    "Schemes are compared by seed, and verdicts are corrected by family (Benjamini and Hochberg, "
    f"q = {Q / 2:g} for better and for worse alike)."
)
_RESULT = ["scheme", "against", "seeds", "difference", "margin", "p", "p_corrected", "verdict"]
# The number of schemes from which the variance may depend on the rank of the mean.
_TREND = 20
# The quantile of the normal distribution that is the upper end of a 90 % interval.
_UPPER = 1.645
_DRAWS = 10_000


def compared(
    values: pd.DataFrame, against: str | None, extensions: Collection[str] = ()
) -> pd.DataFrame:
    """Compares every scheme with ``against``, at each question that both have answered.

    ``extensions`` are the schemes that read a model which another scheme has trained. Where
    ``against`` is None the values are differences already, and are compared with 0. A value that is
    not finite says that training diverged. Returns a row for each comparison, with the columns
    ``family, study, split, measure, x, scheme, against, seeds`` and these: ``difference`` is the
    mean over seeds, positive in the scheme's favour; ``margin`` is half of its 95 % interval;
    ``p_corrected`` is two-sided and corrected within the family, and gives a verdict if it is at
    most ``Q``; ``verdict`` is "better", "worse", "no difference", "the same", "diverged" or "too
    few seeds". "The same" is said of equal values, as of two schemes that read one checkpoint in
    the same way; they are not part of a family, because nothing is compared.
    """
    keys = ["family", "study", *QUESTION]
    tables = [
        _question(group, against, extensions).assign(**dict(zip(keys, names, strict=True)))
        for names, group in values.groupby(keys, sort=False)
        if against is None or (group["scheme"] == against).any()
    ]
    if not tables:
        return pd.DataFrame(columns=[*keys, *_RESULT])
    table = pd.concat(tables, ignore_index=True).assign(against=against)
    table["p_corrected"] = table["p"].clip(lower=1.0)
    for word, sign in (("better", 1.0), ("worse", -1.0)):
        is_side = sign * table["difference"] > 0
        one_sided = (table["p"] / 2).where(is_side, 1 - table["p"] / 2)
        two_sided = (2 * corrected(one_sided, table["family"])).clip(upper=1.0)
        table.loc[is_side, "p_corrected"] = two_sided
        table.loc[is_side & (two_sided <= Q), "verdict"] = word
    return table[[*keys, *_RESULT]]


def corrected(p: pd.Series, family: pd.Series) -> pd.Series:
    """Returns p values corrected within each family; a p value that is NaN stays NaN."""
    known = p.dropna()
    return known.groupby(family).transform(scipy.stats.false_discovery_control).reindex(p.index)


def families(table: pd.DataFrame) -> pd.DataFrame:
    """Returns a row for each family in a table of ``compared``, with how many verdicts it has.

    The columns are ``family, against, comparisons, better, worse``; ``against`` is "0" for values
    that are differences already.
    """
    rows = table.assign(against=table["against"].fillna("0"), comparisons=table["p"].notna())
    rows = rows.assign(**{word: rows["verdict"] == word for word in ("better", "worse")})
    groups = rows.groupby(["family", "against"], sort=False)
    return groups[["comparisons", "better", "worse"]].sum().reset_index()


def marks(
    table: pd.DataFrame, better: str = "▲", worse: str = "▼", **where: Any
) -> dict[tuple[str, Any], str]:
    """Returns the signs of verdicts by scheme and x, of the rows of ``compared`` with ``where``."""
    signs = select(table, **where).assign(
        sign=lambda t: t["verdict"].map({"better": better, "worse": worse})
    )
    return signs.dropna(subset="sign").set_index(["scheme", "x"])["sign"].to_dict()


def margins(table: pd.DataFrame) -> dict[tuple[str, Any], float]:
    """Returns half of the 95 % interval of each comparison by scheme and x."""
    return table.set_index(["scheme", "x"])["margin"].to_dict()


def _question(group: pd.DataFrame, against: str | None, extensions) -> pd.DataFrame:
    """Returns the comparisons of one question, before correction."""
    is_error, has_texts = group["is_error"].iloc[0], "text" in group
    if has_texts and group["text"].isna().any():
        # Some answers say nothing of single texts, so all are compared by their means.
        group, has_texts = group.groupby(["scheme", "seed"], as_index=False)["value"].mean(), False
    columns = ["seed", "text"] if has_texts else ["seed"]
    answers = group.pivot(index="scheme", columns=columns, values="value")
    answers *= -1 if is_error else 1
    by_seed = answers.T.groupby(level="seed").mean().T if has_texts else answers

    others = by_seed if against is None else by_seed.drop(against)
    other = pd.Series(0.0, by_seed.columns) if against is None else by_seed.loc[against]
    is_shared = others.notna() & other.notna()
    has_diverged = (is_shared & (np.isinf(others) | np.isinf(other))).any(axis=1)
    difference = (others - other).where(is_shared)
    difference.loc[has_diverged] = math.nan
    seeds = is_shared.sum(axis=1)

    expected, freedom = _expected(by_seed, extensions, is_paired=against is not None)
    if against is not None:
        expected += expected[against]
    total = freedom + seeds - 1
    variance = freedom * expected[others.index] + (seeds - 1) * difference.var(axis=1)
    stderr = np.sqrt(variance / total / seeds)

    table = pd.DataFrame({"seeds": seeds, "difference": difference.mean(axis=1)})
    table["margin"] = stderr * special.stdtrit(total, 0.975)
    table["p"] = 2 * scipy.stats.t.sf((table["difference"] / stderr).abs(), total)
    table["verdict"] = "no difference"
    table.loc[(difference == 0).sum(axis=1) == seeds, "verdict"] = "the same"
    table.loc[seeds < 2, "verdict"] = "too few seeds"
    table.loc[has_diverged, "verdict"] = "diverged"
    is_tested = table["verdict"] == "no difference"
    table.loc[~is_tested, ["margin", "p"]] = math.nan
    if has_texts:
        for scheme in table.index[is_tested]:
            pair = answers.loc[[scheme] if against is None else [scheme, against]].dropna(axis=1)
            difference_NT = -np.diff(pair, axis=0) if against else pair.to_numpy()
            over_seeds = stderr[scheme], total[scheme]
            _, margin, p = over_texts(difference_NT.reshape(seeds[scheme], -1), *over_seeds)
            table.loc[scheme, ["margin", "p"]] = margin, p
    return table.reset_index()


def _expected(
    by_seed: pd.DataFrame, extensions: Collection[str], is_paired: bool
) -> tuple[pd.Series, float]:
    """Returns each scheme's variance as trained schemes suggest it, and its degrees of freedom.

    ``by_seed`` has answers by scheme and seed, NaN where one is missing. ``is_paired`` says whether
    they will be compared within seeds.
    """
    finite = by_seed[~np.isinf(by_seed).any(axis=1) & (by_seed.count(axis=1) > 1)]
    distinct = finite.drop(extensions, errors="ignore").drop_duplicates().index
    residuals = finite.sub(finite.mean(axis=1), axis=0)
    variance = residuals.var(axis=1)
    if is_paired and len(distinct) > 1:
        # What a seed does to all schemes is their median, which follows each of them a little.
        variance = (residuals - residuals.loc[distinct].median()).var(axis=1)
        variance *= len(distinct) / (len(distinct) - 1)
    rank = finite.mean(axis=1).rank(pct=True)
    is_known = (variance > 0) & variance.index.isin(distinct)
    counts = finite.count(axis=1)
    line, freedom = _prior(variance[is_known], counts[is_known] - 1, rank[is_known])
    return pd.Series(np.exp(np.polyval(line, rank)), rank.index).reindex(by_seed.index), freedom


def _prior(variance: pd.Series, freedom: pd.Series, rank: pd.Series) -> tuple[np.ndarray, float]:
    """Fits a common variance and its degrees of freedom to variances of the given freedom.

    Returns the logarithm of the common variance as a polynomial of the rank, and the degrees of
    freedom, 0 if there are too few variances.
    """
    count, degree = len(variance), 1 if len(variance) >= _TREND else 0
    if count < 4:
        return np.zeros(1), 0.0
    half = freedom.to_numpy(float) / 2
    logs = np.log(variance.to_numpy()) - special.digamma(half) + np.log(half)
    line = np.polyfit(rank, logs, degree)
    squares = (logs - np.polyval(line, rank)) ** 2 * count / (count - degree - 1)
    upper = squares.mean() + _UPPER * squares.std() / math.sqrt(count)
    excess = upper - special.polygamma(1, half).mean()
    d = count - 2.0
    if excess > special.polygamma(1, d / 2):
        d = 2 * scipy.optimize.brentq(lambda x: special.polygamma(1, x) - excess, 1e-4, d / 2)
    # The mean of the logarithm of a variance is below the logarithm of its mean.
    line[-1] += special.digamma(d / 2) - math.log(d / 2)
    return line, d


@functools.cache
def _draws_of_texts(texts: int) -> np.ndarray:
    """Returns how often each text is drawn with replacement, float ``[draws, texts]``."""
    even = np.full(texts, 1 / texts)
    return np.random.default_rng(0).multinomial(texts, even, size=_DRAWS).astype(float)


def over_texts(
    difference_NT: np.ndarray, stderr: float, freedom: float
) -> tuple[float, float, float]:
    """Returns a mean difference, half of its 95 % interval and its p value over seeds and texts.

    This is a two-way bootstrap. Texts are drawn again with replacement, the same ones for all
    seeds. The seeds are too few for that: drawn from three, they have two thirds of the variance
    and no tails. So the error over seeds is drawn from Student's distribution, with ``stderr`` and
    the degrees of ``freedom`` of its estimate. With 3 seeds and 96 texts, 0 to 4 % of differences
    without any effect have p < 0.05.
    """
    mean_T, texts = difference_NT.mean(axis=0), difference_NT.shape[1]
    mean = float(difference_NT.mean(axis=1).mean())
    of_seeds = stderr * np.random.default_rng(1).standard_t(freedom, size=_DRAWS)
    errors = np.abs(_draws_of_texts(texts) @ (mean_T - mean) / texts + of_seeds)
    p = (1 + np.count_nonzero(errors >= abs(mean))) / (1 + _DRAWS)
    return mean, float(np.quantile(errors, 0.95)), float(p)
