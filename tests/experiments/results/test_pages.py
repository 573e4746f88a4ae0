"""Tests that tables and numbers on pages are those of the tidy tables in docs/data."""

import re

import common
import numpy as np
import pandas as pd
import pytest
from cogapp import Cog

from experiments.results import onset, pages

PAGES = [common.ROOT / "README.md", *sorted((common.ROOT / "docs").glob("**/*.md"))]
# A number, perhaps with half of its interval, and a comment with what ``pages.cell`` takes.
TOLD = re.compile(r"(-?[\d.]+)(?: ± ([\d.]+))?<!-- (\w+): ([^>]+?) -->")


@pytest.mark.parametrize("name", pages.TABLES)
def test_a_table_has_numbers_in_all_of_its_rows(name):
    head, rule, *rows = pages.TABLES[name]().splitlines()
    assert rows and len({line.count(" | ") for line in (head, rule, *rows)}) == 1
    assert all(re.search(r"\d", row) for row in rows)


@pytest.mark.parametrize("page", PAGES)
def test_tables_of_pages_are_those_of_the_data(page, monkeypatch):
    monkeypatch.chdir(common.ROOT)
    assert Cog().main(["cog", "--check", "-P", str(page)]) == 0, "run make results"


def wrong(text: str) -> list[str]:
    """Returns the numbers of a text that are not those of the data, to their last digit."""
    found = []
    for told, margin, name, query in TOLD.findall(text):
        mean, half, _ = pages.cell(name, query)
        for word, value in ((told, mean), (margin, half)):
            digits = len(word.partition(".")[2])
            if word and f"{value:z.{digits}f}" != word:
                found.append(f"{word} is {value:.{digits + 1}f}: {query}")
    return found


@pytest.mark.parametrize("page", PAGES)
def test_numbers_in_sentences_are_those_of_the_data(page):
    assert wrong(page.read_text()) == []


def test_a_wrong_number_is_found():
    of = "study=d8_w256_t20, measure=non_overlapping, x=1"
    rope, fox = f"1.939<!-- ladder: {of}, scheme=rope -->", f"1.78<!-- ladder: {of}, scheme=fox -->"
    assert wrong(rope) == wrong(fox) == []
    assert wrong(f"-0.16<!-- ladder: {of}, scheme=fox minus scheme=rope -->") == []
    assert len(wrong(rope.replace("1.939", "1.94") + fox.replace("1.78", "1.79"))) == 1
    at_256 = "study=c_l256_t20, measure=non_overlapping, x=1, scheme=alibi"
    assert wrong(f"2.046 ± 0.012<!-- ladder: {at_256} -->") == []
    assert len(wrong(f"2.046 ± 0.013<!-- ladder: {at_256} -->")) == 1


def test_copying_orders_the_ladder_as_the_pages_say():
    losses = pages.read("ladder").query(
        "study == 'c_l256_t20' and measure == 'non_overlapping' and x == 1"
    )
    scores = pd.read_csv(pages.DATA / "copied.csv")
    best = scores.groupby("rung")["copied"].max().sort_values()
    assert len(best) == 9 and best.iloc[5].round(2) == 0.03 and best.iloc[6] > 0.5
    copied = scores.query("rung == 'c_l256_t20'")
    loss = losses.pivot(index=["scheme", "seed"], columns="split", values="value")
    ahead = loss.loc["rope"] - loss
    models = loss.assign(ahead=ahead["code"], copied=copied.set_index(["scheme", "seed"])["copied"])
    models = models.drop(["nope", "sinusoidal"]).dropna(subset="copied")
    assert round(models["copied"].corr(models["code"]), 2) == -0.91
    copies = models["ahead"][models["copied"] > 0.1]
    others = models["ahead"][models["copied"] <= 0.1].drop("rope")
    assert len(copies) == 11 and round(copies.min(), 2) == 0.06 and round(copies.mean(), 2) == 0.12
    assert round(others.mean(), 2) == 0.01
    alibi = ahead.loc["alibi"].mean().round(2)
    assert alibi["code"] == 0.09 and alibi["prose"] == -0.01


def test_the_verdicts_on_claims_are_those_of_the_page():
    verdicts = pd.read_csv(pages.DATA / "claims_verdicts.csv.gz").drop_duplicates("claim")
    of = verdicts.groupby("claim_after_correction")["claim"].agg(set)
    reproduced = {"path_degrades", "fox_extrapolates", "sinusoidal_fails", "rope_blow_up"}
    assert of["reproduced"] == reproduced
    assert of["not reproduced"] == {"kerple_beats_alibi", "hope_near_pairs_fail", "pi_bound"}
    assert len(of["mixed or underpowered"]) == 15 and "alibi_flat" in of["mixed or underpowered"]
    uncorrected = verdicts["claim"][verdicts["claim_verdict"] == "reproduced"]
    assert {*uncorrected} == reproduced | {"alibi_flat"}


def test_the_study_of_copying_says_what_its_pages_say():
    runs = onset.onsets(pd.read_csv(pages.DATA / "copying.csv.gz"))
    finished = runs.groupby("study")["is_finished"].agg(["sum", "size"])
    assert finished.loc["onset_2_layers"].tolist() == [40, 40]
    assert finished.loc["onset_4_layers"].tolist() == [24, 24]
    assert finished.loc["cause"].tolist() == [14, 15]
    assert finished.loc["more_seeds"].tolist() == [9, 9]
    (six,) = runs[runs["study"] == "depth_6_layers"].itertuples()
    assert (six.scheme, six.is_finished, six.onset, round(six.copied, 2)) == (
        "rope", True, 4_608_000, 0.59
    )  # fmt: skip
    for page in ("copying.md", "data/index.md"):
        text = (common.ROOT / "docs" / page).read_text().lower()
        assert re.search(r"sixty-four of (the )?144 runs .*fourteen of", text, re.DOTALL), page
    twice = runs[
        (runs["scheme"] == "kv_shift") & (runs["rate"] == 0.006) & runs["seed"].between(1, 2)
    ]
    twice = twice[twice["depth"] == 2].pivot(index="seed", columns="study", values="loss")
    assert len(twice) == 2 and (twice["cause"] == twice["onset_2_layers"]).all()
    of_onset = runs[runs["study"].str.startswith("onset") & runs["is_finished"]]
    without_nope = of_onset[of_onset["scheme"] != "nope"]
    for depth, count, correlation in ((2, 35, 0.89), (4, 21, 0.87)):
        of_depth = without_nope[without_nope["depth"] == depth]
        never_is_last = of_depth["onset"].where(~of_depth["is_censored"], np.inf)
        assert len(of_depth) == count
        assert never_is_last.corr(of_depth["loss"], "spearman").round(2) == correlation
    keys = ["depth", "rate", "seed"]
    rope = of_onset[of_onset["scheme"] == "rope"].set_index(keys)["loss"]
    lead = (rope - of_onset.set_index([*keys, "scheme"])["loss"]).dropna()
    late = of_onset.set_index([*keys, "scheme"])["is_censored"].loc[lead.index]
    assert lead[late].max().round(2) == 0.04
    deeper = lead.loc[4]
    assert (~late.loc[4]).sum() == 15
    assert (deeper[~late.loc[4]].min().round(2), deeper.max().round(2)) == (0.10, 0.22)
    copying = without_nope[(without_nope["depth"] == 4) & ~without_nope["is_censored"]]
    assert copying["onset"].corr(copying["loss"], "spearman").round(2) == 0.66
    offset = lead.unstack()["key_offset"].dropna()
    assert (len(offset), offset.min().round(2), offset.max().round(2)) == (8, 0.16, 0.24)
    behind = -lead.unstack()["nope"].groupby("depth").agg(["max", "min"]).round(2)
    assert behind.to_numpy().tolist() == [[0.92, 1.14], [0.24, 0.29]]
    by_depth = of_onset[of_onset["rate"] == 0.006].pivot_table("loss", "scheme", "depth")
    assert (by_depth[2] - by_depth[4]).idxmax() == "nope"
    alone = lead.drop(index=["key_offset", "kv_shift"], level="scheme")
    assert alone.max() < offset.min() and not late.loc[:, :, :, "key_offset"].any()
    first_seed = of_onset[(of_onset["depth"] == 2) & (of_onset["seed"] == 0)]
    copies_at = first_seed[~first_seed["is_censored"]].groupby("scheme")["rate"].agg(list).to_dict()
    rates = [0.003, 0.006, 0.012]
    assert len(first_seed) == 24 and copies_at == {
        "alibi": rates,
        "key_offset": rates,
        "kerple_log": rates[1:],
        "kv_shift": [0.006],
    }
    onsets = of_onset[of_onset["depth"] == 4].set_index(["scheme", "seed"])["onset"].unstack()
    assert (onsets.loc["alibi"] < onsets.loc["fox"]).tolist() == [True, True, True]
    by_scheme = deeper.unstack()
    assert (by_scheme["alibi"] > by_scheme["fox"]).sum() == 1
    never = of_onset[of_onset["depth"] == 4].groupby("scheme")["is_censored"].sum()
    assert never[["alibi", "fox", "rope"]].tolist() == [0, 0, 3]
    models = onset.of_models(pd.read_csv(pages.DATA / "copying.csv.gz"))
    at_rate = models[(models["depth"] == 2) & (models["rate"] == 0.006)]
    counts = (~at_rate["is_censored"]).groupby(at_rate["scheme"]).agg(["sum", "size"])
    counts = counts.loc[["fox", "kerple_log", "kv_shift"]]
    assert counts.to_numpy().tolist() == [[1, 6], [4, 6], [3, 6]]
    at_rate = at_rate[at_rate["seed"] < 3].set_index(["scheme", "seed"])
    loss, copied = (at_rate[column].unstack() for column in ("loss", "copied"))

    def ahead(scheme, other):
        both = (copied.loc[scheme] > onset.ONSET) & (copied.loc[other] > onset.ONSET)
        return both.sum(), round((loss.loc[other] - loss.loc[scheme])[both].mean(), 2)

    assert ahead("kv_shift", "alibi_shift") == (2, 0.03)
    assert ahead("fox_shift", "alibi_shift") == (2, 0.04)
    assert ahead("fox_shift", "kv_shift")[0] == 1
    late = loss[copied <= onset.ONSET]
    for alone, shifted in (("rope", "kv_shift"), ("fox", "fox_shift")):
        assert late.loc[shifted].count() == 1
        assert abs(late.loc[shifted].min() - loss[0][alone]) < 0.02
    is_shifted = models["scheme"].isin(["kv_shift", "fox_shift"])
    at_lower = models[(models["rate"] == 0.003) & is_shifted]
    assert at_lower["is_censored"].tolist() == [True, True]
    assert (loss.loc["rope"] - loss.loc["alibi"]).mean().round(2) == 0.07
    assert round(loss[0]["nope_smear"] - loss[0]["kv_shift"], 2) == 0.76
