"""Scores every encoding on documents that no search has read."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from experiments.evaluation.lengths import Scorer
from experiments.pretrained.trained import in_place_of_rope
from experiments.progress import stage
from experiments.results.record import Stored
from experiments.studies.longrope.encoding import Searched
from experiments.studies.longrope.fitness import NEEDLE, with_needles
from experiments.studies.longrope.plan import Plan
from posenc_jax import Transformer

# The report's titles of the groups of rows; {near}, {train} and {far} are lengths in tokens.
GROUPS = {
    "near": "At {near} tokens, {factor}x the train length",
    "short": "At the train length, {train} tokens",
    "far": "At {far} tokens, fine-tuned at {near} only",
}


@dataclasses.dataclass(frozen=True, eq=False)
class Row:
    """Holds one line of a table.

    Attributes:
      group: a key of ``GROUPS``.
      scheme: its name.
      kind: "method" for a known one, "start" for a starting point of a search, "found" for the
        result of a search, "tuned" for a fine-tuned model under the encoding it was tuned with.
      model: the model, under RoPE.
      encoding: the encoding that it is measured under; one program serves all of them.
    """

    group: str
    scheme: str
    kind: str
    model: Transformer
    encoding: Searched


def score(
    rows: list[Row], documents: Mapping[str, np.ndarray], plan: Plan, stored: Stored, name: str
) -> list[dict[str, Any]]:
    """Returns a record for each row: losses in nats a token, means over documents.

    A record has ``loss`` of all tokens, ``last_loss`` of the last tokens, and ``needle_loss`` of
    the answers about needles that are put into the same documents (``with_needles``), if the plan
    has the stage that searches by it. Documents are int ``[N, L + 1]`` by group; each batch is kept
    in ``stored`` as soon as it is known.
    """
    last = {"loss": 0, "last_loss": -plan.trials.last_tokens}
    windows = {group: (tokens_NL, last) for group, tokens_NL in documents.items()}
    needles = {
        group: (with_needles(tokens_NL), {"needle_loss": -NEEDLE // 2})
        for group, tokens_NL in documents.items()
        if "longrope2" in plan.stages
    }
    kinds = [kind for kind in (windows, needles) if kind]
    total = sum(kind[row.group][0][:, 1:].size for row in rows for kind in kinds)
    records = []
    with stage(name, total, plan.console) as advance:
        for row in rows:
            scorer = Scorer(row.model, plan.mesh, plan.trials.batch_tokens)
            record: dict[str, Any] = {"group": row.group, "scheme": row.scheme, "kind": row.kind}
            for kind in kinds:
                record |= _losses(row, scorer, *kind[row.group], stored, advance)
            records.append(record)
    return records


def _losses(row, scorer, tokens_NL, firsts, stored, advance) -> dict[str, float]:
    """Returns the mean losses from each of ``firsts`` to the end, batch by batch."""
    layers, means = in_place_of_rope(row.model, row.encoding), []

    def measure(batch):
        losses_NL = scorer(batch, layers)
        return [losses_NL[:, first:].mean(axis=1).tolist() for first in firsts.values()]

    name = f"{row.group}, {row.scheme}, {', '.join(firsts)}"
    for of_batch, tokens in scorer.batches(tokens_NL, stored, name, measure):
        means.append(of_batch)
        advance(row.scheme, steps=tokens)
    return dict(zip(firsts, np.concatenate(means, axis=1).mean(axis=1).tolist(), strict=True))
