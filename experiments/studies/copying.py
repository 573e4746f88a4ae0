"""Follows small models through training: when do they begin to copy, and what is their loss then?

Every ``copying.every`` steps a model is measured by its *copying score*, the drop of its loss in
bits when it reads half of a text for the second time in a row (as "copied" of
``evaluation/mechanisms.py``, which induction heads, 2209.11895, bring about), and by its
loss on texts of the packages that it is trained on ("validation") and of packages that it is not.
``results/onset.py`` finds the onset of each run.
"""

import csv
import dataclasses
import math
from pathlib import Path

import numpy as np
import pandas as pd

from experiments.evaluation.lengths import Scorer
from experiments.results import drawing, onset
from experiments.results.metrics import read_steps
from experiments.results.record import write_files
from experiments.results.table import packed
from experiments.studies.combined import Studies
from experiments.studies.ladder import Rung
from experiments.training.corpus import SPLITS, Corpus, in_split
from experiments.training.packages import corpus as packages
from experiments.training.recipe import Goal
from experiments.training.windows import eval_windows

# Positions within a text are told in so many equal parts.
PARTS = 8


class Onset(Rung):
    """Trains schemes as a rung of the ladder does, and measures them on the way."""

    def __init__(self, config, workdir, console):
        super().__init__(config, workdir, console)
        how, length = config.copying, self.recipe.length
        self.every = how.every
        self.points = [point for point in self.points if point.seed >= how.get("first_seed", 0)]
        self.repeated_NL = eval_windows(self.corpus, "test", length=length + 1, count=how.repeated)
        self.texts = texts(self.corpus, length, how.texts)

    def describe(self, point):
        return super().describe(point) | {"copying": self.config["copying"]}

    def goal(self, point):
        return Goal(self.measured, math.inf, self.every)  # which no score reaches

    def measured(self, model) -> dict[str, float]:
        """Returns the copying score, and the loss by kind of text and part of it, in bits."""
        score = Scorer(model, self.mesh, self.protocols.batch_tokens)
        half = self.repeated_NL.shape[1] // 2
        loss_T = score(np.tile(self.repeated_NL[:, :half], 2), None).mean(axis=0) / math.log(2)
        numbers = {"score": float(loss_T[: half - 1].mean() - loss_T[half:].mean())}
        for name, windows_NL in self.texts.items():
            losses_T = score(windows_NL, None).mean(axis=0) / math.log(2)
            parts = losses_T.reshape(PARTS, -1).mean(axis=1)
            numbers |= {f"{name}/{part}": float(bits) for part, bits in enumerate(parts)}
        return numbers


class Copying(Studies):
    """Runs the studies of ``configs/copying.py``, and writes all measurements as one table."""

    def write_report(self, command):
        rows = [row for name, part in self.parts.items() for row in rows_of(name, part)]
        if not rows:
            raise ValueError("no run has any measurement yet, so there is nothing to report")
        table = pd.DataFrame(rows)
        with drawing.style():
            drawn = drawing.svg(onset.figure(table))
        write_files(self.workdir, {"copying.csv.gz": packed(table), "copying.svg": drawn})
        self.console.print(onset.summary(table).rich())
        return self.workdir / "copying.svg"


def rows_of(study: str, part: Onset):
    """Yields a row for each measurement of each run of a study, finished or not.

    The columns are ``study, scheme, depth, rate, seed, step, tokens, is_last, measure, value``.
    """
    for point in part.points:
        recipe = part.recipe_of(point)
        lines = [line for line in read_steps(_metrics(part, point)) if "score" in line]
        for line in lines:
            run = {
                "study": study,
                "scheme": point.scheme,
                "depth": part.config["model"]["num_layers"],
                "rate": recipe.learning_rate,
                "seed": point.seed,
                "step": line["step"],
                "tokens": line["step"] * recipe.batch_size * recipe.length,
                "is_last": line["step"] == recipe.steps,
            }
            for name, value in line.items():
                if name == "score" or "/" in name:
                    yield run | {"measure": name, "value": value}


def _metrics(part, point) -> Path:
    return part.folder(point) / "metrics.jsonl"


def texts(corpus: Corpus, length: int, count: int) -> dict[str, np.ndarray]:
    """Returns texts to measure the loss on, by name, int32 ``[N, length + 1]`` each.

    Texts of validation come apart by kind where the corpus knows the kinds.
    """
    found = {
        split: eval_windows(corpus, split, length=length + 1, count=count)
        for split in ("validation", "code", "prose", "test")
        if in_split(corpus, split).any() and (split != "test" or corpus.name != "packages")
    }
    if corpus.name == "packages" and "validation" in found:
        del found["validation"]
        with (packages.cache() / "documents.csv").open(newline="") as lines:
            kinds = np.array([row["kind"] for row in csv.DictReader(lines)])
        for kind in ("code", "prose"):
            is_chosen = in_split(corpus, "validation") & (kinds == kind)
            splits = np.where(is_chosen, SPLITS.index("validation"), -1)
            alone = dataclasses.replace(corpus, splits=splits)
            found[f"validation_{kind}"] = eval_windows(
                alone, "validation", length=length + 1, count=count
            )
    return found
