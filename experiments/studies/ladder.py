"""Trains schemes longer, at other lengths and in other sizes, to tell which advantages last.

Each such training of all schemes is a rung of the ladder.
"""

import dataclasses
import functools
import itertools
import math
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pandas as pd
from flax import nnx
from ml_collections import FrozenConfigDict

from experiments.evaluation.controls import CONTROLS, beyond, controls, within
from experiments.evaluation.lengths import Scorer
from experiments.progress import stage
from experiments.results import leaderboard
from experiments.results.environment import environment_of
from experiments.results.record import RefusedError
from experiments.results.reports import ladder_page, leaderboard_page
from experiments.results.speedup import smoothed
from experiments.running.points import Point
from experiments.settings import one_of
from experiments.studies.combined import Studies
from experiments.studies.text import Comparison
from experiments.training import own_schemes
from experiments.training.encodings import make_encoding
from experiments.training.parameters import parameter_count
from experiments.training.text import spec_of
from posenc_jax.model.transformer import usual_mlp_dim

# A scheme whose own parameters exceed this share of the model's gets a narrower feed-forward
# network, but not less than half of it.
_SHARE = 0.02
_WHERE = ("scheme", "seed", "split", "protocol", "multiple")
_COLUMNS = ["rung", "length", "width", "tokens", "parameters", "trained", *_WHERE, "bits", "texts"]


class Rung(Comparison):
    """Compares schemes at equally many parameters, each at its own learning rate, with controls.

    Attributes:
      rung_of_rates: the rung that tries several learning rates for each scheme; the best of them is
        used here. Without such a rung, and for a scheme that it lacks, the rate is
        ``config.train.learning_rate``.
    """

    rung_of_rates: "Rung | None" = None

    def __init__(self, config, workdir, console):
        self._best: dict[str, float] = {}
        super().__init__(config, workdir, console)

    def recipe_of(self, point):
        rate = self.best_rate(point.scheme)
        # NaN is no rate: ``describe`` refuses that point, which leaves the other schemes.
        if point.rate is None and rate is not None and not math.isnan(rate):
            return dataclasses.replace(self.recipe, learning_rate=rate)
        return super().recipe_of(point)

    def best_rate(self, scheme: str) -> float | None:
        """Returns the best learning rate of a scheme, or None until the runs that decide are there.

        The best rate has the lowest training loss at the end; a rate that failed has none. If all
        have failed, the result is NaN.
        """
        if self.rung_of_rates is None:
            return None
        if scheme not in self._best:
            other = self.rung_of_rates
            losses = {} if other.untried(scheme) else other.rates(scheme).get(scheme)
            if not losses:
                return None
            ended = [rate for rate, loss in losses.items() if math.isfinite(loss)]
            self._best[scheme] = min(ended, key=losses.__getitem__, default=math.nan)
        return self._best[scheme]

    def untried(self, scheme: str) -> list[Point]:
        """Returns the points of a scheme's learning rates that have neither ended nor failed."""
        points = [point for point in self.points if point.scheme == scheme and point.rate]
        return [point for point in points if not (self.finished(point) or self.failure(point))]

    def best_at_an_end(self) -> dict[str, list[str]]:
        """Returns the schemes whose best rate is the "lowest" or the "highest" that was tried."""
        ends: dict[str, list[str]] = {"lowest": [], "highest": []}
        for scheme in sorted({point.scheme for point in self.points if self.finished(point)}):
            if self.rung_of_rates is not None and (best := self.best_rate(scheme)) is not None:
                tried = self.rung_of_rates.rates(scheme)[scheme]
                for end, rate in (("lowest", min(tried)), ("highest", max(tried))):
                    ends[end] += [scheme] * (best == rate)
        return ends

    def needs(self, points):
        if self.rung_of_rates is None:
            return None
        schemes = dict.fromkeys(point.scheme for point in points)
        missing = [point for scheme in schemes for point in self.rung_of_rates.untried(scheme)]
        return (self.config["rates_of"], missing) if missing else None

    def describe(self, point):
        if point.rate is None and self.needs([point]):
            raise RefusedError(
                f"{point.scheme} has no best learning rate yet: first run the study "
                f"{self.config['rates_of']}"
            )
        if point.rate is None and math.isnan(self.best_rate(point.scheme) or 0.0):
            raise RefusedError(
                f"every learning rate of {point.scheme} failed in {self.config['rates_of']}: mend "
                "the scheme, or try other rates there"
            )
        return super().describe(point)

    def _spec(self, scheme):
        return narrowed(super()._spec(scheme), self.recipe.length)

    def evaluate(self, point, model):
        evaluation = super().evaluate(point, model)
        evaluation["records"] += self._controls(point, model)
        return evaluation

    def _controls(self, point, model):
        records = []
        length, protocols = self.recipe.length, self.protocols
        total = len(self.documents) * (len(point.schemes) + CONTROLS)
        with stage(f"{point.name}  controls", total, self.console) as advance:
            score, score_within = (
                Scorer(reader, self.mesh, protocols.batch_tokens)
                for reader in (model, within(model, length))
            )
            documents = self.documents.items()
            for (split, texts), scheme in itertools.product(documents, point.schemes):
                is_trained = scheme == point.scheme
                encoding = None if is_trained else self._extension(scheme, protocols.multiples[-1])
                made = [beyond(score, texts, protocols, length, encoding)]
                if is_trained:
                    made += controls(score, score_within, texts, protocols, length)
                where = {"scheme": scheme, "seed": point.seed, "split": split}
                records += self.in_units(made, where)
                advance(scheme, len(made))
        return records


@functools.cache
def narrowed(spec: FrozenConfigDict, length: int) -> FrozenConfigDict:
    """Returns a spec whose feed-forward network makes room for the parameters of its encoding.

    A scheme that has a few more parameters than others keeps its network. The narrowest network has
    half of the usual width, which does not make room for SeqPE and DeBERTa.
    """
    model = spec.model.to_dict()
    make = functools.partial(make_encoding, spec.encoding, model, length)
    encoding = jax.eval_shape(lambda: make(nnx.Rngs(0)))
    count = parameter_count(encoding)
    dim, layers = model["model_dim"], model["num_layers"]
    width = model["mlp_dim"] or usual_mlp_dim(dim)
    whole = layers * (4 * dim**2 + 3 * dim * width)
    if count <= _SHARE * whole:
        return spec
    fewer = round(count / (3 * dim * layers) / 8) * 8
    model["mlp_dim"] = max(width - fewer, width // 2)
    return spec_of(spec.encoding, model)


class Ladder(Studies):
    """Runs the rungs one after the other; see ``configs/ladder.py``."""

    def __init__(self, config, workdir, console):
        super().__init__(config, workdir, console)
        for name, part in self.parts.items():
            if rates := part.config["rates_of"]:
                one_of(f"studies.{name}.rates_of", rates, self.parts)
                part.rung_of_rates = self.parts[rates]

    def setup(self, name):
        part = self.parts[name]
        if part.rung_of_rates is None:
            return super().setup(name)
        recipe, model = part.recipe, part.config["model"]
        return (
            f"models of depth {model['num_layers']} and width {model['model_dim']}, trained by "
            f"{recipe.optimizer} for {recipe.steps} steps of {recipe.batch_size} rows of "
            f"{recipe.length} tokens, each scheme at its best rate in {part.config['rates_of']}"
        )

    def records(self) -> pd.DataFrame:
        """Returns every loss of every finished run, as ``results/ladder.py`` reads them."""
        rows = []
        for rung, part in self.parts.items():
            for evaluation in part.evaluations():
                training, model = evaluation["training"], part.config["model"]
                if part.untried(training["scheme"]):
                    continue
                run = {
                    "rung": rung,
                    "length": part.recipe.length,
                    "width": model["model_dim"],
                    "tokens": training["tokens"],
                    "parameters": training["parameters"],
                    "trained": training["scheme"],
                }
                per_bit = math.log(2) * part.corpus.bytes_per_token
                for record in evaluation["records"]:
                    texts = np.asarray(record["by_text"]) / per_bit
                    where = {key: record[key] for key in _WHERE}
                    rows.append(run | where | {"bits": record["bits_per_byte"], "texts": texts})
        return pd.DataFrame(rows, columns=_COLUMNS)

    def training_losses(self, rung: str) -> pd.DataFrame:
        """Returns smoothed training losses of finished runs, by tokens, scheme and seed.

        A rung that the config does not have has no runs.
        """
        runs = {}
        if rung in self.parts:
            part = self.parts[rung]
            per_step = part.recipe.batch_size * part.recipe.length
            for point in filter(part.finished, part.points):
                curve = {step * per_step: loss for step, loss in smoothed(part.curve(point))}
                runs[point.scheme, point.seed] = pd.Series(curve)
        columns = pd.MultiIndex.from_tuples(runs, names=["scheme", "seed"])
        return pd.DataFrame(runs, columns=columns)

    def write_report(self, command):
        records = self.records()
        if records.empty:
            raise ValueError("no rung has any result yet, so there is nothing to report")
        first = next(iter(self.parts.values()))
        about = self.about(command) | first.about_corpus(first.corpus)
        rungs = {rung: self.about_rung(rung) for rung in self.parts}
        main = self.config["main"]
        runs = self.training_losses(main)
        path = ladder_page.write(self.workdir, records, runs, about, rungs, self.config)
        self.console.print(ladder_page.losses_beyond(records))
        if self.config["records"]:
            self._write_records(records, about)
        return path

    def about_rung(self, rung: str) -> dict[str, Any]:
        """Returns how large a rung is, how it is trained, and how much of it is finished."""
        part = self.parts[rung]
        recipe = part.recipe
        says = self.setup(rung)
        return {
            "length": recipe.length,
            "width": part.config["model"]["model_dim"],
            "tokens": recipe.steps * recipe.batch_size * recipe.length,
            "says": f"{says[0].upper()}{says[1:]}.",
            "points": len(part.points),
            "finished": sum(part.finished(point) is not None for point in part.points),
            "best_at": part.best_at_an_end(),
        }

    def _write_records(self, records, about):
        """Writes the leaderboard's record of each scheme that has all seeds on the main rung."""
        if leaderboard.rules_of(self.config["studies"]) != self.config["rules"]:
            self.console.print(
                "no record is written, because fields of the track other than the schemes were "
                "changed"
            )
            return
        rung, folder = self.config["main"], Path(self.config["records"])
        part = self.parts[rung]
        for scheme in dict.fromkeys(point.scheme for point in part.points):
            runs = part.finished_runs(scheme)
            made = environment_of(runs) | {"own_file": own_schemes.digest(scheme)}
            told = {key: about[key] for key in ("command", "date", "corpus", "corpus_digest")}
            told |= {key: made[key] for key in ("device", "git", "versions", "own_file")}
            told |= {"rate": part.best_rate(scheme), "encoding": part.keywords(scheme, 1)}
            try:
                record = leaderboard.record_of(records, rung, scheme, told)
                path = leaderboard.write(folder, record)
            except ValueError as error:
                self.console.print(str(error))
            else:
                self.console.print(f"record: {path}")
        for name in sorted({name for point in part.points for name in point.extensions}):
            self.console.print(f"{name} is not trained, so it has no record")
        if (records["rung"] == rung).any():
            leaderboard_page.write(folder, self.workdir / "leaderboard.html", self.console)
