"""Runs LongRoPE as an experiment: a RoPE model for each seed, the searches on it, the report."""

import dataclasses
from pathlib import Path

from ml_collections import ConfigDict, FrozenConfigDict
from rich.console import Console

from experiments.pretrained.trained import Loader, Source, in_tokens_of
from experiments.results.reports import search_report
from experiments.results.searches import SearchStudy
from experiments.running.points import trained_points
from experiments.running.sweep import Sweep, recipe_fields
from experiments.settings import filled
from experiments.studies.longrope.plan import Plan, Trials
from experiments.studies.longrope.search import Budget
from experiments.studies.longrope.stages import Stages
from experiments.training.data import load_corpus
from experiments.training.mesh import make_mesh
from experiments.training.recipe import Recipe
from experiments.training.text import Text, spec_of
from experiments.training.windows import check_batch, window_index

SCHEME = "rope"


class LongRoPESearch(Sweep):
    """Runs a config of ``configs/longrope.py``; see ``make_experiment`` for the arguments."""

    report = search_report

    def __init__(self, config: ConfigDict, workdir: Path, console: Console):
        mesh, points = make_mesh(**config.mesh), trained_points([SCHEME], {}, config.seeds)
        corpus = load_corpus(config.corpus)
        self.config = config.to_dict()  # which the methods called below read
        self.load = Loader(mesh, self.config["loading"])
        if config.checkpoint:
            source = self.source(seed=0)
            recipe, train_length = None, source.train_length
        else:
            recipe = Recipe(**config.train)
            train_length = recipe.length
        self.plan = Plan(
            stages=tuple(name.strip() for name in config.stages.split(",")),
            train_length=train_length,
            factor=config.factor,
            budget=filled(Budget, "search", config.search),
            trials=filled(Trials, "eval", config.eval),
            yarn=config.yarn.to_dict(),
            tune=Recipe(length=max(config.factor, 1) * train_length, **config.tune),
            corpus=corpus,
            mesh=mesh,
            console=console,
        )
        self.plan.check_lengths()
        if config.checkpoint:
            corpus = in_tokens_of(source, corpus, self.plan.longest + 1)
            self.plan = dataclasses.replace(self.plan, corpus=corpus)
        self.plan.check_documents()
        # A given model is only tuned.
        recipe = recipe or self.plan.tune
        super().__init__(self.config, points, recipe, mesh, workdir, console)
        self.check()

    def check(self):
        if not self.config["checkpoint"]:
            self.windows = window_index(self.plan.corpus, "train", self.recipe.length)
            super().check()
            check_batch(self.windows, self.recipe.batch_size)
        if {"progressive", "mixed"} & set(self.plan.stages):
            self.check_recipe(self.plan.tune, "tune")

    def source(self, seed: int) -> Source:
        """Returns the given model of a seed."""
        return self.load(self.config["checkpoint"], seed)

    def recipe_of(self, point):
        return None if self.config["checkpoint"] else super().recipe_of(point)

    def task(self, point):
        return Text(self.recipe, self.windows, self._spec())

    def train(self, point):
        if not self.config["checkpoint"]:
            return super().train(point)
        model = self.source(point.seed).model
        return model, {"steps": 0, "tokens": 0, "seconds": 0.0, "final_loss": None}

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
        if not self.config["checkpoint"]:
            return super().describe(point) | searches
        source = self.source(point.seed)
        given = {"checkpoint": source.digest, "model": source.config.get("model")}
        return self.plan.corpus.described | {"seed": point.seed} | given | searches

    def describe_training(self, scheme):
        return self._spec().to_dict() | self.plan.corpus.described

    def describe_evaluation(self, point):
        return {field: self.config[field] for field in ("stages", "eval")}

    def evaluate(self, point, model):
        folder = self.folder(point)
        return Stages(self.plan, model, folder, point.seed, point.name).run()

    def print_point(self, point, evaluation):
        for search in evaluation["searches"]:
            seeds = ", ".join(f"{name} {loss:.4f}" for name, loss in search["seeds"].items())
            self.console.print(
                f"  {search['search']:<12} {search['found']['loss']:.4f}  from  {seeds}",
                highlight=False,
            )

    def study(self, command):
        evaluations, training, failures = self.results()
        about = self.about(command) | {
            "train_length": self.plan.train_length,
            "factor": self.plan.factor,
            "last_tokens": self.plan.trials.last_tokens,
            "trials": dataclasses.asdict(self.plan.trials),
            "scored": self.plan.scored(),
            "source": self.config["checkpoint"] or "trained here",
        }
        about |= self.about_corpus(self.plan.corpus)
        training = [run for run in training if run["tokens"]]
        records, searches, tuning = (
            [{"seed": run["training"]["seed"]} | one for run in evaluations for one in run[key]]
            for key in ("records", "searches", "tuning")
        )
        return SearchStudy(records, training, failures, about, searches, tuning)

    def _spec(self) -> FrozenConfigDict:
        encoding = {"name": SCHEME} | self.config["rope"]
        return spec_of(encoding, self.config["model"], self.plan.corpus)
