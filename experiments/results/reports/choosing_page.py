"""Makes the guide to choosing a scheme: for each need a decision, its evidence and its trust.

The guide takes everything from results: the atlas, models that were trained longer, models that
learn one task, the ladder, the table of ``benchmarks/decode.py``, and the experiments that
``sources.py`` reads. The needs are in
``templates/needs.yaml``, the rules in ``templates/choosing.md``, and the badges in ``trust.py``.
"""

import dataclasses
import math
import operator
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from experiments.results.answers import AGAINST, OWN_WINDOW, TASKS, Answer, judged, shown
from experiments.results.comparisons import Q
from experiments.results.lengths import WINDOWED
from experiments.results.reports import ladder_page, multimodal_tables, templates, trust
from experiments.results.reports.sources import LONGER, Sources, read_extension

_CALLED = {"nope": "NoPE", "rope": "RoPE", WINDOWED: "RoPE through a window"}
_THAN = {"better": "better than", "worse": "worse than", "the same": "the same as"}
_THAN |= {"no difference": "not distinguishable from", "diverged": "not compared with"}
_THAN |= {"too few seeds": "not compared with"}
# A sentence names at most so many schemes. Decoding is slow if it takes more than so many times as
# long as without positions.
_NAMED, SLOW = 6, 1.3


@dataclasses.dataclass(frozen=True)
class Need:
    """Describes a need for which a scheme is to be chosen, with the fields of ``needs.yaml``."""

    title: str
    asked: tuple[trust.Question, ...]
    remains: str = "none yet"
    chapter: str = ""
    recommended: tuple[str, ...] = ()

    @property
    def last(self) -> trust.Question:
        """Returns the question whose answers are shown as the evidence."""
        return self.asked[-1]


NEEDS = [
    Need(**of | {"asked": tuple((topic, n) for topic, times in of["asked"].items() for n in times)})
    for of in templates.read("needs.yaml")
]


@dataclasses.dataclass(frozen=True)
class Decision:
    """Holds what is decided for a need.

    Attributes:
      rung: the longest training that has a scheme which is better than all baselines and was not
        compared with them after longer training; else the longest that compares schemes.
      better: the schemes that are better than all baselines on ``rung``, the best first.
      behind: the schemes of ``better`` that are behind a baseline after longer training.
      unconfirmed: the schemes that are better only in a training whose other winners are no longer
        better after longer training.
      order: how the order of the contenders on ``rung`` agrees with longer training.
    """

    rung: trust.Rung
    better: list[str]
    behind: list[str]
    unconfirmed: list[str]
    order: trust.Order

    @property
    def chosen(self) -> list[str]:
        """Returns the schemes that are chosen."""
        if not self.order.lasts:
            return []
        return [scheme for scheme in self.better if scheme not in self.behind]


def decide(need: Need, rungs: Sequence[trust.Rung]) -> Decision | None:
    """Decides for a need, or returns None if nothing was run; ``rungs`` begin with the shortest."""
    able = [rung for rung in rungs if any(map(trust.is_judged, rung.rows(need.last).values()))]
    if not able:
        return None
    rung_of = {scheme: rung for rung in able for scheme in rung.rows(need.last)}
    # A baseline can solve a task like any scheme; in losses it is what others are compared with.
    left_out = () if trust.is_task(able[-1].rows(need.last)) else AGAINST
    wins = {s: _least_won(s, need, rung) for s, rung in rung_of.items() if s not in left_out}
    # A scheme that wins in most seeds is chosen only if none wins in all.
    winners = [s for s in wins if wins[s] == 1] or [s for s in wins if wins[s] > 0]
    unconfirmed = [s for s in winners if _fails_later(rung_of[s], need, wins)]
    winners = [s for s in winners if s not in unconfirmed]
    rung = max((rung_of[s] for s in winners or rung_of), key=operator.attrgetter("training"))
    rows = rung.rows(need.last)
    better = [scheme for scheme in winners if rung_of[scheme] is rung]
    better.sort(key=lambda scheme: _rank(rows[scheme]))
    longer = [r for r in rungs if r.training > rung.training]
    behind = [s for s in better if any(_is_behind(s, r, need) for r in longer)]
    return Decision(rung, better, behind, unconfirmed, trust.order(need.last, rung, rungs))


def _fails_later(rung: trust.Rung, need: Need, wins: dict[str, float]) -> bool:
    """Returns whether a scheme wins on a rung, and not in its longest training; see ``decide``."""
    return any(_least_won(s, need, rung) > 0 == wins[s] for s in rung.rows(need.last) if s in wins)


def _is_behind(scheme: str, rung: trust.Rung, need: Need) -> bool:
    """Returns whether the mean of a scheme is behind a baseline's on a rung that has the scheme."""
    tables = [rung.rows(question) for question in need.asked]
    return any(scheme in rows and scheme not in trust.ahead(rows) for rows in tables)


def _least_won(scheme: str, need: Need, rung: trust.Rung) -> float:
    """Returns the least of what ``_won`` says of a scheme over all questions of a need."""
    return min(_won(rung.rows(question).get(scheme)) for question in need.asked)


def _won(answer: Answer | None) -> float:
    """Returns 1 if a scheme is better than all baselines, or the share of seeds that solve a task.

    A share that is no majority is 0. Where texts are of several kinds, a scheme must be better on
    each of them.
    """
    if answer is None:
        return 0.0
    if answer["family"] == TASKS:
        share = answer["solved"] / answer["seeds"]
        return share if answer["learned"] and share > 0.5 else 0.0
    return float(all(map(_is_better, (answer, *answer["kinds"].values()))))


def _is_better(answer: Answer) -> bool:
    """Returns whether a scheme is better than all baselines that it was compared with."""
    words = [answer[f"vs_{name}"] for name in (*AGAINST, OWN_WINDOW)]
    return {word for word in words if isinstance(word, str)} == {"better"}


def _is_worse(answer: Answer) -> bool:
    """Returns whether a scheme is worse than a baseline that it was compared with."""
    return "worse" in [answer[f"vs_{name}"] for name in (*AGAINST, OWN_WINDOW)]


def _rank(answer: Answer) -> float:
    """Returns what sorts answers, the best first."""
    mean = answer["mean"]  # infinite where training diverged
    return mean if answer["is_error"] or mean == math.inf else -mean


def section(need: Need, rungs: Sequence[trust.Rung]) -> dict[str, Any]:
    """Returns what the template says of a need; ``rungs`` begin with the shortest training."""
    decision = decide(need, rungs)
    if decision is None:
        said = {"evidence": "No run has this yet.", "badges": ["not run"], "chapter": need.chapter}
        return {"title": need.title, "choice": need.remains, "decision": None} | said
    rows = decision.rung.rows(need.last)
    is_task = trust.is_task(rows)
    evidence = _of_task(need, decision) if is_task else _of_loss(need, decision)
    if decision.order.longer and not decision.order.lasts:
        ahead = trust.ahead(decision.order.longer.rows(need.last))
        evidence += f" But the order does not last in {decision.order.longer.name}, where "
        evidence += f"{_names(sorted(ahead)) or 'no scheme'} {'has' if len(ahead) < 2 else 'have'} "
        evidence += "a better mean than every baseline."
    if decision.unconfirmed and not decision.better:
        evidence += f" {_names(decision.unconfirmed)} won after less training, from which nothing "
        evidence += "is chosen, because another winner there lost its lead after more training."
    evidence += "".join(
        _after_longer_training(scheme, decision, need, rungs) for scheme in decision.behind
    )
    if not is_task:
        evidence += _after_as_many_tokens(decision, need, rungs)
        evidence += "".join(
            _after_less_training(scheme, decision, need, rungs) for scheme in decision.chosen
        )
    return {
        "title": need.title,
        "choice": _names(decision.chosen) or need.remains,
        "evidence": evidence,
        "badges": trust.badges(need.asked, decision.rung, decision.order),
        "chapter": _chapter(need, rows),
        "decision": decision,
        "is_task": is_task,
    }


def _after_longer_training(
    scheme: str, decision: Decision, need: Need, rungs: Sequence[trust.Rung]
) -> str:
    """Returns why a scheme of ``decision.behind`` is not chosen."""
    longer = [rung for rung in rungs if rung.training > decision.rung.training]
    rung = next(rung for rung in longer if _is_behind(scheme, rung, need))
    seeds = max(rung.seeds(question) for question in need.asked if rung.rows(question))
    return (
        f" `{scheme}` is not chosen, because its mean is behind a baseline's after longer training "
        f"({rung.name}, {seeds} seed{'s' if seeds > 1 else ''})."
    )


def _after_as_many_tokens(decision: Decision, need: Need, rungs: Sequence[trust.Rung]) -> str:
    """Returns the other lengths of texts in which as many tokens do not prove the choice."""
    text = ""
    for rung in rungs:
        is_like = rung.tokens == decision.rung.tokens and rung.length and decision.rung.length
        there = [scheme for scheme in decision.chosen if scheme in rung.rows(need.last)]
        if not is_like or rung is decision.rung:
            continue
        tables = [rung.rows(question) for question in need.asked]
        worse = [s for s in there if any(_is_worse(rows[s]) for rows in tables if s in rows)]
        unproven = [s for s in there if s not in worse and not _least_won(s, need, rung)]
        for schemes, word in ((worse, "worse than a baseline"), (unproven, "not clearly better")):
            if schemes:
                text += f" After as many tokens in texts of {rung.length}, {_names(schemes)} "
                text += f"{'is' if len(schemes) == 1 else 'are'} {word}."
    return text


def _after_less_training(
    scheme: str, decision: Decision, need: Need, rungs: Sequence[trust.Rung]
) -> str:
    """Returns on which rungs of less training a chosen scheme is behind a baseline."""
    less = [rung for rung in rungs if rung.training < decision.rung.training]
    less = [rung for rung in less if _compares(scheme, rung.rows(need.last))]
    behind = [rung for rung in less if _is_behind(scheme, rung, need)]
    if not behind:
        return ""
    return (
        f" `{scheme}` is behind a baseline in {len(behind)} of {len(less)} trainings of fewer "
        "tokens or shorter texts."
    )


def _of_task(need: Need, decision: Decision) -> str:
    """Returns how many schemes solve tasks, and how many of their seeds do."""
    tables = [decision.rung.rows(question) for question in need.asked]
    what = ", ".join(topic for topic, _ in need.asked) + f" at {need.last[1]:g}x"
    verb = "solves" if len(decision.better) == 1 else "solve"
    asked_all = set.intersection(*map(set, tables))
    text = f"{len(decision.better)} of {len(asked_all)} schemes {verb} {what}"
    if decision.better:
        solved = min(table[name]["solved"] for table in tables for name in decision.better)
        text += f" in {solved:.0f} of {tables[-1][decision.better[0]]['seeds']} seeds"
    return f"{text} in {decision.rung.name}."


def _of_loss(need: Need, decision: Decision) -> str:
    """Returns the best answers and the baselines'."""
    rows = decision.rung.rows(need.last)
    others = sorted(set(rows).difference(AGAINST), key=lambda name: _rank(rows[name]))
    told = [f"`{name}` {shown(rows[name])}" for name in (decision.better or others)[:3]]
    told += [f"{called} {shown(rows[n])}" for n, called in _CALLED.items() if n in rows]
    multiple, unit = need.last[1], next(iter(rows.values()))["unit"]
    where = f" at {multiple:g}x" if multiple else f" ({need.last[0]})"
    if decision.rung.length and multiple > 1:  # a rung of the ladder scores longer texts as one
        where = f" from 1x to {next(iter(rows.values()))['multiple']:g}x"
    where += f" in {decision.rung.name}"
    if decision.rung.length:
        where += f", {decision.rung.tokens / 1e6:.1f}M tokens in texts of {decision.rung.length}"
    verb = "is" if len(decision.better) == 1 else "are"
    head = f"{len(decision.better)} of {len(others)} schemes {verb} better than every baseline"
    text = f"{head}{where} ({unit}): {', '.join(told)}."
    if mixed := [name for name in others if _is_better(rows[name]) and not _won(rows[name])]:
        text += " Better on the mean of all texts, but not on source code and on prose alike: "
        text += f"{_names(mixed)}."
    if decision.better:
        last = max(_rank(rows[name]) for name in decision.better)
        if between := [
            n for n in others if n not in decision.better + mixed and _rank(rows[n]) < last
        ]:
            text += " With a similar mean, but a difference from a baseline that may be chance: "
            text += f"{_names(between)}."
    return text


def _chapter(need: Need, rows: dict[str, Answer]) -> str:
    """Returns what the chapter recommends, and how that does here; nothing if it has no advice."""
    if not need.chapter:
        return ""
    words = []
    for name in need.recommended:
        said = "was not run there"
        if name in rows:
            others = [n for n in AGAINST if isinstance(rows[name][f"vs_{n}"], str) and n != name]
            compared = [f", {_THAN[rows[name][f'vs_{n}']]} {_CALLED[n]}" for n in others[-1:]]
            said = shown(rows[name]) + "".join(compared)
        words.append(f"`{name}` {said}")
    return f"{need.chapter} ({'; '.join(words)})."


def _compares(scheme: str, rows: dict[str, Answer]) -> bool:
    """Returns whether answers have a scheme and a baseline."""
    return scheme in rows and (trust.is_gain(rows) or not rows.keys().isdisjoint(AGAINST))


def _names(schemes: Iterable[str]) -> str:
    named = [f"`{scheme}`" for scheme in schemes]
    more = f" and {len(named) - _NAMED} more" * (len(named) > _NAMED)
    return ", ".join(named[:_NAMED]) + more


def sections(rungs: Iterable[trust.Rung]) -> list[dict[str, Any]]:
    """Returns what the template says of all needs."""
    ordered = sorted(rungs, key=operator.attrgetter("training"))
    return [section(need, ordered) for need in NEEDS]


def guide(rungs: Sequence[trust.Rung], missing: str, decoding: dict[str, float]) -> str:
    """Returns the guide as Markdown.

    ``missing`` says which training is still missing, and ``decoding`` has the time of decoding one
    more token under each scheme, over that under NoPE.
    """
    slow = sorted(name for name, times in decoding.items() if times > SLOW)
    return templates.fill(
        "choosing.md",
        rungs=sorted(rungs, key=operator.attrgetter("training")),
        missing=missing,
        needs=sections(rungs),
        lasts=trust.LASTS,
        shared=trust.SHARED,
        q=Q / 2,
        slow=", ".join(f"`{name}`" for name in slow),
        bound=SLOW,
    )


def read_decoding(path: Path) -> dict[str, float]:
    """Returns the table of ``benchmarks/decode.py`` by scheme."""
    return pd.read_csv(path, index_col="scheme")["times_nope"].to_dict()


def read_rungs(docs: Path, sources: Sources) -> tuple[list[trust.Rung], str]:
    """Returns all answers that ``docs`` keeps, and what the ladder lacks, in words.

    Rungs of the ladder without RoPE are left out.
    """
    data = docs / "data"
    rungs = [trust.Rung("the atlas", sources.atlas.about["setup"], 0.0, sources.atlas.answers)]
    pages = {"extension.md": read_extension(data / "extension_small.csv")}
    pages["multimodal.md"] = multimodal_tables.read(data)
    for page, values in pages.items():
        answers, _ = judged(values)
        rungs.append(trust.Rung(f"[{page}]({page})", "", 0.0, answers))
    says = "a model of 0.1M parameters or fewer learns one task, until it can or at a last step."
    # A model of one task reads more rows of it than one that learns twelve.
    alone = "[tasks learned alone](results.md#tasks-learned-alone)"
    rungs.append(trust.Rung(alone, says, 1.0, sources.one_task))
    longer, tokens = sources.longer, sources.longer_tokens
    schemes = _names(sorted(longer["scheme"].unique()))
    says = f"{schemes} after {tokens / 1e6:.1f}M tokens, without RoPE."
    topics = longer["topic"].str.removesuffix(f", {LONGER}")
    rungs.append(trust.Rung("longer training", says, tokens, longer.assign(topic=topics)))
    ladder, answers = sources.ladder, pd.read_csv(docs / "ladder" / ladder_page.CSV)
    for name, about in ladder["rungs"].items():
        of_rung = answers[answers["rung"] == name]
        if "rope" in set(of_rung["scheme"]):
            length = about["length"]
            says = f"{about['tokens'] / 1e6:.1f}M tokens in texts of {length}, schemes: "
            says += f"{len(set(of_rung['scheme']).difference(AGAINST))}, seeds: {about['seeds']}"
            named = f"`{name}` of the ladder"
            rungs.append(trust.Rung(named, says, about["tokens"], of_rung, length))
    holes = ladder["points"] - ladder["finished"]
    return rungs, f"{holes} of {ladder['points']} runs of the ladder" if holes else ""
