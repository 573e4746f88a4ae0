"""Writes the atlas as pages that need no server and no network: an index, and one per scheme."""

import html
import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from experiments.results import atlas_data
from experiments.results.atlas import (
    AGAINST,
    Atlas,
    Question,
    Verdict,
    control_words,
    counts,
    family,
    unanswered_words,
    verdict,
)
from experiments.results.record import write_files
from experiments.results.reports import probe_figures
from experiments.results.reports.drawing import COLOURS, finish, page_style, styles_of, svg
from experiments.results.reports.page import command, figure, head, learning_rates, text
from experiments.results.statistics import BASELINE, failure_words, margin_of, number

_MARKS = {"better": "▲", "worse": "▼", "no difference": "·", "one seed": "?"}
_COLOURS = {"better": "#cfe3f5", "worse": "#f8d5c0", "no difference": "#fff", "one seed": "#f0f0f0"}

_STYLE = """
body { max-width: none } .text-column { max-width: 1100px }
.filters { display: flex; flex-wrap: wrap; gap: .6rem 1.2rem; margin: 1rem 0; align-items: center }
.filters input[type=search], .filters select { font: inherit; padding: .2rem .4rem }
th button { font: inherit; font-weight: 600; border: 0; background: none; padding: 0;
  cursor: pointer; text-align: inherit; color: inherit }
th button:focus-visible { outline: 2px solid #0072b2 }
th[aria-sort=ascending] button::after { content: " ↑" }
th[aria-sort=descending] button::after { content: " ↓" }
#matrix { overflow: auto; max-height: 85vh; border: 1px solid #ddd }
#matrix thead th { position: sticky; top: 0; background: #fff; z-index: 1 }
#matrix thead th:first-child { left: 0; z-index: 2 }
#matrix tbody th { vertical-align: middle } svg { min-width: 0; max-width: 46rem }
#matrix td small { display: block } [hidden] { display: none !important }
.map svg { min-width: 600px } @media (max-width: 600px) { #matrix :is(th, td) { padding: .2rem } }
"""

# Paper is too narrow for a row: each scheme becomes a block of cells, with its question in each.
_PAPER = """
.filters, #matrix thead { display: none } #matrix { overflow: visible; max-height: none; border: 0 }
#matrix table, #matrix tbody { display: block; line-height: 1.2 }
#matrix tr { display: grid; grid-template-columns: repeat(auto-fill, minmax(5.2rem, 1fr)) }
#matrix tr > * { border: 0; padding: 0 .2rem } #matrix tbody th { grid-column: 1 / -1 }
#matrix td::before { display: block; font-size: 7px; color: #444 }
"""

# Sorts by a column, with empty cells last; shows the rows and columns that the filters ask for.
_SCRIPT = """
const table = document.querySelector("#matrix table"), body = table.tBodies[0];
const heads = [...table.tHead.rows[0].cells], rows = [...body.rows];
const value = (row, i) => {
  const cell = row.cells[i], found = cell.dataset.value;
  return found === undefined ? cell.textContent : found === "" ? NaN : Number(found);
};
function sort(i, up) {
  heads.forEach((head, j) => head.setAttribute("aria-sort",
    j !== i ? "none" : up ? "ascending" : "descending"));
  const holes = row => Number.isNaN(value(row, i));
  const order = (a, b) => a < b ? -1 : a > b ? 1 : 0;
  rows.sort((a, b) => holes(a) - holes(b) ||
    (holes(a) ? 0 : (up ? 1 : -1) * order(value(a, i), value(b, i))));
  body.append(...rows);
}
heads.forEach((head, i) => head.querySelector("button").addEventListener("click", () => {
  const was = head.getAttribute("aria-sort"), first = head.dataset.best !== "high";
  sort(i, was === "none" ? first : was !== "ascending");
}));
const search = document.querySelector("#search"), kind = document.querySelector("#family");
const group = document.querySelector("#group"), shown = document.querySelector("#shown");
function filter() {
  let count = 0;
  for (const row of rows) {
    row.hidden = !row.dataset.name.includes(search.value.trim().toLowerCase()) ||
      (kind.value !== "" && row.dataset.family !== kind.value);
    count += !row.hidden;
  }
  heads.forEach((head, i) => {
    const hide = i > 1 && group.value !== "" && head.dataset.group !== group.value;
    for (const cell of [head, ...rows.map(row => row.cells[i])]) cell.hidden = hide;
  });
  shown.textContent = `${count} of ${rows.length} schemes`;
}
for (const control of [search, kind, group]) control.addEventListener("input", filter);
filter();
"""


def write(
    folder: Path,
    atlas: Atlas,
    cards: Mapping[str, str],
    probes: Mapping[str, dict[str, Any]],
    claims: list[dict[str, Any]],
    tasks: Mapping[str, str],
) -> Path:
    """Writes the atlas into ``folder`` and returns the path of its index.

    Args:
      folder: the folder of the pages, and of the data, see ``atlas_data.py``.
      atlas: all answers.
      cards: what each scheme does to attention and what it costs, as HTML.
      probes: the results of probes of the trained models, by scheme; see
        ``experiments/evaluation/probes.py``.
      claims: the ledger, see ``experiments/studies/claims.py``; empty if there is none yet.
      tasks: what each task asks, by topic.

    Raises:
      ValueError: no study has any result yet.
    """
    data = atlas_data.files(atlas)
    with page_style():
        chart = _map(atlas)
        data["index.html"] = _index(atlas, chart, has_ledger=bool(claims), tasks=tasks)
        pages = {
            f"{name}.html": _scheme_page(atlas, name, cards.get(name, ""), probes.get(name), claims)
            for name in atlas.schemes
        }
    write_files(folder, data | ({"map.svg": chart} if chart else {}))
    write_files(folder / "schemes", pages)
    return folder / "index.html"


def _index(atlas: Atlas, chart: str, has_ledger: bool, tasks: Mapping[str, str]) -> str:
    failures = "".join(f"<li>{text(failure_words(failure))}" for failure in atlas.failures)
    unanswered = unanswered_words(atlas)
    setup = f"<p>{text(atlas.about['setup'])}</p>" if "setup" in atlas.about else ""
    ledger = " <a href='../claims/claims.html'>Published claims, put to the test</a>." * has_ledger
    parts = [
        head("Atlas of positional encodings", _STYLE + _shades()),
        f"<style>@media print {{{_PAPER}{_labels(atlas)}}}</style>",
        "<div class=text-column><h1>Atlas of positional encodings</h1>",
        f"<p>{len(atlas.schemes)} ways for a Transformer to know the order of its tokens, at "
        f"{len(atlas.questions)} questions.{ledger} <a href='#how'>How it was made</a>.</p>{setup}",
        f"<div class=failed><b>Runs that failed</b><ul>{failures}</ul></div>" if failures else "",
        f"<div class=failed>{unanswered}</div>" if unanswered else "",
        f"<div class=map>{_linked(chart)}</div>" if chart else "",
        f"<h2>Schemes and questions</h2>{_legend(atlas)}{_topics(atlas, tasks)}</div>",
        _filters(atlas),
        f"<div id=matrix>{_matrix(atlas)}</div>",
        f"<div class=text-column>{_how(atlas)}</div>",
        f"<script>{_SCRIPT}</script></html>\n",
    ]
    return "\n".join(parts)


def _how(atlas: Atlas) -> str:
    """Says what was trained and by which rules, and how far the controls agree."""
    about = {key: text(value) for key, value in atlas.about.items()}
    controls = "".join(f"<li>{text(control_words(control))}." for control in atlas.controls)
    parts = [
        f"<h2 id=how>How it was made</h2><p>{about['rules']}</p>"
        f"<p>Device: {about['device']}. Revision <code>{about['git']}</code>, {about['date']}.</p>",
        f"<pre>{command(atlas.about)}</pre>",
        f"<h2>Controls</h2><p>These tasks were learned alone too; every other was learned among "
        f"all tasks only.</p><ul>{controls}</ul>"
        if controls
        else "",
        *(
            f"<details><summary>Learning rates in {text(name)}</summary>{learning_rates(tried)}"
            "</details>"
            for name, tried in atlas.about.get("rates", {}).items()
            if tried
        ),
    ]
    return "\n".join(parts)


def _map(atlas: Atlas) -> str:
    """Draws each scheme by its loss at the trained length and at the greatest one, as SVG."""
    questions = [question for question in atlas.questions if question.topic == "text"]
    if len(questions) < 2:
        return ""
    short, long = (questions[end] for end in (0, -1))
    places = {name: (short.cell(name)[0], long.cell(name)[0]) for name in atlas.schemes}
    places = {name: place for name, place in places.items() if max(place) < math.inf}
    drawing = Figure(figsize=(7.4, 4.6), layout="constrained")
    axes = drawing.add_subplot(yscale="log")
    axes.margins(x=0.16)  # for names
    families = dict.fromkeys(map(family, places))
    for turn, group in enumerate(families):
        names = [name for name in places if family(name) == group]
        colour, marker = COLOURS[turn % len(COLOURS)], "os^Dv"[turn // len(COLOURS)]
        x, y = zip(*(places[name] for name in names), strict=True)
        points = axes.scatter(x, y, 26, colour, marker=marker, label=group, zorder=2)
        points.set_urls([f"schemes/{name}.html" for name in names])
    best = {family(name): name for name in sorted(places, key=lambda n: -places[n][1])}
    _write_names(axes, {name: places[name] for name in {*AGAINST, *best.values()} & {*places}})
    same = np.linspace(min(map(min, places.values())), max(x for x, _ in places.values()))
    axes.plot(same, same, color="#bbbbbb", linewidth=1, zorder=1)
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter("{x:g}")
    axes.set(
        xlabel=f"bits per byte at {short.multiple:g}x the trained length",
        ylabel=f"bits per byte at {long.multiple:g}x",
    )
    finish(axes, which="both")
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return svg(drawing)


def _linked(chart: str) -> str:
    """Returns the map with its caption, and the name of each scheme at its point."""
    linked = re.sub(r'(<a xlink:href="schemes/(\w+)\.html"[^>]*>)', r"\1<title>\2</title>", chart)
    caption = (
        "The loss of the last tokens, the mean over seeds. The lower a scheme is, the better it is "
        "beyond the trained length; the farther left, within it. On the line both losses are the "
        "same. A point leads to the page of its scheme. Named are the lowest of each family, and "
        f"{' and '.join(AGAINST)}."
    )
    return figure("map", "Within and beyond the trained length", caption, linked)


def _write_names(axes, places: dict[str, tuple[float, float]]) -> None:
    """Writes names beside their points on a logarithmic axis, moved up where they would overlap."""
    lowest, highest = (math.log(y) for y in axes.get_ylim())
    height = 72 * axes.figure.get_figheight() * 0.85 / (highest - lowest)  # points of a unit
    above = -math.inf
    for name, (x, y) in sorted(places.items(), key=lambda each: each[1][1]):
        at = height * (math.log(y) - lowest)
        above = max(at, above + 9)
        axes.annotate(
            name,
            (x, y),
            xytext=(6, above - at - 3),
            textcoords="offset points",
            fontsize=8,
            path_effects=[withStroke(linewidth=2, foreground="white")],
        )


def _legend(atlas: Atlas) -> str:
    words = ", ".join(
        f"<span class=key style='background:{_COLOURS[word]}'>{mark} {word}</span>"
        for word, mark in _MARKS.items()
    )
    seeds = max(question.cell(name)[2] for question in atlas.questions for name in question.values)
    return (
        f"<p>Each cell: the mean over seeds (at most {seeds}), half of its 95 % interval, and two "
        f"verdicts, on the left against NoPE and on the right against RoPE: {words}. A verdict "
        "compares seed by seed; better and worse are said where the 95 % interval of the "
        "difference excludes 0. With this many cells some verdicts are due to chance: one in "
        "twenty where nothing differs. Click a head to sort by its column, and a name for the "
        "scheme's own page. A dash is a missing run.</p>"
        "<p>A head names what is read and its length over that of training: 2x is twice as long. "
        "<b>text</b> counts the last tokens alone, which are the same at every length; <b>text, "
        "all</b> counts all tokens, and in longer texts fewer of them lack context. Both are in "
        "bits per byte, where lower is better. Tasks are in shares of what is right.</p>"
    )


def _topics(atlas: Atlas, tasks: Mapping[str, str]) -> str:
    """Says what each topic asks, for those who have no pointer to hold over a head."""
    first = {question.topic: question for question in reversed(atlas.questions)}
    items = []
    for topic in reversed(first):
        asked = f" The task: {tasks[topic]}" if topic in tasks else ""
        items.append(f"<li><b>{text(topic)}</b>: {text(first[topic].says + asked)}")
    return (
        "<details><summary>What each question asks, at its shortest length</summary>"
        f"<ul id=questions>{''.join(items)}</ul></details>"
    )


def _filters(atlas: Atlas) -> str:
    def options(names):
        every = "".join(f"<option>{text(name)}" for name in dict.fromkeys(names))
        return f"<option value=''>all{every}"

    families = options(family(name) for name in atlas.schemes)
    groups = options(question.topic for question in atlas.questions)
    return (
        "<div class=filters><label>Scheme <input type=search id=search></label>"
        f"<label>Family <select id=family>{families}</select></label>"
        f"<label>Questions <select id=group>{groups}</select></label>"
        "<span id=shown role=status></span></div>"
    )


def _matrix(atlas: Atlas) -> str:
    heads = ["<th class=text aria-sort=none><button>scheme</button>"]
    heads += ["<th class=text aria-sort=none><button>family</button>"]
    for q in atlas.questions:
        best = "low" if q.is_error else "high"
        heads.append(
            f"<th aria-sort=none data-group='{text(q.topic)}' data-best={best} "
            f"title='{text(q.says)}'><button>{text(q.name)}</button>"
        )
    rows = []
    for name in atlas.schemes:
        cells = "".join(_cell(question, name) for question in atlas.questions)
        rows.append(
            f"<tr{' class=baseline' * (name == BASELINE)} data-name='{name}' "
            f"data-family='{family(name)}'><th class=text><a href='schemes/{name}.html'>{name}</a>"
            f"<td class=text>{family(name)}{cells}"
        )
    return f"<table><thead><tr>{''.join(heads)}<tbody>{''.join(rows)}</table>"


def _labels(atlas: Atlas) -> str:
    """Returns a style that writes its question above each cell, where no head does."""
    return "\n".join(
        f"#matrix td:nth-child({i})::before {{ content: {json.dumps(question.name)} }}"
        for i, question in enumerate(atlas.questions, 3)
    )


def _shades() -> str:
    """Returns the style of cells by their two verdicts; none looks as no difference does."""
    colours = {word[:2]: colour for word, colour in _COLOURS.items()}
    return "\n".join(
        f".{left}-{right} {{ background: linear-gradient(90deg, {a} 50%, {b} 50%) }}"
        for left, a in colours.items()
        for right, b in colours.items()
    )


def _cell(question: Question, scheme: str) -> str:
    if scheme not in question.values:
        return "<td data-value=''>-"
    mean, margin = question.cell(scheme)[0], margin_of(question.cell(scheme))
    found = [verdict(question, scheme, against) for against in AGAINST]
    shade = "-".join(each.word[:2] if each else "no" for each in found)
    marks = "".join(_MARKS[each.word] if each else "-" for each in found)
    spread = "" if margin is None else f"±{number(margin, mean)} "
    value = f"{mean:.6g}" if math.isfinite(mean) else "Infinity"
    return f"<td data-value={value} class={shade}>{number(mean)}<small>{spread}{marks}</small>"


def _scheme_page(atlas: Atlas, scheme: str, card: str, probes, claims) -> str:
    trained = atlas.trained.get(scheme, scheme)
    swapped = f" It reads the checkpoints of {trained}." if trained != scheme else ""
    won = "; ".join(
        f"against {name}, better at {found['better']} and worse at {found['worse']}"
        for name in AGAINST
        if (found := counts(atlas, scheme, name)) and name != scheme
    )
    parts = [
        head(f"{scheme}: atlas of positional encodings", _STYLE),
        f"<div class=text-column><p><a href='../index.html'>All schemes</a></p><h1>{scheme}</h1>",
        f"{card}<p>Of {len(atlas.questions)} questions: {won}.{text(swapped)}</p>",
        _by_length(atlas, scheme),
        f"<h2>Answers</h2><div class=wide>{_answers(atlas, scheme)}</div>",
        _claims(scheme, claims),
        *_probes(probes, atlas.about["train_length"]),
        "</div></html>\n",
    ]
    return "\n".join(parts)


def _by_length(atlas: Atlas, scheme: str) -> str:
    """Draws the loss by length of the scheme, and of the schemes that it is compared with."""
    questions = [q for q in atlas.questions if q.topic == "text" and scheme in q.values]
    if not questions:
        return ""
    names = dict.fromkeys((scheme, *AGAINST))
    drawing = Figure(figsize=(5.2, 3.0), layout="constrained")
    axes = drawing.add_subplot()
    labels = [f"{question.multiple:g}x" for question in questions]
    for name, style in styles_of(names).items():
        cells = [question.cell(name) for question in questions]
        means = [mean if mean < math.inf else math.nan for mean, _, _ in cells]
        margins = [margin_of(cell) or 0.0 for cell in cells]
        axes.errorbar(labels, means, margins, **style, label=name, capsize=2)
    axes.set(xlabel="context over the trained length", ylabel="bits per byte")
    finish(axes)
    axes.legend(frameon=False)
    caption = "The same last tokens at every length; bars: 95 % intervals."
    by_topic = atlas.effective.items()
    if tokens := [f"{own[scheme]} on {topic}" for topic, own in by_topic if scheme in own]:
        caption += (
            " The effective context, which is the longest one that still lowers the loss by more "
            f"than a standard error, has these tokens: {', '.join(tokens)}."
        )
    return figure("length", "Loss by length of the context", caption, svg(drawing))


def _answers(atlas: Atlas, scheme: str) -> str:
    heads = "".join(f"<th>against {name}" for name in AGAINST)
    rows = []
    for question in atlas.questions:
        cell = question.cell(scheme)
        found = [verdict(question, scheme, against) for against in AGAINST]
        shown = "-"
        if scheme in question.values:
            margin = margin_of(cell)
            shown = number(cell[0]) + ("" if margin is None else f" ± {number(margin, cell[0])}")
        against = "".join(_against(each) for each in found)
        says = html.escape(question.says)
        rows.append(f"<tr><th class=text title='{says}'>{text(question.name)}<td>{shown}{against}")
    return (
        f"<table><thead><tr><th class=text>question<th>mean{heads}<tbody>{''.join(rows)}</table>"
        "<figcaption>A positive difference is in the scheme's favour; ± is half of the 95 % "
        f"interval. {_MARKS['better']} on blue is better and {_MARKS['worse']} on orange is worse: "
        "the interval of the difference excludes 0. <a href='../index.html#questions'>What each "
        "question asks</a>.</figcaption>"
    )


def _against(found: Verdict | None) -> str:
    if found is None:
        return "<td>-"
    margin = "" if found.margin is None else f" ± {number(found.margin)}"
    difference = f"{found.difference:+.3f}" if math.isfinite(found.difference) else ""
    style = f" style='background:{_COLOURS[found.word]}'"
    return f"<td{style}>{_MARKS[found.word]} {difference}{margin}"


def _claims(scheme: str, claims) -> str:
    own = [claim for claim in claims if scheme in claim["schemes"]]
    if not own:
        return ""
    items = "".join(
        f"<li><a href='../../claims/claims.html#{claim['name']}'>{text(claim['verdict'])}</a>: "
        f"{text(claim['says'])} ({text(claim['source'])})"
        for claim in own
    )
    return f"<h2>Published claims</h2><ul>{items}</ul>"


def _probes(probes, train_length: int) -> list[str]:
    if not probes:
        return []
    drawn = probe_figures.draw(probes, train_length)
    return [figure(name, *probe_figures.FIGURES[name], each) for name, each in drawn.items()]
