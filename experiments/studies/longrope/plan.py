"""Says which stages of LongRoPE run, to which lengths, and on which documents."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from experiments.evaluation.lengths import check_targets
from experiments.settings import one_of
from experiments.studies.longrope.search import Budget
from experiments.training.corpus import Corpus
from experiments.training.recipe import Recipe
from experiments.training.windows import eval_windows
from posenc_jax.encodings.rotary.frequencies.base import Frequencies
from posenc_jax.encodings.rotary.frequencies.ntk import NTKFrequencies
from posenc_jax.encodings.rotary.frequencies.pi import PositionInterpolationFrequencies
from posenc_jax.encodings.rotary.frequencies.yarn import YaRNFrequencies

STAGES = ("longrope", "released", "longrope2", "progressive", "short", "mixed")
# Tokens of a needle: half of them ask, and half are the answer.
NEEDLE = 16
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


@dataclasses.dataclass(frozen=True)
class Plan:
    """Holds the settings of the stages, and a corpus in the tokens of the model.

    Each extension multiplies the length by ``factor``. The budget is that of searches on the model;
    on the fine-tuned model it is ``halved``. ``yarn`` has the bounds of YaRN.
    """

    stages: tuple[str, ...]
    train_length: int
    factor: int
    budget: Budget
    trials: Trials
    yarn: Mapping[str, Any]
    tune: Recipe
    corpus: Corpus

    @property
    def near(self) -> int:
        """Returns the length of the first extension."""
        return self.factor * self.train_length

    @property
    def far(self) -> int:
        """Returns the length of the second extension."""
        return self.factor * self.near

    @property
    def longest(self) -> int:
        """Returns the number of tokens of the longest documents that are read."""
        return self.far if "progressive" in self.stages else self.near

    def check(self) -> None:
        """Raises a ValueError for impossible stages or lengths, before any document is read."""
        for name in self.stages:
            one_of("stages", name, STAGES)
            if _NEEDS.get(name, name) not in self.stages:
                raise ValueError(
                    f"the stage {name} begins with the result of {_NEEDS[name]}: add that to stages"
                )
        if "longrope2" in self.stages and self.train_length < 2 * NEEDLE:
            raise ValueError(
                f"the stage longrope2 hides needles of {NEEDLE} tokens, too long for the train "
                f"length of {self.train_length}: give a longer one, or leave the stage out"
            )
        check_targets(self.trials.last_tokens, self.train_length)
        self.rules(self.train_length)

    def documents(self, split: str, length: int, count: int) -> np.ndarray:
        """Returns documents of a split, the same every time, int ``[N, length + 1]``."""
        return eval_windows(self.corpus, split, length=length + 1, count=count)

    def rules(self, length: int) -> dict[str, Frequencies]:
        """Returns the known methods by name, for an extension of ``length`` by ``factor``."""
        return {
            "pi": PositionInterpolationFrequencies(float(self.factor)),
            "ntk": NTKFrequencies(float(self.factor)),
            "yarn": YaRNFrequencies(length, float(self.factor), **self.yarn),
        }
