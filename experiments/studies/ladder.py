"""Trains schemes longer, at other lengths and in other sizes, to tell which advantages last.

Each such training of all schemes is a rung of the ladder.
"""

import dataclasses
import functools
import itertools
import math

import jax
import pandas as pd
from flax import nnx
from ml_collections import FrozenConfigDict

from experiments.evaluation.controls import CONTROLS, beyond, controls, within
from experiments.evaluation.lengths import Scorer
from experiments.progress import stage
from experiments.results import ladder, table
from experiments.results.record import RefusedError
from experiments.results.table import select
from experiments.running.points import Point
from experiments.settings import one_of
from experiments.studies.combined import Studies
from experiments.studies.text import Comparison
from experiments.training.encodings import make_encoding
from experiments.training.parameters import parameter_count
from experiments.training.text import spec_of
from posenc_jax.model.transformer import usual_mlp_dim

# A scheme whose own parameters exceed this share of the model's gets a narrower feed-forward
# network, but not less than half of it.
_SHARE = 0.02


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

    def stages(self):
        return [self.points] if self.rung_of_rates is None else [[], self.points]

    def describe(self, point):
        other = self.rung_of_rates
        if point.rate is None and other is not None and other.untried(point.scheme):
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

    def chosen(self):
        """Returns the points whose scheme has tried all of its rates, at the best of these."""
        return [point for point in super().chosen() if not self.untried(point.scheme)]

    def frame(self):
        """Returns the losses, and the sizes and tokens of the models that have them."""
        rows = [
            dict(scheme=cost["scheme"], seed=cost["seed"], measure=measure, x=1)
            | dict(value=value, unit=measure.split()[-1])
            for cost in self.costs()
            for measure, value in (
                (ladder.PARAMETERS, cost["parameters"]),
                (ladder.TOKENS, cost["tokens"]),
                (ladder.LENGTH, self.recipe.length),
            )
        ]
        known = table.tidy(self.config["experiment"], rows)
        return pd.concat([super().frame(), known], ignore_index=True)

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

    title = "The ladder: which advantages last"

    def __init__(self, config, workdir, console):
        super().__init__(config, workdir, console)
        for name, part in self.parts.items():
            if rates := part.config["rates_of"]:
                one_of(f"studies.{name}.rates_of", rates, self.parts)
                part.rung_of_rates = self.parts[rates]

    def frame(self):
        frame = super().frame()
        if not self.config["beside"]:
            return frame
        # The rungs as the repository keeps them, for schemes that were not trained here.
        kept = select(table.read(self.config["beside"]), study=self.parts)
        here = set(zip(frame["study"], frame["scheme"], strict=True))
        is_new = [pair not in here for pair in zip(kept["study"], kept["scheme"], strict=True)]
        return pd.concat([frame, kept[is_new]], ignore_index=True)

    def about(self, command):
        tried = [part.rates() for part in self.parts.values()]
        return super().about(command) | {"rates": next(filter(None, tried), {})}

    def comparisons(self, frame):
        rungs = frame.groupby("study", sort=False)
        tables = [
            ladder.comparisons(rung, self.extensions()).assign(study=name) for name, rung in rungs
        ]
        compared = pd.concat(tables, ignore_index=True)
        return compared.assign(family=compared["family"] + ", " + compared["study"])

    def tables(self, frame, comparisons):
        main = self._main(frame)
        return [
            ladder.rung_table(select(frame, study=main), select(comparisons, study=main)),
            *(ladder.rungs_table(frame, comparisons, measure) for measure in ("trained", "beyond")),
        ]

    def figures(self, frame):
        main = self._main(frame)
        return {"loss_vs_length": self.parts[main].shown.figure(select(frame, study=main))}

    def _main(self, frame):
        """Returns the rung that is shown first: the last one where the main one has no results."""
        present = [name for name in self.parts if (frame["study"] == name).any()]
        return self.config["main"] if self.config["main"] in present else present[-1]
