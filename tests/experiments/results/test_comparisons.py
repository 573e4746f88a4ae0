"""Tests that verdicts are paired and corrected, and that chance gives as few as is said."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from experiments.results.comparisons import Q, compared, corrected, families, over_texts

# What is asked, where that does not matter.
ASKED = {"study": "text", "split": "test", "measure": "last", "x": 2}


def tidy(is_error=True, family="loss", measure="last", **answers):
    """Returns a table of the answers of each scheme's seeds."""
    rows = [
        ASKED | dict(family=family, measure=measure, scheme=scheme, seed=seed, value=value)
        for scheme, seeds in answers.items()
        for seed, value in enumerate(seeds)
        if value is not None
    ]
    return pd.DataFrame(rows).assign(is_error=is_error)


def verdicts(table):
    return dict(zip(table["scheme"], table["verdict"], strict=True))


def test_a_difference_is_within_each_seed():
    values = tidy(rope=(1.0, 2.0, 3.0), alibi=(0.9, 1.91, 2.9), t5=(1.1, 2.1, 2.7))
    table = compared(values, "rope").set_index("scheme")
    assert table.loc["alibi", "verdict"] == "better"
    assert table.loc["alibi", "difference"] == pytest.approx(0.29 / 3)
    # Three schemes cannot tell a common variance: the p value is that of the paired t-test.
    p = stats.ttest_rel((1.0, 2.0, 3.0), (0.9, 1.91, 2.9)).pvalue
    assert table.loc["alibi", "p"] == pytest.approx(p)
    assert table.loc["t5", "verdict"] == "no difference"
    shares = compared(tidy(False, rope=(1.0, 2.0, 3.0), alibi=(0.9, 1.91, 2.9)), "rope")
    assert verdicts(shares) == {"alibi": "worse"}


def test_what_cannot_be_compared_is_said():
    given = dict(rope=(1.0, 2.0, 3.0), yarn=(1.0, 2.0, 3.0), fire=(1.0, np.inf, 2.0))
    values = tidy(**given, fox=(None, None, 1.0), t5=(1.5, 2.4, 3.6))
    table = compared(values, "rope")
    words = {"yarn": "the same", "fire": "diverged", "fox": "too few seeds", "t5": "worse"}
    assert verdicts(table) == words
    assert table["p"].notna().sum() == 1  # the family
    assert compared(values, "nope").empty
    (row,) = families(table).to_dict("records")
    assert row == dict(family="loss", against="rope", comparisons=1, better=0, worse=1)


def test_each_family_is_corrected_by_itself():
    p = pd.Series([0.01, 0.04, np.nan, 0.04], index=[3, 1, 2, 0])
    family = pd.Series(["a", "a", "a", "b"], index=p.index)
    expected = pd.Series([0.02, 0.04, np.nan, 0.04], index=p.index)
    pd.testing.assert_series_equal(corrected(p, family), expected, check_names=False)


def test_schemes_that_fall_apart_make_no_scheme_better():
    rng = np.random.default_rng(0)
    values = tidy(
        **{f"scheme{i}": rng.normal(0, 1, 3) for i in range(20)}, ahead=(-5.3, -5.0, -4.6)
    )
    worse = tidy(**{f"worse{i}": rng.normal(100, 1, 3) for i in range(80)})
    alone = compared(values, "scheme0").set_index("scheme")
    among = compared(pd.concat([values, worse]), "scheme0").set_index("scheme")
    assert (among["verdict"] == "worse").sum() == 80
    # A hundred comparisons ask for a smaller p value than twenty do, not for a larger one.
    assert among.loc["ahead", "p_corrected"] == pytest.approx(100 * among.loc["ahead", "p"])
    assert alone.loc["ahead", "verdict"] == "better"


def test_a_model_that_several_schemes_read_counts_once():
    rng = np.random.default_rng(0)
    trained = {f"scheme{i}": rng.normal(0, 1, 3) for i in range(10)}
    read = {f"extension{i}": trained["scheme0"] + rng.normal(0, 1e-3, 3) for i in range(5)}
    alone = compared(tidy(**trained), "scheme0").set_index("scheme")
    among = compared(tidy(**trained, **read), "scheme0", extensions=[*read]).set_index("scheme")
    np.testing.assert_allclose(among.loc[alone.index, "margin"], alone["margin"])
    assert set(read) <= set(among.index)


def test_a_gain_is_compared_with_0():
    table = compared(tidy(False, fox=(0.10, 0.11, 0.12), rope=(-0.01, 0.01, 0.02)), None)
    assert verdicts(table) == {"fox": "better", "rope": "no difference"}
    assert table["difference"].tolist() == pytest.approx([0.11, 0.02 / 3])


def null_family(rng, freedom, schemes=80, seeds=3, blown=0):
    """Draws losses of schemes that do not differ, except that some fall apart, under one seed.

    Args:
      freedom: the lower, the more the true variances of the schemes differ.
      blown: how many schemes fall apart; their losses are high and vary much.
    """
    deviation = np.sqrt(freedom / rng.chisquare(freedom, schemes + 1))
    level = np.full(schemes + 1, 100.0)
    level[schemes + 1 - blown :] += rng.uniform(5, 100, blown)
    deviation *= 1 + abs(level - 100) / 5
    noise = deviation[:, None] * rng.standard_normal((schemes + 1, seeds))
    drawn = level[:, None] + rng.standard_normal(seeds) + noise
    answers = {f"scheme{i}": row for i, row in enumerate(drawn)}
    return tidy(**answers), [f"scheme{i}" for i in range(1, schemes + 1 - blown)]


def rate_of_false_discoveries(families):
    """Returns the mean share of verdicts that are about schemes without a difference."""
    shares = []
    for values, null in families:
        table = compared(values, "scheme0")
        actual = table["verdict"].isin(["better", "worse"])
        shares.append((actual & table["scheme"].isin(null)).sum() / max(actual.sum(), 1))
    return np.mean(shares)


@pytest.mark.parametrize(
    ("freedom", "blown"),
    [(4.0, 0), *(pytest.param(*case, marks=pytest.mark.slow) for case in ((1.5, 40), (1e6, 40)))],
)
def test_chance_gives_no_more_verdicts_than_is_said(freedom, blown):
    """With 3 seeds and 80 schemes; where none differs, every verdict is a false discovery.

    ``freedom`` tells how alike the true variances are, and ``blown`` how many schemes fall apart.
    """
    rng = np.random.default_rng(0)
    families = [null_family(rng, freedom, blown=blown) for _ in range(150)]
    assert rate_of_false_discoveries(families) <= Q + 0.04  # two standard errors of 150 families


def test_a_difference_that_is_clear_is_found():
    """A t-test on three seeds alone finds hardly any after correction."""
    rng = np.random.default_rng(0)
    values, _ = null_family(rng, 1e6)
    better = [f"scheme{i}" for i in range(1, 21)]
    values.loc[values["scheme"].isin(better), "value"] -= 6.0
    table = compared(values, "scheme0").set_index("scheme")
    assert (table.loc[better, "verdict"] == "better").mean() > 0.8
    wide = values.pivot(index="seed", columns="scheme", values="value")
    p = [stats.ttest_rel(wide["scheme0"], wide[s]).pvalue for s in wide if s != "scheme0"]
    assert (stats.false_discovery_control(p) <= Q).mean() < 0.1


@pytest.mark.parametrize(("of_seeds", "of_texts"), [(1.0, 0.0), (0.3, 3.0)])
def test_seeds_and_texts_are_both_in_the_interval(of_seeds, of_texts):
    normal = np.random.default_rng(0).standard_normal
    noise = (
        of_seeds * normal((3, 1)) + of_texts * normal((1, 96)) + normal((3, 96)) for _ in range(200)
    )
    tests = [over_texts(x_NT, stats.sem(x_NT.mean(axis=1)), freedom=2) for x_NT in noise]
    missed = np.mean([abs(mean) > margin for mean, margin, _ in tests])
    assert missed <= 0.05 + 0.03
    assert missed == pytest.approx(np.mean([p < 0.05 for _, _, p in tests]), abs=0.02)


def test_a_table_of_texts_is_compared_over_both():
    rng = np.random.default_rng(0)
    of_text, rows = rng.standard_normal(96), []
    for scheme, gain in (("rope", 0.0), ("fox", 0.5), ("t5", 0.01)):
        for seed in range(3):
            losses = of_text + rng.standard_normal(96) * 0.3 + rng.normal() * 0.02 - gain
            rows += [
                dict(scheme=scheme, seed=seed, text=text, value=value)
                for text, value in enumerate(losses)
            ]
    values = pd.DataFrame(rows).assign(**ASKED, family="loss", is_error=True)
    table = compared(values, "rope")
    assert verdicts(table) == {"fox": "better", "t5": "no difference"}
    fox = table[table["scheme"] == "fox"].iloc[0]
    assert fox["difference"] == pytest.approx(0.5, abs=0.1) and 0.01 < fox["margin"] < 0.2
