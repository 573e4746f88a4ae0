"""Holds the atlas: the answer of every scheme to every question, and the verdicts on it."""

import dataclasses
import functools
from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd
from scipy import stats

from experiments.results import answers
from experiments.results.answers import AGAINST, OF_QUESTION, TASKS, UNCOMPARED
from experiments.results.length_table import length_table
from experiments.results.lengths import MAIN, WINDOWED, LengthStudy
from experiments.results.panels import PanelStudy
from experiments.results.statistics import Record, Study
from posenc_jax import REGISTRY

COST, PARAMETERS, EFFECTIVE = "training time", "parameters", "effective context"
_TOPICS = ["text", "text, windowed", "text, all", "manual", "manual, windowed"]
_TOPICS += ["gain", "gain, manual"]


@dataclasses.dataclass(frozen=True)
class Atlas:
    """Holds every answer.

    Attributes:
      values: every number that was measured, see ``answers.py``.
      answers: a row for each scheme at each question, see ``answers.judged``.
      families: what was compared and corrected, see ``comparisons.families``.
      unanswered: the topics that no run has answered yet.
      controls: sentences that compare how a task learned alone ranks the schemes with how it does
        among all tasks; see ``controls_of``.
      trained: the scheme that the checkpoint of each scheme was trained with.
      failures: the runs that failed; their answers are missing.
      about: whatever every report says, with ``train_length``; and ``setup``, ``tasks`` by topic.
    """

    values: pd.DataFrame
    answers: pd.DataFrame
    families: pd.DataFrame
    unanswered: list[str]
    controls: list[str]
    trained: dict[str, str]
    failures: list[Record]
    about: dict[str, Any]

    @property
    def schemes(self) -> list[str]:
        """Returns the schemes that have any answer, the baselines first."""
        have = set(self.answers["scheme"])
        return [name for name in dict.fromkeys([*AGAINST, *REGISTRY]) if name in have]

    @property
    def questions(self) -> pd.DataFrame:
        """Returns a row for each question, in the order of the columns."""
        return self.answers.drop_duplicates("question")[OF_QUESTION]

    def answers_to(self, topic: str, multiple: float = 1) -> pd.DataFrame:
        """Returns the answers to one question by scheme."""
        is_asked = (self.answers["topic"] == topic) & (self.answers["multiple"] == multiple)
        return self.answers[is_asked].set_index("scheme")

    def distinct_answers(self, topic: str, multiple: float = 1) -> pd.DataFrame:
        """Returns the answers to one question by scheme, without a scheme that another equals."""
        answers = self.answers_to(topic, multiple)
        return answers[answers.index.isin(self.distinct)]

    @property
    def longest(self) -> float:
        """Returns the greatest multiple of the trained length that texts have."""
        return self.answers.loc[self.answers["topic"] == "text", "multiple"].max()

    @functools.cached_property
    def distinct(self) -> dict[str, list[str]]:
        """Returns the schemes that differ, each with the others whose numbers are all the same."""
        compared = self.values[self.values["family"] != UNCOMPARED]
        wide = compared.pivot_table(index="scheme", columns=["question", "seed"], values="value")
        groups: dict[tuple, list[str]] = {}
        for scheme in self.schemes:
            groups.setdefault(tuple(wide.loc[scheme].fillna(-1.0)), []).append(scheme)
        return {first: others for first, *others in groups.values()}

    @property
    def unlearned(self) -> list[str]:
        """Returns the tasks that no scheme has learned."""
        of_tasks = self.answers[(self.answers["family"] == TASKS) & self.answers["solved"].notna()]
        learned = of_tasks.groupby("topic", sort=False)["learned"].any()
        return learned.index[~learned].tolist()


def family(scheme: str) -> str:
    """Returns the family of a scheme: the folder of its module, such as "rotary"."""
    module = REGISTRY["rope" if scheme == WINDOWED else scheme].split(":")[0].split(".")
    return module[2] if len(module) > 2 else "none"


def atlas_of(studies: Mapping[str, Study], about: dict[str, Any]) -> Atlas:
    """Makes the atlas of its studies by name; see ``configs/atlas.py``."""
    language, tasks = studies["language"], studies["tasks"]
    assert isinstance(language, LengthStudy) and isinstance(tasks, PanelStudy)
    in_tasks = answers.of_tasks(tasks)
    of_text = answers.of_text(language.records, language.about["last_tokens"])
    values = pd.concat([of_text, in_tasks, _uncompared(language)], ignore_index=True)
    trained = {r["scheme"]: r["trained"] for r in [*tasks.training, *language.training]}
    extensions = [scheme for scheme, model in trained.items() if model != scheme]
    judged, families = answers.judged(values, extensions)
    alone = {
        name.removeprefix("tasks_"): answers.of_tasks(study)
        for name, study in studies.items()
        if name.startswith("tasks_") and isinstance(study, PanelStudy)
    }
    expected = [*_TOPICS, *answers.topics(tasks), COST]
    unanswered = [topic for topic in expected if topic not in set(values["topic"])]
    unanswered += [f"{task} learned alone" for task, table in alone.items() if table.empty]
    failures = [
        failure | {"scheme": f"{name}: {failure['scheme']}"}
        for name, study in studies.items()
        for failure in study.failures
    ]
    return Atlas(
        values=values,
        answers=judged,
        families=families,
        unanswered=unanswered,
        controls=[words for table in alone.values() for words in controls_of(in_tasks, table)],
        trained=trained,
        failures=failures,
        about=about,
    )


def _uncompared(study: LengthStudy) -> pd.DataFrame:
    """Returns what training cost and the effective context, about which there is no verdict.

    The clock says nothing about seeds, which may have been trained as one program, and it goes on
    where a machine has other work. A scheme that reads another's checkpoint cost nothing.
    """
    parameters = {r["scheme"]: r["parameters"] for r in study.training}
    runs = pd.DataFrame(study.training, columns=["scheme", "trained", "seconds", "tokens"])
    runs = runs[runs["trained"] == runs["scheme"]]
    cost = (1e6 * runs["seconds"] / runs["tokens"]).groupby(runs["scheme"], sort=False).mean()
    splits = (MAIN._replace(split=split) for split in ("test", "manual"))
    text, manual = (length_table(study, split).effective for split in splits)
    clock = "Training for a token of text, by the clock of a machine that may have other work."
    longest = "The longest context that the scheme makes use of."
    asked = (
        (PARAMETERS, "Parameters of the model of text.", "parameters", True, parameters),
        (COST, clock, "microseconds a token", True, cost),
        (EFFECTIVE, longest, "tokens", False, text),
        (f"{EFFECTIVE}, manual", "The same on texts of a manual.", "tokens", False, manual),
    )
    return answers.table(
        dict(topic=topic, says=says, unit=unit, is_error=is_error, multiple=1, family=UNCOMPARED)
        | dict(scheme=scheme, seed=0, value=value)
        for topic, says, unit, is_error, numbers in asked
        for scheme, value in numbers.items()
    )


def controls_of(together: pd.DataFrame, alone: pd.DataFrame) -> Iterator[str]:
    """Compares a task learned alone with the same task learned among all others.

    Yields a sentence about each question that three schemes or more have answered in both ways: how
    many of these schemes have learned the task, and Spearman's correlation of their means. It
    counts the order of schemes that seeds do not tell apart, too.
    """
    sides = {"alone": alone, "together": together}
    sides = {how: t.assign(learned=answers.is_learned(t)) for how, t in sides.items()}
    for question in alone["question"].unique():
        of = {how: t[t["question"] == question].groupby("scheme") for how, t in sides.items()}
        means = pd.DataFrame({how: group["value"].mean() for how, group in of.items()}).dropna()
        if len(means) < 3:
            continue
        learned = [group["learned"].first()[means.index].sum() for group in of.values()]
        order = "all answers of one side are the same"
        if (means.nunique() > 1).all():
            order = "rank correlation of means {:.2f} (p = {:.2f})".format(*stats.spearmanr(means))
        yield (
            f"{question}: learned by {learned[0]} of {len(means)} schemes where it is trained "
            f"alone, and by {learned[1]} where all tasks are trained together; {order}"
        )


def counts(rows: pd.DataFrame, against: str) -> dict[str, int]:
    """Returns at how many questions of ``rows`` a scheme is better, and at how many worse."""
    return {word: int((rows[f"vs_{against}"] == word).sum()) for word in ("better", "worse")}
