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

from experiments.command import exit_status
from experiments.results import atlas_data
from experiments.results.record import read_json, write_files
from experiments.results.reports import ledger_page
from experiments.results.reports.other_answers import (
    LONGER,
    Answer,
    read_extension,
    read_longer,
    read_tables,
)
from experiments.results.statistics import number, with_margin

# How many schemes are shown for each question, the best first.
_SHOWN = 5
# How many schemes of a list are named, and how many numbers of a claim are all shown.
_TIED = 10
# The share of schemes that may seem to be above chance by accident, even if none learned anything.
_BY_ACCIDENT = 0.05
_CALLED = {"nope": "NoPE", "rope": "RoPE"}
# No scheme is by accident so far above chance, as a part of the way from chance to all right.
_CLEARLY = 0.25
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
more. [schemes.md](schemes.md) says what each scheme is.
"""

_READING = """## How to read the names and figures

`python -m experiments.results.reports.choosing_page` wrote this page from the
[atlas](atlas/index.html), which puts all schemes to all questions, from the
[ledger](claims/claims.html) of published claims, and from the results of other experiments. No
figure, order or verdict is typed by hand.

- *text* is the loss of the last tokens of a text, and *text, all* that of all its tokens, in bits
  per byte, where lower is better. *gain* says by how much the loss is lower with more context than
  in training than with the most recent tokens alone. The texts are source code, as in training;
  where the name ends in *manual*, they are Python's manual.
- Tasks are in shares of what is right: of the rows whose answers are all right or, where the name
  ends in *answers*, of single answers. [experiments.md](experiments.md#tasks-about-order) says what
  each task asks.
- *2x* is twice the trained length. Where the chapter speaks of thousands of tokens, such multiples
  stand for them here.
- Behind ± is half of the 95 % interval over seeds. A scheme is *better* or *worse* than RoPE, or
  than NoPE, which has no positions, where the 95 % interval of the difference, taken seed by seed,
  excludes 0.
- *Best* is the scheme with the best mean, if it is better than both NoPE and RoPE, where these were
  run. If it is not, there is no best one, and the sections say why. The best gain is the largest
  one whose interval excludes 0. The sections also name the schemes whose intervals overlap with
  that of the best; the table of all questions counts them.
"""

SITUATIONS = (
    Situation(
        "Text no longer than in training",
        (("text", 1), ("text, all", 1), (f"text, {LONGER}", 1)),
        (
            "transformer_xl_relative",
            "few_rotary_channels",
            "blind_to_order",
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
    Situation("Finding what was told", _each("passkey; needles; recall; induction, answers", 1, 4)),
    Situation(
        "Counting and states",
        _each("counting; flip_flop; variable_tracking", 1, 4),
        ("cope_counts", "path_flip_flop"),
    ),
    Situation(
        "Algorithms on longer rows",
        _each("copy, answers; reverse, answers; addition, answers; sort, answers; parity", 1, 2),
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
    answers: list[Answer],
    atlas: dict[str, Any] | None,
    ledger: dict[str, Any] | None,
    decoding: dict[str, float],
    beside: list[Answer] | None = None,
) -> str:
    """Returns the guide as Markdown.

    Args:
      answers: those of the atlas, see ``results/atlas_data.py``.
      atlas, ledger: ``atlas.json`` and ``claims.json``, or None for what was not run.
      decoding: the time of decoding one more token under each scheme, over that under NoPE.
      beside: the answers of other experiments, see ``other_answers.py``.
    """
    every = answers + (beside or [])
    claims = {claim["name"]: claim for claim in ledger["claims"]} if ledger else {}
    parts = [
        _INTRODUCTION,
        _summary(every),
        _READING,
        _overview(every),
        _effective(atlas),
        *(_situation(each, every, claims) for each in SITUATIONS),
        _decoding(decoding, answers),
        _made_by(atlas, ledger),
    ]
    return "\n".join(parts)


def read_decoding(path: Path) -> dict[str, float]:
    """Returns the table of ``benchmarks/decode.py`` by scheme, or nothing if there is none."""
    if not path.exists():
        return {}
    with path.open(newline="") as file:
        return {row["scheme"]: float(row["times_nope"]) for row in csv.DictReader(file)}


def _summary(answers: list[Answer]) -> str:
    """Returns the schemes that are best at each need, and at how many questions each of them is."""
    lines = ["| need | best here, and at how many questions |", "|---|---|"]
    for each in SITUATIONS:
        asked = [found for pair in each.asked if (found := _answers_to(*pair, answers))]
        best = [each["scheme"] for each in map(_best, asked) if isinstance(each, dict)]
        named = [f"`{name}` {count}" for name, count in Counter(best).most_common()]
        named += [f"none {len(asked) - len(best)}"] * (len(best) < len(asked))
        if asked:
            link = re.sub(r"[^\w ]", "", each.title.lower()).replace(" ", "-")
            lines.append(f"| [{each.title}](#{link}) | {', '.join(named)} |")
    return "\n".join(lines) + "\n"


def _overview(answers: list[Answer]) -> str:
    """Returns the best scheme of every question in one table."""
    head = "| need | question | best here | overlapping intervals | RoPE |\n|---|---|---|---|---|"
    lines = ["## All questions\n", head]
    for each in SITUATIONS:
        need = each.title
        for topic, multiple in each.asked:
            found = _answers_to(topic, multiple, answers)
            if found:
                best = _best(found)
                named, level = "none", "-"
                if isinstance(best, dict):
                    named = f"`{best['scheme']}`, {_spread(best)}"
                    level = f"{len(_level(found, best))} of {len(found) - 1}"
                rope = ", ".join(_spread(a) for a in found if a["scheme"] == "rope")
                lines.append(f"| {need} | {_name(topic, multiple)} | {named} | {level} | {rope} |")
                need = ""
    return "\n".join(lines) + "\n"


def _effective(atlas: dict[str, Any] | None) -> str:
    """Says how many schemes make use of a context of which length."""
    lines = []
    for topic, by_scheme in (atlas or {}).get("effective", {}).items():
        by_tokens: dict[int, list[str]] = {}
        for scheme, tokens in by_scheme.items():
            by_tokens.setdefault(tokens, []).append(f"`{scheme}`")
        for tokens, schemes in sorted(by_tokens.items()):
            lines.append(f"- *{topic}*, {tokens} tokens: {_some(schemes)}")
    if not lines:
        return ""
    head = (
        "The effective context of a scheme is the longest one that still lowers the loss: the mean "
        "over seeds falls below that of the most recent tokens alone by more than a standard "
        "error. In the atlas it is, on text as in training and on Python's manual:\n"
    )
    return "\n".join([head, *lines]) + "\n"


def _some(names: list[str]) -> str:
    """Returns the first names, and how many more there are."""
    more = f" and {len(names) - _TIED} more" * (len(names) > _TIED)
    return ", ".join(names[:_TIED]) + more


def _name(topic: str, multiple: float) -> str:
    return f"{topic} at {multiple:g}x" if multiple else topic


def _answers_to(topic: str, multiple: float, answers: list[Answer]) -> list[Answer]:
    return [a for a in answers if (a["topic"], a["multiple"]) == (topic, multiple)]


def _situation(each: Situation, answers: list[Answer], claims: dict[str, Any]) -> str:
    lines = [f"## {each.title}\n", *([f"{each.note}\n"] if each.note else [])]
    for topic, multiple in each.asked:
        lines.append(_question(topic, multiple, _answers_to(topic, multiple, answers)))
    if each.chapter:
        lines.append(f"The chapter recommends: {each.chapter}.\n")
        if each.asked:
            lines += [_of_chapter(name, each, answers) for name in each.recommended]
        lines.append("")
    if each.claims:
        lines += ["Published claims:\n", *(_claim(name, claims) for name in each.claims), ""]
    if each.elsewhere:
        lines.append(f"[{each.elsewhere}]({each.elsewhere}) has more experiments.\n")
    return "\n".join(lines)


def _decoding(decoding: dict[str, float], answers: list[Answer]) -> str:
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
    if missing := sorted({a["scheme"] for a in answers} - decoding.keys()):
        lines.append(f"- not measured: {', '.join(f'`{name}`' for name in missing)}")
    return "\n".join(lines) + "\n"


def _question(topic: str, multiple: float, found: list[Answer]) -> str:
    title = f"**{_name(topic, multiple)}**"
    if not found:
        return f"{title}: no run has this yet.\n"
    unit = found[0]["unit"] + (", lower" if found[0]["is_error"] else ", higher") + " is better"
    rows = [
        f"| {a['scheme']} | {_spread(a)} | {_against(a, 'nope')} | {_against(a, 'rope')} |"
        for a in _ranked(found)[:_SHOWN]
    ]
    head = "| scheme | mean | against NoPE | against RoPE |\n|---|---|---|---|"
    table = f"{head}\n" + "\n".join(rows) + "\n"
    if (chance := found[0]["chance"]) is not None:
        above = sum(map(_is_above_chance, found))
        unit += f"; chance is {number(chance)}, and {above} of {len(found)} schemes are above it"
    best = _best(found)
    if isinstance(best, str):
        return f"{title} ({unit}): **none can be recommended**, because {best}.\n\n{table}"
    level = _level(found, best)
    tied = f" The intervals of these overlap with its own: {_some(level)}." if level else ""
    whom = " of those whose intervals exclude 0" * topic.startswith("gain")
    return f"{title} ({unit}): **{best['scheme']}** is the best{whom}.{tied}\n\n{table}"


def _against(answer: Answer, other: str) -> str:
    """Returns the verdict on a scheme against another, or a dash where there is none."""
    return "-" if answer["scheme"] == other else answer[f"vs_{other}"] or "-"


def _best(found: list[Answer]) -> Answer | str:
    """Returns the first scheme by its mean, or why there is no evidence for it."""
    is_gain = found[0]["topic"].startswith("gain")
    if _floor(found[0]) is not None:
        above = sum(map(_is_above_chance, found))
        is_clear = any(_is_above_chance(answer, _CLEARLY) for answer in found)
        if above <= _BY_ACCIDENT * len(found) and not is_clear:
            return f"hardly any scheme {'gains' if is_gain else 'is above chance'}"
    if is_gain:  # no other scheme is needed to tell a gain
        return next(answer for answer in _ranked(found) if _is_above_chance(answer))
    better = [a for a in _ranked(found) if _beats(a, "nope") and _beats(a, "rope")]
    if not better:
        return "no scheme is better than both NoPE and RoPE"
    known = [a for a in better if _floor(a) is None or _is_above_chance(a)]
    if not known:
        return "none of those is above chance"
    first = _ranked(found)[0]
    if first["mean"] == known[0]["mean"]:
        return known[0]
    others = [called for name, called in _CALLED.items() if not _beats(first, name)]
    worse = " and ".join(others or ["knowing nothing"])
    best = f"{first['scheme']}, which has the best mean,"
    return f"the seeds do not show that {best} is better than {worse}"


def _beats(answer: Answer, other: str) -> bool:
    """Says whether a scheme is better than another, if it is not that one and there are both."""
    found = answer[f"vs_{other}"]
    return answer["scheme"] == other or not found or found == "better"


def _floor(answer: Answer) -> float | None:
    """Returns what is reached by knowing nothing, if that is known; of a gain this is nothing."""
    return 0.0 if answer["topic"].startswith("gain") else answer["chance"]


def _ranked(found: list[Answer]) -> list[Answer]:
    """Returns the answers to one question, the best first; one that is not finite is the last."""

    def place(answer):
        mean = answer["mean"]
        lost = mean is None
        return lost, 0.0 if lost else (mean if answer["is_error"] else -mean), answer["scheme"]

    return sorted(found, key=place)


def _level(found: list[Answer], best: Answer) -> list[str]:
    """Returns the other schemes whose intervals meet that of the best, in their order."""
    return [a["scheme"] for a in _ranked(found) if a is not best and _reaches(a, best)]


def _reaches(one: Answer, best: Answer) -> bool:
    """Says whether the intervals of two answers meet."""
    if one["mean"] is None or best["mean"] is None:
        return False
    return abs(one["mean"] - best["mean"]) <= (one["margin"] or 0) + (best["margin"] or 0)


def _is_above_chance(answer: Answer, part: float = 0.0) -> bool:
    """Says whether the interval of an answer lies above chance, by a part of the way to 1."""
    mean, margin, chance = answer["mean"], answer["margin"] or 0.0, _floor(answer)
    if mean is None or chance is None:
        return False
    return mean - margin > chance + part * (1 - chance)


def _spread(answer: Answer) -> str:
    if answer["mean"] is None:
        return "not finite"
    return with_margin(answer["mean"], answer["margin"])


def _of_chapter(scheme: str, each: Situation, answers: list[Answer]) -> str:
    """Returns the places here of a scheme that the chapter recommends."""
    places = []
    for topic, multiple in each.asked:
        found = _ranked(_answers_to(topic, multiple, answers))
        names = [a["scheme"] for a in found]
        if scheme in names:
            own = found[names.index(scheme)]
            other = "rope" if own["vs_rope"] else "nope"
            against = f" (against {_CALLED[other]}: {own[f'vs_{other}']})" * (scheme != other)
            place = f"{names.index(scheme) + 1} of {len(names)}"
            places.append(f"{place} in {_name(topic, multiple)}{against}")
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
        found = effect.get("why") or _spread(effect | {"mean": _finite(effect["mean"])})
        lines.append(f"    - {effect['says']}: {found}, predicted {ledger_page.predicted(bounds)}")
    return "\n".join(lines)


def _finite(value: float | str) -> float | None:
    return float(value) if math.isfinite(float(value)) else None


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
    answers = atlas_data.read(files[0].parent)
    beside = (
        read_extension(args.extension) + read_longer(args.longer) + read_tables(args.multimodal)
    )
    text = guide(answers, atlas, ledger, read_decoding(args.decoding), beside)
    write_files(args.out.parent, {args.out.name: text})
    print(f"guide: {args.out}")


if __name__ == "__main__":
    sys.exit(main())
