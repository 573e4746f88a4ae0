"""Runs LongRoPE as an experiment: a RoPE model for each seed, the searches on it, the report."""

import dataclasses
from pathlib import Path
from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict, FrozenConfigDict
from rich.console import Console

from experiments.evaluation.lengths import check_targets
from experiments.pretrained.trained import Source, in_tokens_of, loader
from experiments.results.reports import search_report
from experiments.results.searches import SearchStudy
from experiments.running.points import trained_points
from experiments.running.sweep import Sweep, recipe_fields
from experiments.settings import filled, one_of
from experiments.studies.longrope.fitness import NEEDLE
from experiments.studies.longrope.search import Budget
from experiments.studies.longrope.stages import STAGES, Stages
from experiments.training.data import load_corpus
from experiments.training.mesh import make_mesh
from experiments.training.recipe import Recipe
from experiments.training.text import Text, spec_of
from experiments.training.windows import check_batch, eval_windows, window_index
from posenc_jax.encodings.rotary.frequencies.base import Frequencies
from posenc_jax.encodings.rotary.frequencies.ntk import NTK
from posenc_jax.encodings.rotary.frequencies.pi import PositionInterpolation
from posenc_jax.encodings.rotary.frequencies.yarn import YaRN

SCHEME = "rope"
# The stage whose result each of these stages begins with.
_NEEDS = {"progressive": "longrope", "short": "progressive", "mixed": "longrope2"}


@dataclasses.dataclass(frozen=True)
class Trials:
    """Says which documents searches read, and on which documents their results are scored.

    Attributes:
      search_split: the part of the corpus that all searches read.
      search_documents: how many documents a search reads; a search at the train length reads as
        many tokens, in more documents.
      far_documents: how many documents a search at the second extension reads.
      split: the part of the corpus that all scores are computed on.
      documents: how many documents a score is computed on.
      last_tokens: how many tokens at the end of a document the score ``last_loss`` is computed on.
      batch_tokens: tokens of one forward pass, over all devices.
    """

    search_split: str = "validation"
    search_documents: int = 5
    far_documents: int = 3
    split: str = "test"
    documents: int = 32
    last_tokens: int = 256
    batch_tokens: int = 65536

    def __post_init__(self):
        if self.search_split == self.split:
            raise ValueError(
                f"eval.search_split={self.search_split!r} must be another split than eval.split: a "
                "score on documents that a search has read says nothing"
            )


class Table(NamedTuple):
    """Says what searches read whose results are in one table.

    Attributes:
      length, documents: the tokens and the number of the documents.
      times: how many times longer than in training the model is made.
      prefix: what the names of rows begin with, if the table has rows of other models too.
    """

    length: int
    documents: int
    times: int
    prefix: str = ""


class LongRoPESearch(Sweep):
    """Runs a config of ``configs/longrope.py``; see ``make_experiment`` for the arguments.

    Attributes:
      stages: some of ``STAGES``.
      train_length: the tokens that the model was trained at.
      factor: the factor by which each extension multiplies the length.
      budget: the budget of searches on the model; on the fine-tuned model it is ``halved``.
      trials: the documents.
      tune: the recipe of all fine-tuning.
      corpus: the documents, in the tokens of the model.
    """

    report = search_report

    def __init__(self, config: ConfigDict, workdir: Path, console: Console):
        mesh, points = make_mesh(**config.mesh), trained_points([SCHEME], {}, config.seeds)
        self.corpus = load_corpus(config.corpus)
        self.config = config.to_dict()  # which the methods called below read
        self.load = loader(mesh, self.config["loading"])
        if config.checkpoint:
            source = self.source(seed=0)
            recipe, self.train_length = None, source.train_length
        else:
            recipe = Recipe(**config.train)
            self.train_length = recipe.length
        self.stages = tuple(name.strip() for name in config.stages.split(","))
        self.factor = config.factor
        self.budget = filled(Budget, "search", config.search)
        self.trials = filled(Trials, "eval", config.eval)
        self.tune = Recipe(length=max(config.factor, 1) * self.train_length, **config.tune)
        # A given model is only tuned.
        super().__init__(self.config, points, recipe or self.tune, mesh, workdir, console)
        self.check_lengths()
        if config.checkpoint:
            self.corpus = in_tokens_of(source, self.corpus, self.longest + 1)
        self.check()

    def check(self):
        for split in (self.trials.search_split, self.trials.split):
            self.documents(split, self.longest, 1)  # which raises if there are none of this length
        if {"progressive", "mixed"} & set(self.stages):
            window_index(self.corpus, self.near)
            self.check_recipe(self.tune, "tune")
        if not self.config["checkpoint"]:
            self.windows = window_index(self.corpus, self.recipe.length)
            super().check()
            check_batch(self.windows, self.recipe.batch_size)

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
        searches["tune"] = recipe_fields(self.tune)
        if self.config["checkpoint"]:
            source = self.source(point.seed)
            model = {"checkpoint": source.digest, "model": source.config.get("model")}
            model |= {"seed": point.seed}
        else:
            model = self._spec().to_dict() | self.how(point)
        return self.corpus.described | model | searches

    def describe_evaluation(self, point):
        return {field: self.config[field] for field in ("stages", "eval")}

    def evaluate(self, point, model):
        folder = self.folder(point)
        return Stages(self, model, folder, point.seed, point.name).run()

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
            "train_length": self.train_length,
            "factor": self.factor,
            "last_tokens": self.trials.last_tokens,
            "trials": dataclasses.asdict(self.trials),
            "scored": self.scored(),
            "source": self.config["checkpoint"] or "trained here",
        }
        about |= self.about_corpus(self.corpus)
        training = [run for run in training if run["tokens"]]
        records, searches, tuning = (
            [{"seed": run["training"]["seed"]} | one for run in evaluations for one in run[key]]
            for key in ("records", "searches", "tuning")
        )
        return SearchStudy(records, training, failures, about, searches, tuning)

    def _spec(self) -> FrozenConfigDict:
        encoding = {"name": SCHEME} | self.config["rope"]
        return spec_of(encoding, self.config["model"], self.corpus)

    @property
    def near(self) -> int:
        """Returns the length of the first extension."""
        return self.factor * self.train_length

    @property
    def far(self) -> int:
        """Returns the length of the second extension."""
        return self.factor * self.near

    @property
    def tables(self) -> dict[str, Table]:
        """Returns the tables by their keys in ``results.searches.GROUPS``."""
        documents, factor = self.trials.search_documents, self.factor
        return {
            "near": Table(self.near, documents, factor),
            "far": Table(self.far, self.trials.far_documents, factor**2),
            # As many tokens as in longer documents.
            "short": Table(self.train_length, documents * factor, factor, "tuned, "),
        }

    @property
    def most_start_tokens(self) -> int:
        """Returns the most tokens at the start that stay as in RoPE: a 16th of the train length."""
        return self.train_length // 16

    @property
    def longest(self) -> int:
        """Returns the number of tokens of the longest documents that are read."""
        return self.far if "progressive" in self.stages else self.near

    def check_lengths(self) -> None:
        """Raises a ValueError for impossible stages or lengths, before any document is read."""
        for name in self.stages:
            one_of("stages", name, STAGES)
            if _NEEDS.get(name, name) not in self.stages:
                raise ValueError(
                    f"the stage {name} begins with the result of {_NEEDS[name]}: add that to stages"
                )
        if self.factor < 2:
            raise ValueError(
                f"factor={self.factor} makes the target {self.near} tokens, and it must be longer "
                f"than the train length of {self.train_length}: give a factor of 2 or more"
            )
        if "longrope2" in self.stages and self.train_length < 2 * NEEDLE:
            raise ValueError(
                f"the stage longrope2 hides needles of {NEEDLE} tokens, too long for the train "
                f"length of {self.train_length}: give a longer one, or leave the stage out"
            )
        check_targets(self.trials.last_tokens, self.train_length)
        self.rules(self.train_length)
        if self.mesh.shape["context"] > 1:
            raise ValueError(
                f"mesh.context={self.mesh.shape['context']} spreads tokens over devices, but a "
                "search spreads candidates: let it be 1"
            )

    def documents(self, split: str, length: int, count: int) -> np.ndarray:
        """Returns documents of a split, the same every time, int ``[N, length + 1]``."""
        return eval_windows(self.corpus, split, length=length + 1, count=count)

    def scored(self) -> dict[int, int]:
        """Returns on how many documents scores are computed, by the tokens of a document.

        The split may have fewer documents than ``trials`` asks for.
        """
        lengths, trials = sorted({self.near, self.longest}), self.trials
        return {n: len(self.documents(trials.split, n, trials.documents)) for n in lengths}

    def rules(self, length: int) -> dict[str, Frequencies]:
        """Returns the known methods by name, for an extension of ``length`` by ``factor``."""
        return {
            "pi": PositionInterpolation(float(self.factor)),
            "ntk": NTK(float(self.factor)),
            "yarn": YaRN(length, float(self.factor), **self.config["yarn"]),
        }
