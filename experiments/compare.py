"""The comparison: every scheme trained over several seeds, evaluated past its training length.

A *point* is one trained scheme and one seed, with a folder of its own. Schemes that extend a
trained one (position interpolation, NTK, YaRN on RoPE) are evaluated on its checkpoint, each with
its encoding in the place of the trained one.
"""

import contextlib
import dataclasses
import datetime
import functools
import traceback
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict, FrozenConfigDict
from rich.console import Console

from experiments import report
from experiments.config import make_encoding
from experiments.data import SPLITS, Corpus, eval_windows, load_corpus, window_index
from experiments.evaluate import Protocols, Scorer, evaluate, in_other_units, work
from experiments.mesh import make_mesh, state_shardings
from experiments.preemption import PreemptedError
from experiments.progress import stage
from experiments.record import environment, open_run, read_json, write_json
from experiments.study import Study
from experiments.text import Text, text_state
from experiments.train import Recipe, train
from posenc_jax import REGISTRY
from posenc_jax.registry import PATTERNS, lookup, own_keywords

# What may change between two starts of the same run: it decides when, not what, is computed.
_FREE_TO_CHANGE = ("log_every", "checkpoint_every", "tensorboard")


@dataclasses.dataclass(frozen=True)
class Point:
    """One training run. ``extensions`` are the schemes evaluated on its checkpoint."""

    scheme: str
    seed: int
    extensions: tuple[str, ...]

    @property
    def name(self) -> str:
        return f"{self.scheme}/seed{self.seed}"


class Comparison:
    """A checked config, ready to run.

    Args:
      config: see ``configs/extrapolation.py``.
      workdir: where everything goes; what is already there and finished is not done again.
      console: where progress and tables go.

    Raises:
      ValueError: anything in the config that cannot work is found here, before any training.
    """

    def __init__(self, config: ConfigDict, workdir: Path, console: Console):
        self.config = config.to_dict()
        self.workdir = workdir
        self.console = console
        self.points = points(config)
        self.mesh = make_mesh(config.mesh)
        self.recipe = Recipe(**config.train)
        self.protocols = Protocols(**config.eval)
        self.protocols.check(self.recipe.length)
        self.corpus = load_corpus(config.corpus)
        self.windows = window_index(self.corpus, "train", self.recipe.length)
        self.documents = _documents(self.corpus, self.protocols, self.recipe.length)
        self._check()

    def _check(self):
        shards = self.mesh.shape["data"] * self.recipe.accumulate
        if self.recipe.batch_size % shards:
            raise ValueError(
                f"train.batch_size={self.recipe.batch_size} must be a multiple of {shards}: the "
                "mesh's data axis times train.accumulate"
            )
        pieces = 2 * self.mesh.shape["context"]
        if pieces > 2 and self.recipe.length % pieces:
            raise ValueError(
                f"train.length={self.recipe.length} must be a multiple of {pieces}, twice the "
                "mesh's context axis"
            )
        for point in {point.scheme: point for point in self.points}.values():
            init = functools.partial(text_state, spec=self._spec(point.scheme), recipe=self.recipe)
            state_shardings(jax.eval_shape(init, jax.random.key(0)), self.mesh)
            for name in point.extensions:
                self._extension(name, self.protocols.multiples[-1])

    def run(self, task_id: int | None = None) -> list[dict]:
        """Runs all points, or the one numbered ``task_id``; returns the failures."""
        chosen = self.points
        if task_id is not None:
            if not 0 <= task_id < len(self.points):
                raise ValueError(
                    f"task_id={task_id} must be in 0..{len(self.points) - 1}: there are "
                    f"{len(self.points)} points"
                )
            chosen = [self.points[task_id]]
        failures = []
        for number, point in enumerate(chosen, 1):
            self.console.print(f"[{number}/{len(chosen)}] {point.name}", highlight=False)
            try:
                self._run_point(point)
            except PreemptedError:
                raise
            except Exception as error:  # one scheme failing must not take the others with it
                failures.append(self._failed(point, error))
        return failures

    def write_report(self, command: str) -> Path:
        """Prints the table of all finished points, writes their report and returns its path."""
        study = self._study(command)
        report.print_table(study, self.console)
        return report.write(self.workdir, study)

    def _folder(self, point) -> Path:
        return self.workdir / "runs" / point.scheme / f"seed{point.seed}"

    def _spec(self, scheme) -> FrozenConfigDict:
        encoding = {"name": scheme} | self.config["encodings"].get(scheme, {})
        model = self.config["model"] | {"vocab_size": self.corpus.vocab_size}
        return FrozenConfigDict({"encoding": encoding, "model": model})

    def _extension(self, name, multiple):
        """The encoding that extends a trained one to ``multiple`` times its length."""
        own = self._extension_config(name)
        own = {key: multiple if value == "ratio" else value for key, value in own.items()}
        model = self.config["model"]
        return make_encoding({"name": name} | own, model, self.recipe.length, rngs=None)

    def _extension_config(self, name) -> dict[str, Any]:
        """Its own keywords; those it shares with the trained scheme are as they were trained."""
        encodings, extend = self.config["encodings"], self.config["extend"][name]
        trained = encodings[extend["of"]]
        shared = {key: trained[key] for key in own_keywords(name) if key in trained}
        chosen = {key: value for key, value in extend.items() if key != "of"}
        return encodings[name] | shared | chosen

    def _training_config(self, point) -> dict[str, Any]:
        recipe = {k: v for k, v in self.config["train"].items() if k not in _FREE_TO_CHANGE}
        spec = self._spec(point.scheme).to_dict()
        corpus = {"corpus": self.corpus.name, "corpus_digest": self.corpus.digest}
        return spec | corpus | {"train": recipe, "seed": point.seed}

    def _evaluation_config(self, point) -> dict[str, Any]:
        extend = {name: self._extension_config(name) for name in point.extensions}
        return _plain({"eval": self.config["eval"], "extend": extend})

    def _run_point(self, point):
        folder = self._folder(point)
        open_run(folder, self._training_config(point))
        finished = read_json(folder / "evaluation.json")
        if finished and finished["config"] == self._evaluation_config(point):
            self.console.print("  done before, skipped", highlight=False)
            return
        model, summary = train(
            Text(self._spec(point.scheme), self.recipe, self.windows),
            self.recipe,
            self.mesh,
            seed=point.seed,
            folder=folder,
            console=self.console,
            name=f"{point.name}  train",
        )
        records, curves = self._evaluate(point, model)
        training = {"scheme": point.scheme, "seed": point.seed} | summary
        write_json(
            folder / "evaluation.json",
            {
                "config": self._evaluation_config(point),
                "records": records,
                "curves": curves,
                "training": training,
            },
        )
        (folder / "failure.json").unlink(missing_ok=True)
        self._print_point(point, summary, records)

    def _evaluate(self, point, model):
        schemes = (point.scheme, *point.extensions)
        splits = [split for split in SPLITS if split in self.documents]
        total = len(schemes) * len(splits) * work(self.protocols, self.recipe.length)
        records, curves = [], []
        with stage(f"{point.name}  evaluate", total, self.console) as advance:
            score = Scorer(model, self.mesh, self.protocols.batch_tokens, advance)
            for scheme in schemes:
                extended = scheme != point.scheme
                at = functools.partial(self._extension, scheme) if extended else lambda _: None
                for split in splits:
                    found, curve = evaluate(
                        score, self.documents[split], self.protocols, self.recipe.length, at
                    )
                    where = {"scheme": scheme, "seed": point.seed, "split": split}
                    for record in found:
                        units = in_other_units(record["loss"], self.corpus.bytes_per_token)
                        records.append(where | record | units)
                    curves.append(where | curve)
        return records, curves

    def _print_point(self, point, summary, records):
        speed = summary["tokens"] / summary["seconds"]
        self.console.print(
            f"  trained in {summary['seconds']:.1f} s, {speed / 1e3:.0f}k tokens/s", highlight=False
        )
        for scheme in (point.scheme, *point.extensions):
            losses = [
                f"{r['multiple']}x {r['loss']:.3f}"
                for r in records
                if r["scheme"] == scheme and r["split"] == "test" and r["protocol"] == "last"
            ]
            self.console.print(f"  {scheme:<15} {'  '.join(losses)}", highlight=False)

    def _failed(self, point, error) -> dict:
        reason = f"{type(error).__name__}: {error}"
        failure = {"scheme": point.scheme, "seed": point.seed, "reason": reason}
        self.console.print(f"  FAILED {reason}", style="bold red", highlight=False, markup=False)
        folder = self._folder(point)
        # The folder may be what failed; the sentence above is on the terminal.
        with contextlib.suppress(OSError):
            write_json(folder / "failure.json", failure | {"traceback": traceback.format_exc()})
        return failure

    def _study(self, command) -> Study:
        records, curves, training, failures = [], [], [], []
        for point in self.points:
            folder = self._folder(point)
            finished = read_json(folder / "evaluation.json")
            if finished and finished["config"] == self._evaluation_config(point):
                records += finished["records"]
                curves += finished["curves"]
                for scheme in (point.scheme, *point.extensions):
                    trained = {"scheme": scheme, "trained": point.scheme}
                    training.append(finished["training"] | trained)
            elif failure := read_json(folder / "failure.json"):
                del failure["traceback"]
                failures.append(failure)
        about = environment() | {
            "command": command,
            "train_length": self.recipe.length,
            "last_tokens": self.protocols.last_tokens,
            "corpus": self.corpus.name,
            "corpus_digest": self.corpus.digest,
            "config": _plain(self.config),
            "date": datetime.date.today().isoformat(),
        }
        return Study(records, curves, training, failures, about)


def points(config: ConfigDict) -> list[Point]:
    """The runs of ``config``: every trained scheme under every seed, seeds outermost.

    So that a comparison cut short has all schemes under fewer seeds, not fewer schemes.
    """
    named = [name.strip() for name in config.schemes.split(",")]
    names = _all(config) if named == ["all"] else named
    for name in {*names, *config.encodings, *config.extend}:
        lookup(name)
    if config.seeds < 1:
        raise ValueError(f"seeds={config.seeds} must be at least 1")
    extensions: dict[str, list[str]] = {}
    for name in names:
        if name in config.extend:
            extensions.setdefault(config.extend[name].of, []).append(name)
    trained = [name for name in names if name not in config.extend]
    for name in extensions:
        if name not in trained:
            raise ValueError(
                f"{', '.join(extensions[name])} is evaluated on a trained {name}; add {name} to "
                "schemes"
            )
    return [
        Point(name, seed, tuple(extensions.get(name, ())))
        for seed in range(config.seeds)
        for name in trained
    ]


def _all(config) -> list[str]:
    """Every registered scheme, and the patterns of layers that fit the model."""

    def fits(pattern):
        encoding = {"name": pattern} | config.encodings[pattern].to_dict()
        layers = make_encoding(encoding, config.model, config.train.length, rngs=None)
        return config.model.num_layers % len(layers.pattern) == 0

    return [name for name in REGISTRY if name not in PATTERNS or fits(name)]


def _documents(corpus: Corpus, protocols: Protocols, train_length: int):
    """``{split: int [N, L]}`` for the splits this corpus has."""
    length = protocols.document_length(train_length)
    present = [s for s in protocols.splits if (corpus.splits == SPLITS.index(s)).any()]
    if not present:
        raise ValueError(
            f"corpus {corpus.name} has no documents in {protocols.splits}; give eval.splits others"
        )
    return {s: eval_windows(corpus, s, length=length, count=protocols.documents) for s in present}


def _plain(value):
    """``value`` as JSON will give it back: tuples as lists."""
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, (list, tuple)) else value
