"""Writes the guide to choosing a scheme, from the atlas and the ledger of claims.

python -m experiments.results.reports.choosing_page --answers=runs/answers --out=docs/choosing.md

The guide takes every figure, order and verdict from the folders ``atlas`` and ``claims`` of the
answers, from the table that ``benchmarks/decode.py`` writes, and from the results of other
experiments that ``other_answers.py`` reads. It says so where nothing was run.
"""

import argparse
import csv
import dataclasses
import itertools
import math
import re
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd

from experiments.command import exit_status
from experiments.results import atlas_data
from experiments.results.answers import AGAINST, OWN_WINDOW, SOLVED, TASKS, summary, verdicts
from experiments.results.atlas import EFFECTIVE
from experiments.results.comparisons import compared, families, statement
from experiments.results.lengths import GAIN, WINDOWED
from experiments.results.record import read_json, write_files
from experiments.results.reports import ledger_page
from experiments.results.reports.other_answers import (
    LONGER,
    read_extension,
    read_longer,
    read_tables,
)
from experiments.results.reports.page import markdown_table
from experiments.results.statistics import number, with_margin

Answer = dict[str, Any]
# How many schemes are shown for each question, the best first.
_SHOWN = 5
# How many schemes of a list are named, and how many numbers of a claim are all shown.
_TIED = 10
_CALLED = {"nope": "NoPE", "rope": "RoPE", WINDOWED: "RoPE through a window"}
_GAINS = f"gain; gain, manual; gain, {LONGER}; gain, manual, {LONGER}"
_OF_LONGER = (
    "The models of the atlas are trained briefly, on texts of 64 tokens; *gain* says whether they "
    f"use more context than that. *{LONGER}* is about few schemes, whose models were trained on "
    "eight times as many tokens, in texts of 256, by `python launch.py "
    "--config=configs/extrapolation.py:long --workdir=runs/long`; see "
    "[results.md](results.md#with-more-training)."
)


@dataclasses.dataclass(frozen=True)
class Situation:
    """Describes a situation in which a scheme is to be chosen.

    Attributes:
      title: the situation, in words.
      asked: the questions that are the evidence, as topics and multiples of the trained length; the
        multiple is 0 where a topic says all.
      claims: the names of the claims about the situation.
      chapter: what the chapter that this project starts from recommends, in words.
      recommended: the schemes that the chapter means.
      elsewhere: a page with more experiments about the situation, in the folder of the guide.
      note: how the figures are to be read.
    """

    title: str
    asked: tuple[tuple[str, float], ...] = ()
    claims: tuple[str, ...] = ()
    chapter: str = ""
    recommended: tuple[str, ...] = ()
    elsewhere: str = ""
    note: str = ""


def _each(topics: str, *multiples: float) -> tuple[tuple[str, float], ...]:
    return tuple((topic, multiple) for topic in topics.split("; ") for multiple in multiples)


_INTRODUCTION = """# Which scheme to choose

This page says which scheme did best at each need in the experiments of this project, how sure that
is, and what a chapter on positional encodings, from which the project started, recommends. All
models are small ([results.md](results.md)), so the best scheme here is one to try first, and no
more. [schemes](schemes/index.md) says what each scheme is.
"""

_READING = """## How to read the names and figures

`python -m experiments.results.reports.choosing_page` wrote this page from the
[atlas](results.md#what-every-scheme-does), which puts all schemes to all questions, from the
[ledger](results.md#commands) of published claims, and from the results of other experiments. No
figure, order or verdict is typed by hand.

- *text* is the loss of the last tokens of a text, and *text, all* that of all its tokens, in bits
  per byte, where lower is better. *gain* says by how much the loss is lower with more context than
  in training than with the most recent tokens alone. The texts are source code, as in training;
  where the name ends in *manual*, they are Python's manual.
- Tasks are in shares of rows whose answers are all right, and in how many seeds solved the task,
  which means 90 % of the rows. A scheme has *learned* a task if most seeds solve it at the trained
  length; only then longer rows count. [experiments.md](experiments.md#tasks-about-order) says what
  each task asks.
- *2x* is twice the trained length. Where the chapter speaks of thousands of tokens, such multiples
  stand for them here.
- Behind ± is half of the 95 % interval over seeds. A scheme is *better* or *worse* than NoPE, which
  has no positions, than RoPE, or than RoPE read through a window of the trained length, if the
  difference, taken seed by seed, is clear after correction for the number of comparisons
  ([how](experiments.md#which-scheme-is-better)).
- *Best* is the scheme with the best mean, if it is better than all three, where these were run; in
  tasks, the scheme that solves the task in most seeds. If there is none, the sections say why. A
  scheme is not called best on short training if another one is better after longer training.
"""

SITUATIONS = (
    Situation(
        "Text no longer than in training",
        (("text", 1), ("text, all", 1), (f"text, {LONGER}", 1)),
        (
            "transformer_xl_relative",
            "few_rotary_channels",
            "order_is_seen",
        ),
        "below 8K tokens, RoPE",
        ("rope",),
        note=_OF_LONGER,
    ),
    Situation(
        "Text of 2 to 8 times the trained length",
        (("text", 2), *_each(f"text; text, all; text, {LONGER}; {_GAINS}", 4)),
        (
            "alibi_half_length",
            "rope_blow_up",
            "yarn_ntk_pi",
            "t5_drifts",
            "fire_beats_alibi",
            "fox_extrapolates",
            "seqpe_losses",
            "small_base",
        ),
        "8K to 128K tokens, RoPE with YaRN",
        ("yarn",),
        note=_OF_LONGER,
    ),
    Situation(
        "Text of 8 to 100 times the trained length",
        (("text", 8), *_each(f"text; text, all; text, {LONGER}; {_GAINS}", 16)),
        (
            "alibi_flat",
            "kerple_beats_alibi",
            "power_lies_between",
            "sandwich_is_alibi",
            "dape_order",
            "path_degrades",
            "windows_and_nope",
            "logit_scales",
        ),
        "128K to 2M tokens, LongRoPE or HoPE",
        ("longrope", "hope"),
        note=_OF_LONGER,
    ),
    Situation("Finding what was told", _each("passkey; needles; recall; induction", 1, 4)),
    Situation(
        "Counting and states",
        _each("counting; flip_flop; variable_tracking", 1, 4),
        ("cope_counts", "path_flip_flop"),
    ),
    Situation(
        "Algorithms on longer rows",
        _each("copy; reverse; addition; sort; parity", 1, 2),
        ("nope_generalises", "randomized_generalises", "hope_copies", "seeds_decide_addition"),
    ),
    Situation(
        "Making a trained model longer",
        (
            ("made longer, 0 steps", 2),
            ("made longer, 0 steps", 8),
            ("made longer, 100 steps", 8),
            ("made longer, 100 steps", 32),
        ),
        claims=(
            "yarn_ntk_pi",
            "yarn_in_a_tenth",
            "longrope_searched",
            "longrope_extends_twice",
            "drope",
        ),
        chapter="RoPE with YaRN to 128K tokens, LongRoPE to 2M",
        recommended=("yarn", "longrope"),
        elsewhere="extension.md",
        note="A trained model with RoPE is made longer by each method. After 0 steps, which is "
        "without fine-tuning, the method is set to the length that is read; after 100 steps of "
        "fine-tuning it is set to 8 times the trained length. `longrope` has factors without a "
        "search; the claims below are about searched ones.",
    ),
    Situation(
        "Images, videos and interfaces",
        _each("images, 28; images, pasted 84; images, rescaled 84", 0)
        + _each("video, 32 frames; video, 128 frames; video, 128, gap 106", 0)
        + _each("story time, 4x; story time, backwards; story time, from time 256", 0)
        + _each("pointing, 1 up, 16 x 16; pointing, place, 8 x 8; pointing, place, 16 x 16", 0),
        chapter="SeqPE or VideoRoPE++ for several media, VideoRoPE++ or Time-RoPE for video, "
        "I-MRoPE for interfaces",
        recommended=("seqpe", "videorope_pp", "time_rope", "i_mrope", "i_mrope_ruler"),
        elsewhere="multimodal.md",
        note="The figures are those of the tables in [multimodal.md](multimodal.md), which says "
        "what each row is. What stands for RoPE is the row `vanilla` in video, which counts "
        "tokens, and the row `frame_index` in story time, which counts frames. Nothing stands for "
        "it among the images.",
    ),
)


def guide(
    values: pd.DataFrame,
    atlas: dict[str, Any] | None,
    ledger: dict[str, Any] | None,
    decoding: dict[str, float],
) -> str:
    """Returns the guide as Markdown.

    Args:
      values: those of the atlas and of other experiments; see ``results/answers.py``.
      atlas, ledger: ``atlas.json`` and ``claims.json``, or None for what was not run.
      decoding: the time of decoding one more token under each scheme, over that under NoPE.
    """
    claims = {claim["name"]: claim for claim in ledger["claims"]} if ledger else {}
    evidence = Evidence.of(values)
    parts = [
        _INTRODUCTION,
        _summary(evidence),
        _READING,
        f"{evidence.statement}\n",
        _overview(evidence),
        _effective(evidence),
        *(_situation(each, evidence, claims) for each in SITUATIONS),
        _decoding(decoding, evidence.schemes),
        _made_by(atlas, ledger),
    ]
    return "\n".join(parts)


@dataclasses.dataclass(frozen=True)
class Evidence:
    """Holds what the guide is written from.

    Attributes:
      values: every number, see ``results/answers.py``.
      answers: the rows of ``answers.summary`` by topic and multiple, the best first.
      statement: says what was compared and corrected.
    """

    values: pd.DataFrame
    answers: dict[tuple[str, float], list[Answer]]
    statement: str

    @classmethod
    def of(cls, values: pd.DataFrame) -> "Evidence":
        """Compares all values."""
        if values.empty:
            return cls(values, {}, "")
        table = verdicts(values)
        answers: dict[tuple[str, float], list[Answer]] = {}
        for row in summary(values, table).to_dict("records"):
            answers.setdefault((row["topic"], row["multiple"]), []).append(row)
        ranked = {place: sorted(rows, key=_rank) for place, rows in answers.items()}
        return cls(values, ranked, statement(families(table)))

    @property
    def schemes(self) -> list[str]:
        """Returns the schemes of the atlas, which are those that were trained on text."""
        return [row["scheme"] for row in self.answers.get(("text", 1), [])]

    def to(self, topic: str, multiple: float) -> list[Answer]:
        """Returns the answers to a question, the best first; not those that do not count."""
        rows = self.answers.get((topic, multiple), [])
        return [row for row in rows if row["learned"] or multiple == 1]

    def against(self, topic: str, multiple: float, scheme: str) -> pd.DataFrame:
        """Compares all schemes that count at a question with one of them."""
        counted = {row["scheme"] for row in self.to(topic, multiple)}
        v = self.values
        asked = (v["topic"] == topic) & (v["multiple"] == multiple) & v["scheme"].isin(counted)
        return compared(v[asked], scheme)


def _rank(row: Answer) -> tuple:
    """Returns what sorts answers to one question, the best first."""
    solved = row["solved"] if row["family"] == TASKS and row["learned"] else 0
    mean = row["mean"] if row["is_error"] or not math.isfinite(row["mean"]) else -row["mean"]
    return -solved, mean, row["scheme"]


def read_decoding(path: Path) -> dict[str, float]:
    """Returns the table of ``benchmarks/decode.py`` by scheme, or nothing if there is none."""
    if not path.exists():
        return {}
    with path.open(newline="") as file:
        return {row["scheme"]: float(row["times_nope"]) for row in csv.DictReader(file)}


def _summary(evidence: Evidence) -> str:
    """Returns the schemes that are best at each need, and at how many questions each of them is."""
    lines = ["| need | best here, and at how many questions |", "|---|---|"]
    for each in SITUATIONS:
        asked = [pair for pair in each.asked if evidence.to(*pair)]
        best = [_best(pair, evidence) for pair in asked]
        schemes = [found["scheme"] for found in best if isinstance(found, dict)]
        named = [f"`{name}` {count}" for name, count in Counter(schemes).most_common()]
        named += [f"none {len(asked) - len(schemes)}"] * (len(schemes) < len(asked))
        if asked:
            link = re.sub(r"[^\w ]", "", each.title.lower()).replace(" ", "-")
            lines.append(f"| [{each.title}](#{link}) | {', '.join(named)} |")
    return "\n".join(lines) + "\n"


def _overview(evidence: Evidence) -> str:
    """Returns the best scheme of every question in one table."""
    heads = ["need", "question", "best here", "not told from it", *_CALLED.values()]
    rows = []
    for each in SITUATIONS:
        need = each.title
        for pair in each.asked:
            if found := evidence.to(*pair):
                best = _best(pair, evidence)
                named, level = "none", "-"
                if isinstance(best, dict):
                    named = f"`{best['scheme']}`, {_spread(best)}"
                    level = f"{len(_level(pair, best, evidence))} of {len(found) - 1}"
                by_scheme = {a["scheme"]: _spread(a) for a in found}
                others = [by_scheme.get(name, "-") for name in _CALLED]
                rows.append([need, _name(*pair), named, level, *others])
                need = ""
    return f"## All questions\n\n{markdown_table(heads, rows)}"


def _effective(evidence: Evidence) -> str:
    """Says how many schemes make use of a context of which length."""
    lines = []
    for topic, name in ((EFFECTIVE, "text"), (f"{EFFECTIVE}, manual", "manual")):
        by_tokens: dict[float, list[str]] = {}
        for row in evidence.to(topic, 1):
            by_tokens.setdefault(row["mean"], []).append(f"`{row['scheme']}`")
        for tokens, schemes in sorted(by_tokens.items()):
            lines.append(f"- *{name}*, {tokens:.0f} tokens: {_some(schemes)}")
    if not lines:
        return ""
    head = (
        "The effective context of a scheme is the longest one that it makes use of: seeds show a "
        f"gain there, and there and at every longer one the loss is lower by {GAIN} bits per byte "
        "than with less context, on average. In the atlas it is, on text as in training and on "
        "Python's manual:\n"
    )
    return "\n".join([head, *lines]) + "\n"


def _some(names: list[str]) -> str:
    """Returns the first names, and how many more there are."""
    more = f" and {len(names) - _TIED} more" * (len(names) > _TIED)
    return ", ".join(names[:_TIED]) + more


def _name(topic: str, multiple: float) -> str:
    return f"{topic} at {multiple:g}x" if multiple else topic


def _situation(each: Situation, evidence: Evidence, claims: dict[str, Any]) -> str:
    lines = [f"## {each.title}\n", *([f"{each.note}\n"] if each.note else [])]
    lines += [_question(pair, evidence) for pair in each.asked]
    if each.chapter:
        lines.append(f"The chapter recommends: {each.chapter}.\n")
        if each.asked:
            lines += [_of_chapter(name, each, evidence) for name in each.recommended]
        lines.append("")
    if each.claims:
        lines += ["Published claims:\n", *(_claim(name, claims) for name in each.claims), ""]
    if each.elsewhere:
        lines.append(f"[{each.elsewhere}]({each.elsewhere}) has more experiments.\n")
    return "\n".join(lines)


def _decoding(decoding: dict[str, float], schemes: list[str]) -> str:
    """Says how many times as long as under NoPE the decoding of one more token takes."""
    lines = ["## Cost of decoding\n"]
    if not decoding:
        return lines[0] + "\nNo run has this yet.\n"
    lines.append(
        "Here is the time for decoding one more token after a long text under each scheme, as a "
        "multiple of the time without positions (`python -m benchmarks.decode`, "
        "[data](data/decode.csv)); see "
        "[performance.md](performance.md#decoding-under-every-scheme).\n"
    )
    bounds = [0.0, 1.05, 1.1, 1.3, 2.0, math.inf]
    for low, high in itertools.pairwise(bounds):
        names = sorted(name for name, ratio in decoding.items() if low < ratio <= high)
        if names:
            span = f"up to {high:g}" if math.isfinite(high) else f"more than {low:g}"
            lines.append(f"- {span}: {', '.join(f'`{name}`' for name in names)}")
    if missing := sorted({*schemes} - decoding.keys() - {WINDOWED}):
        lines.append(f"- not measured: {', '.join(f'`{name}`' for name in missing)}")
    return "\n".join(lines) + "\n"


def _question(pair: tuple[str, float], evidence: Evidence) -> str:
    found = evidence.to(*pair)
    title = f"**{_name(*pair)}**"
    if not found:
        learned = (
            "no scheme has learned the task" if pair in evidence.answers else "no run has this"
        )
        return f"{title}: {learned} yet.\n"
    unit = found[0]["unit"] + (", lower" if found[0]["is_error"] else ", higher") + " is better"
    whom = [name for name in (*AGAINST, OWN_WINDOW) if any(_verdict(a, name) for a in found)]
    heads = ["scheme", "answer", *(f"against {_CALLED.get(n, 'its own window')}" for n in whom)]
    rows = [
        [a["scheme"], _spread(a), *(_verdict(a, name) or "-" for name in whom)]
        for a in found[:_SHOWN]
    ]
    if not math.isnan(found[0]["chance"]):
        unit += f"; chance is {number(found[0]['chance'])}"
    if found[0]["family"] == TASKS:
        unit += f"; learned by {sum(a['learned'] for a in found)}"
        unit += f" of {len(evidence.answers[pair])} schemes"
    best, table = _best(pair, evidence), markdown_table(heads, rows)
    if isinstance(best, str):
        return f"{title} ({unit}): **none can be recommended**, because {best}.\n\n{table}"
    level = _level(pair, best, evidence)
    tied = f" Not told from it: {_some(level)}." if level else ""
    return f"{title} ({unit}): **{best['scheme']}** is the best.{tied}\n\n{table}"


def _verdict(answer: Answer, other: str) -> str:
    """Returns the verdict on a scheme against another, or nothing where there is none."""
    word = answer[f"vs_{other}"]
    return word if isinstance(word, str) else ""


def _best(pair: tuple[str, float], evidence: Evidence) -> Answer | str:
    """Returns the best scheme at a question, or why there is none."""
    found = evidence.to(*pair)
    if found[0]["family"] == TASKS:
        known = [a for a in found if a["learned"]]
        if not known:
            return "no scheme has learned the task"
        if not known[0]["solved"]:
            return f"no seed of a scheme that has learned the task has {SOLVED:.0%} of rows right"
        return known[0]
    others = (OWN_WINDOW,) if _verdict(found[0], OWN_WINDOW) else AGAINST
    first = next((a for a in found if a["scheme"] not in AGAINST), found[0])
    lacking = [_CALLED.get(o, "its own window") for o in others if not _beats(first, o)]
    if lacking:
        name = f"{first['scheme']}, which has the best mean beside the baselines,"
        return f"the seeds do not show that {name} is better than {' and '.join(lacking)}"
    if pair[1] and (overtaken := _overtaken(first["scheme"], pair, evidence)):
        return f"more training puts {', '.join(overtaken)} ahead of {first['scheme']}"
    return first


def _beats(answer: Answer, other: str) -> bool:
    """Says whether a scheme is better than another, if it is not that one and there are both."""
    return _verdict(answer, other) in ("", "better")


def _overtaken(scheme: str, pair: tuple[str, float], evidence: Evidence) -> list[str]:
    """Returns the schemes that are better than another one after longer training."""
    longer = f"{pair[0].split(',')[0]}, {LONGER}"
    multiples = [multiple for topic, multiple in evidence.answers if topic == longer]
    if not multiples:
        return []
    nearest = min(multiples, key=lambda multiple: abs(math.log(multiple / pair[1])))
    if all(a["scheme"] != scheme for a in evidence.to(longer, nearest)):
        return []
    table = evidence.against(longer, nearest, scheme)
    return table.loc[table["verdict"] == "better", "scheme"].tolist()


def _level(pair: tuple[str, float], best: Answer, evidence: Evidence) -> list[str]:
    """Returns the other schemes that cannot be told from the best, in their order."""
    order = [a["scheme"] for a in evidence.to(*pair)]
    if best["family"] == TASKS:
        rows = [a for a in evidence.to(*pair) if a is not best and a["learned"]]
        return [a["scheme"] for a in rows if a["solved"] == best["solved"]]
    table = evidence.against(*pair, best["scheme"])
    level = set(table.loc[table["verdict"].isin(["no difference", "the same"]), "scheme"])
    return [name for name in order if name in level]


def _spread(answer: Answer) -> str:
    if not math.isfinite(answer["mean"]):
        return "not finite"
    if not math.isnan(answer["solved"]):
        return f"{number(answer['mean'])}, {answer['solved']:.0f} of {answer['seeds']} seeds"
    return with_margin(answer["mean"], None if math.isnan(answer["margin"]) else answer["margin"])


def _of_chapter(scheme: str, each: Situation, evidence: Evidence) -> str:
    """Returns the places here of a scheme that the chapter recommends."""
    places = []
    for pair in each.asked:
        found = evidence.to(*pair)
        names = [a["scheme"] for a in found]
        if scheme in names:
            answer = found[names.index(scheme)]
            words = [f"against {_CALLED[o]}: {w}" for o in AGAINST if (w := _verdict(answer, o))]
            against = f" ({'; '.join(words)})" if words else ""
            place = f"{names.index(scheme) + 1} of {len(names)}"
            places.append(f"{place} in {_name(*pair)}{against}")
    return f"- Places of `{scheme}` here: {'; '.join(places) or 'no run has it yet'}."


def _claim(name: str, claims: dict[str, Any]) -> str:
    """Returns the verdict on a claim, and the numbers that decide it."""
    if name not in claims:
        return f"- {name}: no run has tested it yet."
    claim = claims[name]
    lines = [f"- **{claim['verdict']}**: {claim['says']} ({claim['source']})"]
    effects = claim["effects"]
    if len(effects) > _TIED:  # those that are as predicted are counted only
        effects = [effect for effect in effects if effect["verdict"] != "reproduced"]
        rest = len(claim["effects"]) - len(effects)
        lines.append(f"    - as predicted: {rest} of {len(claim['effects'])} numbers; the others:")
    for effect in effects:
        # Numbers that are not finite are words in JSON.
        bounds = {key: float(effect[key]) for key in ("low", "high")}
        found = effect.get("why") or _number(effect)
        says = "needed first: " * effect.get("is_need", False) + effect["says"]
        lines.append(f"    - {says}: {found}, predicted {ledger_page.predicted(bounds)}")
    return "\n".join(lines)


def _number(effect: dict[str, Any]) -> str:
    mean, margin = float(effect["mean"]), float(effect["margin"])
    if not math.isfinite(mean):
        return "not finite"
    return with_margin(mean, None if math.isnan(margin) else margin)


def _made_by(*files: dict[str, Any] | None) -> str:
    commands = [each["about"]["command"] for each in files if each]
    if not commands:
        return "Nothing has been run yet.\n"
    return "## Made by\n\n```\n" + "\n".join(commands) + "\n```\n"


@exit_status
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--answers", type=Path, required=True, help="the workdir of the atlas")
    parser.add_argument("--decoding", type=Path, default=Path("docs/data/decode.csv"))
    parser.add_argument("--extension", type=Path, default=Path("docs/data/extension_small.csv"))
    parser.add_argument("--longer", type=Path, default=Path("docs/data/extrapolation_long.tar.xz"))
    parser.add_argument("--multimodal", type=Path, default=Path("docs/data"), help="its archives")
    parser.add_argument("--out", type=Path, default=Path("docs/choosing.md"))
    args = parser.parse_args()
    files = (args.answers / "atlas/atlas.json", args.answers / "claims/claims.json")
    atlas, ledger = (read_json(path) for path in files)
    if atlas is None and ledger is None:
        parser.error(f"--answers={args.answers} has neither {files[0].name} nor {files[1].name}")
    parts = [
        atlas_data.read_values(files[0].parent),
        read_extension(args.extension),
        read_longer(args.longer),
        read_tables(args.multimodal),
    ]
    values = pd.concat([part for part in parts if len(part)], ignore_index=True)
    text = guide(values, atlas, ledger, read_decoding(args.decoding))
    write_files(args.out.parent, {args.out.name: text})
    print(f"guide: {args.out}")


if __name__ == "__main__":
    sys.exit(main())
