"""Holds the results of searches for LongRoPE's factors, and judges them.

A search is judged on documents that it has never read, against its starting points and against
known methods.
"""

import dataclasses
import math

import pandas as pd

from experiments.results.statistics import Record, Study, mean_and_margin

# The report's titles of the groups of rows; {near}, {train} and {far} are lengths in tokens.
GROUPS = {
    "near": "At {near} tokens, {factor}x the train length",
    "short": "At the train length, {train} tokens",
    "far": "At {far} tokens, fine-tuned at {near} only",
}
METRICS = {
    "loss": "all tokens",
    "last_loss": "last {last_tokens} tokens",
    "needle_loss": "needle's answer",
}
# The table that judges each search, and the loss that the search has minimised.
_OBJECTIVES = {
    "longrope": ("near", "loss"),
    "released": ("near", "loss"),
    "longrope2": ("near", "needle_loss"),
    "progressive": ("far", "loss"),
    "tuned, short": ("short", "loss"),
}


@dataclasses.dataclass(frozen=True)
class SearchStudy(Study):
    """Holds the results of all seeds.

    A record has ``scheme``, ``seed`` and what ``Stages`` scores. ``about`` has
    ``train_length, factor, last_tokens, corpus, corpus_digest`` besides every study's fields.

    Attributes:
      searches: for each seed and search, the entry of ``Stages.searches``.
      tuning: for each seed and fine-tuned model its ``name`` and cost.
    """

    searches: list[Record]
    tuning: list[Record]

    @property
    def groups(self) -> dict[str, str]:
        """Returns the titles of the tables that have records, by group."""
        length = {"train": self.about["train_length"], "factor": self.about["factor"]}
        near = length["train"] * length["factor"]
        length |= {"near": near, "far": near * length["factor"]}
        scored = {record["group"] for record in self.records}
        return {group: title.format(**length) for group, title in GROUPS.items() if group in scored}

    def columns(self) -> dict[str, str]:
        """Returns the titles of the columns of every table, by the metric that was measured."""
        return {m: t.format(**self.about) for m, t in METRICS.items() if m in self.records[0]}


@dataclasses.dataclass(frozen=True)
class Verdict:
    """Compares the result of a search with the best of its rivals, seed by seed.

    Attributes:
      search: the search.
      rivals: "start" (what it started from) or "method" (the known methods).
      metric: the loss that the search has minimised.
      differences: for each seed, the loss of the result minus the smallest loss of a rival.
    """

    search: str
    rivals: str
    metric: str
    differences: list[float]

    @property
    def holds(self) -> bool:
        """Returns whether the search beats every rival under every seed."""
        return all(difference < 0 for difference in self.differences)

    def __str__(self) -> str:
        mean, margin, count = mean_and_margin(self.differences)
        better = sum(difference < 0 for difference in self.differences)
        extra = f" ± {margin:.4f}" if math.isfinite(margin) else ""
        rivals = {"start": "what it started from", "method": "the known methods"}[self.rivals]
        what = "beats" if self.holds else "does not beat"
        return (
            f"{self.search} {what} {rivals}: {METRICS[self.metric]}, "
            f"{mean:+.4f}{extra} nats against the best of them, better under {better} of {count} "
            f"seed{'s' * (count != 1)}"
        )


def verdicts(study: SearchStudy) -> list[Verdict]:
    """Returns the verdicts on every search, against its starting points and known methods."""
    table, judged = pd.DataFrame(study.records), []
    for search, (group, metric) in _OBJECTIVES.items():
        rows = table[table["group"] == group]
        losses = rows[rows["scheme"] == search].set_index("seed")
        prefix = "tuned, " if search.startswith("tuned, ") else ""
        of_search = (s for s in study.searches if prefix + s["search"] == search)
        starts = {f"{prefix}{name} (start)" for s in of_search for name in s["seeds"]}
        for kind in ("start", "method"):
            rivals = rows[rows["kind"] == kind]
            if kind == "start":
                rivals = rivals[rivals["scheme"].isin(starts)]
            if len(losses) and len(rivals):
                best = rivals.groupby("seed")[metric].min()
                differences = (losses[metric] - best).dropna().tolist()
                judged.append(Verdict(search, kind, metric, differences))
    return judged
