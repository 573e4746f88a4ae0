"""Runs the stages of one model: searches, fine-tuning, and searches on the fine-tuned model.

    longrope     the paper's search, at ``factor`` times the train length
    released     the released code's search, at the same length
    longrope2    LongRoPE2's search, at the same length
    progressive  the model is fine-tuned at that length under LongRoPE's factors, and searched again
                 at ``factor`` times that length, without further fine-tuning
    short        a search on the fine-tuned model, at the train length
    mixed        the model is fine-tuned in LongRoPE2's mixed windows, under LongRoPE2's factors

A stage that is finished in the folder is not run again, and one that was begun continues.
"""

import contextlib
import dataclasses
import functools
import itertools
from typing import Any

import jax.numpy as jnp
import numpy as np

from experiments.evaluation.lengths import Scorer
from experiments.pretrained.trained import in_place_of_rope, rope_of
from experiments.progress import stage
from experiments.results.record import Stored, open_run
from experiments.running.points import Point
from experiments.running.sweep import Sweep, recipe_fields
from experiments.studies.longrope.encoding import (
    Searched,
    attention_of,
    critical_pairs,
    factors_of,
    shared_keywords,
    under_rule,
)
from experiments.studies.longrope.fitness import (
    NEEDLE,
    needle_loss,
    remembered,
    text_loss,
    with_needles,
)
from experiments.studies.longrope.plan import STAGES, Plan
from experiments.studies.longrope.search import Genome, LongRoPE2Space, ReleasedSpace, Space, evolve
from experiments.training.checkpoint import fingerprint
from experiments.training.loop import train
from experiments.training.step import further_state
from experiments.training.text import Tuning, token_losses
from experiments.training.windows import WindowIndex, train_batch, window_index
from posenc_jax import Transformer
from posenc_jax.encodings.rotary.frequencies.base import Default
from posenc_jax.encodings.rotary.longrope import LongRoPE


@dataclasses.dataclass(frozen=True, eq=False)
class Row:
    """Holds one line of a table: a model, under RoPE, and an encoding that it is measured under.

    Attributes:
      group: the table, a key of ``results.searches.GROUPS``.
      kind: "method" for a known one, "start" for a starting point of a search, "found" for the
        result of a search, "tuned" for a fine-tuned model under the encoding it was tuned with.
    """

    group: str
    scheme: str
    kind: str
    model: Transformer
    encoding: Searched


class Stages:
    """Extends one model under one seed, and holds the results so far.

    Attributes:
      rows: the encodings to score, by group and name.
      searches: for each search its name, seeds, losses by generation, and the best candidate.
      tuning: for each fine-tuned model its name, and the summary of ``train``.
      best: the best genome of each search.
      tuned: the model after the fine-tuning of the stage ``progressive``.
    """

    def __init__(self, plan: Plan, sweep: Sweep, point: Point, model: Transformer):
        self.plan, self.seed, self.name = plan, point.seed, point.name
        self.folder = sweep.folder(point)
        self.mesh, self.console = sweep.mesh, sweep.console
        self.model, self.rope = model, rope_of(model, point.name)
        self.rows: dict[tuple[str, str], Row] = {}
        self.searches: list[dict[str, Any]] = []
        self.tuning: list[dict[str, Any]] = []
        self.best: dict[str, Genome] = {}
        self.tuned = model

    def run(self) -> dict[str, Any]:
        """Runs all stages of the plan and returns the results, as values of JSON."""
        rope = under_rule(self.rope, Default())
        self._row("short", "rope", "method", self.model, rope)
        self._row("near", "rope", "method", self.model, rope)
        for name, rule in self.plan.rules(self.plan.train_length).items():
            self._row("near", name, "method", self.model, under_rule(self.rope, rule))
        for name in STAGES:
            if name in self.plan.stages:
                getattr(self, f"_{name}")()
        return {"records": self._scores(), "searches": self.searches, "tuning": self.tuning}

    def _longrope(self):
        seeds = self._factors(self.plan.train_length)
        largest = 1.25 * self.plan.factor
        space = Space(seeds, largest, self.plan.budget, 0, self.plan.most_start_tokens)
        self._search("longrope", "near", self.model, space)

    def _released(self):
        seeds = {"yarn": self._factors(self.plan.train_length)["yarn"]}
        space = ReleasedSpace(seeds, 1.0 + self.plan.factor, self.plan.budget)
        self._search("released", "near", self.model, space)

    def _longrope2(self):
        critical = critical_pairs(self.rope, self.plan.train_length)
        pairs, factor = self.rope.rotary_dim // 2, float(self.plan.factor)
        space = LongRoPE2Space(pairs, critical, factor, self.plan.budget)
        self._search("longrope2", "near", self.model, space, needle_loss)

    def _progressive(self):
        plan, first = self.plan, self.best["longrope"]
        self.tuned = self._tune("tuned", Tuning, first)
        self._row("near", "longrope, tuned", "tuned", self.tuned, self._under(first, plan.factor))
        # The known methods and the search extend the tuned model, whose pairs are slower already.
        seeds = {
            name: factors * np.array(first.factors)
            for name, factors in self._factors(plan.near).items()
        }
        largest = 1.25 * plan.factor * max(first.factors[-1], plan.factor)
        starts = first.start_tokens, plan.most_start_tokens
        space = Space(seeds, largest, plan.budget.halved(), *starts)
        for name, rule in plan.rules(plan.near).items():
            attention = attention_of(self.rope, rule) * self._attention(plan.factor)
            method = Searched.of(self.rope, space.seeds[name], attention)
            self._row("far", name, "method", self.tuned, method)
        self._search("progressive", "far", self.tuned, space)

    def _short(self):
        plan, factors = self.plan, np.array(self.best["longrope"].factors)
        shares = {f"1/{part} of long": 1 + (factors - 1) / part for part in (4, 2)}
        seeds = {"rope": np.ones_like(factors)} | shares
        # Smaller bounds than for long contexts, as in the paper: there is less to interpolate.
        largest = max(1 + (factors[-1] - 1) / 2, 1 + 10 * plan.budget.step)
        space = Space(seeds, largest, plan.budget.halved(), 0, plan.most_start_tokens)
        long = self._under(self.best["longrope"], plan.factor)
        self._row("short", "tuned, long factors", "method", self.tuned, long)
        self._search("short", "short", self.tuned, space)

    def _mixed(self):
        genome = self.best["longrope2"]
        model = self._tune("mixed", MixedWindows, genome)
        under = self._under(genome, self.plan.factor)
        self._row("near", "longrope2, mixed", "tuned", model, under)
        rope = under_rule(self.rope, Default())
        self._row("short", "longrope2, mixed", "tuned", model, rope)

    def _row(self, group, scheme, kind, model, encoding):
        self.rows.setdefault((group, scheme), Row(group, scheme, kind, model, encoding))

    def _factors(self, length) -> dict[str, np.ndarray]:
        rules = self.plan.rules(length)
        return {name: factors_of(self.rope, rule) for name, rule in rules.items()}

    def _attention(self, times: int) -> float:
        """Returns LongRoPE's attention factor for a model made ``times`` times longer."""
        return LongRoPE(
            **shared_keywords(self.rope), train_length=self.plan.train_length, factor=float(times)
        ).attention_factor

    def _under(self, genome: Genome, times: int) -> Searched:
        """Returns the encoding of a genome, with LongRoPE's attention factor."""
        return Searched.of(self.rope, genome, self._attention(times))

    def _search(self, name: str, group: str, model: Transformer, space: Space, loss=text_loss):
        """Searches, or continues a search that was stopped, and adds its rows and its result."""
        plan, target, budget = self.plan, self.plan.tables[group], space.budget
        read = {"length": target.length, "count": target.documents}
        documents_NL = plan.documents(plan.trials.search_split, **read)
        fitness = loss(
            model,
            self.rope,
            documents_NL,
            attention_factor=self._attention(target.times),
            mesh=self.mesh,
            batch_tokens=plan.trials.batch_tokens,
        )
        # All settings that decide what the search finds.
        config: dict[str, Any] = {
            "search": dataclasses.asdict(budget),
            "seed": self.seed,
            "space": type(space).__name__,
            "seeds": {seed: genome.factors for seed, genome in space.seeds.items()},
            "bounds": [space.smallest, space.largest],
            "starts": space.starts,
            "rope": shared_keywords(self.rope),
            "attention_factor": fitness.attention_factor,
            "scored_tokens": fitness.last,
            "documents": read | {"corpus_digest": plan.corpus.digest},
            "model": fingerprint(model),
        }
        folder = self.folder / "search" / name
        open_run(folder, config)
        with (
            contextlib.closing(Stored(folder / "losses.jsonl", config)) as stored,
            stage(f"{self.name}  {name}", budget.candidates, self.console) as advance,
        ):
            losses = remembered(fitness, stored, advance)
            generations = list(evolve(space, budget, losses, self.seed))
        best = min(itertools.chain(*generations), key=lambda one: one.loss)
        self.best[name] = best.genome
        self.searches.append(
            {
                "search": name,
                "seeds": {o.origin: o.loss for o in generations[0] if o.origin in space.seeds},
                "losses": [[one.loss for one in generation] for generation in generations],
                "found": dataclasses.asdict(best),
                "factors": config["seeds"],
            }
        )
        for seed, genome in space.seeds.items():
            under = self._under(genome, target.times)
            self._row(group, f"{target.prefix}{seed} (start)", "start", model, under)
        result = self._under(best.genome, target.times)
        self._row(group, target.prefix + name, "found", model, result)

    def _tune(self, name, kind, genome) -> Transformer:
        """Fine-tunes the model under a genome's factors, or continues where that was stopped.

        Up to the train length the encoding is RoPE; the short ones of mixed windows are read so.
        """
        plan, folder = self.plan, self.folder / "tune" / name
        windows = [window_index(plan.corpus, plan.near)]
        if kind is MixedWindows:
            windows.append(window_index(plan.corpus, plan.train_length))
        encoding = LongRoPE(
            **shared_keywords(self.rope),
            train_length=plan.train_length,
            long_factor=genome.factors,
            start_tokens=genome.start_tokens,
            attention_factor=self._attention(plan.factor),
            short_attention_factor=1.0,
        )
        model = self.model.under(in_place_of_rope(self.model, encoding))
        start = {"digest": fingerprint(model), "factors": genome.factors}
        config = {"tune": recipe_fields(plan.tune), "seed": self.seed, "start": start}
        open_run(folder, config | {"corpus_digest": plan.corpus.digest})
        model, summary = train(
            kind(plan.tune, windows[0], model, *windows[1:]),
            plan.tune,
            self.mesh,
            seed=self.seed,
            folder=folder,
            console=self.console,
            name=f"{self.name}  tune {name}",
            start=functools.partial(further_state, model, plan.tune, self.mesh),
        )
        tokens = len(windows) * summary["tokens"]
        self.tuning.append({"name": name} | summary | {"tokens": tokens})
        return model.under(in_place_of_rope(self.model, self.rope))

    def _scores(self) -> list[dict[str, Any]]:
        """Returns a record for each row: losses in nats per token, means over documents.

        A record has ``loss`` of all tokens, ``last_loss`` of the last tokens, and ``needle_loss``
        of the answers about needles that are put into the same documents (``with_needles``), if the
        study has the stage that searches by it. Each batch is kept as soon as it is known.
        """
        plan, trials, rows = self.plan, self.plan.trials, [*self.rows.values()]
        lengths = {group: plan.tables[group].length for group in ("near", "far")}
        documents = {
            group: plan.documents(trials.split, lengths[group], trials.documents)
            for group in dict.fromkeys(row.group for row in rows)
            if group in lengths
        }
        # The last tokens of the longer documents, so that both groups score the same tokens.
        documents["short"] = documents["near"][:, -plan.train_length - 1 :]
        config: dict[str, Any] = {
            "trials": dataclasses.asdict(trials),
            "lengths": lengths,
            "corpus_digest": plan.corpus.digest,
            "found": {name: dataclasses.asdict(genome) for name, genome in self.best.items()},
            "rows": [[row.group, row.scheme, fingerprint(row.encoding)] for row in rows],
            "models": [fingerprint(row.model) for row in rows],
        }
        # Documents by group, and the first token of each loss, counted from the end.
        kinds = [(documents, {"loss": 0, "last_loss": -trials.last_tokens})]
        if "longrope2" in plan.stages:
            asking = {group: with_needles(tokens_NL) for group, tokens_NL in documents.items()}
            kinds.append((asking, {"needle_loss": -NEEDLE // 2}))
        total = sum(of_kind[row.group][:, 1:].size for row in rows for of_kind, _ in kinds)
        stored, records = Stored(self.folder / "scores.jsonl", config), []
        with (
            contextlib.closing(stored),
            stage(f"{self.name}  score", total, self.console) as advance,
        ):
            for row in rows:
                scorer = Scorer(row.model, self.mesh, trials.batch_tokens)
                record: dict[str, Any] = {"group": row.group, "scheme": row.scheme}
                record["kind"] = row.kind
                for of_kind, firsts in kinds:
                    record |= _losses(row, scorer, of_kind[row.group], firsts, stored, advance)
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


@dataclasses.dataclass(frozen=True, eq=False)
class MixedWindows(Tuning):
    """Trains a model further on long and on short windows, with half of all tokens in each.

    The model's encoding chooses by length: it is RoPE in short windows, and has LongRoPE2's factors
    in long ones. The paper packs short documents into one long sequence under a mask; here they are
    rows of their own, which is the same. Each long window comes with as many short ones, of the
    training length, as together have its number of tokens.
    """

    short: WindowIndex

    def batch(self, seed, step, part, parts):
        rows = self.recipe.batch_size * (self.recipe.length // self.short.length)
        short = train_batch(self.short, rows, seed, step, part, parts)
        return {"long": super().batch(seed, step, part, parts), "short": short}

    def loss(self, model, batch, key):
        sides = [token_losses(model, batch[name], key=key).mean() for name in ("long", "short")]
        return jnp.mean(jnp.stack(sides))
