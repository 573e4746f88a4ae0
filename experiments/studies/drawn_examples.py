"""Defines what experiments on drawn examples share: points, records and report.

Experiments on images, screens, videos and stories are in ``studies/multimodal``, on questions in
``studies/tasks``.

An experiment is one module with a subclass of ``DrawnExamples``, one config, and one line in
``experiments/registry.py``. The config has ``schemes``, a comma-separated choice of ``variants``,
or "all". A variant has the keywords of ``make`` in ``encoding``, and other settings of the
experiment, such as its positions. A variant with ``of`` is not trained, but evaluated on the
checkpoint of the variant that ``of`` names, with its own encoding instead of the trained one.
"""

import abc
import dataclasses
import functools
import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np
from flax import nnx
from ml_collections import ConfigDict
from rich.console import Console

from experiments.config import own_defaults
from experiments.evaluation.batches import in_batches
from experiments.progress import stage
from experiments.results.comparisons import compared, marks
from experiments.results.panels import Panel, Result, drawn_panels, named, tidy
from experiments.results.statistics import number
from experiments.results.table import grid, select
from experiments.running.points import trained_points
from experiments.running.study import Study
from experiments.settings import filled, names_in, one_of
from experiments.training.encodings import as_trained, make_encoding
from experiments.training.mesh import replicated, row_shards
from experiments.training.recipe import Recipe
from posenc_jax import Encoding, Layers, Transformer

Model = TypeVar("Model", bound=Transformer)


def generator(*key: int) -> np.random.Generator:
    """Returns the generator of a key of two numbers: the same key draws the same anywhere."""
    return np.random.Generator(np.random.Philox(key=np.array(key, np.uint64)))


def shuffled(count: int) -> np.ndarray:
    """Returns the numbers below ``count`` in a random order, which is always the same."""
    return np.random.Philox(key=np.uint64(0)).random_raw(count).argsort()


def digest_of(*arrays: np.ndarray) -> str:
    """Returns a digest of the bytes of arrays, which says whether runs had the same data."""
    return hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()[:16]


class DrawnTask:
    """Draws the batches of an experiment at random for one of its schemes, as a ``Task``.

    Each process of a job draws the whole batch and keeps its own rows, because a generator for each
    part would change the batches of all results that are published.
    """

    def __init__(self, experiment: "DrawnExamples", scheme: str):
        self.experiment, self.scheme = experiment, scheme

    def init(self, key):
        return self.experiment.new_model(self.scheme, key)

    def batch(self, seed, step, part, parts):
        count = self.experiment.recipe.batch_size
        whole = self.experiment.draw(self.scheme, generator(seed, step), count, step)
        size = count // parts
        return jax.tree.map(lambda x: x[part * size : (part + 1) * size], whole)

    def loss(self, model, batch, key):
        return self.experiment.loss(self.scheme, model, batch, key)


class DrawnExamples(Study, abc.ABC):
    """Runs a config such as ``configs/images.py``; see ``make_experiment`` for the arguments.

    Attributes:
      schemes: the variants that are compared.
      kinds: the dataclasses of ``config.task`` and ``config.eval``.
      setting, trials: these settings.
      builders: the functions that a variant's ``positions`` may name.
      title: the title of the report.
      baseline: the variant that the report compares all others with.
      length: tokens of a training sequence, set by ``load``.
      panels: the measurements, set by ``load``.
      data: the fields that comparable runs must share, such as a digest, set by ``load``.
    """

    kinds: tuple[type, type]
    builders: tuple[Callable[..., Any], ...] = ()
    setting: Any
    trials: Any
    title: str
    baseline: str
    length: int
    panels: tuple[Panel, ...]
    data: dict[str, Any]

    def __init__(self, config: ConfigDict, workdir: Path, console: Console):
        super().__init__(config, workdir, console)
        variants, is_all = self.config["variants"], config.schemes.strip() == "all"
        self.schemes = [*variants] if is_all else names_in("schemes", config.schemes, variants)
        extend = {name: of for name in self.schemes if (of := variants[name].get("of"))}
        setting, trials = self.kinds
        self.setting = filled(setting, "task", self.config["task"])
        self.trials = filled(trials, "eval", self.config["eval"])
        rates = config.get("sweep", {}).get("learning_rate", ())
        self.points = trained_points(self.schemes, extend, config.seeds, rates)
        self.load()
        self.recipe = Recipe(length=self.length, **config.train)
        self.check()
        for name in extend:
            self.encoding(name, None)

    @abc.abstractmethod
    def load(self) -> None:
        """Reads the data, and sets ``length``, ``panels`` and ``data``."""

    @abc.abstractmethod
    def new_model(self, scheme: str, key: jax.Array) -> Transformer:
        """Returns the model of a scheme at the start, see ``make_model``."""

    @abc.abstractmethod
    def draw(self, scheme: str, rng: np.random.Generator, count: int, step: int) -> Any:
        """Returns the examples of a training step, a pytree of arrays with examples along axis 0.

        An experiment may make them harder with the number of the step.
        """

    @abc.abstractmethod
    def loss(self, scheme: str, model: Transformer, batch: Any, key: jax.Array) -> jax.Array:
        """Returns the mean loss of examples, as the ``loss`` of a ``Task``."""

    def task(self, point):
        return DrawnTask(self, point.scheme)

    @abc.abstractmethod
    def measure(self, scheme: str, model: Transformer) -> Iterator[Result]:
        """Yields one result for every x of every panel."""

    def variant(self, scheme: str) -> dict[str, Any]:
        """Returns the variant called ``scheme``."""
        return self.config["variants"][scheme]

    def builder(self, scheme: str) -> Callable[..., Any]:
        """Returns the function that makes a variant's positions."""
        places = self.variant(scheme).get("positions", "grid")
        name = places["name"] if isinstance(places, dict) else places
        by_name = {builder.__name__: builder for builder in self.builders}
        return by_name[one_of(f"variants.{scheme}.positions", name, by_name)]

    def keywords(self, scheme: str) -> dict[str, Any]:
        """Returns the name and the keywords of a variant's encoding.

        A variant with ``of`` takes the keywords of the trained variant, unless it sets a keyword to
        another value than the scheme's default.
        """
        variant = self.variant(scheme)
        encoding, of = variant["encoding"], variant.get("of")
        if not of:
            return encoding
        usual = own_defaults(encoding["name"])
        trained = as_trained(encoding["name"], self.variant(of)["encoding"])
        return encoding | {key: v for key, v in trained.items() if encoding.get(key) == usual[key]}

    def encoding(self, scheme: str, rngs: nnx.Rngs | None) -> Encoding | Layers:
        """Builds the encoding of a variant."""
        return make_encoding(self.keywords(scheme), self.config["model"], self.length, rngs)

    def make_model(self, kind: type[Model], scheme: str, key, **sizes) -> Model:
        """Builds a ``Decoder`` or ``ViT``, as ``kind`` says, over the scheme's encoding."""
        encoding_key, model_key = jax.random.split(key)
        encoding = self.encoding(scheme, nnx.Rngs(encoding_key))
        return kind(encoding, **self.config["model"], **sizes, rngs=nnx.Rngs(model_key))

    def predict(self, function, model, rows: Any) -> Any:
        """Returns ``function(model, batch)`` for all ``rows``, ``config.eval.batch`` at a time.

        The result is a pytree with a result for each row. ``function`` is compiled once for each
        shape if it is the same object every time.
        """
        shards = row_shards(self.mesh)
        size = -(-self.config["eval"]["batch"] // shards) * shards
        compute = functools.partial(jax.jit(function, out_shardings=replicated(self.mesh)), model)
        results = list(in_batches(compute, rows, size, self.mesh))
        return jax.tree.map(lambda *parts: np.concatenate(parts), *results)

    def describe(self, point):
        shared = {key: self.config[key] for key in ("experiment", "model", "task")}
        of_scheme = {"variant": self.variant(point.scheme), "data": self.data}
        return shared | of_scheme | self.recipe_and_seed(point)

    def describe_evaluation(self, point):
        extend = {name: self.variant(name) for name in point.extensions}
        return {"eval": self.config["eval"], "extend": extend}

    def evaluate(self, point, model):
        records = []
        total = len(point.schemes) * sum(len(panel.xs) for panel in self.panels)
        with stage(f"{point.name}  evaluate", total, self.console) as advance:
            for scheme in point.schemes:
                if scheme != point.scheme:
                    model = model.under(self.encoding(scheme, None))
                where = {"scheme": scheme, "seed": point.seed}
                for result in self.measure(scheme, model):
                    records.append(where | dataclasses.asdict(result))
                    advance(f"{result.condition} {result.x}")
        return {"records": records}

    def about(self, command):
        return super().about(command) | {"data": self.data}

    def frame(self):
        return tidy(self.config["experiment"], self.all_of("records"))

    def comparisons(self, frame):
        is_error = {panel.condition: panel.is_error for panel in self.panels}
        frame = frame.assign(
            family=self.config["experiment"], is_error=frame["split"].map(is_error).astype(bool)
        )
        extensions = {name for point in self.points for name in point.extensions}
        return compared(frame, self.baseline, extensions)

    def tables(self, frame, comparisons):
        tables = []
        for panel in self.panels:
            of_panel = {"split": panel.condition, "measure": panel.metric}
            rows = select(frame, **of_panel)
            if rows.empty:
                continue
            shown = grid(
                rows,
                f"{panel.title}, by {panel.xlabel}",
                is_error=panel.is_error,
                heads=named,
                marks=marks(comparisons, **of_panel),
                caption="Mean ± half of its 95 % interval over seeds. ▲ better and ▼ worse than "
                f"{self.baseline}, after correction.",
            )
            if chances := self.chances(panel):
                shown.cells.loc["chance"] = list(map(number, chances))
            tables.append(shown)
        return tables

    def chances(self, panel: Panel) -> list[float]:
        """Returns the value of a blind guess at each x of a panel, or nothing if it is unknown."""
        known = {
            r["x"]: r["chance"]
            for r in self.all_of("records")
            if (r["condition"], r["metric"]) == (panel.condition, panel.metric)
            if r["chance"] is not None
        }
        return [known[x] for x in panel.xs if x in known]

    def figures(self, frame):
        chances = {panel: self.chances(panel) for panel in self.panels}
        return {"results": drawn_panels(frame, chances)}
