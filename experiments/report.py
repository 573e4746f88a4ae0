"""The report of a length study: ``report.html`` to read, ``results.csv`` and ``results.json``."""

import csv
import dataclasses
import html
import io
import json
import math
import os
import re
import statistics
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table
from rich.text import Text

Evaluation = tuple[str, str, int | None]  # split, protocol, stride
Cell = tuple[float, float | None, int]  # mean, standard error, number of seeds
Summary = dict[str, dict[Any, Cell]]  # by scheme, then by length or another column

MAIN: Evaluation = ("test", "last", None)
BASELINE = "nope"
WINDOWED = math.inf  # the column of the windowed baseline, which sorts after every length
MARK = "✓ for every seed better than the same model fed only its last 1x tokens (windowed)"
# Okabe and Ito's colours, which colour-blind readers tell apart; their yellow is lost on white.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#aa3377", "#e69f00", "#56b4e9", "#222222")
DASHES = ("-", (0, (5, 1.6)), (0, (1.4, 1.1)), (0, (6, 1.5, 1.2, 1.5)))


@dataclasses.dataclass(frozen=True)
class Study:
    """Everything a report is made of. Losses are in nats per token.

    Attributes:
      records: ``scheme, seed, split, protocol, stride, length, multiple, loss, bits_per_byte,
        perplexity, tokens``. Protocol "windowed" scores the tokens of "last" with a model that
        sees only its last train_length tokens.
      curves: ``scheme, seed, split, positions, loss``: loss in the longest context, by the right
        edges of buckets of positions.
      training: ``scheme, seed, steps, tokens, seconds, final_loss, parameters, trained``; the last
        is the scheme the checkpoint was trained with.
      failures: ``scheme, seed, reason`` of the runs that have no records.
      about: ``command, train_length, last_tokens, corpus, corpus_digest, versions, device, git,
        config, date``.
    """

    records: list[dict]
    curves: list[dict]
    training: list[dict]
    failures: list[dict]
    about: dict[str, Any]


def write(folder: str | Path, study: Study) -> Path:
    """Writes the report and its two main figures into ``folder``; returns ``report.html``'s path.

    ``results.json`` has null for a number that is not finite; ``results.csv`` tells nan from inf.

    Raises:
      ValueError: the study is empty, or two records claim the same measurement.
    """
    _check(study)
    figures = _figures(study)
    table = io.StringIO(newline="")
    columns = dict.fromkeys(key for record in study.records for key in record)
    rows = csv.DictWriter(table, list(columns), lineterminator="\n")
    rows.writeheader()
    rows.writerows(study.records)
    python_json = json.dumps(dataclasses.asdict(study), default=_native)
    everything = json.loads(python_json, parse_constant=lambda _: None)
    files = {
        "results.csv": table.getvalue(),
        "results.json": json.dumps(everything, indent=1) + "\n",
        "report.html": _page(study, figures),
    }
    named = {f"{name}.svg": svg for name, svg in figures.items() if name != "protocols"}
    _write_files(Path(folder), files | named)
    return Path(folder) / "report.html"


def print_table(study: Study, console: Console | None = None) -> None:
    """Prints bits per byte by length, best scheme first, and what failed; raises as ``write``."""
    _check(study)
    console = console or Console()
    for failure in study.failures:
        console.print(Text("failed: {scheme}, seed {seed}: {reason}".format(**failure), "red"))
    view = _View.of(study, MAIN)
    table = Table(title="bits per byte, mean (± standard error) over seeds", caption=MARK)
    table.add_column("scheme")
    for column in view.columns:
        table.add_column("\n".join(_heading(study, column)), justify="right", no_wrap=True)
    for scheme in view.order:
        row = [Text(scheme, "italic" if scheme == BASELINE else "")]
        for column in view.columns:
            mean, extra, mark = view.words(scheme, column)
            words = mean + extra * (console.width > 17 * len(view.columns) + 17) + mark
            row.append(Text(words, "bold" if view.is_best(scheme, column) else ""))
        table.add_row(*row)
    if view.order:
        console.print(table)


def summarise(
    records: Iterable[dict],
    *,
    split: str,
    protocol: str,
    stride: int | None = None,
    metric: str = "bits_per_byte",
) -> Summary:
    """Mean, standard error and number of seeds of ``metric``, by scheme and length in tokens.

    The standard error is None for one seed. A value that is not finite makes the mean inf, so
    that the scheme is never the best and sorts last.

    Raises:
      ValueError: the records have several strides and ``stride`` does not choose one, or two
        records claim the same measurement.
    """
    values = _by_seed(records, (split, protocol, stride), metric)
    return {
        scheme: {length: _cell(lengths[length].values()) for length in sorted(lengths)}
        for scheme, lengths in sorted(values.items())
    }


def _by_seed(records, evaluation: Evaluation, metric) -> dict[str, dict[Any, dict[int, float]]]:
    split, protocol, stride = evaluation
    records = [r for r in records if (r["split"], r["protocol"]) == (split, protocol)]
    records = [r for r in records if stride in (None, r["stride"])]
    if len(strides := {r["stride"] for r in records} - {None}) > 1:
        raise ValueError(f"{protocol} has records of strides {sorted(strides)}; give one as stride")
    values: dict[str, dict[Any, dict[int, float]]] = {}
    for r in records:
        seeds = values.setdefault(r["scheme"], {}).setdefault(r["length"], {})
        if r["seed"] in seeds:
            raise ValueError(
                f"two records of {r['scheme']}, seed {r['seed']}, {split}, {protocol}, length "
                f"{r['length']}: counted twice they would shrink the standard error; keep one"
            )
        seeds[r["seed"]] = math.nan if r[metric] is None else float(r[metric])
    return values


def _cell(values: Iterable[float | None]) -> Cell:
    known = [math.inf if value is None else value for value in values]
    if not known or not all(map(math.isfinite, known)):
        return math.inf, None, len(known)
    stderr = statistics.stdev(known) / len(known) ** 0.5 if len(known) > 1 else None
    return statistics.fmean(known), stderr, len(known)


def _check(study: Study) -> None:
    if not study.records and not study.failures:
        raise ValueError("the study has no records and no failures: there is nothing to report")


@dataclasses.dataclass(frozen=True)
class _View:
    """One evaluation as a table; whatever metric ``cells`` show, ``bits`` judge the schemes."""

    train_length: int
    bits: dict[str, dict[Any, dict[int, float]]]
    cells: Summary
    columns: list
    order: list[str]

    @classmethod
    def of(cls, study: Study, evaluation: Evaluation, metric: str = "bits_per_byte") -> "_View":
        split, protocol, stride = evaluation
        as_column = {"protocol": "last", "stride": stride, "length": WINDOWED}
        records = [r | as_column if r["protocol"] == "windowed" else r for r in study.records]
        bits = _by_seed(records, evaluation, "bits_per_byte")
        cells = summarise(records, split=split, protocol=protocol, stride=stride, metric=metric)
        columns = sorted({column for row in cells.values() for column in row})
        own = study.about["train_length"]
        at = max((c for c in columns if c < WINDOWED), default=own)
        at = 4 * own if 4 * own in columns else at
        order = sorted(bits, key=lambda s: (_cell(bits[s].get(at, {}).values())[0], s))
        return cls(own, bits, cells, columns, order)

    def is_best(self, scheme: str, column) -> bool:
        means = {s: row[column][0] for s, row in self.cells.items() if column in row}
        return scheme in means and means[scheme] == min(means.values()) < math.inf

    def uses_context(self, scheme: str, column) -> bool:
        row = self.bits[scheme]
        window = row.get(WINDOWED, {})
        is_longer = self.train_length < column < WINDOWED and column in row
        return is_longer and all(v < window.get(s, -math.inf) for s, v in row[column].items())

    def shade(self, scheme: str, column) -> str:
        row = self.bits[scheme]
        if column not in row or self.train_length not in row or column == WINDOWED:
            return ""
        loss, own = (_cell(row[c].values())[0] for c in (column, self.train_length))
        return _shade(loss / own - 1)

    def words(self, scheme: str, column) -> tuple[str, str, str]:
        """The mean, its standard error with whatever else must be said of it, and the mark."""
        if column not in self.cells[scheme]:
            return "-", "", " "
        mean, stderr, seeds = self.cells[scheme][column]
        most = max(cell[2] for row in self.cells.values() for cell in row.values())
        extra = f" ± {_number(stderr, mean)}" if stderr is not None else ""
        extra += f" ({seeds} of {most} seeds)" if seeds < most else ""
        return _number(mean), extra, "✓" if self.uses_context(scheme, column) else " "


def _number(value: float, like: float | None = None) -> str:
    """``value`` with the decimals that suit ``like``, by default itself."""
    size = abs(value if like is None else like)
    if not math.isfinite(value):
        return "not finite"
    digits = 3 if size < 10 else 2 if size < 100 else 1 if size < 1000 else 0
    return f"{value:,.{digits}f}" if size < 1e5 else f"{value:.1e}"


def _heading(study: Study, column) -> tuple[str, str]:
    if column == WINDOWED:
        return "windowed", "1x"
    return f"{column / study.about['train_length']:g}x", str(column)


def _evaluations(study: Study) -> list[Evaluation]:
    """All that was measured, the main evaluation first."""
    found = {(r["split"], r["protocol"], r["stride"]) for r in study.records}
    key = {e: (e[0] != "test", e[0], e[1] != "last", e[1], -(e[2] or 0)) for e in found}
    return sorted((e for e in found if e[1] != "windowed"), key=key.__getitem__)


def _name(study: Study, evaluation: Evaluation) -> str:
    _, protocol, stride = evaluation
    if protocol == "last":
        return f"last {study.about['last_tokens']} tokens"
    return protocol.replace("_", "-") + (f", stride {stride}" if stride else "")


def _figures(study: Study) -> dict[str, str]:
    """SVG by name; a figure without data is left out."""
    points = [
        curve | {"protocol": "curve", "stride": None, "length": position, "loss": loss}
        for curve in study.curves
        for position, loss in zip(curve["positions"], curve["loss"], strict=True)
    ]
    by_length = summarise(study.records, split="test", protocol="last")
    by_position = summarise(points, split="test", protocol="curve", metric="loss")
    styles = _styles(by_length | by_position)
    length = (by_length, styles, "context length in tokens", "bits per byte")
    position = (by_position, styles, "position in the longest context", "nats per token")
    # Text as paths looks the same without the font, and the salt keeps ids the same in every run.
    with matplotlib.rc_context({"svg.fonttype": "path", "svg.hashsalt": "x", "font.size": 9}):
        drawn = {
            "loss_vs_length": _lines(study, *length) if by_length else None,
            "loss_vs_position": _lines(study, *position) if by_position else None,
            "protocols": _panels(study),
        }
        return {name: _svg(figure) for name, figure in drawn.items() if figure}


def _styles(names: Iterable[str]) -> dict[str, dict]:
    # 7 colours and 4 dashes share no factor: 28 names in alphabetical order differ.
    cycle = enumerate(sorted(set(names) - {BASELINE}))
    styles = {
        n: dict(color=COLOURS[i % 7], linestyle=DASHES[i % 4], linewidth=1.5) for i, n in cycle
    }
    return styles | {BASELINE: dict(color="#777777", linestyle=DASHES[1], linewidth=2.4)}


def _lines(study: Study, summary: Summary, styles, xlabel: str, ylabel: str) -> Figure:
    """Loss of every scheme on a log2 axis, exploding lines cut off, names at the line ends."""
    height = max(4.6, 0.21 * len(summary) + 1)
    figure = Figure(figsize=(8.8, height))
    axes = figure.add_axes((0.075, 0.62 / height, 0.66, 1 - 0.8 / height))
    _draw(axes, study, summary, styles)
    axes.set(xlabel=xlabel, ylabel=ylabel)
    low, high = axes.get_ylim()
    last = max(x for line in summary.values() for x in line)
    ends = []
    for name, line in summary.items():
        x, (mean, _, _) = max(line.items())
        outside = "" if mean < high else f" ↑ {_number(mean)}"
        label = name + outside + ("" if x == last else f" (to {x})")
        ends.append(((mean - low) / (high - low), name, label, mean < high and x == last))
    ends.sort()
    heights = _spread([end for end, *_ in ends], gap=0.2 / (height - 0.8))
    for (end, name, label, is_joined), y in zip(ends, heights, strict=True):
        style = styles[name] | {"clip_on": False, "transform": axes.transAxes}
        axes.plot((1.045, 1.09), (y, y), **style)
        if is_joined:
            axes.plot((1, 1.045), (end, y), **style | {"linewidth": 0.6, "linestyle": "-"})
        weight = "bold" if name == BASELINE else "normal"
        place: dict[str, Any] = dict(
            transform=axes.transAxes, verticalalignment="center", weight=weight
        )
        axes.text(1.1, y, label, parse_math=False, **place)
    return figure


def _draw(axes, study: Study, summary: Summary, styles) -> None:
    finite = [[m for m, _, _ in line.values() if m < math.inf] for line in summary.values()]
    means = sorted(m for line in finite for m in line) or [0.0]
    # The best point of every line is inside, and three times the spread of the better half.
    least = [min(line) for line in finite if line]
    high = min(max([4 * statistics.median(means) - 3 * means[0], *least]), means[-1])
    margin = 0.05 * (high - means[0]) or 0.05
    low, high = means[0] - margin, high + margin
    for name, line in summary.items():
        xs, cells = zip(*sorted(line.items()), strict=True)
        ys, errors = [mean for mean, _, _ in cells], [stderr or 0 for _, stderr, _ in cells]
        axes.plot(xs, ys, **styles[name], marker="o" if len(xs) < 9 else "", markersize=3)
        band = [[y + sign * e for y, e in zip(ys, errors, strict=True)] for sign in (-1, 1)]
        colour = styles[name]["color"]
        axes.fill_between(xs, *band, color=colour, alpha=0.18, linewidth=0)
        for x, next_x, y, next_y in zip(xs, xs[1:], ys, ys[1:], strict=False):
            if y <= high < next_y < math.inf:
                x *= (next_x / x) ** ((high - y) / (next_y - y))
                axes.plot(x, high, "^", color=colour, markersize=6, clip_on=False)
            elif y < next_y == math.inf:
                axes.plot(x, y, "x", color=colour, markersize=7)
    own, ticks = study.about["train_length"], sorted({x for line in summary.values() for x in line})
    first, last = ticks[0], ticks[-1]
    if len(ticks) > 8:
        doublings = (own * 2.0**k for k in range(-20, 20))
        ticks = [int(x) for x in doublings if x.is_integer() and first <= x <= last]
    axes.axvline(own, color="#444444", linewidth=0.9, linestyle=":")
    axes.set_xscale("log", base=2)
    axes.set(xlim=(first * 0.97, last * 1.0001), ylim=(low, high))
    axes.set_xticks(ticks, [f"{x}\n{x / own:g}x" if x >= own else f"{x}" for x in ticks])
    axes.minorticks_off()
    axes.grid(color="#e4e4e4", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)


def _spread(wanted: list[float], gap: float) -> list[float]:
    """Heights in [0, 1], ``gap`` apart, closest to ``wanted`` (ascending) in least squares."""
    blocks: list[tuple[float, int]] = []
    for i, y in enumerate(wanted):
        value, count = min(y, 2.0) - i * gap, 1
        while blocks and blocks[-1][0] > value:  # isotonic regression: pool what would overlap
            other, size = blocks.pop()
            value, count = (value * count + other * size) / (count + size), count + size
        blocks.append((value, count))
    top = 1 - gap * (len(wanted) - 1)
    lowest = [min(max(value, 0), top) for value, count in blocks for _ in range(count)]
    return [y + i * gap for i, y in enumerate(lowest)]


def _panels(study: Study) -> Figure | None:
    """The protocols side by side, for a few schemes from the best to the worst."""
    tests = [e for e in _evaluations(study) if e[0] == "test"]
    found = {
        _name(study, (split, protocol, stride)): summarise(
            study.records, split=split, protocol=protocol, stride=stride
        )
        for split, protocol, stride in tests
    }
    order = _View.of(study, MAIN).order
    names = [s for s in order if all(s in summary for summary in found.values())]
    if len(found) < 2 or not names:
        return None
    names = names[:: -(-len(names) // 6)]
    styles = _styles(found)
    rows = -(-len(names) // 3)
    figure = Figure(figsize=(8.8, 2.4 * rows + 0.4), layout="constrained")
    for i, name in enumerate(names):
        axes = figure.add_subplot(rows, 3, i + 1)
        _draw(axes, study, {p: summary[name] for p, summary in found.items()}, styles)
        axes.set_title(name, loc="left", fontsize=10, parse_math=False)
        axes.tick_params(labelsize=7.5)
    handles = [axes.plot([], [], **styles[p], label=p)[0] for p in found]
    figure.legend(handles=handles, loc="outside upper left", ncols=len(handles), frameon=False)
    return figure


def _svg(figure: Figure) -> str:
    output = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(output, format="svg", metadata=nothing)
    return re.sub(r"<!--.*?-->\n?", "", output.getvalue(), flags=re.DOTALL)


STYLE = """
:root { color-scheme: light }
body { font: 16px/1.5 system-ui, sans-serif; color: #1b1b1b; background: #fff; max-width: 1100px;
  margin: auto; padding: 1.5rem 1rem 4rem }
h1 { font-size: 1.7rem; line-height: 1.2 } h2 { font-size: 1.2rem; margin: 2.4rem 0 .5rem }
p, figcaption { max-width: 90ch } figure { margin: 0 } .wide { overflow-x: auto }
figcaption { color: #555; font-size: .9rem; margin: .6rem 0 1rem }
svg { width: 100%; min-width: 600px; height: auto }
pre, code { font: .85rem/1.45 ui-monospace, monospace; overflow-wrap: anywhere }
pre { background: #f5f5f5; padding: .7rem .9rem; white-space: pre-wrap; border-radius: 4px }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums }
th, td { padding: .28rem .4rem .28rem .75rem; text-align: right; white-space: nowrap }
tr { border-bottom: 1px solid #ddd } thead tr { border-bottom: 2px solid #333 }
th { vertical-align: bottom } th small { display: block } th.text, td.text { text-align: left }
tbody th { position: sticky; left: 0; background: #fff; font-weight: 500 }
.baseline > * { border-block: 2px solid #777; font-style: italic }
small { color: #444; font-weight: 400 } td i { display: inline-block; width: 1.2em }
summary { cursor: pointer; margin: .8rem 0 .4rem; font-weight: 600 }
.failed { border-left: 5px solid #b3261e; background: #fdf1f0; padding: .6rem 1rem }
.key { padding: .1rem .45rem; border: 1px solid #ddd; color: #1b1b1b }
@media (max-width: 600px) { body { font-size: 15px } }
@media print { body { max-width: none; font-size: 11px; padding: 0 } table { font-size: 9px }
  * { print-color-adjust: exact } tr, figure { break-inside: avoid }
  .wide { overflow: visible } h2, summary { break-after: avoid } tbody th { position: static } }
"""

FIGURES = {
    "loss_vs_length": (
        "Loss by context length",
        "The main test. Dotted: the train length; bands: standard error; ▲ where a line leaves the "
        "frame, its last value beside the name; x the last finite point of a line.",
    ),
    "loss_vs_position": (
        "Loss by position in the longest context",
        "Test split. Each point is the mean over a bucket of positions, at its right edge.",
    ),
    "protocols": (
        "The same models under different protocols",
        "Bits per byte by context length. Non-overlapping windows score every token, so a longer "
        "window looks better merely because fewer tokens have little context.",
    ),
}


def _page(study: Study, figures: dict[str, str]) -> str:
    about = {key: _text(value) for key, value in study.about.items()}
    seeds = ", ".join(map(str, sorted({r["seed"] for r in study.records}))) or "none"
    title = "Length extrapolation of positional encodings"
    number = len({r["scheme"] for r in study.records})
    command = study.about["command"].replace(
        " --", " \\\n  --"
    )  # a browser would break inside "--"
    setup = {key: study.about[key] for key in ("config", "versions")}
    sections = ["".join(_section(study, e)) for e in _evaluations(study)]
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8>"
        f"<meta name=viewport content='width=device-width'><title>{title}</title>"
        f"<style>{STYLE}</style><h1>{title}</h1><p>{number} encodings, trained at "
        f"{about['train_length']} tokens and tested at longer lengths; seeds: {seeds}. The main "
        f"test scores the same last {about['last_tokens']} tokens at every length: only the "
        f"context before them grows. Corpus: {about['corpus']}, digest "
        f"<code>{about['corpus_digest']}</code>. Device: {about['device']}. Revision "
        f"<code>{about['git']}</code>, {about['date']}.</p>",
        f"<pre>{_text(command)}</pre>",
        _failures(study),
        *sections[:1],
        *(_figure(name, svg) for name, svg in figures.items()),
        *sections[1:],
        _training(study),
        "<details><summary>Configuration and versions</summary>",
        f"<pre>{_text(json.dumps(setup, indent=2, default=_native))}</pre></details>\n",
    ]
    return "\n".join(parts)


def _section(study: Study, evaluation: Evaluation) -> Iterator[str]:
    split, name = evaluation[0], f"{evaluation[0]} split, {_name(study, evaluation)}"
    if evaluation[1] != "last":
        yield f"<details><summary>Bits per byte: {_text(name)}</summary>"
        yield _table(study, evaluation) + "</details>"
        return
    domain = "" if split == "test" else " across domains"
    yield f"<h2>Bits per byte{domain}: {_text(name)}</h2>{_table(study, evaluation)}"
    keys = " ".join(f"<span class=key{_shade(w)}>{w:.0%}</span>" for w in (0, 0.05, 0.2, 0.5))
    yield (
        "<figcaption>Lower is better: mean ± standard error over seeds, best of a column in bold, "
        "rows in order of 4x (or the longest). Shading: worse than the scheme's own 1x by "
        f"{keys} or more. {MARK}: it gains from the longer context. Ruled off: {BASELINE}, the "
        "baseline without positional encoding. Trained as: the checkpoint of that scheme, its "
        "encoding swapped.</figcaption><details open><summary>Perplexity per token</summary>"
    )
    yield _table(study, evaluation, "perplexity") + "</details>"


def _table(study: Study, evaluation: Evaluation, metric: str = "bits_per_byte") -> str:
    view = _View.of(study, evaluation, metric)
    trained = {r["scheme"]: r["trained"] for r in study.training if r["trained"] != r["scheme"]}
    is_swapped = bool(trained.keys() & view.order)
    heads = ["{}<small>{}</small>".format(*_heading(study, column)) for column in view.columns]
    rows = {}
    for scheme in view.order:
        rows[scheme] = [f"<td class=text>{_text(trained.get(scheme, ''))}"] * is_swapped
        for column in view.columns:
            mean, extra, mark = view.words(scheme, column)
            mean = f"<b>{mean}</b>" if view.is_best(scheme, column) else mean
            shade = view.shade(scheme, column)
            rows[scheme].append(f"<td{shade}>{mean}<small>{extra}</small><i>{mark}</i>")
    return _grid(["<th class=text>trained as"] * is_swapped + [f"<th>{h}" for h in heads], rows)


def _training(study: Study) -> str:
    rows: dict[str, list[str]] = {}
    own = [r for r in study.training if r["trained"] == r["scheme"]]
    own = [r | {"tokens per second": r["tokens"] / r["seconds"]} for r in own]
    digits = {"parameters": 0, "steps": 0, "tokens": 0, "seconds": 1, "tokens per second": 0}
    digits["final_loss"] = 3
    for scheme in sorted({r["scheme"] for r in own}):
        for key, places in digits.items():
            mean, stderr, _ = _cell([r[key] for r in own if r["scheme"] == scheme])
            number = f"{mean:,.{places}f}" if mean < math.inf else "not finite"
            extra = f"<small> ± {stderr:,.{places}f}</small>" if stderr else ""
            rows.setdefault(scheme, []).append(f"<td>{number}{extra}")
    heads = [f"<th>{key.replace('final_loss', 'final nats per token')}" for key in digits]
    return f"<h2>Training cost</h2>{_grid(heads, rows)}" if rows else ""


def _grid(heads: list[str], rows: dict[str, list[str]]) -> str:
    body = "".join(
        f"<tr{' class=baseline' * (name == BASELINE)}><th class=text>{_text(name)}{''.join(cells)}"
        for name, cells in rows.items()
    )
    head = f"<thead><tr><th class=text>scheme{''.join(heads)}"
    return f"<div class=wide><table>{head}<tbody>{body}</table></div>"


def _figure(name: str, svg: str) -> str:
    title, caption = FIGURES[name]
    svg = re.sub(r' xmlns(:xlink)?="[^"]*"', "", svg[svg.index("<svg") :])
    # An id may occur once in a page, and matplotlib calls the parts of every figure the same.
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", svg)
    return (
        f"<h2>{title}</h2><figure><div class=wide role=img aria-label='{title}'>{svg}</div>"
        f"<figcaption>{caption}</figcaption></figure>"
    )


def _failures(study: Study) -> str:
    reasons = "".join(
        f"<li><b>{_text(f['scheme'])}</b>, seed {_text(f['seed'])}: {_text(f['reason'])}"
        for f in study.failures
    )
    head = f"<div class=failed><b>Runs that failed: {len(study.failures)}</b>"
    return f"{head}<ul>{reasons}</ul></div>" if reasons else ""


def _shade(worse: float) -> str:
    """A cell's colour, darker where worse: white at the scheme's own 1x, full at 50 % or inf."""
    depth = min(max(worse, 0) / 0.5, 1) ** 0.5 if math.isfinite(worse) else 1
    rgb = (round(255 + depth * (c - 255)) for c in (243, 166, 98))
    return " style='background:#{:02x}{:02x}{:02x}'".format(*rgb)


def _text(value) -> str:
    return html.escape(str(value))


def _native(value):
    return value.item() if hasattr(value, "item") else str(value)


def _write_files(folder: Path, files: dict[str, str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    temporary = {name: folder / f".{name}.{os.getpid()}" for name in files}
    try:
        for name, text in files.items():
            temporary[name].write_text(text, encoding="utf-8", newline="")
        for name, path in temporary.items():
            os.replace(path, folder / name)
    finally:
        for path in temporary.values():
            path.unlink(missing_ok=True)
