"""Holds what studies have measured as one tidy table, which atlas, pages and guide are made of.

A row of the table of values is one number of one scheme and one seed. Its columns, ``COLUMNS``, are

topic, multiple   what is asked, and the length over that of training
question          both as a name
family            the questions whose comparisons are corrected together, see ``comparisons.py``
says, unit        the question and its unit in words
is_error          whether lower is better
chance            what a blind guess has; NaN where that is not known
scheme, seed      who answers
value             the answer; inf if training diverged

Where records have the losses of single texts, a column ``text`` numbers the texts, and a row is the
loss of one of them. ``judged`` compares the schemes, and returns a row for each scheme at each
question.

RoPE that is read through a window of the trained length is a scheme of its own, ``WINDOWED``. Flat
is easy, so this is what every other scheme is compared with, beside NoPE and RoPE.
"""

from collections.abc import Collection, Iterable
from typing import Any

import numpy as np
import pandas as pd

from experiments.results.comparisons import compared, families
from experiments.results.lengths import WINDOWED, by_text, with_window
from experiments.results.panels import EXACT, Panel, PanelStudy
from experiments.results.statistics import BASELINE, Record, over_seeds, with_margin

OF_QUESTION = ["topic", "multiple", "question", "family", "says", "unit", "is_error", "chance"]
COLUMNS = [*OF_QUESTION, "scheme", "seed", "value"]
_WORDS = ("topic", "question", "family", "says", "unit", "scheme")
_NUMBERS = ("multiple", "chance", "value")
# Every scheme is compared with these, where they have an answer.
AGAINST = (BASELINE, "rope", WINDOWED)
# A gain is compared with the same model, fed only its most recent tokens.
OWN_WINDOW = "own_window"
# Families of questions. Values in a family that begins with GAIN are differences already.
TEXT, MANUAL, GAIN, TASKS = "loss on text", "loss on the manual", "gain", "tasks"
UNCOMPARED = "not compared"  # the family of questions about which there is no verdict
# The share of rows that a seed must have right to have solved a task; at the trained length most
# seeds must have it for a scheme to have learned the task.
SOLVED = 0.9
_ANSWERS = ", answers"  # the end of a topic about single answers

Answer = dict[str, Any]  # a row of the answers that ``judged`` returns
# The signs of verdicts in tables.
MARKS = {"better": "▲", "worse": "▼"}


def shown(answer: Answer) -> str:
    """Returns an answer: how many seeds solve a task, or a mean and half of its 95 % interval."""
    if answer["family"] == TASKS and not answer["learned"] and answer["multiple"] > 1:
        return "not learned"
    if np.isfinite(answer["solved"]):
        return f"{answer['solved']:.0f} of {answer['seeds']}"
    return with_margin(answer["mean"], answer["margin"])


def marked(answer: Answer | None, against: str) -> str:
    """Returns an answer as ``shown`` with the mark of its verdict; a missing answer is a dash."""
    return f"{shown(answer)} {MARKS.get(answer[f'vs_{against}'], '')}".rstrip() if answer else "-"


def by_question(answers: pd.DataFrame) -> dict[tuple[str, str, float], Answer]:
    """Returns answers by scheme, topic and multiple."""
    return {(a["scheme"], a["topic"], a["multiple"]): a for a in answers.to_dict("records")}


def table(rows: Iterable[dict[str, Any]] | pd.DataFrame) -> pd.DataFrame:
    """Returns the table of values that has the given rows; what they lack is empty.

    Raises a ValueError if two rows claim the same measurement.
    """
    given = pd.DataFrame(rows)
    frame = given.reindex(columns=[*COLUMNS, *given.columns.intersection(["text"])])
    frame = frame.astype(dict.fromkeys(_WORDS, "str") | dict.fromkeys(_NUMBERS, float))
    named = frame["topic"] + frame["multiple"].map(" {:g}x".format)
    frame["question"] = named.where(frame["family"] != UNCOMPARED, frame["topic"])
    frame["value"] = frame["value"].where(np.isfinite(frame["value"]), np.inf)
    keys = [key for key in ("question", "scheme", "seed", "text") if key in frame]
    twice = frame[frame.duplicated(keys)]
    if len(twice):
        question, scheme, seed = twice.iloc[0][keys[:3]]
        raise ValueError(
            f"two records of {scheme}, seed {seed}, {question}: counted twice they would shrink "
            "its interval; keep one"
        )
    return frame


def losses(
    records: Iterable[Record], split: str, protocol: str, topic: str, family: str, says: str = ""
) -> pd.DataFrame:
    """Returns the losses of one evaluation of texts by length, in bits per byte.

    Records are those of a ``LengthStudy``. ``says`` is the question in words, with {length} and
    {multiple} of the texts.
    """
    asked = {"topic": topic, "family": family, "unit": "bits per byte", "is_error": True}
    rows = []
    for r in records:
        if (r["split"], r["protocol"]) != (split, protocol):
            continue
        who = {key: r[key] for key in ("scheme", "seed", "multiple")}
        row = asked | who | {"says": says.format(**r)}
        rows += [row | {"text": text, "value": bits} for text, bits in by_text(r)]
    return table(rows).sort_values("multiple", kind="stable")


def of_text(records: list[Record], last: int) -> pd.DataFrame:
    """Returns the losses of all evaluations of texts, and the gains, by length.

    The ``last`` tokens of a text are scored; records are those of a ``LengthStudy``. ``WINDOWED``
    is made of RoPE's.
    """
    records = with_window(records)
    where = " in texts of {length} tokens, {multiple} times the trained length."
    of_last = f"Bits per byte of the last {last} tokens"
    alone = f"{of_last}, when no more tokens are read before each than in training."
    manual = " Texts are those of a manual."
    asked = (
        ("test", "last", "text", TEXT, of_last + where),
        ("test", "windowed", "text, windowed", TEXT, alone),
        ("test", "non_overlapping", "text, all", TEXT, f"Bits per byte of all tokens{where}"),
        ("manual", "last", "manual", MANUAL, of_last + where + manual),
        ("manual", "windowed", "manual, windowed", MANUAL, alone + manual),
    )
    tables = [losses(records, *question) for question in asked]
    return pd.concat([*tables, gains(records)], ignore_index=True)


def gains(records: list[Record]) -> pd.DataFrame:
    """Returns the ``gain`` of contexts beyond the trained length; the manual is another topic."""
    tables = []
    for split, topic, of in (("test", GAIN, ""), ("manual", f"{GAIN}, manual", " of the manual")):
        says = (
            f"Bits per byte{of} by which {{multiple}} times the trained length of context is "
            "better than the same model fed only its most recent tokens, at most as many as in "
            "training."
        )
        tables.append(gain(records, split, topic, says))
    return pd.concat(tables, ignore_index=True)


def gain(records: list[Record], split: str, topic: str, says: str = "") -> pd.DataFrame:
    """Returns by how much contexts beyond the trained length lower the loss of the same model.

    The other loss is that of the model fed only its most recent tokens. The family is the topic.
    """
    longer = losses(records, split, "last", topic, topic, says)
    longer = longer[(longer["multiple"] > 1) & (longer["scheme"] != WINDOWED)]
    alone = losses(records, split, "windowed", topic, topic)
    keys = [key for key in ("scheme", "seed", "text") if key in longer and key in alone]
    both = longer.merge(alone[[*keys, "value"]], on=keys, suffixes=("", "_alone"))
    lower = both.pop("value_alone") - both["value"]
    both["value"] = lower.where(np.isfinite(lower), np.inf)
    return both.assign(is_error=False)


def of_tasks(study: PanelStudy) -> pd.DataFrame:
    """Returns the shares of right rows and answers at every length, without regard to depth."""
    rows = []
    for panel in study.panels:
        is_exact = panel.metric == EXACT
        share = "rows whose answers are all right" if is_exact else "answers that are right"
        asked = dict(topic=_topic(panel), family=TASKS, unit="share right", is_error=False)
        for x in panel.xs if panel.trained else ():
            says = f"Share of {share}, in {panel.condition} with rows of {x} tokens"
            says += "." if x in panel.trained else "; no row of training was as long."
            at = {"multiple": float(x) / float(panel.trained[0]), "says": says}
            rows += [
                asked | at | {key: r[key] for key in ("scheme", "seed", "value", "chance")}
                for r in study.records
                if panel.has(r) and r["x"] == x
            ]
    return table(rows)


def topics(study: PanelStudy) -> list[str]:
    """Returns the topics of ``of_tasks``, also of those without any record yet."""
    return [_topic(panel) for panel in study.panels if panel.trained]


def _topic(panel: Panel) -> str:
    return panel.condition + _ANSWERS * (panel.metric != EXACT)


def is_learned(values: pd.DataFrame) -> pd.Series:
    """Returns, for each row, whether its scheme has learned its task; True for a row of no task."""
    is_task, is_own = values["family"] == TASKS, values["multiple"] == 1
    task = values["topic"].str.removesuffix(_ANSWERS)
    rows = is_task & is_own & (task == values["topic"])
    seeds = (values["value"] >= SOLVED)[rows].groupby([values["scheme"], task]).mean()
    share = seeds.reindex(pd.MultiIndex.from_arrays([values["scheme"], task]), fill_value=0.0)
    return ~is_task | (share.to_numpy() > 0.5)


def judged(
    values: pd.DataFrame, extensions: Collection[str] = ()
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Returns the answers, a row for each scheme at each question, and what was compared.

    Every scheme is compared with each of ``AGAINST``, and gains with the model's own window.
    ``extensions`` are the schemes that read a model which another scheme has trained. A task counts
    only where it is learned. It ranks schemes only beyond the trained length, as all that learned
    it are right at that length. What was compared is a table of ``comparisons.families``.

    The columns of the answers are ``OF_QUESTION``, ``scheme``, and

    mean, margin, seeds   the mean over seeds, half of its 95 % interval, NaN for one seed, and the
                          number of seeds; the interval is Student's or, for a gain, that of the
                          comparison
    solved                how many seeds have solved a task in rows of this length, else NaN
    learned               whether the scheme has learned the task; True where there is no task

    and, for each name in ``AGAINST`` and for ``OWN_WINDOW``, ``vs_NAME``, the verdict of
    ``comparisons.compared``, ``vs_NAME_difference``, ``vs_NAME_margin`` and ``vs_NAME_p``, which is
    corrected. These are NaN where nothing is compared.
    """
    comparisons = _compared(values, extensions)
    return _summary(values, comparisons), families(comparisons)


def _compared(values: pd.DataFrame, extensions: Collection[str]) -> pd.DataFrame:
    """Returns all comparisons, as a table of ``comparisons.compared``."""
    is_gain, is_task = values["family"].str.startswith(GAIN), values["family"] == TASKS
    is_ranked = ~is_gain & (values["family"] != UNCOMPARED) & is_learned(values)
    ranked = values[is_ranked & (~is_task | (values["multiple"] > 1))]
    tables = [compared(ranked, against, extensions) for against in AGAINST]
    tables.append(compared(values[is_gain], None, extensions).assign(against=OWN_WINDOW))
    return pd.concat([t for t in tables if len(t)] or tables[:1], ignore_index=True)


def _summary(values: pd.DataFrame, comparisons: pd.DataFrame) -> pd.DataFrame:
    """Returns the answers of ``judged``."""
    keys = ["question", "scheme"]
    by_seed = values.groupby([*keys, "seed"], sort=False)["value"].mean()
    first = values.assign(learned=is_learned(values)).drop_duplicates(keys)
    rows = first[[*OF_QUESTION, "scheme", "learned"]]
    rows = rows.merge(over_seeds(by_seed.reset_index(), keys), on=keys)
    is_rows = (rows["family"] == TASKS) & ~rows["topic"].str.endswith(_ANSWERS)
    solved = (by_seed >= SOLVED).groupby(level=keys).sum().rename("solved")
    rows = rows.merge(solved.reset_index(), on=keys)
    rows["solved"] = rows["solved"].where(is_rows)
    for against in (*AGAINST, OWN_WINDOW):
        with_it = comparisons[comparisons["against"] == against]
        ends = dict(verdict="", difference="_difference", margin="_margin", p_corrected="_p")
        renamed = {key: f"vs_{against}{end}" for key, end in ends.items()}
        with_it = with_it[[*keys, *ends]].rename(columns=renamed)
        rows = rows.merge(with_it, on=keys, how="left")
    rows["margin"] = rows[f"vs_{OWN_WINDOW}_margin"].fillna(rows["margin"])
    return rows
