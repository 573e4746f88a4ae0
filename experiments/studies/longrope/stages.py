"""Runs the stages of one model: searches, fine-tuning, and searches on the fine-tuned model.

    longrope     the paper's search, at ``factor`` times the train length
    released     the released code's search, at the same length
    longrope2    LongRoPE2's search, at the same length
    progressive  the model is fine-tuned at that length under LongRoPE's factors, and searched again
                 at ``factor`` times that length, without further fine-tuning
    short        a search on the fine-tuned model, at the train length
    mixed        the model is fine-tuned in LongRoPE2's mixed windows, under LongRoPE2's factors

All that takes long is kept in the folder of the run as soon as it is known: the losses of
candidates, checkpoints of fine-tuning, and scores. A run that was killed reads them back.
"""

import contextlib
import dataclasses
import functools
import itertools
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np

from experiments.evaluation.lengths import Scorer
from experiments.pretrained.trained import in_place_of_rope, rope_of
from experiments.progress import stage
from experiments.results.record import Stored, open_run
from experiments.running.points import Point
from experiments.running.study import Study
from experiments.studies.longrope.encoding import (
    Searched,
    attention_of,
    critical_pairs,
    factors_of,
    shared_keywords,
)
from experiments.studies.longrope.plan import NEEDLE, STAGES, Plan
from experiments.studies.longrope.search import (
    Genome,
    LongRoPE2Space,
    ReleasedSpace,
    Space,
    evolve,
    remembered,
)
from experiments.training.loop import train
from experiments.training.step import further_state
from experiments.training.text import Tuning, token_losses
from experiments.training.windows import WindowIndex, train_batch, window_index
from posenc_jax import Transformer
from posenc_jax.encodings.rotary.longrope import LongRoPE
from posenc_jax.encodings.rotary.rope import RoPE

# Takes documents, and returns the losses of their tokens.
Score = Callable[[np.ndarray], np.ndarray]


def text_loss(score: Score, tokens_NL: np.ndarray) -> float:
    """Returns the mean loss of all tokens of documents in nats, by which the paper searches."""
    return float(score(tokens_NL).mean())


def needle_loss(score: Score, tokens_NL: np.ndarray) -> float:
    """Returns the mean loss of the answers alone, as in LongRoPE2, see ``with_needles``."""
    return float(score(with_needles(tokens_NL))[:, -NEEDLE // 2 :].mean())


def with_needles(tokens_NL: np.ndarray) -> np.ndarray:
    """Returns documents that begin with a needle and end with a question about it.

    A needle is a sequence of tokens drawn at random from all documents. The document ends with the
    needle again: its first half asks, and its second half is the answer, ``NEEDLE // 2`` tokens. A
    needle needs no words, so it works for bytes and for any vocabulary.
    """
    N, L = tokens_NL.shape
    rng = np.random.Generator(np.random.Philox(0))
    needles = rng.choice(tokens_NL.reshape(-1), (N, NEEDLE))
    return np.concatenate([needles, tokens_NL[:, : L - 2 * NEEDLE], needles], axis=1)


class Stages:
    """Extends one model under one seed, and holds the results so far.

    Attributes:
      rows: the models to score, by table and name, each with the encoding that it is under then.
        Tables are "near", the length of the first extension, "far", that of the second, and
        "short", the train length.
      searches: for each search its name, seeds, losses by generation, and the best candidate.
      tuning: for each fine-tuned model its name, and the summary of ``train``.
      best: the best genome of each search.
      tuned: the model after the fine-tuning of the stage ``progressive``.
    """

    def __init__(self, plan: Plan, study: Study, point: Point, model: Transformer):
        self.plan, self.seed, self.name = plan, point.seed, point.name
        self.folder = study.folder(point)
        self.mesh, self.console = study.mesh, study.console
        self.model, self.rope = model, rope_of(model, point.name)
        self.rows: dict[tuple[str, str], tuple[Transformer, RoPE]] = {}
        self.searches: list[dict[str, Any]] = []
        self.tuning: list[dict[str, Any]] = []
        self.best: dict[str, Genome] = {}
        self.tuned = model

    def run(self) -> dict[str, Any]:
        """Runs all stages of the plan and returns the results, as values of JSON."""
        self._row("short", "rope", self.model, self.rope)
        self._row("near", "rope", self.model, self.rope)
        for name, rule in self.plan.rules(self.plan.train_length).items():
            encoding = RoPE(**shared_keywords(self.rope), frequencies=rule)
            self._row("near", name, self.model, encoding)
        for name in STAGES:
            if name in self.plan.stages:
                getattr(self, f"_{name}")()
        return {"records": self._scores(), "searches": self.searches, "tuning": self.tuning}

    def _longrope(self):
        seeds = self._factors(self.plan.train_length)
        space = Space(seeds, 1.25 * self.plan.factor, self.plan.budget, 0, self._most_start_tokens)
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
        self._row("near", "longrope, tuned", self.tuned, self._under(first, plan.factor))
        # The known methods and the search extend the tuned model, whose pairs are slower already.
        seeds = {
            name: factors * np.array(first.factors)
            for name, factors in self._factors(plan.near).items()
        }
        largest = 1.25 * plan.factor * max(first.factors[-1], plan.factor)
        starts = first.start_tokens, self._most_start_tokens
        space = Space(seeds, largest, plan.budget.halved(), *starts)
        for name, rule in plan.rules(plan.near).items():
            attention = attention_of(self.rope, rule) * self._attention(plan.factor)
            method = Searched.of(self.rope, space.seeds[name], attention)
            self._row("far", name, self.tuned, method)
        self._search("progressive", "far", self.tuned, space)

    def _short(self):
        plan, factors = self.plan, np.array(self.best["longrope"].factors)
        shares = {f"1/{part} of long": 1 + (factors - 1) / part for part in (4, 2)}
        seeds = {"rope": np.ones_like(factors)} | shares
        # Smaller bounds than for long contexts, as in the paper: there is less to interpolate.
        largest = max(1 + (factors[-1] - 1) / 2, 1 + 10 * plan.budget.step)
        space = Space(seeds, largest, plan.budget.halved(), 0, self._most_start_tokens)
        long = self._under(self.best["longrope"], plan.factor)
        self._row("short", "tuned, long factors", self.tuned, long)
        self._search("short", "short", self.tuned, space)

    def _mixed(self):
        genome = self.best["longrope2"]
        model = self._tune("mixed", MixedWindows, genome)
        under = self._under(genome, self.plan.factor)
        self._row("near", "longrope2, mixed", model, under)
        self._row("short", "longrope2, mixed", model, self.rope)

    @property
    def _most_start_tokens(self) -> int:
        """Returns the most tokens at the start that stay as in RoPE: a 16th of the train length."""
        return self.plan.train_length // 16

    def _row(self, group, scheme, model, encoding):
        self.rows.setdefault((group, scheme), (model, encoding))

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

    def _read(self, group: str) -> tuple[np.ndarray, int]:
        """Returns the documents that the searches of a table read, and its times the length."""
        plan, trials = self.plan, self.plan.trials
        length, count, times = {
            "near": (plan.near, trials.search_documents, plan.factor),
            "far": (plan.far, trials.far_documents, plan.factor**2),
            # As many tokens as in longer documents.
            "short": (plan.train_length, trials.search_documents * plan.factor, plan.factor),
        }[group]
        return plan.documents(trials.search_split, length, count), times

    def _search(self, name: str, group: str, model: Transformer, space: Space, loss=text_loss):
        """Searches, or continues a search that was stopped, and adds its rows and its result."""
        budget, (documents_NL, times) = space.budget, self._read(group)

        def fitness(genome):
            return loss(self._score(model, self._under(genome, times)), documents_NL)

        path = self.folder / "search" / name / "losses.jsonl"
        with (
            contextlib.closing(Stored(path, {"search": name})) as stored,
            stage(f"{self.name}  {name}", budget.candidates, self.console) as advance,
        ):
            fitness = remembered(fitness, stored, advance)
            generations = list(evolve(space, budget, fitness, self.seed))
        best = min(itertools.chain(*generations), key=lambda one: one.loss)
        self.best[name] = best.genome
        self.searches.append(
            {
                "search": name,
                "seeds": {o.origin: o.loss for o in generations[0] if o.origin in space.seeds},
                "losses": [[one.loss for one in generation] for generation in generations],
                "found": dataclasses.asdict(best),
                "factors": {seed: genome.factors for seed, genome in space.seeds.items()},
            }
        )
        # The table of short texts has rows of the model before it was tuned too.
        prefix = "tuned, " if group == "short" else ""
        for seed, genome in space.seeds.items():
            self._row(group, f"{prefix}{seed} (start)", model, self._under(genome, times))
        self._row(group, prefix + name, model, self._under(best.genome, times))

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
            factor=float(plan.factor),
            long_factor=genome.factors,
            start_tokens=genome.start_tokens,
            attention_factor=self._attention(plan.factor),
            short_attention_factor=1.0,
        )
        model = self.model.under(in_place_of_rope(self.model, encoding))
        open_run(folder, {"tuned": name, "factors": genome.factors})
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
        study has the stage that searches by it.
        """
        plan, trials, records = self.plan, self.plan.trials, []
        config = {"stages": plan.stages, "trials": dataclasses.asdict(trials)}
        with (
            contextlib.closing(Stored(self.folder / "scores.jsonl", config)) as stored,
            stage(f"{self.name}  score", len(self.rows), self.console) as advance,
        ):
            for (group, scheme), row in self.rows.items():
                score = functools.partial(self._losses, group, *row)
                record = {"group": group, "scheme": scheme}
                records.append(record | stored.get(f"{group}, {scheme}", score))
                advance(scheme)
        return records

    def _losses(self, group: str, model: Transformer, encoding: RoPE) -> dict[str, float]:
        plan, trials = self.plan, self.plan.trials
        length = plan.far if group == "far" else plan.near
        documents_NL = plan.documents(trials.split, length, trials.documents)
        if group == "short":
            # The last tokens of the longer documents, so that both tables score the same tokens.
            documents_NL = documents_NL[:, -plan.train_length - 1 :]
        score = self._score(model, encoding)
        losses_NL = score(documents_NL)
        last_NL = losses_NL[:, -trials.last_tokens :]
        numbers = {"loss": float(losses_NL.mean()), "last_loss": float(last_NL.mean())}
        if "longrope2" in plan.stages:
            numbers["needle_loss"] = needle_loss(score, documents_NL)
        return numbers

    def _score(self, model: Transformer, encoding: RoPE) -> Score:
        scorer = Scorer(model, self.mesh, self.plan.trials.batch_tokens)
        return functools.partial(scorer, encoding=in_place_of_rope(model, encoding))


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
