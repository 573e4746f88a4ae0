"""Extends one trained RoPE model by every method, and evaluates it before and after fine-tuning.

The model is trained here, once for each seed, or given as ``config.checkpoint``. It is evaluated
under every method at every length without tuning (*zero-shot*), then tuned under some of the
methods, and evaluated again. ``evaluations.py`` defines the evaluations, ``encodings.py`` the
methods.
"""

import contextlib
import dataclasses
import functools
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict, FrozenConfigDict
from rich.console import Console

from experiments.evaluation.lengths import Scorer, in_other_units, print_losses
from experiments.pretrained.trained import Source, in_tokens_of, loader
from experiments.progress import stage
from experiments.results.comparisons import compared, marks
from experiments.results.drawing import curves
from experiments.results.extensions import LAST, PLAIN, SHORT, THROUGH_WINDOW, tidy
from experiments.results.lengths import WINDOWED
from experiments.results.record import RefusedError, Stored, as_json, differences
from experiments.results.table import grid, means, select
from experiments.running.points import Point, trained_points
from experiments.running.study import Study, recipe_fields
from experiments.settings import filled, names_in
from experiments.studies.extension.encodings import Methods
from experiments.studies.extension.evaluations import Documents, Evaluation, Trials
from experiments.training import text
from experiments.training.checkpoint import fingerprint
from experiments.training.corpus import SPLITS
from experiments.training.data import load_corpus
from experiments.training.mesh import check_length, state_shardings
from experiments.training.recipe import Recipe
from experiments.training.step import further_state
from experiments.training.windows import check_batch, window_index


@dataclasses.dataclass(frozen=True)
class Tuned(Point):
    """Describes one fine-tuning run, of so many optimizer steps."""

    steps: int

    @property
    def name(self):
        return f"{self.scheme}/steps{self.steps}/seed{self.seed}"

    @property
    def label(self):
        return f"{self.scheme}, {self.steps} steps"


class Extension(Study):
    """Runs a config of ``configs/extension.py``; see ``make_experiment`` for the arguments."""

    title = "A trained model made longer"

    def __init__(self, config: ConfigDict, workdir: Path, console: Console):
        super().__init__(config, workdir, console)
        self.points = points(config)
        trials = filled(Trials, "eval", config.eval)
        self.training = Recipe(**config.train) if config.get("train") else None
        self.corpus = load_corpus(config.corpus)
        self.load = loader(self.mesh, self.config.get("loading"))
        if config.checkpoint:
            source = self.source(seed=0)
            self._check_source(source)
            times = 1 if config.tuned else trials.multiples[-1]
            self.corpus = in_tokens_of(source, self.corpus, source.train_length * times)
            if source.tokenizer is not None and not config.tuned:  # all documents are for tests
                splits = np.full_like(self.corpus.splits, SPLITS.index("test"))
                self.corpus = dataclasses.replace(self.corpus, splits=splits)
            # Only the model's shapes are kept, because each seed may have a model of its own.
            model, length = jax.eval_shape(lambda x: x, source.model), source.train_length
        elif self.training is None:
            raise ValueError(
                "this preset trains no model of its own: give --config.checkpoint=PATH, the folder "
                "of a finished run or a published model"
            )
        else:
            length = self.training.length
            build = functools.partial(text.make_model, spec=self._spec(), length=length)
            model = jax.eval_shape(build, jax.random.key(0))
        self.methods = Methods(self.config["variants"], model, length)
        if config.target not in trials.multiples[1:]:
            raise ValueError(
                f"target={config.target} means {config.target} x {length} tokens, but must be "
                f"longer than the trained length {length}, and one of eval.lengths: "
                f"{trials.multiples[1:]}"
            )
        self.trials, self.documents = trials, Documents(self.corpus, trials, length)
        self.recipe = self._tuning(config.target, max(config.tuning_steps))
        lengths = {recipe.length for recipe in filter(None, map(self.recipe_of, self.points))}
        self.windows = {length: window_index(self.corpus, length) for length in lengths}
        self.check()

    def check(self):
        config = self.config
        names = dict.fromkeys(name for point in self.points for name in point.schemes)
        self.methods.check(names, self.trials.multiples)
        state_shardings({"model": self.methods.model}, self.mesh)
        check_length(self.methods.train_length, self.mesh)
        if self.training is not None and not config["checkpoint"]:
            self.check_recipe(self.training)
        if config["tuned"]:
            # A batch at the trained length needs no check: it is a multiple of the target's batch.
            self.check_recipe(self.recipe, "tuning")
        for recipe in set(filter(None, map(self.recipe_of, self.points))):
            check_batch(self.windows[recipe.length], recipe.batch_size)

    def stages(self):
        tuned = [point for point in self.points if isinstance(point, Tuned)]
        return [[point for point in self.points if point not in tuned], tuned]

    def source(self, seed: int) -> Source:
        """Returns the trained model of a seed, from the given checkpoint or the seed's run here."""
        given = self.config["checkpoint"]
        return self.load(given or str(self.folder(self._trained(seed))), seed)

    def _trained(self, seed: int) -> Point:
        """Returns the point of a seed's model that is not tuned yet."""
        return next(p for p in self.points if p.seed == seed and not isinstance(p, Tuned))

    def _check_source(self, source):
        """Raises a ValueError if the checkpoint does not fit the config."""
        name = self.config["checkpoint"]
        if self.training is None:
            return
        model = self.config["model"] | {"vocab_size": len(source.model.embedding)}
        changes = differences(as_json(source.config.get("model")), as_json(model), "model")
        changes += differences(source.train_length, self.training.length, "train.length")
        if changes:
            raise ValueError(
                f"the checkpoint {name} does not fit the config: {'; '.join(changes)}. Give the "
                "checkpoint's values, or the preset own, which takes them from it"
            )

    def recipe_of(self, point):
        if not isinstance(point, Tuned):
            return None if self.config["checkpoint"] else self.training
        at_target = self.config["variants"][point.scheme]["tuned_at"] == "target"
        return self._tuning(self.config["target"] if at_target else 1, point.steps)

    def _tuning(self, multiple, steps) -> Recipe:
        """Returns the recipe of tuning at a multiple of the trained length, with equal tokens."""
        how = dict(self.config["tuning"])
        rows = how.pop("batch_size") * self.config["target"] // multiple
        length = multiple * self.methods.train_length
        return filled(
            Recipe, "tuning", {"length": length, "batch_size": rows, "steps": steps} | how
        )

    def task(self, point):
        recipe = self.recipe_of(point)
        windows = self.windows[recipe.length]
        if isinstance(point, Tuned):
            return text.Tuning(recipe, windows, self._under(point, self.methods.model))
        return text.Text(recipe, windows, self._spec())

    def _under(self, point, model):
        """Returns a model under the encoding that a point is tuned under."""
        layers = self.methods.layers(point.scheme, self.config["target"])
        return model if layers is None else model.under(layers)

    def _spec(self) -> FrozenConfigDict:
        encoding = {"name": PLAIN} | self.config["rope"]
        return text.spec_of(encoding, self.config["model"], vocab_size=self.corpus.vocab_size)

    def describe(self, point):
        about, recipe = self.corpus.described | {"seed": point.seed}, self.recipe_of(point)
        if recipe is None:
            source, loading = self.source(point.seed), self.config.get("loading")
            model = {"model": source.config.get("model"), "loading": loading}
            return about | {"checkpoint": source.digest} | model
        tuned = isinstance(point, Tuned)
        model = self._describe_tuned(point) if tuned else self._spec().to_dict()
        return about | model | {"train": recipe_fields(recipe)}

    def _describe_tuned(self, point) -> dict[str, Any]:
        """Returns the start of a fine-tuning run and its encoding, without loading the model."""
        start = self._trained(point.seed)
        files = self.files(start)
        if files is None:
            raise RefusedError(
                f"{point.label} starts from {self.folder(start)}, which is not finished; run that "
                "point first"
            )
        finished, run = files
        return {
            "start": {"digest": finished["training"]["digest"]},
            "train_length": self.methods.train_length,
            "encoding": self.methods.keywords(point.scheme, self.config["target"]),
            "model": run["config"]["model"],
            "loading": run["config"].get("loading"),
        }

    def train(self, point):
        if self.recipe_of(point) is None:
            source = self.source(point.seed)
            return source.model, source.summary
        model, summary = super().train(point)
        is_start = not isinstance(point, Tuned)
        return model, summary | ({"digest": fingerprint(model)} if is_start else {})

    def first_state(self, point):
        def tuned():
            source = self.source(point.seed)
            model = self._under(point, source.model)
            return further_state(model, self.recipe_of(point), self.mesh)

        return tuned if isinstance(point, Tuned) else None

    def describe_evaluation(self, point):
        variants = {name: self.config["variants"][name] for name in point.schemes}
        about = {"eval": self.config["eval"], "target": self.config["target"]}
        return about | {"methods": variants, "corpus_digest": self.corpus.digest}

    def evaluate(self, point, model):
        target, is_tuned = self.config["target"], isinstance(point, Tuned)
        evaluations = [
            one for s in point.schemes for one in self.documents.of_method(s, target, is_tuned)
        ]
        if not is_tuned:
            evaluations.append(self.documents.windowed(PLAIN))
        records, where = [], {"steps": getattr(point, "steps", 0), "seed": point.seed}
        # The names of methods are left out, so that adding one does not evaluate the others again.
        fixed = {key: self.config[key] for key in ("eval", "variants")}
        fixed |= {"corpus_digest": self.corpus.digest}
        stored = Stored(self.folder(point) / "evaluation.jsonl", fixed)
        with (
            contextlib.closing(stored),
            stage(f"{point.name}  read", len(evaluations), self.console) as advance,
        ):
            for one in evaluations:
                # A tuned model has its encoding already.
                layers = None if is_tuned else self.methods.layers(one.scheme, one.ratio)
                # Results under the model's own encoding are the same for every method.
                under = "own" if layers is None else f"{one.scheme} for {one.ratio}x"
                name = f"{under}, {one.protocol} at {one.multiple}x"
                scored = stored.get(name, functools.partial(self._scored, one, model, layers))
                about = {"scheme": one.scheme, "split": "test", "ratio": one.ratio}
                records.append(where | about | scored)
                advance(f"{one.scheme} at {one.multiple}x")
        return {"records": records}

    def _scored(self, one: Evaluation, model, layers) -> dict[str, Any]:
        """Returns the results of an evaluation under ``layers``, by default the model's own."""
        is_short = one.protocol == SHORT
        by_token = text.token_losses_and_hits if is_short else text.token_losses
        scorer = Scorer(model, self.mesh, self.trials.batch_tokens, by_token=by_token)
        by_text = scorer(one.windows_NL, layers)[:, -one.scored :].mean(axis=1)
        # One number, the loss, or also the accuracy.
        loss, *accuracy = np.atleast_1d(by_text.mean(axis=0)).tolist()
        scored = {
            "protocol": one.protocol,
            "stride": self.trials.window_stride if one.protocol == THROUGH_WINDOW else None,
            "multiple": one.multiple,
            "length": one.windows_NL.shape[1] - 1,
            "documents": len(one.windows_NL),
            "loss": loss,
            "tokens": len(one.windows_NL) * one.scored,
        }
        scored |= {"accuracy": accuracy[0]} if is_short else {}
        return scored | in_other_units(loss, self.corpus.bytes_per_token)

    def print_point(self, point, evaluation):
        print_losses(point.schemes, evaluation["records"], self.console)

    def about(self, command):
        return super().about(command) | self.about_corpus(self.corpus)

    def frame(self):
        return tidy(self.config["experiment"], self.all_of("records"))

    def comparisons(self, frame):
        losses = select(frame, measure=LAST)
        losses = losses.assign(family="loss, " + losses["split"], is_error=True)
        # All methods are read on one model, so all count alike.
        return compared(losses, WINDOWED)

    def tables(self, frame, comparisons):
        tables = [
            grid(
                rows,
                f"After {split} of tuning: bits per byte of the last {self.trials.last_tokens} "
                "tokens",
                best_at=self.config["target"],
                heads=self._head,
                marks=marks(select(comparisons, split=split)),
                caption="Mean ± half of its 95 % interval over seeds; lower is better. ▲ better "
                f"and ▼ worse than {WINDOWED}, the plain model that sees no more than in "
                "training, after correction. Columns of other documents do not compare.",
            )
            for split, rows in select(frame, measure=LAST).groupby("split", sort=False)
        ]
        short = select(frame, measure=(SHORT, f"{SHORT} accuracy"))
        shown = grid(
            short.assign(x=short["measure"] + ", " + short["split"], measure=""),
            f"Texts of the trained length, under the encoding for {self.config['target']}x: bits "
            "per byte, and the share of tokens that are right",
        )
        return [*tables, shown]

    def _head(self, multiple):
        return f"{multiple:g}x\n{multiple * self.methods.train_length:g}"

    def figures(self, frame):
        figures = {}
        for split, rows in select(frame, measure=LAST).groupby("split", sort=False):
            best = means(select(rows, x=self.config["target"])).sort_values("mean")["scheme"]
            figures[f"loss_vs_length_{split.replace(' ', '_')}"] = curves(
                rows.assign(x=rows["x"] * self.methods.train_length),
                {*best[:4], PLAIN, WINDOWED},
                xlabel="context length in tokens",
                ylabel=f"bits per byte, after {split} of tuning",
                trained=self.methods.train_length,
            )
        return figures


def points(config: ConfigDict) -> list[Point]:
    """Returns, for each seed, the trained model evaluated under every method, then tuning runs.

    The loop over seeds is the outer one, so that a run that is cut short has complete seeds.
    """
    if config.checkpoint and config.seeds > 1 and "{seed}" not in config.checkpoint:
        raise ValueError(
            f"checkpoint={config.checkpoint} is one model, and seeds={config.seeds} would count it "
            'several times; give --config.seeds=1, or a path with "{seed}" in it'
        )
    steps = {n for n in config.tuning_steps if isinstance(n, int) and n > 0}
    if not steps or len(steps) < len(config.tuning_steps):
        raise ValueError(
            f"tuning_steps={config.tuning_steps} must be numbers of steps, each at least 1 and "
            "each once; models without tuning are always evaluated too"
        )
    zero_shot, tuned = (
        dict.fromkeys(names_in(field, config[field], config.variants))
        for field in ("methods", "tuned")
    )
    extend = {name: PLAIN for name in zero_shot if name != PLAIN}
    chosen: list[Point] = []
    for source in trained_points([PLAIN, *extend], extend, config.seeds):
        chosen.append(source)
        chosen += [Tuned(name, source.seed, (), n) for n in config.tuning_steps for name in tuned]
    return chosen
