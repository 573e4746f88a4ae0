"""Makes what README.md and docs/results.md say that the experiments found.

Only the lines between ``<!-- findings: NAME -->`` and ``<!-- end of findings -->`` change, where
NAME is one of ``WRITERS``. The sentences stand in ``templates/findings.md``; their numbers come
from the atlas, from models that were trained longer, from the ladder and from the ledger. The
technical report has them too.
"""

import collections
import math
import re
import textwrap
from typing import Any

import pandas as pd

from experiments.results.answers import OWN_WINDOW, TASKS
from experiments.results.atlas import EFFECTIVE, PARAMETERS
from experiments.results.ledger import REPRODUCED, WORDS
from experiments.results.length_table import CLEAR_GAIN
from experiments.results.lengths import WINDOWED
from experiments.results.reports.markdown import names
from experiments.results.reports.sources import LONGER, Sources
from experiments.results.reports.templates import fill
from experiments.results.statistics import with_margin

_MARKED = re.compile(r"(<!-- findings: (\w+) -->\n).*?(<!-- end of findings -->)", re.DOTALL)
# Schemes whose parameters exceed RoPE's by more are named, and others are not.
_MORE_PARAMETERS = 1.05
# Paragraphs of the template, by the name in the marks between which they stand.
WRITERS = {
    "all": ("flat", "recall", "learned", "order", "lasts", "claims"),
    "text": ("flat", "manual", "extensions", "parameters"),
    "gains": ("gains_on_the_manual", "gains_on_sources", "effective"),
    "tasks": ("learned", "which_are_learned", "recall", "alone", "one_task"),
    "longer": ("longer_gains", "order"),
    "ladder": ("lasts", "training", "rates"),
}


def rewritten(page: str, sources: Sources) -> str:
    """Returns the page with its findings anew.

    Raises a ValueError if the page has no marks, or asks for findings that nothing writes.
    """

    def block(match: re.Match) -> str:
        if match[2] not in WRITERS:
            raise ValueError(f"findings {match[2]!r} are none of {', '.join(WRITERS)}")
        lines = (
            textwrap.fill(f"- {line}", 115, subsequent_indent="  ") + "\n"
            for line in sentences(match[2], sources)
        )
        return match[1] + "".join(lines) + match[3]

    page, count = _MARKED.subn(block, page)
    if not count:
        raise ValueError(
            "the page has 0 places for findings: put <!-- findings: NAME --> and "
            "<!-- end of findings --> on lines of their own"
        )
    return page


def sentences(name: str, sources: Sources) -> list[str]:
    """Returns the findings of one place, in Markdown, a line each."""
    values = _text(sources) | _gains(sources) | _tasks(sources) | _longer(sources)
    paragraphs = re.split(r"\n{2,}", fill("findings.md", **values).strip())
    lines = dict(" ".join(paragraph.split()).split(": ", 1) for paragraph in paragraphs)
    return [lines[finding] for finding in WRITERS[name]]


def _text(sources: Sources) -> dict[str, Any]:
    """Returns the numbers of findings about losses on text, and of parameters."""
    atlas, against = sources.atlas, f"vs_{WINDOWED}"
    a, longest = atlas.answers, atlas.longest
    far = atlas.distinct_answers("text", longest)
    longest_manual = a.loc[a["topic"] == "manual", "multiple"].max()
    manual = atlas.answers_to("manual", longest_manual)
    better = far[far[against] == "better"].sort_values("mean")
    parameters = atlas.answers_to(PARAMETERS)["mean"]
    ratio = (parameters / parameters["rope"]).sort_values(ascending=False)
    others = [s for s, model in atlas.trained.items() if model == "rope" and s != "rope"]
    best = {n: atlas.answers_to("text", n)["mean"][others].sort_values() for n in (2, 4)}
    beyond = a[(a["topic"] == "text") & (a["multiple"] > 1) & a["scheme"].isin(others)]
    return {
        "longest": longest,
        "better": better.index,
        "ahead": better[f"{against}_difference"],
        "worse": (far[against] == "worse").sum(),
        "alibi": {
            name: far.loc["alibi", against + end]
            for name, end in (("word", ""), ("difference", "_difference"), ("within", "_margin"))
        },
        "longest_manual": longest_manual,
        "better_on_manual": manual.index[manual[against] == "better"],
        "rope": parameters["rope"],
        "more": ratio[ratio > _MORE_PARAMETERS],
        "rest": ratio[ratio <= _MORE_PARAMETERS].max(),
        "rope_at_2": atlas.answers_to("text", 2).loc["rope", against],
        "others": others,
        "best": {n: means.index[:4] for n, means in best.items()},
        "beyond_window": beyond[beyond[against] == "better"]["scheme"].nunique(),
    }


def _gains(sources: Sources) -> dict[str, Any]:
    """Returns the numbers of findings about gains from more context."""
    a, on_manual = sources.atlas.answers, dict[str, list[str]]()
    gained = a[(a["topic"] == "gain, manual") & (a[f"vs_{OWN_WINDOW}"] == "better")]
    for scheme, rows in gained.groupby("scheme", sort=False):
        where = "x, ".join(f"{multiple:.0f}" for multiple in rows["multiple"])
        ends = dict.fromkeys(f"{end:.3f}" for end in (rows["mean"].min(), rows["mean"].max()))
        # Schemes that differ neither on text nor in a model of two layers have the same numbers.
        on_manual.setdefault(f"{' to '.join(ends)} ({where}x)", []).append(f"`{scheme}`")
    of_manual = a[a["topic"] == "gain, manual"]
    largest = of_manual.loc[of_manual["mean"].replace(math.inf, math.nan).idxmax()]
    rows = a[a["topic"] == "gain"]
    word = rows[f"vs_{OWN_WINDOW}"]
    told = set(rows[word.isin(("better", "worse", "diverged"))]["scheme"])
    effective = []
    for place, topic in (("the manual", ", manual"), ("sources", "")):
        lengths = sources.atlas.answers_to(f"{EFFECTIVE}{topic}")["mean"]
        lengths = lengths.drop(WINDOWED, errors="ignore")
        counts = lengths.value_counts()
        usual = counts.index[0]
        longer = [
            f"{length:,.0f} for {names(lengths.index[lengths == length])}"
            for length in sorted(counts.index[counts.index != usual], reverse=True)
        ]
        most = f"{usual:.0f} for {'all' if not longer else 'the other'} {counts[usual]} schemes"
        effective.append(f"on {place} " + ", ".join([*longer, most]))
    return {
        "gaining_on_manual": [f"{' = '.join(s)} {words}" for words, s in on_manual.items()],
        "largest_on_manual": "{mean:.3f} (`{scheme}` at {multiple:.0f}x)".format(**largest),
        "gaining": rows[word == "better"]["scheme"].nunique(),
        "losing": (word == "worse").groupby(rows["multiple"]).sum(),
        "even": [scheme for scheme in rows["scheme"].unique() if scheme not in told],
        "effective": effective,
        "gain": CLEAR_GAIN,
    }


def _tasks(sources: Sources) -> dict[str, Any]:
    """Returns the numbers of findings about tasks."""
    a, solved, partly = sources.atlas.answers, {}, []
    for topic in ("recall", "flip_flop"):
        rows = sources.atlas.answers_to(topic, 4)
        solved[topic] = rows.index[rows["learned"] & (rows["solved"] == rows["seeds"])]
    # The shares of seeds that solve a task at the trained length, by task and scheme.
    at_first = a[(a["family"] == TASKS) & (a["multiple"] == 1)]
    at_first = at_first.dropna(subset="solved")  # shares of right answers solve nothing
    at_first = at_first.assign(share=at_first["solved"] / at_first["seeds"])
    shares = at_first.pivot(index="topic", columns="scheme", values="share")
    most = shares.max(axis=1)
    for task in shares.index[(most > 0) & (most < 1)]:
        some = shares.loc[task][shares.loc[task] > 0].sort_values(ascending=False).index
        rows = sources.atlas.answers_to(task)
        words = (f"`{s}` in {rows.loc[s, 'solved']:.0f} of {rows.loc[s, 'seeds']}" for s in some)
        partly.append(f"{task} by {', '.join(words)}")
    longer = sources.one_task[sources.one_task["multiple"] == 2]
    able = longer[longer["learned"] & (2 * longer["solved"] > longer["seeds"])]
    controls = [said for said in sources.atlas.controls if re.match(r"\w+ 1x:", said)]
    return {
        "solved": solved,
        "shares": shares,
        "unlearned": len(sources.atlas.unlearned),
        "never": shares.index[most == 0],
        "partly": partly,
        "longer_alone": {task: rows["scheme"] for task, rows in able.groupby("topic")},
        "shorter_alone": sorted(set(longer["topic"]) - set(able["topic"])),
        "controls": [said[0].upper() + said[1:] for said in controls],
    }


def _longer(sources: Sources) -> dict[str, Any]:
    """Returns the numbers of findings about longer training, and of verdicts on claims."""
    a, gaining = sources.longer, []
    for where, topic in (("sources", "gain"), ("the manual", "gain, manual")):
        rows = a[a["topic"] == f"{topic}, {LONGER}"]
        last = rows[rows["multiple"] == rows["multiple"].max()].set_index("scheme")
        better = last[last[f"vs_{OWN_WINDOW}"] == "better"].sort_values("mean", ascending=False)
        named = [f"`{s}` {with_margin(r['mean'], r['margin'])}" for s, r in better.iterrows()]
        gaining.append(f"on {where} {', '.join(named) or 'no scheme'}")
    verdicts = collections.Counter(claim["verdict"] for claim in sources.ledger["claims"])
    after = a[(a["topic"] == f"text, {LONGER}") & (a["multiple"] == 1)].set_index("scheme")["mean"]
    main = sources.ladder["rungs"][sources.ladder["main"]]
    on_main = {row["scheme"]: row["text"]["mean"] for row in main["rows"] if row["text"]}
    return {
        "gaining_longer": gaining,
        "longest_trained": a["multiple"].max(),
        "after": after.sort_values(),
        "on_main": pd.Series(on_main).reindex(after.index).dropna().sort_values(),
        "before": sources.atlas.answers_to("text")["mean"][after.index].sort_values().index,
        "ladder": sources.ladder["finding"],
        "best_at": main["best_at"],
        "verdicts": {word: verdicts[word] for word in WORDS if verdicts[word]},
        "reproduced_after": sum(
            claim["after_correction"] == REPRODUCED for claim in sources.ledger["claims"]
        ),
    }
