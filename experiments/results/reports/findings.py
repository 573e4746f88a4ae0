"""Makes what README.md and docs/results.md say that the experiments found.

Only the lines between ``<!-- findings: NAME -->`` and ``<!-- end of findings -->`` change, where
NAME is one of ``WRITERS``. The sentences come from the atlas, from models that were trained longer,
from the ladder and from the ledger; the technical report has them too.
"""

import re
import textwrap
from collections.abc import Callable, Iterable

import pandas as pd

from experiments.results.answers import OWN_WINDOW, TASKS
from experiments.results.ledger import WORDS
from experiments.results.lengths import GAIN, WINDOWED
from experiments.results.reports.sources import LONGER, Sources
from experiments.results.statistics import with_margin

_MARKED = re.compile(r"(<!-- findings: (\w+) -->\n).*?(<!-- end of findings -->)", re.DOTALL)
# Schemes whose parameters exceed RoPE's by more are named, and others are not.
_MORE_PARAMETERS = 1.05


def rewritten(page: str, sources: Sources) -> str:
    """Returns the page with its findings anew.

    Raises:
      ValueError: the page has no marks, or asks for findings that nothing writes.
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
    """Returns the sentences of one place, in Markdown."""
    return [write(sources) for write in WRITERS[name]]


def _flat(sources: Sources) -> str:
    """Says which schemes are better than windowed RoPE far beyond the trained length."""
    multiple = sources.atlas.answers.query("topic == 'text'")["multiple"].max()
    rows = sources.of("text", multiple)
    verdict, difference = rows[f"vs_{WINDOWED}"], rows[f"vs_{WINDOWED}_difference"]
    better = rows[verdict == "better"].sort_values("mean")
    by = ""
    if len(better):
        gained = difference[better.index]
        by = f" by {gained.min():.2f} to {gained.max():.2f} bits per byte"
    alibi = f"{verdict['alibi']} by {abs(difference['alibi']):.2f} ± "
    alibi += f"{rows.loc['alibi', f'vs_{WINDOWED}_margin']:.2f}"
    if verdict["alibi"] not in ("better", "worse"):
        alibi = "not told from it"
    return (
        f"**Flat is not yet good.** At {multiple:.0f} times the trained length, {len(better)} "
        f"schemes are better than RoPE through a window of the trained length{by}: "
        f"{_names(better.index)}. {(verdict == 'worse').sum()} are worse. ALiBi, which is flat "
        f"too, is {alibi}."
    )


def _manual(sources: Sources) -> str:
    """Says which schemes are better than windowed RoPE on text that is no source code."""
    multiple = sources.atlas.answers.query("topic == 'manual'")["multiple"].max()
    rows = sources.of("manual", multiple)
    better = rows.index[rows[f"vs_{WINDOWED}"] == "better"]
    return (
        "**On the manual**, which is prose and not source code as in training, the schemes that "
        f"are better than RoPE through a window at {multiple:.0f} times the trained length are "
        f"{_names(better)}."
    )


def _parameters(sources: Sources) -> str:
    """Says which schemes have more parameters than RoPE."""
    of_scheme = sources.of("parameters")["mean"]
    ratio = (of_scheme / of_scheme["rope"]).sort_values(ascending=False)
    more = ratio[ratio > _MORE_PARAMETERS]
    named = ", ".join(f"`{scheme}` {times:.2f}" for scheme, times in more.items())
    rest = ratio[ratio <= _MORE_PARAMETERS].max()
    return (
        f"**Not all models have equal parameters.** RoPE's has {of_scheme['rope'] / 1e6:.2f}M. "
        f"Times as many have {named}; the others have at most {rest:.2f}."
    )


def _extensions(sources: Sources) -> str:
    """Says which extensions of RoPE hold best without training, and whether one beats a window."""
    others = [s for s, model in sources.atlas.trained.items() if model == "rope" and s != "rope"]
    best = []
    for multiple in (2, 4):
        means = sources.of("text", multiple)["mean"][others].sort_values()
        best.append(f"{_names(means.index[:4])} at {multiple}x")
    a = sources.atlas.answers
    beyond = a[(a["topic"] == "text") & (a["multiple"] > 1) & a["scheme"].isin(others)]
    better = beyond[beyond[f"vs_{WINDOWED}"] == "better"]["scheme"].nunique()
    verdict = sources.of("text", 2).loc["rope", f"vs_{WINDOWED}"]
    return (
        f"**RoPE is {verdict} than its own window at 2x.** Of its {len(others)} extensions "
        f"without fine-tuning, the lowest losses have {' and '.join(best)}. {better or 'None'} of "
        "them is better than RoPE through a window at any longer length."
    )


def _gains_on_the_manual(sources: Sources) -> str:
    """Says which schemes gain from more context on the manual, and where."""
    a = sources.atlas.answers
    gained = a[(a["topic"] == "gain, manual") & (a[f"vs_{OWN_WINDOW}"] == "better")]
    parts = []
    for scheme, rows in gained.groupby("scheme", sort=False):
        where = "x, ".join(f"{multiple:.0f}" for multiple in rows["multiple"])
        ends = dict.fromkeys(f"{end:.3f}" for end in (rows["mean"].min(), rows["mean"].max()))
        parts.append(f"`{scheme}` {' to '.join(ends)} ({where}x)")
    return f"**On the manual, {len(parts)} schemes gain**, in bits per byte: {', '.join(parts)}."


def _gains_on_sources(sources: Sources) -> str:
    """Says how many schemes gain or lose by more context on source code."""
    a = sources.atlas.answers
    rows = a[a["topic"] == "gain"]
    word = rows[f"vs_{OWN_WINDOW}"]
    gaining = rows[word == "better"]["scheme"].nunique()
    worse = (word == "worse").groupby(rows["multiple"]).sum()
    lost = rows[word.isin(("better", "worse", "diverged"))]["scheme"]
    even = [s for s in rows["scheme"].unique() if s not in set(lost)]
    first, last = worse.index[0], worse.index[-1]
    return (
        f"**On sources, {gaining or 'no'} scheme{'s' * (gaining > 1)} gain"
        f"{'s' * (gaining < 2)}.** {worse[first]} lose at {first:.0f} times the trained length "
        f"and {worse[last]} at {last:.0f} times. Not told from their own windows at any length "
        f"are {_names(even)}."
    )


def _effective(sources: Sources) -> str:
    """Says how long the effective contexts are."""
    parts = []
    for where, topic in (("the manual", ", manual"), ("sources", "")):
        lengths = sources.of(f"effective context{topic}")["mean"].drop(WINDOWED, errors="ignore")
        counts = lengths.value_counts()
        usual = counts.index[0]
        longer = [
            f"{length:,.0f} for {_names(lengths.index[lengths == length])}"
            for length in sorted(counts.index[counts.index != usual], reverse=True)
        ]
        parts.append(f"on {where} " + ", ".join([*longer, f"{usual:.0f} for {counts[usual]}"]))
    return (
        "**The effective context** is the longest one with a gain, at and beyond which the loss is "
        f"lower by {GAIN} bits than with less. In tokens it is {'; '.join(parts)} schemes."
    )


def _recall(sources: Sources) -> str:
    """Says which schemes solve recall and flip-flop past the trained length in every seed."""
    solved = {}
    for topic in ("recall", "flip_flop"):
        rows = sources.of(topic, 4)
        solved[topic] = _names(rows.index[rows["learned"] & (rows["solved"] == rows["seeds"])])
    return (
        f"**Recall at 4 times the trained length** is solved in every seed by {solved['recall']}; "
        f"the last value written (flip-flop) by {solved['flip_flop']}."
    )


def _learned(sources: Sources) -> str:
    """Says how many tasks some scheme solves in every seed at the trained length."""
    by_task = _solved_at_first(sources).max(axis=1)
    return (
        f"**{(by_task < 1).sum()} of the {len(by_task)} tasks** are learned by no scheme in every "
        "seed: of longer rows they say nothing."
    )


def _which_are_learned(sources: Sources) -> str:
    """Says which tasks no seed, or no scheme in every seed, solves."""
    shares = _solved_at_first(sources)
    never = shares.index[shares.max(axis=1) == 0]
    partly = []
    for task in shares.index[(shares.max(axis=1) > 0) & (shares.max(axis=1) < 1)]:
        solved = shares.loc[task][shares.loc[task] > 0].sort_values(ascending=False)
        rows = sources.of(task)
        words = [
            f"`{s}` in {rows.loc[s, 'solved']:.0f} of {rows.loc[s, 'seeds']}" for s in solved.index
        ]
        partly.append(f"{task} by {', '.join(words)}")
    text = f"**Never solved** at the trained length are {', '.join(never)}."
    return text + f" In some seeds alone: {'; '.join(partly)}." * bool(partly)


def _solved_at_first(sources: Sources) -> pd.DataFrame:
    """Returns the share of seeds that solve a task at the trained length, by task and scheme."""
    a = sources.atlas.answers
    tasks = a[(a["family"] == TASKS) & (a["multiple"] == 1)]
    tasks = tasks.dropna(subset="solved")  # shares of right answers solve nothing
    tasks = tasks.assign(share=tasks["solved"] / tasks["seeds"])
    return tasks.pivot(index="topic", columns="scheme", values="share")


def _alone(sources: Sources) -> str:
    """Says what the control found, in which models learn one task alone."""
    at_first = [
        said[0].upper() + said[1:] for said in sources.atlas.controls if re.match(r"\w+ 1x:", said)
    ]
    return f"**A control** trained models on one task alone. {'. '.join(at_first)}."


def _longer_gains(sources: Sources) -> str:
    """Says which schemes gain from more context after longer training."""
    a, parts = sources.longer, []
    for where, topic in (("sources", "gain"), ("the manual", "gain, manual")):
        rows = a[a["topic"] == f"{topic}, {LONGER}"]
        last = rows[rows["multiple"] == rows["multiple"].max()].set_index("scheme")
        gaining = last[last[f"vs_{OWN_WINDOW}"] == "better"].sort_values("mean", ascending=False)
        named = [f"`{s}` {with_margin(r['mean'], r['margin'])}" for s, r in gaining.iterrows()]
        parts.append(f"on {where} by {', '.join(named) or 'no scheme'}")
    multiple = a["multiple"].max()
    return (
        f"**After more training**, schemes gain at {multiple:.0f} times the trained length, in "
        f"bits per byte, {'; '.join(parts)}."
    )


def _order(sources: Sources) -> str:
    """Says in which order the schemes of longer training are there, and in the atlas."""
    a = sources.longer
    after = a[(a["topic"] == f"text, {LONGER}") & (a["multiple"] == 1)].set_index("scheme")
    after = after.sort_values("mean")
    before = sources.of("text")["mean"][after.index].sort_values()
    word = "changes" if list(before.index) != list(after.index) else "keeps"
    return (
        f"**More training {word} the order.** By their losses at the trained length, "
        f"{len(after)} schemes are, the best first, {_names(before.index)} in the atlas, and "
        f"{_names(after.index)} after longer training, where the last is "
        f"{after['mean'].iloc[-1] - after['mean'].iloc[0]:.2f} bits behind the first."
    )


def _lasts(sources: Sources) -> str:
    """Says what the ladder found on its longest rung that has results."""
    return f"**The ladder.** {' '.join(sources.ladder['finding'])}"


def _claims(sources: Sources) -> str:
    """Says how many claims have which verdict."""
    counts = pd.Series([c["verdict"] for c in sources.ledger["claims"]]).value_counts()
    parts = [f"{counts.get(verdict, 0)} are {verdict}" for verdict in WORDS]
    return f"**Of {counts.sum()} published claims**, {', '.join(parts)}."


def _names(schemes: Iterable[str]) -> str:
    return ", ".join(f"`{scheme}`" for scheme in schemes) or "none"


# What stands between the marks of each name.
WRITERS: dict[str, tuple[Callable[[Sources], str], ...]] = {
    "all": (_flat, _recall, _learned, _order, _lasts, _claims),
    "text": (_flat, _manual, _extensions, _parameters),
    "gains": (_gains_on_the_manual, _gains_on_sources, _effective),
    "tasks": (_learned, _which_are_learned, _recall, _alone),
    "longer": (_longer_gains, _order),
    "ladder": (_lasts,),
}
