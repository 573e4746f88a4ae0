"""Tests the atlas: its verdicts and controls, its pages, and one run of all its studies."""

import dataclasses
import io
import json
import math
import re
from pathlib import Path

import common
import pytest
from rich.console import Console

from configs.atlas import PRESETS, get_config
from experiments.results import atlas_data
from experiments.results.atlas import (
    COST,
    Question,
    answers,
    atlas_of,
    control_words,
    controls_of,
    family,
    gains,
    verdict,
)
from experiments.results.atlas import Atlas as Atlas_
from experiments.results.lengths import LengthStudy
from experiments.results.panels import Panel, PanelStudy
from experiments.results.record import write_files
from experiments.results.reports.atlas_page import write
from experiments.results.reports.choosing_page import SITUATIONS, guide, read_decoding
from experiments.results.reports.multimodal_tables import TABLES
from experiments.results.reports.other_answers import read_extension, read_longer, read_tables
from experiments.studies.atlas import ASKED, Atlas
from experiments.studies.claims import CLAIMS
from experiments.studies.tasks import TASKS
from posenc_jax import REGISTRY
from posenc_jax.registry import PATTERNS

DOCS = Path(__file__).parents[1] / "docs"
ABOUT = {"command": "python launch.py --config=x", "rules": "No decay.", "device": "a CPU"}
ABOUT |= {"git": "abc", "date": "today", "train_length": 64}


def question(is_error=False, **values):
    rows = {name: dict(enumerate(each)) for name, each in values.items()}
    return Question("text", 1, "What was measured.", "a unit", is_error, rows)


@pytest.mark.parametrize(
    ("own", "other", "word"),
    [
        ((0.9, 0.8, 0.91), (0.1, 0.0, 0.1), "better"),
        ((0.1, 0.0, 0.1), (0.9, 0.8, 0.91), "worse"),
        # Seed by seed the difference is the same, though the seeds are far apart.
        ((0.2, 0.5, 0.8), (0.1, 0.4, 0.7), "better"),
        ((0.1, 0.5, 0.9), (0.2, 0.4, 0.8), "no difference"),
        ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5), "no difference"),
        ((0.9,), (0.1,), "one seed"),
        ((0.9, math.inf, 0.9), (0.1, 0.1, 0.1), "worse"),
        ((0.1, 0.1, 0.1), (0.9, math.inf, 0.9), "better"),
        ((0.1, math.inf, math.inf), (0.9, math.inf, 0.9), "worse"),
        ((math.inf, math.inf, math.inf), (math.inf, math.inf, math.inf), "no difference"),
    ],
)
def test_verdicts_compare_seed_by_seed(own, other, word):
    assert verdict(question(alibi=own, nope=other), "alibi", "nope").word == word


def test_an_error_is_better_when_it_is_lower():
    one = question(is_error=True, alibi=(1.0, 1.1, 1.0), nope=(2.0, 2.0, 2.1))
    assert verdict(one, "alibi", "nope").word == "better"
    assert verdict(one, "nope", "alibi").difference == pytest.approx(-1.0)
    assert verdict(one, "rope", "nope") is None


def language(**losses):
    records = [
        {"scheme": scheme, "seed": seed, "split": "test", "protocol": "last", "multiple": multiple}
        | {"stride": None, "length": 64 * multiple, "bits_per_byte": loss + 0.01 * seed * multiple}
        for scheme, loss in losses.items()
        for seed in range(3)
        for multiple in (1, 2)
    ]
    records += [
        r | {"protocol": "windowed", "bits_per_byte": r["bits_per_byte"] + 0.5}
        for r in records
        if r["multiple"] == 1
    ]
    cost = {"seconds": 2.0, "tokens": 1000}
    training = [
        {"scheme": scheme, "trained": "rope", "seed": seed} | cost
        for scheme in losses
        for seed in range(3)
    ]
    return LengthStudy(records, training, [], {"train_length": 64, "last_tokens": 64}, [])


def tasks(**shares):
    panel = Panel("copy", "exact match", "tokens of a row", (64,), (64,))
    records = [
        {"scheme": scheme, "seed": seed, "condition": "copy", "metric": "exact match", "x": 64}
        | {"value": share, "chance": 0.1}
        for scheme, share in shares.items()
        for seed in range(3)
    ]
    failures = [{"scheme": "fire", "seed": 1, "reason": "no number"}]
    return PanelStudy(records, [], failures, {}, [], (panel,))


@pytest.fixture(scope="module")
def small():
    return atlas_of(
        {
            "language": language(nope=3.0, rope=2.0, alibi=1.0),
            "tasks": tasks(nope=0.1, rope=0.5, alibi=0.9),
            "tasks_copy": tasks(nope=0.2, rope=0.3, alibi=0.8),
        },
        ABOUT,
    )


def test_every_answer_is_a_record_with_its_verdicts(small):
    records = answers(small)
    assert {r["question"] for r in records} == {"text 1x", "text 2x", "gain 2x", "copy 1x", COST}
    assert len(records) == 13  # all read the checkpoints of rope, which alone cost anything
    cost = next(r for r in records if r["question"] == COST)
    assert (cost["scheme"], cost["mean"]) == ("rope", 2000.0)
    assert cost["seeds"] == 1 and cost["vs_rope"] == "one seed"  # the clock is the same for all
    of_alibi = next(r for r in records if (r["scheme"], r["question"]) == ("alibi", "copy 1x"))
    assert of_alibi["vs_nope"] == of_alibi["vs_rope"] == "better" and of_alibi["chance"] == 0.1
    assert of_alibi["vs_rope_difference"] == pytest.approx(0.4)


def test_the_data_have_every_answer_once_and_what_its_question_says(small, tmp_path):
    diverged = question(nope=(0.5, 0.5), rope=(0.1, math.inf), alibi=(0.98765, 0.98763))
    asked = [*small.questions, dataclasses.replace(diverged, topic="other", chance=0.25)]
    small = dataclasses.replace(small, questions=asked)
    write_files(tmp_path, atlas_data.files(small))
    found, expected = atlas_data.read(tmp_path), answers(small)
    assert len(found) == len(expected) == 16
    for one, other in zip(found, expected, strict=True):
        shared = ("scheme", "topic", "multiple", "unit", "is_error", "chance", "seeds")
        shared += ("vs_nope", "vs_rope")
        assert [one[key] for key in shared] == [other[key] for key in shared]
        mean = other["mean"] if math.isfinite(other["mean"]) else None
        assert one["mean"] == pytest.approx(mean, abs=5e-4, rel=1e-3)
        assert one["margin"] == pytest.approx(other["margin"], abs=5e-4, rel=0.05)
    lines = (tmp_path / "atlas.csv").read_text().splitlines()
    # Two digits of the margin decide how many decimals a mean has.
    assert lines[-1] == "alibi,other 1x,0.98764,0.00013,2,1,0.48764,0.00013,1,inf,"
    assert lines[-2] == "rope,other 1x,inf,,2,-1,-inf,,0,0,"
    (tmp_path / "atlas.csv").write_text("\n".join(lines).replace("vs_rope", "against_rope"))
    with pytest.raises(ValueError, match="another revision: it has no 'vs_rope"):
        atlas_data.read(tmp_path)


def test_a_gain_is_over_the_same_model_without_what_came_before(small):
    gain = next(q for q in small.questions if q.topic == "gain")
    # The loss of seed n grows by n / 100 from the trained length to twice that.
    assert gain.values["rope"] == pytest.approx({0: 0.5, 1: 0.49, 2: 0.48})
    assert not gain.is_error and gain.multiple == 2


def test_gains_are_given_for_each_kind_of_text():
    records = [
        dict(scheme="rope", seed=0, split=split, protocol=protocol, multiple=multiple)
        | dict(bits_per_byte=bits)
        for split, protocol, multiple, bits in (
            ("test", "windowed", 1, 2.0),
            ("test", "last", 2, 2.5),
            ("manual", "windowed", 1, 3.0),
            ("manual", "last", 2, 2.9),
        )
    ]
    found = {question.topic: question.values for question in gains(records)}
    assert found == {"gain": {"rope": {0: -0.5}}, "gain, manual": {"rope": {0: pytest.approx(0.1)}}}


def test_a_control_compares_the_order_of_the_schemes(small):
    control = small.controls[0]
    assert (control.question, control.schemes) == ("copy 1x", 3)
    assert control.correlation == pytest.approx(1.0)
    assert (control.pairs, control.agreeing) == (3, 3)


def test_a_control_counts_the_pairs_that_seeds_tell_apart_on_both_sides():
    together = question(nope=(0.1, 0.1, 0.1), rope=(0.5, 0.5, 0.5), alibi=(0.2, 0.9, 0.4))
    alone = question(nope=(0.6, 0.6, 0.6), rope=(0.5, 0.5, 0.5), alibi=(0.9, 0.9, 0.9))
    (control,) = controls_of([together], [alone])
    # By their seeds alibi is like both others when the task is learned with others.
    assert (control.pairs, control.agreeing) == (1, 0)
    assert control_words(control).endswith("; of the pairs that both tell apart, 0 of 1 agree")


def test_pages_have_every_scheme_and_what_is_missing(small, tmp_path):
    claim = {"name": "flat", "schemes": ["alibi"], "verdict": "reproduced", "says": "It holds."}
    claim |= {"source": "2108"}
    path = write(tmp_path, small, {"alibi": "<p>a card"}, {}, [claim], ASKED)
    page = path.read_text()
    assert "tasks: fire, seed 1: no number" in page and "rank correlation of 1.00" in page
    assert len(re.findall("<tr data-name|<tr class=baseline data-name", page)) == 3
    assert page.count("data-value=") == 15
    linked = re.findall('<a xlink:href="schemes/.*?html"[^>]*><title>(.*?)</title>', page)
    assert linked == ["nope", "rope", "alibi"]
    assert (tmp_path / "map.svg").read_text().count("<a xlink:href=") == 3
    assert "../claims/claims.html" in page
    topics = re.findall("<li><b>(.*?)</b>: (.*?)(?=<li>|</ul>)", page[page.index("id=questions") :])
    assert [topic for topic, _ in topics] == ["text", "gain", "copy", COST]
    assert topics[2][1].endswith("The task: Copies a sequence.")
    own = (tmp_path / "schemes" / "alibi.html").read_text()
    assert "a card" in own and "It reads the checkpoints of rope" in own
    assert "<a href='../../claims/claims.html#flat'>reproduced</a>: It holds. (2108)" in own
    assert "It holds." not in (tmp_path / "schemes" / "rope.html").read_text()
    saved = json.loads((tmp_path / "atlas.json").read_text())
    assert saved["effective"] == {"text": {"nope": 128, "rope": 128, "alibi": 128}, "manual": {}}
    assert "by more than a standard error, has these tokens: 128 on text." in own
    assert [q["name"] for q in saved["questions"]] == [
        "text 1x",
        "text 2x",
        "gain 2x",
        "copy 1x",
        COST,
    ]
    assert len(atlas_data.read(tmp_path)) == 13


def test_what_no_run_has_answered_yet_is_said_once(small, tmp_path):
    assert small.unanswered == []
    studies = {"language": language(nope=3.0, rope=2.0), "tasks": tasks(), "tasks_copy": tasks()}
    page = write(tmp_path, atlas_of(studies, ABOUT), {}, {}, [], {}).read_text()
    assert "No run has answered yet: copy; copy learned alone." in page
    assert "data-group='copy'" not in page
    saved = json.loads((tmp_path / "atlas.json").read_text())
    assert saved["unanswered"] == ["copy", "copy learned alone"]


def test_an_atlas_of_nothing_is_refused(tmp_path):
    empty = atlas_of({"language": language(), "tasks": tasks()}, ABOUT)
    with pytest.raises(ValueError, match="no study has any result yet"):
        write(tmp_path, empty, {}, {}, [], {})


def test_every_scheme_has_a_family():
    assert family("nope") == "none" and family("yarn") == "rotary" and family("t5") == "bias"
    assert all(family(name) for name in REGISTRY)


def atlas(corpus, workdir, **changes):
    config = get_config("tiny")
    config.studies.language.corpus = corpus
    for name in [name for name in config.studies if name.startswith("tasks_")]:
        del config.studies[name]
    config.studies.tasks.task.tasks = "copy"
    output = io.StringIO()
    return Atlas(common.changed(config, **changes), workdir, Console(file=output)), output


@pytest.mark.slow
def test_one_program_runs_all_studies_and_goes_on_where_it_was(corpus, tmp_path):
    one, _ = atlas(corpus, tmp_path, schemes="rope,alibi")
    assert one.points == [("language", 0), ("language", 1), ("tasks", 0), ("tasks", 1)]
    assert one.run(3) == []
    assert (tmp_path / "tasks/runs/alibi/seed0/evaluation.json").exists()
    assert not (tmp_path / "language").exists()
    assert one.run() == []
    path = tmp_path / "tasks/runs/alibi/seed0/run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"device": "a machine elsewhere"}))
    page = one.write_report("the command").read_text()
    assert ", a machine elsewhere." in page
    assert "text 2x" in page and "copy 1x" in page and "training time" in page
    own = (tmp_path / "atlas/schemes/rope.html").read_text()
    assert "Which rotary pairs decide" in own and "RoPE: 0 parameters" in own
    again, output = atlas(corpus, tmp_path, schemes="rope,alibi")
    assert again.run() == [] and output.getvalue().count("2 of 2 were done before") == 2


@pytest.mark.slow
def test_every_pattern_has_a_card(corpus, tmp_path):
    """Some of them need the number of layers."""
    schemes, layers = ",".join(PATTERNS), {"studies__tasks__model__num_layers": 2}
    one, _ = atlas(corpus, tmp_path, schemes=schemes, **layers)
    cards = one.cards(list(PATTERNS))
    assert list(cards) == list(PATTERNS) and all("of 2:" in card for card in cards.values())


def test_a_bad_config_names_its_study(corpus, tmp_path):
    with pytest.raises(ValueError, match=r"studies\.tasks: .*unknown task 'cpy'"):
        atlas(corpus, tmp_path, studies__tasks__task__tasks="cpy")
    one, _ = atlas(corpus, tmp_path, schemes="rope,alibi")
    with pytest.raises(ValueError, match=r"task_id=4 must be in 0..3, the number of a point"):
        one.run(4)


def test_a_setup_names_the_rates_that_were_tried_or_a_model_that_was_given(corpus, tmp_path):
    one, _ = atlas(corpus, tmp_path, sweep__learning_rate=(1e-3, 3e-3))
    assert "at the best rate of 0.001, 0.003 for each scheme for " in one.setup("language")
    one.parts["language"].recipe_of = lambda point: None
    assert one.setup("language") == "a model that was trained before"


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_exist(preset):
    assert get_config(preset).experiment == "atlas"


def test_the_guide_is_read_off_the_answers(small, tmp_path):
    write(tmp_path, small, {}, {}, [], {})
    saved = json.loads((tmp_path / "atlas.json").read_text())
    ledger = {"about": {"command": "claims command"}, "claims": []}
    effects = [{"says": "loss", "mean": 0.5, "margin": 0.1, "low": "-inf", "high": 1.0}]
    effects += [{"says": "other", "low": 0.0, "high": "inf", "why": "nothing was run"}]
    claim = {"name": "drope", "verdict": "reproduced", "says": "A.", "source": "b"}
    ledger["claims"].append(claim | {"effects": effects})
    (tmp_path / "decode.csv").write_text(
        "scheme,milliseconds,times_nope\nrope,9.1,1.04\nt5,30,3.3\n"
    )
    decoding = read_decoding(tmp_path / "decode.csv")
    text = guide(atlas_data.read(tmp_path), saved, ledger, decoding)
    assert "- up to 1.05: `rope`\n- more than 2: `t5`" in text
    assert "**text at 2x** (bits per byte, lower is better): **alibi** is the best." in text
    assert "- Places of `rope` here: 2 of 3 in text at 1x." in text
    assert "**text at 16x**: no run has this yet." in text
    assert "(#text-of-2-to-8-times-the-trained-length) | `alibi` 1 |" in text
    overview = text[text.index("## All questions") : text.index("## Text no longer")]
    assert "| Text of 2 to 8 times the trained length | text at 2x | `alibi`, " in overview
    assert "- *text*, 128 tokens: `alibi`, `nope`, `rope`\n" in text
    assert "- **reproduced**: A. (b)\n    - loss: 0.500 ± 0.100, predicted < 1.000\n" in text
    assert (
        "    - other: nothing was run, predicted > 0.000\n" in text and "- not measured: " in text
    )
    assert "small_base: no run has tested it yet" in text
    assert "python launch.py --config=x\nclaims command" in text
    assert "Nothing has been run yet" in guide([], None, None, {})


def beside_the_atlas():
    found = read_extension(DOCS / "data/extension_small.csv")
    found += read_longer(DOCS / "data/extrapolation_long.tar.xz")
    return found + read_tables(DOCS / "data")


def test_the_guide_recommends_nothing_where_nothing_was_learned(tmp_path):
    at_chance = dict(nope=(0.1, 0.12, 0.09), rope=(0.1, 0.1, 0.1))
    found = dataclasses.replace(question(**at_chance), chance=0.1)
    write_files(tmp_path, atlas_data.files(Atlas_([found], [], [], {}, [], ABOUT)))
    text = guide(atlas_data.read(tmp_path), None, None, {})
    assert "chance is 0.100, and 0 of 2 schemes are above it): **none can be recommended**" in text
    assert "| text at 1x | none | - | 0.100" in text


def test_the_guide_recommends_no_scheme_that_gains_by_accident(tmp_path):
    flat = dict.fromkeys(REGISTRY, (0.0, -0.01, -0.01))
    for gaining, word in ((4, "because hardly any scheme gains"), (5, "is the best")):
        better = dict.fromkeys([*REGISTRY][-gaining:], (0.02, 0.02, 0.021))
        found = dataclasses.replace(question(**flat | better), topic="gain", multiple=4)
        write_files(tmp_path, atlas_data.files(Atlas_([found], [], [], {}, [], ABOUT)))
        text = guide(atlas_data.read(tmp_path), None, None, {})
        assert word in text[text.index("**gain at 4x**") :].split("\n")[0]


def test_the_guide_recommends_the_one_scheme_of_many_that_learned(tmp_path):
    lone = dict.fromkeys(REGISTRY, (0.1, 0.1, 0.1)) | {"path": (0.5, 0.6, 0.55)}
    barely = lone | {"path": (0.12, 0.12, 0.13)}
    for values, word in ((lone, "**path**"), (barely, "**none can be recommended**")):
        found = dataclasses.replace(question(**values), chance=0.1)
        write_files(tmp_path, atlas_data.files(Atlas_([found], [], [], {}, [], ABOUT)))
        text = guide(atlas_data.read(tmp_path), None, None, {})
        assert f"and 1 of {len(REGISTRY)} schemes are above it): {word}" in text


def test_the_guide_recommends_what_is_better_than_no_positions_and_than_rope(tmp_path):
    values = dict(nope=(1.0, 1.0, 1.1), rope=(1.0, 1.1, 1.0))
    uncertain = {"alibi": (0.2, 0.2, 1.7)}
    cases = (
        ({}, "**none can be recommended**, because no scheme is better than both"),
        ({"t5": (0.5,) * 3}, "**t5** is the best. The intervals of these overlap"),
        # The mean of alibi is 0.7.
        (
            {"t5": (0.8,) * 3},
            "**none can be recommended**, because the seeds do not show that alibi",
        ),
    )
    for more, words in cases:
        found = question(is_error=True, **values, **uncertain | more)
        write_files(tmp_path, atlas_data.files(Atlas_([found], [], [], {}, [], ABOUT)))
        text = guide(atlas_data.read(tmp_path), None, None, {})
        assert f"**text at 1x** (a unit, lower is better): {words}" in text


def test_the_guide_has_every_claim():
    shown = [name for situation in SITUATIONS for name in situation.claims]
    assert set(shown) == {claim.name for claim in CLAIMS}


def test_the_guide_asks_what_was_measured():
    config = get_config("small")
    topics = {
        "text",
        "text, all",
        "gain",
        "gain, manual",
        *TASKS,
        *(f"{name}, answers" for name in TASKS),
    }
    multiples = {*config.studies.language.eval.multiples, *config.studies.tasks.eval.multiples}
    beside = beside_the_atlas()
    known = {(topic, multiple) for topic in topics for multiple in multiples}
    known |= {(answer["topic"], answer["multiple"]) for answer in beside}
    known |= {(table.topic(column), 0) for table in TABLES for column in table.columns}
    schemes = REGISTRY.keys() | {answer["scheme"] for answer in beside}
    for situation in SITUATIONS:
        assert set(situation.asked) <= known
        assert set(situation.claims) <= {claim.name for claim in CLAIMS}
        assert set(situation.recommended) <= schemes


def test_the_guide_has_a_verdict_beside_every_recommendation_of_the_chapter():
    text = guide(atlas_data.read(DOCS / "atlas"), None, None, {}, beside_the_atlas())
    for situation in SITUATIONS:
        section = text.partition(f"## {situation.title}\n")[2].partition("\n## ")[0]
        for scheme in situation.recommended:
            assert re.search(rf"Places of `{scheme}` here: \d+ of \d+ in ", section), (
                situation,
                scheme,
            )


def test_the_guide_counts_the_numbers_of_a_long_claim():
    effect = {"mean": 0.5, "margin": 0.1, "low": 0.0, "high": "inf"}
    effects = [effect | {"says": f"number {n}", "verdict": "reproduced"} for n in range(11)]
    effects[3]["verdict"] = "not reproduced"
    claim = {"name": "drope", "verdict": "not reproduced", "says": "A.", "source": "b"}
    ledger = {"about": {"command": "c"}, "claims": [claim | {"effects": effects}]}
    text = guide([], None, ledger, {})
    assert "    - as predicted: 10 of 11 numbers; the others:\n    - number 3: 0.500" in text
    assert "number 4" not in text
