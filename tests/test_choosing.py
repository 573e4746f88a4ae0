"""Tests that the guide recommends what the answers support, and says why where it does not."""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from test_answers import panel_study

from configs.atlas import get_config
from experiments.results import atlas_data
from experiments.results.answers import TASKS, TEXT, of_tasks, table
from experiments.results.lengths import WINDOWED
from experiments.results.reports.choosing_page import SITUATIONS, guide, read_decoding
from experiments.results.reports.multimodal_tables import TABLES
from experiments.results.reports.other_answers import (
    LONGER,
    read_extension,
    read_longer,
    read_tables,
)
from experiments.studies.claims import CLAIMS
from experiments.studies.tasks import TASKS as PROGRAMS
from posenc_jax import REGISTRY

DOCS = Path(__file__).parents[1] / "docs"


def text_values(topic="text", multiple=2, **losses):
    return table(
        dict(topic=topic, multiple=multiple, family=TEXT, says="", unit="bits per byte")
        | dict(is_error=True, scheme=scheme, seed=seed, value=value)
        for scheme, seeds in losses.items()
        for seed, value in enumerate(seeds)
    )


NOPE, ROPE, WINDOW = (3.0, 3.01, 3.02), (2.5, 2.49, 2.51), (2.0, 2.01, 2.02)
BASELINES = {"nope": NOPE, "rope": ROPE, WINDOWED: WINDOW}


def said(values, question="text at 2x"):
    text = guide(values, None, None, {})
    return text[text.index(f"**{question}**") :].split("\n")[0]


def test_the_best_is_better_than_all_baselines():
    better = said(text_values(**BASELINES, alibi=(1.5, 1.51, 1.52), t5=(1.5, 1.49, 1.56)))
    assert better.endswith("**alibi** is the best. Not told from it: t5.")
    level = said(text_values(**BASELINES, alibi=(1.9, 2.0, 2.15)))
    assert "**none can be recommended**" in level and level.endswith("RoPE through a window.")


def test_what_is_overtaken_with_more_training_is_not_recommended():
    short = text_values(**BASELINES, alibi=(1.5, 1.51, 1.52), fox=(1.6, 1.61, 1.62))
    fox = {"alibi": (1.3, 1.31, 1.32), "fox": (1.2, 1.21, 1.2205)}
    longer = text_values(f"text, {LONGER}", 4, **fox)
    both = pd.concat([short, longer], ignore_index=True)
    assert said(both).endswith("because more training puts fox ahead of alibi.")


def test_a_task_is_recommended_where_it_is_learned():
    low, high = (0.2, 0.1, 0.3), (0.99, 0.95, 1.0)
    nothing = of_tasks(panel_study(nope=(low, low), rope=(low, high)))
    assert "because no scheme has learned the task." in said(nothing, "copy at 1x")
    assert said(nothing, "copy at 2x").endswith("no scheme has learned the task yet.")
    shares = dict(rope=(high, low), fox=(high, (0.95, 0.9, 0.2)), t5=(high, (0.99, 0.8, 0.9)))
    learned = said(of_tasks(panel_study(nope=(low, high), **shares)), "copy at 2x")
    assert "learned by 3 of 4 schemes" in learned
    assert learned.endswith("**t5** is the best. Not told from it: fox.")


def test_the_guide_has_claims_and_the_cost_of_decoding(tmp_path):
    effects = [{"says": "loss", "mean": 0.5, "margin": 0.1, "low": "-inf", "high": 1.0}]
    effects += [{"says": "other", "low": 0.0, "high": "inf", "why": "nothing was run"}]
    claim = {"name": "drope", "verdict": "reproduced", "says": "A.", "source": "b"}
    ledger = {"about": {"command": "claims command"}, "claims": [claim | {"effects": effects}]}
    (tmp_path / "decode.csv").write_text("scheme,milliseconds,times_nope\nrope,9,1.04\nt5,30,3.3\n")
    decoding = read_decoding(tmp_path / "decode.csv")
    text = guide(text_values(**BASELINES), None, ledger, decoding)
    assert "- up to 1.05: `rope`\n- more than 2: `t5`" in text
    assert "**text at 16x**: no run has this yet." in text
    assert "- **reproduced**: A. (b)\n    - loss: 0.500 ± 0.100, predicted < 1.000\n" in text
    assert "    - other: nothing was run, predicted > 0.000\n" in text
    assert "small_base: no run has tested it yet" in text and "claims command" in text
    assert "Nothing has been run yet" in guide(text_values(), None, None, {})


def test_the_guide_counts_the_numbers_of_a_long_claim():
    effect = {"mean": 0.5, "margin": 0.1, "low": 0.0, "high": "inf"}
    effects = [effect | {"says": f"number {n}", "verdict": "reproduced"} for n in range(11)]
    effects[3]["verdict"] = "not reproduced"
    claim = {"name": "drope", "verdict": "not reproduced", "says": "A.", "source": "b"}
    ledger = {"about": {"command": "c"}, "claims": [claim | {"effects": effects}]}
    text = guide(text_values(), None, ledger, {})
    assert "    - as predicted: 10 of 11 numbers; the others:\n    - number 3: 0.500" in text
    assert "number 4" not in text


@pytest.fixture(scope="module")
def beside():
    found = [read_extension(DOCS / "data/extension_small.csv"), read_tables(DOCS / "data")]
    found.append(read_longer(DOCS / "data/extrapolation_long.tar.xz"))
    return pd.concat(found, ignore_index=True)


def test_the_guide_has_every_claim_and_asks_what_was_measured(beside):
    config = get_config("small")
    topics = {"text", "text, all", "gain", "gain, manual", *PROGRAMS}
    multiples = {*config.studies.language.eval.multiples, *config.studies.tasks.eval.multiples}
    known = {(topic, multiple) for topic in topics for multiple in multiples}
    known |= set(zip(beside["topic"], beside["multiple"], strict=True))
    known |= {(each.topic(column), 0) for each in TABLES for column in each.columns}
    for situation in SITUATIONS:
        assert set(situation.asked) <= known
        assert set(situation.recommended) <= REGISTRY.keys() | set(beside["scheme"])
    shown = [name for situation in SITUATIONS for name in situation.claims]
    assert set(shown) == {claim.name for claim in CLAIMS}


def test_every_recommendation_of_the_chapter_has_its_places(beside):
    values = pd.concat([atlas_data.read_values(DOCS / "atlas"), beside], ignore_index=True)
    atlas = json.loads((DOCS / "atlas/atlas.json").read_text())
    text = guide(values, atlas, None, {})
    for situation in SITUATIONS:
        section = text.partition(f"## {situation.title}\n")[2].partition("\n## ")[0]
        for scheme in situation.recommended:
            assert re.search(rf"Places of `{scheme}` here: \d+ of \d+ in ", section)
    assert TASKS in text and np.isfinite(values["value"]).any()
