"""Compares all schemes, each trained over several seeds and evaluated past its length.

Position interpolation, NTK and YaRN are evaluated on a trained RoPE; see
``experiments/running/study.py``.
"""

import dataclasses
import functools
from pathlib import Path
from typing import Any

from flax import nnx
from ml_collections import ConfigDict, FrozenConfigDict
from rich.console import Console

from experiments.config import own_defaults
from experiments.evaluation import lengths
from experiments.progress import stage
from experiments.results import lengths as lengths_of_texts
from experiments.results.table import select
from experiments.running.points import Point, trained_points
from experiments.running.study import Study
from experiments.settings import filled, listed
from experiments.training import own_schemes
from experiments.training.corpus import SPLITS, in_split
from experiments.training.data import load_corpus
from experiments.training.encodings import as_trained, at_ratio, make_encoding
from experiments.training.loop import abstract_states
from experiments.training.mesh import check_length
from experiments.training.phases import encoding_in
from experiments.training.recipe import Recipe
from experiments.training.text import PackedText, Text, spec_of
from experiments.training.windows import Data, check_batch, eval_windows
from posenc_jax import REGISTRY, Layers, positions
from posenc_jax.registry import PATTERNS, lookup, suggest


class Comparison(Study):
    """Runs a config of ``configs/extrapolation.py``; see ``make_experiment`` for the arguments."""

    title = "Length extrapolation of positional encodings"

    def __init__(self, config: ConfigDict, workdir: Path, console: Console):
        names = listed(config.schemes)
        own_schemes.register(names)
        for name in names:
            if name not in {*REGISTRY, *config.encodings, *config.extend, "all"}:
                raise ValueError(
                    f"schemes={name!r} is no scheme, and there is no file {name}.py in "
                    f"{Path.cwd()}{suggest(name, REGISTRY)}"
                )
        super().__init__(config, workdir, console)
        self.points, self.recipe = points(config), Recipe(**config.train)
        self.protocols = filled(lengths.Protocols, "eval", config.eval)
        lengths.check_targets(self.protocols.last_tokens, self.recipe.length)
        self.corpus = load_corpus(config.corpus)
        self.data = filled(Data, "data", config.get("data", {}))
        self.windows = self.data.index(self.corpus, self.recipe.length)
        length, count = self.protocols.document_length(self.recipe.length), self.protocols.documents
        self.documents = {
            split: eval_windows(self.corpus, split, length=length, count=count)
            for split in SPLITS
            if split in self.protocols.splits and in_split(self.corpus, split).any()
        }
        for split in {*self.protocols.splits}.difference(self.documents):
            console.print(f"{self.corpus.name} has no document in eval.splits={split!r}: left out")
        if not self.documents:
            raise ValueError(
                f"corpus {self.corpus.name} has no documents in {self.protocols.splits}; give "
                "eval.splits others"
            )
        self.check()
        for split, windows_NL in self.documents.items():
            if len(windows_NL) < self.protocols.documents:
                console.print(
                    f"eval.documents={self.protocols.documents}, but {split} has only "
                    f"{len(windows_NL)} windows of {windows_NL.shape[1]} tokens: these are scored"
                )
        if config.schemes.strip() == "all":
            layers = config.model.num_layers
            for name in PATTERNS:
                if not any(point.scheme == name for point in self.points):
                    console.print(
                        f"{name} is left out: it does not divide model.num_layers={layers}"
                    )

    def check(self):
        super().check()
        for point in {point.scheme: point for point in self.points}.values():
            self._check_phases(point)
        for name in {name for point in self.points for name in point.extensions}:
            self._check_keywords(name)
            self._extension(name, self.protocols.multiples[-1])

    def _check_phases(self, point):
        """Raises a ValueError if a phase of a point does not fit the mesh, the data or the model.

        Without phases, the whole run is one.
        """
        task = self.task(point)
        for number, phase in enumerate(task.recipe.parts):
            recipe = task.recipe.in_phase(number)
            self.check_recipe(recipe, f"train.phases[{number}]" if task.recipe.phases else "train")
            check_length(recipe.length, self.mesh)
            check_batch(self.windows.at(recipe.length), recipe.batch_size)
            longest = max(recipe.length, self.protocols.multiples[-1] * self.recipe.length)
            self._check_positions(point.scheme, phase, longest)
        if task.recipe.phases:
            abstract_states(task, task.recipe, self.mesh)

    def _check_keywords(self, name):
        """Raises a ValueError for a keyword of an extension that another field decides."""
        given, extend = self.config["encodings"][name], self.config["extend"][name]
        defaults = own_defaults(given.get("name", name))
        for key, used in self._extension_config(name).items():
            if given.get(key, used) not in (used, defaults.get(key)):
                of = extend["of"]
                field = f"extend.{name}.{key}" if key in extend else f"encodings.{of}.{key}"
                raise ValueError(
                    f"encodings.{name}.{key}={given[key]!r} has no effect, because {name} is "
                    f"evaluated on a trained {of}: change {field}"
                )

    def _check_positions(self, scheme, phase, longest):
        """Raises a ValueError if a scheme cannot read texts as long as the longest.

        Within a compiled step, where positions have no values, it could only give NaN. Limits are
        on the largest position and on the length, and the last token alone has both.
        """
        spec, length = self._spec(scheme), self.recipe.length
        made = encoding_in(phase, spec.encoding, spec.model, length, nnx.Rngs(0))
        places: Any = positions.text(longest)[:, -1:]
        for encoding in Layers.of(made).distinct:
            try:
                encoding.at(places)
            except ValueError as error:
                which = f"{scheme} under the longest of eval.multiples"
                raise ValueError(f"{which}: {error}") from None

    def task(self, point):
        parts: Any = self.recipe, self.windows, self._spec(point.scheme)
        if self.data.packing == "none":
            return Text(*parts)
        return PackedText(*parts, restart=self.data.restart)

    def describe(self, point):
        model = self._spec(point.scheme).to_dict()
        file = own_schemes.digest(point.scheme)
        more: dict[str, Any] = {"own_file": file} if file else {}
        if self.data.packing != "none":  # runs that are older than this field were not packed
            more["data"] = self.config["data"]
        return model | self.corpus.described | self.recipe_and_seed(point) | more

    def describe_evaluation(self, point):
        extend = {name: self._extension_config(name) for name in point.extensions}
        return {"eval": self.config["eval"], "extend": extend}

    def evaluate(self, point, model):
        length, protocols = self.recipe.length, self.protocols
        # Extensions are built for each length separately.
        reads_length = any(encoding.reads_length() for encoding in model.distinct())
        adapts = {scheme: scheme != point.scheme or reads_length for scheme in point.schemes}
        work = sum(lengths.work(protocols, length, adapt) for adapt in adapts.values())
        records, curves = [], []
        total = len(self.documents) * work
        with stage(f"{point.name}  evaluate", total, self.console) as advance:
            score = lengths.Scorer(model, self.mesh, protocols.batch_tokens, advance)
            for scheme in point.schemes:
                extended = scheme != point.scheme
                at = functools.partial(self._extension, scheme) if extended else lambda _: None
                for split, texts in self.documents.items():
                    scored, curve = lengths.evaluate(
                        score, texts, protocols, length, at, adapts[scheme]
                    )
                    where = {"scheme": scheme, "seed": point.seed, "split": split}
                    records += self.in_units(scored, where)
                    curves.append(where | curve)
        return {"records": records, "curves": curves}

    def in_units(self, scored: list[dict], where: dict[str, Any]) -> list[dict]:
        """Returns records of losses, with ``where`` they are from and the losses in other units."""
        size = self.corpus.bytes_per_token
        return [where | record | lengths.in_other_units(record["loss"], size) for record in scored]

    def print_point(self, point, evaluation):
        lengths.print_losses(point.schemes, evaluation["records"], self.console)

    def _spec(self, scheme) -> FrozenConfigDict:
        encoding = {"name": scheme} | self.config["encodings"].get(scheme, {})
        return spec_of(encoding, self.config["model"], vocab_size=self.corpus.vocab_size)

    def keywords(self, scheme: str, multiple: int) -> dict[str, Any]:
        """Returns the keywords of a scheme at ``multiple`` times the training length."""
        is_trained = any(point.scheme == scheme for point in self.points)
        trained = self.config["encodings"].get(scheme)
        keywords = trained if is_trained else self._extension_config(scheme)
        return at_ratio(keywords, multiple, self.recipe.length)

    def _extension(self, name, multiple):
        """Builds the encoding that extends a trained one to ``multiple`` times its length."""
        encoding = {"name": name} | self.keywords(name, multiple)
        return make_encoding(encoding, self.config["model"], self.recipe.length, rngs=None)

    def _extension_config(self, name) -> dict[str, Any]:
        """Returns an extension's keywords; keywords of the trained scheme keep trained values."""
        encodings, extend = self.config["encodings"], self.config["extend"][name]
        trained = encodings[extend["of"]]
        shared = as_trained(encodings[name].get("name", name), trained)
        chosen = {key: value for key, value in extend.items() if key != "of"}
        return encodings[name] | shared | chosen

    def about(self, command):
        return super().about(command) | self.about_corpus(self.corpus)

    def frame(self):
        records, curves = self.all_of("records"), self.all_of("curves")
        return lengths_of_texts.tidy(self.config["experiment"], records, curves)

    def comparisons(self, frame):
        return lengths_of_texts.comparisons(frame, self.extensions())

    def extensions(self) -> set[str]:
        """Returns the schemes that read a model which another scheme has trained."""
        return {name for point in self.points for name in point.extensions}

    @property
    def shown(self) -> lengths_of_texts.Shown:
        """Returns what shows the losses."""
        return lengths_of_texts.Shown(self.recipe.length, self.protocols.last_tokens)

    def tables(self, frame, comparisons):
        first, *others = (split for split in self.documents if (frame["split"] == split).any())
        return [
            *(self.shown.main(frame, comparisons, split) for split in (first, *others)),
            self.shown.perplexity(frame, first, self.corpus.bytes_per_token),
            *self.shown.others(frame, first),
        ]

    def figures(self, frame):
        first = next(split for split in self.documents if (frame["split"] == split).any())
        return {"loss_vs_length": self.shown.figure(select(frame, split=first))}


class Phased(Comparison):
    """Compares ways to train on longer texts within one run, at equally many tokens.

    A variant is a scheme of ``config.encodings`` and its phases in ``config.plans``. All variants
    are evaluated on the same texts, at multiples of ``config.train.length``.
    """

    title = "Longer texts within one run"

    def recipe_of(self, point):
        plan = self.config["plans"][point.scheme]
        return dataclasses.replace(super().recipe_of(point), phases=plan)

    def task(self, point):
        return dataclasses.replace(super().task(point), recipe=self.recipe_of(point))


def points(config: ConfigDict) -> list[Point]:
    """Returns the runs of ``config``, a point for each."""

    def fits(name):
        """Says whether a pattern of layers fits the model, as any other scheme does."""
        if name not in PATTERNS:
            return True
        encoding = {"name": name} | config.encodings[name].to_dict()
        made = make_encoding(encoding, config.model, config.train.length, rngs=None)
        return config.model.num_layers % len(Layers.of(made).pattern) == 0

    names = listed(config.schemes)
    names = list(filter(fits, REGISTRY)) if names == ["all"] else names
    for name in {*names, *config.encodings, *config.extend}:
        lookup(config.encodings.get(name, {}).get("name", name))  # a variant names its scheme
    extend = {name: extension.of for name, extension in config.extend.items()}
    return trained_points(names, extend, config.seeds, config.sweep.learning_rate)
