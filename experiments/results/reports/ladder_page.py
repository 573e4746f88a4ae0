"""Writes the report of the ladder: a page, its figures, and its data as CSV and JSON."""

import dataclasses
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from experiments.results.answers import OWN_WINDOW, summary, verdicts
from experiments.results.comparisons import families, statement
from experiments.results.ladder import (
    BEYOND,
    CUT,
    ROPE,
    TRAINED,
    correlation,
    crossings,
    mean_losses,
    oracle,
    speed_ups,
    values,
    window_points,
)
from experiments.results.lengths import WINDOWED
from experiments.results.record import read_json, write_files
from experiments.results.reports import maps
from experiments.results.reports.drawing import page_style
from experiments.results.reports.templates import document, fill

CSV, JSON = "ladder.csv", "ladder.json"
_LOSSES = {"trained": TRAINED, "beyond": BEYOND}
_POINTS = 60  # of a training curve that is kept


def write(
    folder: Path,
    records: pd.DataFrame,
    curves: Mapping[str, list[tuple[int, float]]],
    about: Mapping[str, Any],
    rungs: Mapping[str, dict[str, Any]],
    shape: Mapping[str, Any],
) -> Path:
    """Writes ``ladder.html``, its figures, ``ladder.csv`` and ``ladder.json``; returns the page.

    Args:
      folder: where the files go.
      records: the table of ``results/ladder.py``.
      curves: training losses by scheme of the longest rung, for ``maps.by_tokens``.
      about: ``command, rules, device, git, date, corpus, corpus_digest``.
      rungs: for each rung ``length``, ``width``, ``tokens``, how it was trained (``says``), and how
        many ``points`` it has and how many are ``finished``.
      shape: ``longest``, the longest rung; ``pairs`` whose orders are compared; ``sizes``, the
        rungs that differ in size alone; ``arrow``, a rung of short and one of long training;
        ``oracle``, a rung and the one that was trained on longer texts, or nothing.
    """
    present = [rung for rung in rungs if (records["rung"] == rung).any()]
    rungs = {
        rung: dict(of_rung, schemes=0, seeds=0, parameters=None) for rung, of_rung in rungs.items()
    }
    tables = []
    for rung in present:
        of_rung = records[records["rung"] == rung]
        rope = of_rung.loc[of_rung["scheme"] == ROPE, "parameters"]
        rungs[rung] |= {
            "schemes": int(of_rung["scheme"].nunique()),
            "seeds": int(of_rung.groupby("scheme")["seed"].nunique().median()),
            "parameters": int((rope if len(rope) else of_rung["parameters"]).iloc[0]),
        }
        numbers = values(records, rung)
        compared = verdicts(numbers)
        tables.append(summary(numbers, compared).assign(rung=rung))
        rungs[rung]["statement"] = statement(families(compared))
    pairs = [pair for pair in shape["pairs"] if {*pair} <= {*present}]
    sizes = [rung for rung in shape["sizes"] if rung in present]
    ups = [speed_ups(records, sizes, loss).assign(loss=name) for name, loss in _LOSSES.items()]
    lost = pd.DataFrame()
    if {*shape["oracle"]} <= {*present} and shape["oracle"]:
        lost = oracle(records, *shape["oracle"]).reset_index(names="scheme").astype(object)
    data = {
        "about": {key: value for key, value in about.items() if key != "config"},
        "rungs": rungs,
        "longest": next((r for r in [shape["longest"], *present[::-1]] if r in present), None),
        "correlations": list(_correlations(records, pairs)),
        "speed_ups": pd.concat(ups).to_dict("records"),
        "crossings": crossings(curves) if ROPE in curves else [],
        "oracle": lost.where(lost.notna(), None).to_dict("records"),
        "oracle_of": list(shape["oracle"]),
    }
    drawn = _draw(records, curves, [rung for rung in shape["arrow"] if rung in present], present)
    files = {
        CSV: pd.concat(tables).to_csv(index=False, float_format="%.6g"),
        JSON: json.dumps(data, indent=1, default=str) + "\n",
    }
    write_files(folder, files | {f"{name}.svg": drawing for name, drawing in drawn.items()})
    write_files(folder, {"ladder.html": document("The ladder", body(folder))})
    return folder / "ladder.html"


def _correlations(records: pd.DataFrame, pairs: Iterable[tuple[str, str]]):
    """Yields the correlations of pairs of rungs under both losses, as plain data."""
    for one, other in pairs:
        by_loss = {
            name: correlation(records, one, other, protocol) for name, protocol in _LOSSES.items()
        }
        told = {name: pair and dataclasses.asdict(pair) for name, pair in by_loss.items()}
        if any(told.values()):
            yield {"one": one, "other": other} | told


def _draw(records, curves, arrow: list[str], present: list[str]) -> dict[str, str]:
    """Returns the figures as SVG by name; one without data is left out."""
    drawn = {}
    points = list(window_points(records, arrow or present[-1:]).values())
    with page_style():
        if ROPE in points[-1].index:
            before = points[0] if len(points) > 1 else points[0].iloc[:0]
            drawn["window"] = maps.beyond_window(points[-1], before, points[-1].index)
        if len(curves) > 1 and ROPE in curves:
            # Points that are evenly spaced on a logarithmic axis.
            count = len(curves[ROPE])
            places = np.unique(np.geomspace(1, count, _POINTS).round().astype(int) - 1)
            thin = {name: [curve[place] for place in places] for name, curve in curves.items()}
            drawn["by_tokens"] = maps.by_tokens(thin, crossings(curves))
    return drawn


def told(folder: Path) -> dict[str, Any]:
    """Returns what ``ladder.json`` has, with titles, rows and findings in words.

    Raises:
      ValueError: the folder has no ladder.
    """
    data = read_json(folder / JSON)
    if data is None:
        raise ValueError(f"{folder} has no {JSON}; run make results, or configs/ladder.py")
    answers = pd.read_csv(folder / CSV).to_dict("records")
    rungs: dict[str, Any] = data["rungs"]
    for rung, about in rungs.items():
        about["title"] = _title(about)
        about["rows"] = _rows([row for row in answers if row["rung"] == rung])
    for pair in data["correlations"]:
        pair["differs"] = _differs(rungs[pair["one"]], rungs[pair["other"]])
    return data | {"finding": finding(data)}


def body(folder: Path) -> str:
    """Returns the page as HTML for a page of its own or of the site, from the files of a folder."""
    data = told(folder)
    rungs = data["rungs"].values()
    return fill(
        "ladder.html",
        **data,
        missing=[about["title"] for about in rungs if not about["finished"]],
        partial=[about for about in rungs if 0 < about["finished"] < about["points"]],
        figures={
            name: (folder / f"{name}.svg").read_text()
            for name in maps.CAPTIONS
            if (folder / f"{name}.svg").exists()
        },
        captions=maps.CAPTIONS,
        ups=_by_scheme(data["speed_ups"]),
        window=WINDOWED,
    )


def _title(rung: Mapping[str, Any]) -> str:
    """Returns the title of a rung that says how it was trained."""
    texts, tokens = f"texts of {rung['length']} tokens", rung["tokens"]
    if not (parameters := rung["parameters"]):
        return f"width {rung['width']}, {texts}, {tokens / 1e6:.1f}M tokens of training"
    a_parameter = f"{tokens / parameters:.2g} tokens a parameter"
    return f"{parameters / 1e6:.2f}M parameters, {texts}, {a_parameter}"


def _differs(one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """Returns in what two rungs differ, and what they share, in words."""
    texts = f"texts of {one['length']} tokens"
    sizes = [f"{rung['parameters'] / 1e6:.2f}M" for rung in (one, other)]
    if one["width"] != other["width"]:
        return f"from {sizes[0]} to {sizes[1]} parameters, {texts}"
    if one["length"] != other["length"]:
        return f"from {texts} to {other['length']}, {sizes[0]} parameters"
    rates = [f"{rung['tokens'] / rung['parameters']:.2g}" for rung in (one, other)]
    return f"from {rates[0]} to {rates[1]} tokens a parameter, {texts}"


def _rows(answers: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns a row for each scheme of a rung, the lowest loss beyond the trained length first."""
    nothing = dict.fromkeys(answer["topic"] for answer in answers)
    rows = {answer["scheme"]: {"scheme": answer["scheme"]} | nothing for answer in answers}
    for answer in answers:
        rows[answer["scheme"]][answer["topic"]] = answer
    last = {"mean": float("inf")}
    return sorted(rows.values(), key=lambda row: (row["text, beyond"] or last)["mean"])


def _by_scheme(ups: list[dict[str, Any]]) -> dict[str, dict[str, str]]:
    """Returns speed-ups as words, by scheme, and by loss and rung."""
    rows: dict[str, dict[str, str]] = {}
    for up in ups:
        words = f"{up['speed_up']:.2f}" + " (continued)" * bool(up["is_beyond"])
        rows.setdefault(up["scheme"], {})[f"{up['loss']} {up['rung']}"] = words
    return rows


def finding(data: Mapping[str, Any]) -> list[str]:
    """Returns what the ladder found, as sentences; ``data`` is that of ``body``."""
    longest = data["rungs"].get(data["longest"])
    if longest is None:
        return ["No rung has a result yet."]
    rows = longest["rows"]
    if longest["seeds"] == 1:
        sentences = [_of_one_seed(longest)]
    else:
        told_by = (
            ("text", ROPE, "are better than RoPE at the trained length"),
            ("text, beyond", WINDOWED, "are better beyond it than RoPE through a window"),
            ("gain", OWN_WINDOW, "gain from the context beyond their own windows"),
        )
        told = "; ".join(f"{_some(rows, topic, other)} {words}" for topic, other, words in told_by)
        sentences = [f"On the longest rung that has results ({longest['title']}), {told}."]
    for pair in data["correlations"]:
        if data["longest"] in (pair["one"], pair["other"]):
            rhos = " and ".join(f"{_rho(pair[name])} {name}" for name in _LOSSES if pair[name])
            sentences.append(f"Rank correlation of schemes {pair['differs']}: {rhos}.")
            break
    return sentences


def _of_one_seed(rung: Mapping[str, Any]) -> str:
    """Says which losses are lowest on a rung of one seed, which tells no verdict."""
    told = []
    for topic, against, words in (
        ("text", ROPE, "than RoPE at the trained length"),
        ("text, beyond", WINDOWED, "beyond it than RoPE through a window"),
    ):
        means = {row["scheme"]: row[topic]["mean"] for row in rung["rows"] if row[topic]}
        if against in means:
            lower = sorted((mean, name) for name, mean in means.items() if mean < means[against])
            names = ", ".join(name for _, name in lower) or "no scheme"
            told.append(f"{names} {'has' if len(lower) < 2 else 'have'} a lower loss {words}")
    return (
        f"The longest rung that has results ({rung['title']}) has one seed of {rung['schemes']} "
        f"schemes, which tells no verdict: {'; '.join(told)}."
    )


def _rho(pair: Mapping[str, Any]) -> str:
    return f"{pair['rho']:.2f} [{pair['low']:.2f}, {pair['high']:.2f}]"


def _some(rows: list[dict[str, Any]], topic: str, against: str) -> str:
    """Returns how many schemes are better than another, and who they are."""
    asked = [row for row in rows if row[topic] and isinstance(row[topic][f"vs_{against}"], str)]
    better = [row["scheme"] for row in asked if row[topic][f"vs_{against}"] == "better"]
    return f"{len(better)} of {len(asked)} schemes" + f" ({', '.join(better)})" * bool(better)


def losses_beyond(records: pd.DataFrame) -> str:
    """Returns the losses beyond the trained length by scheme and rung, as a table of text."""
    rungs = [rung for rung in records["rung"].unique()]
    table = mean_losses(records, rungs, BEYOND)
    table.loc[:, "own window"] = mean_losses(records, rungs[-1:], CUT)[rungs[-1]]
    return table.round(3).to_string(na_rep="-")
