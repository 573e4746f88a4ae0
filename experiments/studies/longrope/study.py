"""Runs LongRoPE as an experiment: a RoPE model for each seed, the searches on it, the report."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from ml_collections import ConfigDict, FrozenConfigDict
from rich.console import Console

from experiments.pretrained.trained import Source, in_tokens_of, loader
from experiments.results.comparisons import compared, marks
from experiments.results.drawing import COLOURS, INK, SOFT, finish
from experiments.results.table import grid, select, tidy
from experiments.running.points import trained_points
from experiments.running.study import Study, recipe_fields
from experiments.settings import filled, listed
from experiments.studies.longrope.plan import Plan, Trials
from experiments.studies.longrope.search import Budget
from experiments.studies.longrope.stages import Stages
from experiments.training.data import load_corpus
from experiments.training.recipe import Recipe
from experiments.training.text import Text, spec_of
from experiments.training.windows import check_batch, window_index

SCHEME = "rope"
# What is measured, and the words for it.
MEASURES = {"loss": "all tokens", "last_loss": "last tokens", "needle_loss": "needle's answer"}


class LongRoPESearch(Study):
    """Runs a config of ``configs/longrope.py``; see ``make_experiment`` for the arguments."""

    title = "LongRoPE: searched factors"

    def __init__(self, config: ConfigDict, workdir: Path, console: Console):
        super().__init__(config, workdir, console)
        self.points = trained_points([SCHEME], {}, config.seeds)
        corpus = load_corpus(config.corpus)
        self.load = loader(self.mesh, self.config["loading"])
        if config.checkpoint:
            source = self.source(seed=0)
            train_length = source.train_length
        else:
            self.recipe = Recipe(**config.train)
            train_length = self.recipe.length
        self.plan = Plan(
            stages=tuple(listed(config.stages)),
            train_length=train_length,
            factor=config.factor,
            budget=filled(Budget, "search", config.search),
            trials=filled(Trials, "eval", config.eval),
            yarn=self.config["yarn"],
            tune=filled(Recipe, "tune", {"length": config.factor * train_length, **config.tune}),
            corpus=corpus,
        )
        self.plan.check()
        if config.checkpoint:
            self.recipe = self.plan.tune  # a given model is only tuned
            corpus = in_tokens_of(source, corpus, self.plan.longest + 1)
            self.plan = dataclasses.replace(self.plan, corpus=corpus)
        self.check()

    def check(self):
        plan = self.plan
        for split in (plan.trials.search_split, plan.trials.split):
            plan.documents(split, plan.longest, 1)  # which raises if there are none of this length
        if {"progressive", "mixed"} & set(plan.stages):
            window_index(plan.corpus, plan.near)
            self.check_recipe(plan.tune, "tune")
        if not self.config["checkpoint"]:
            self.windows = window_index(plan.corpus, self.recipe.length)
            super().check()
            check_batch(self.windows, self.recipe.batch_size)

    def source(self, seed: int) -> Source:
        return self.load(self.config["checkpoint"], seed)

    def recipe_of(self, point):
        return None if self.config["checkpoint"] else super().recipe_of(point)

    def task(self, point):
        return Text(self.recipe, self.windows, self._spec())

    def train(self, point):
        if not self.config["checkpoint"]:
            return super().train(point)
        source = self.source(point.seed)
        return source.model, source.summary

    def describe(self, point):
        """Returns all settings that decide what is trained and what searches find.

        A search that has begun must not continue with other settings.
        """
        searches = {field: self.config[field] for field in ("factor", "search", "yarn")}
        searches["eval"] = {
            field: self.config["eval"][field]
            for field in ("search_split", "search_documents", "far_documents")
        }
        searches["tune"] = recipe_fields(self.plan.tune)
        if self.config["checkpoint"]:
            source = self.source(point.seed)
            model = {"checkpoint": source.digest, "model": source.config.get("model")}
            model |= {"seed": point.seed}
        else:
            model = self._spec().to_dict() | self.recipe_and_seed(point)
        return self.plan.corpus.described | model | searches

    def describe_evaluation(self, point):
        return {field: self.config[field] for field in ("stages", "eval")}

    def evaluate(self, point, model):
        return Stages(self.plan, self, point, model).run()

    def about(self, command):
        more = {"tuning": self.all_of("tuning")}
        return super().about(command) | self.about_corpus(self.plan.corpus) | more

    def frame(self):
        plan, rows = self.plan, []
        lengths = {"near": plan.near, "far": plan.far, "short": plan.train_length}
        for evaluation in self.evaluations():
            for record in evaluation["records"]:
                row = {"seed": evaluation["training"]["seed"], "unit": "nats per token"}
                row |= {"scheme": record["scheme"], "split": record["group"]}
                row |= {"x": lengths[record["group"]]}
                measured = (name for name in MEASURES if name in record)
                rows += [row | {"measure": name, "value": record[name]} for name in measured]
        return tidy(self.config["experiment"], rows)

    def comparisons(self, frame):
        return compared(frame.assign(family="searched factors", is_error=True), "yarn")

    def tables(self, frame, comparisons):
        near, far, trained = self.plan.near, self.plan.far, self.plan.train_length
        titles = {
            "near": f"{near} tokens, {self.plan.factor}x the train length: nats per token",
            "short": f"{trained} tokens, the train length: nats per token",
            "far": f"{far} tokens, fine-tuned at {near} only: nats per token",
        }
        by_measure = comparisons.assign(x=comparisons["measure"])
        return [
            grid(
                rows.assign(x=rows["measure"]),
                title,
                best_at="loss",
                heads=MEASURES.__getitem__,
                marks=marks(by_measure, split=split),
                caption="Mean ± half of its 95 % interval over seeds, of documents that no search "
                "has read. (start) is where a search began. ▲ better and ▼ worse than yarn, after "
                "correction.",
            )
            for split, title in titles.items()
            if len(rows := select(frame, split=split))
        ]

    def figures(self, frame):
        first, *_ = self.evaluations()
        return {"searches": drawn_searches(first["searches"])}

    def _spec(self) -> FrozenConfigDict:
        encoding = {"name": SCHEME} | self.config["rope"]
        return spec_of(encoding, self.config["model"], vocab_size=self.plan.corpus.vocab_size)


def drawn_searches(searches: Sequence[Mapping[str, Any]]) -> Figure:
    """Draws a row for each search of one seed, see ``Stages.searches``.

    At the left, dots are candidates, the line is the best so far, and the dashed line is the best
    starting point. At the right is the factor of each channel pair, of the best candidate and of
    the starting points (grey).
    """
    figure = Figure(figsize=(8.8, 2.4 * len(searches) + 0.2), layout="constrained")
    rows = figure.subplots(len(searches), 2, squeeze=False)
    for (left, right), search in zip(rows, searches, strict=True):
        losses = [np.array(generation) for generation in search["losses"]]
        best = np.minimum.accumulate([generation.min() for generation in losses])
        for count, generation in enumerate(losses):
            left.plot(np.full(len(generation), count), generation, ".", color=SOFT, markersize=3)
        left.plot(best, color=INK, linewidth=1.8)
        start = min(filter(math.isfinite, search["seeds"].values()), default=best[0])
        left.axhline(start, color=COLOURS[1], linestyle="--", linewidth=1.2)
        # The plot ends as far above the best starting point as the search came below it.
        high = max(best[0], start)
        margin = (high - best[-1]) or 0.01
        left.set(ylim=(best[-1] - 0.1 * margin, high + margin))
        left.set(xlabel="generation", ylabel="nats per token")
        left.xaxis.set_major_locator(MaxNLocator(integer=True))
        left.set_title(search["search"], loc="left", fontsize=10, parse_math=False)
        for factors in search["factors"].values():
            right.plot(factors, color=SOFT, linewidth=0.8)
        right.plot(search["found"]["genome"]["factors"], color=COLOURS[0], linewidth=1.8)
        right.set(xlabel="channel pair", ylabel="factor")
        right.set_yscale("log", base=2)
        right.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        finish(left)
        finish(right)
    return figure
