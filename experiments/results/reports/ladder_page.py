"""Writes the report of the ladder: a page, its figures, and its data as CSV and JSON."""

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from experiments.results import ladder
from experiments.results.answers import AGAINST, OWN_WINDOW, judged
from experiments.results.comparisons import statement
from experiments.results.lengths import WINDOWED
from experiments.results.record import read_json, write_files
from experiments.results.reports import maps, page, trust
from experiments.results.reports.drawing import page_style
from experiments.results.reports.templates import document, fill, macros
from experiments.results.statistics import number, with_margin

CSV, JSON = "ladder.csv", "ladder.json"
_LOSSES = {"trained": ladder.TRAINED, "beyond": ladder.BEYOND}
_POINTS = 60  # of a training curve that is kept


def write(
    folder: Path,
    records: pd.DataFrame,
    runs: pd.DataFrame,
    about: Mapping[str, Any],
    rungs: Mapping[str, dict[str, Any]],
    shape: Mapping[str, Any],
) -> Path:
    """Writes ``ladder.html``, its figures, ``ladder.csv`` and ``ladder.json``; returns the page.

    Args:
      folder: where the files go.
      records: the table of ``results/ladder.py``.
      runs: training losses of the main rung, by tokens, scheme and seed.
      about: ``command, rules, device, git, date, corpus, corpus_digest``.
      rungs: for each rung ``length``, ``width``, ``tokens``, how it was trained (``says``), how
        many ``points`` it has and how many are ``finished``, and the schemes that are ``best_at``
        the "lowest" and at the "highest" of the learning rates that were tried.
      shape: ``main``, the rung of most schemes; ``pairs`` whose orders are compared; ``sizes``, the
        rungs that differ in size alone; ``arrow``, a rung of short and one of long training;
        ``oracle``, a rung and the one that was trained on longer texts, or nothing.
    """
    curves = ladder.mean_curves(runs)
    leads = ladder.leads(runs) if ladder.ROPE in runs else []
    crossings = clear(ladder.crossings(curves), leads[-1]) if leads else []
    present = [rung for rung in rungs if (records["rung"] == rung).any()]
    tables, results = [], {}
    for rung in present:
        of_rung = records[records["rung"] == rung]
        answers, families = judged(ladder.values(records, rung), ladder.extensions(of_rung))
        tables.append(answers.assign(rung=rung))
        results[rung] = _results(of_rung, families)
    nothing: dict[str, Any] = {"schemes": 0, "seeds": 0, "parameters": None, "families": []}
    pairs = [pair for pair in shape["pairs"] if {*pair} <= {*present}]
    sizes = [rung for rung in shape["sizes"] if rung in present]
    ups = [
        ladder.speed_ups(records, sizes, loss).assign(loss=name) for name, loss in _LOSSES.items()
    ]
    lost = pd.DataFrame()
    if {*shape["oracle"]} <= {*present} and shape["oracle"]:
        lost = ladder.oracle(records, *shape["oracle"]).reset_index(names="scheme").astype(object)
    data = {
        "about": {key: value for key, value in about.items() if key != "config"},
        "rungs": {rung: of_rung | results.get(rung, nothing) for rung, of_rung in rungs.items()},
        # Where the main rung has no results yet, the last one that has stands for it.
        "main": next(r for r in [shape["main"], *present[::-1]] if r in present),
        "correlations": list(_correlations(records, pairs)),
        "speed_ups": pd.concat(ups).to_dict("records"),
        "crossings": crossings,
        "leads": leads,
        "oracle": lost.where(lost.notna(), None).to_dict("records"),
        "oracle_of": list(shape["oracle"]),
    }
    arrow = [rung for rung in shape["arrow"] if rung in present] or present[-1:]
    drawn = _draw(records, curves, crossings, arrow)
    files = {
        CSV: pd.concat(tables).to_csv(index=False, float_format="%.6g"),
        JSON: json.dumps(data, indent=1, default=str) + "\n",
    }
    write_files(folder, files | {f"{name}.svg": drawing for name, drawing in drawn.items()})
    write_files(folder, {"ladder.html": document("The ladder", body(folder))})
    return folder / "ladder.html"


def _results(of_rung: pd.DataFrame, families: pd.DataFrame) -> dict[str, Any]:
    """Returns what was trained on a rung, given its records, and what was compared there."""
    rope = of_rung.loc[of_rung["scheme"] == ladder.ROPE, "parameters"]
    kinds = sorted(of_rung["split"].unique())
    return {
        "schemes": int(of_rung["scheme"].nunique()),
        "seeds": int(of_rung.groupby("scheme")["seed"].nunique().median()),
        "parameters": int((rope if len(rope) else of_rung["parameters"]).iloc[0]),
        "families": families.to_dict("records"),
        "kinds": kinds if len(kinds) > 1 else [],
    }


def _correlations(records: pd.DataFrame, pairs: Iterable[tuple[str, str]]):
    """Yields the correlations of pairs of rungs under both losses, as plain data."""
    for one, other in pairs:
        by_loss = {
            name: ladder.correlation(records, one, other, protocol)
            for name, protocol in _LOSSES.items()
        }
        if any(by_loss.values()):
            yield {"one": one, "other": other} | by_loss


def clear(
    crossings: Iterable[tuple[str, int, float]], last: Mapping[str, Any]
) -> list[tuple[str, int, float]]:
    """Returns the crossings of schemes whose ``last`` lead over RoPE is beyond its margin."""
    ends = last["by_scheme"]
    known = [crossing for crossing in crossings if ends[crossing[0]]["margin"] is not None]
    return [one for one in known if abs(ends[one[0]]["lead"]) > ends[one[0]]["margin"]]


def _draw(records, curves, crossings, arrow: list[str]) -> dict[str, str]:
    """Returns the figures as SVG by name; one without data is left out."""
    drawn = {}
    points = list(ladder.window_points(records, arrow).values())
    with page_style():
        if ladder.ROPE in points[-1].index:
            before = points[0] if len(points) > 1 else points[0].iloc[:0]
            drawn["window"] = maps.beyond_window(points[-1], before, points[-1].index)
        if len(curves.columns) > 1 and ladder.ROPE in curves:
            # Points that are evenly spaced on a logarithmic axis.
            places = np.unique(np.geomspace(1, len(curves), _POINTS).round().astype(int) - 1)
            drawn["by_tokens"] = maps.by_tokens(curves.iloc[places], crossings)
    return drawn


def read(folder: Path) -> dict[str, Any]:
    """Returns what ``ladder.json`` has, with titles, rows, totals and findings in words."""
    data, answers = read_json(folder / JSON), pd.read_csv(folder / CSV).to_dict("records")
    rungs: dict[str, Any] = data["rungs"]
    words = macros("ladder_words.md")
    for rung, about in rungs.items():
        about["title"] = words.title(about)
        about["rows"] = _rows([row for row in answers if row["rung"] == rung])
        about["statement"] = statement(pd.DataFrame(about["families"]))
        about["wins"] = _wins(about)
    for pair in data["correlations"]:
        pair["differs"] = words.differs(rungs[pair["one"]], rungs[pair["other"]])
        pair["ranked"] = max(pair[name]["schemes"] for name in _LOSSES if pair[name])
    for up in data["speed_ups"]:
        rounded = {">": math.floor, "<": math.ceil}.get(up["limit"], round)(100 * up["speed_up"])
        up["shown"] = f"{up['limit']} {rounded / 100:.2f}".strip()
        up["shown"] += ", continued" if up["is_beyond"] and not up["limit"] else ""
    totals = {key: sum(about[key] for about in rungs.values()) for key in ("points", "finished")}
    return data | totals | {"ordered": _ordered(rungs), "finding": _finding(data, words)}


def body(folder: Path) -> str:
    """Returns the page as HTML, from the files of a folder."""
    data = read(folder)
    return fill(
        "ladder.html",
        **data,
        missing=[about["title"] for about in data["rungs"].values() if not about["finished"]],
        compute=page.grid(*compute(data)) if data["speed_ups"] else "",
        lost=page.grid(*oracle(data)),
        drawn={
            name: (folder / f"{name}.svg").read_text()
            for name in ("window", "by_tokens")
            if (folder / f"{name}.svg").exists()
        },
        window=WINDOWED,
        far=ladder.FAR,
        continued=ladder.CONTINUED,
    )


def compute(data: Mapping[str, Any]) -> tuple[list[str], dict[str, list[str]]]:
    """Returns heads and, by scheme, how much compute RoPE needs for the scheme's loss."""
    ups = pd.DataFrame(data["speed_ups"])
    shown = ups.pivot(index="scheme", columns=["loss", "rung"], values="shown").fillna("-")
    shown = shown[list(dict.fromkeys(zip(ups["loss"], ups["rung"], strict=True)))]
    sizes = {name: rung["parameters"] for name, rung in data["rungs"].items()}
    heads = [f"{loss}, {sizes[rung] / 1e6:.2f}M" for loss, rung in shown]
    return heads, {name: cells for name, *cells in shown.itertuples()}


def oracle(data: Mapping[str, Any]) -> tuple[list[str], dict[str, list[str]]]:
    """Returns heads and, by scheme, losses in long texts beside those of models trained on them."""
    rows = {
        row["scheme"]: [number(row[key]) for key in ("window", "extrapolated", "oracle")]
        + [with_margin(row["lost"], row["margin"]) if row.get("lost") is not None else "-"]
        for row in data["oracle"]
    }
    return ["through its window", "in longer texts", "trained on them", "lost"], rows


def _rows(answers: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns a row for each scheme of a rung, the lowest loss beyond the trained length first."""
    nothing = dict.fromkeys(answer["topic"] for answer in answers)
    rows = {answer["scheme"]: {"scheme": answer["scheme"]} | nothing for answer in answers}
    for answer in answers:
        rows[answer["scheme"]][answer["topic"]] = answer
    last = {"mean": float("inf")}
    return sorted(rows.values(), key=lambda row: (row["text, beyond"] or last)["mean"])


def _finding(data: Mapping[str, Any], words: Any) -> list[str]:
    """Returns what the ladder found, as sentences; ``words`` are the macros that make them."""
    main = data["rungs"][data["main"]]
    longer = [rung for rung in _ordered(data["rungs"]) if rung["length"] > main["length"]]
    longest = sorted(longer, key=lambda rung: rung["length"])[-1:]
    beyond = words.beyond([rung for rung in (main, *longest) if rung["seeds"] > 1])
    if any(row["scheme"] == ladder.ROPE for row in data["oracle"]):
        compared = (data["rungs"][rung] for rung in data["oracle_of"])
        beyond += " " + words.on_long_texts(data["oracle"], *compared)
    sentences = [beyond]
    if data["leads"]:
        early, last = data["leads"]
        sentences.append(words.leads(early, _leading(early), last, _leading(last)))
    if data["correlations"]:
        sentences.append(words.correlations(data["correlations"], trust.SHARED))
    return sentences


def _ordered(rungs: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns the rungs that compare schemes, the one of fewest tokens per parameter first."""

    def key(rung: Mapping[str, Any]) -> tuple[float, int, int]:
        rate = float(f"{rung['tokens'] / rung['parameters']:.2g}")
        return rate, rung["parameters"], rung["length"]

    comparing = [
        rung
        for rung in rungs.values()
        if any(win["schemes"] or win["compared"] for win in rung["wins"].values())
    ]
    return sorted(comparing, key=key)


def _wins(rung: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Returns by topic the schemes that are ahead of ``ladder.OPPONENTS`` on a rung.

    With several seeds these are ``schemes``, better on each kind of text, of so many ``compared``.
    With one seed they have a lower mean, and ``compared`` is None.
    """
    if rung["seeds"] > 1:
        return {
            topic: {
                "schemes": _better(rung, topic, other),
                "compared": _compared(rung, topic, other),
            }
            for topic, other in ladder.OPPONENTS.items()
        }
    return {
        topic: {"schemes": _lower(rung, topic, other), "compared": None}
        for topic, other in ladder.OPPONENTS.items()
    }


def _better(rung: Mapping[str, Any], topic: str, other: str) -> list[str]:
    """Returns the schemes that are better than ``other`` at a topic, and on every kind of text."""
    topics = [topic, *(f"{topic} of {kind}" for kind in rung["kinds"])]
    return [
        row["scheme"]
        for row in rung["rows"]
        if all(row[one] and row[one][f"vs_{other}"] == "better" for one in topics)
    ]


def _compared(rung: Mapping[str, Any], topic: str, other: str) -> int:
    """Returns how many schemes have a verdict at a topic; equal ones and baselines have none."""
    rows = [row for row in rung["rows"] if row["scheme"] not in AGAINST and row[topic]]
    verdicts = [row[topic][f"vs_{other}"] for row in rows]
    return sum(isinstance(word, str) and word != "the same" for word in verdicts)


def _lower(rung: Mapping[str, Any], topic: str, other: str) -> list[str]:
    """Returns the schemes whose mean loss is below that of ``other``, the lowest first."""
    is_gain = other == OWN_WINDOW  # a difference from the other, and higher is better
    sign = -1 if is_gain else 1
    means = {row["scheme"]: sign * row[topic]["mean"] for row in rung["rows"] if row[topic]}
    line = 0.0 if is_gain else means.get(other, -math.inf)
    lower = [name for name, mean in means.items() if -math.inf < mean < line]
    return sorted(lower, key=lambda name: (means[name], name))


def _leading(leads: Mapping[str, Any]) -> list[str]:
    """Returns the schemes whose lead over RoPE is above 0 in all of its interval, largest first."""
    by_scheme = leads["by_scheme"].items()
    told = [(name, one) for name, one in by_scheme if one["margin"] is not None]
    ahead = [(one["lead"], name) for name, one in told if one["lead"] > one["margin"]]
    return [name for _, name in sorted(ahead, reverse=True)]


def losses_beyond(records: pd.DataFrame) -> str:
    """Returns the losses beyond the trained length by scheme and rung, as a table of text."""
    rungs = list(records["rung"].unique())
    table = ladder.mean_losses(records, rungs, ladder.BEYOND)
    table["own window"] = ladder.mean_losses(records, rungs[-1:], ladder.CUT)[rungs[-1]]
    return table.round(3).to_string(na_rep="-")
