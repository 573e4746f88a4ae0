"""Holds the plan that all seeds share: the stages, the lengths, the documents and the recipes."""

import dataclasses
from typing import Any

import numpy as np
from jax.sharding import Mesh
from rich.console import Console

from experiments.data import Corpus, eval_windows, window_index
from experiments.longrope.search import Budget
from experiments.train import Recipe
from posenc_jax.encodings.rotary.frequencies.base import Frequencies
from posenc_jax.encodings.rotary.frequencies.ntk import NTK
from posenc_jax.encodings.rotary.frequencies.pi import PositionInterpolation
from posenc_jax.encodings.rotary.frequencies.yarn import YaRN

STAGES = ("longrope", "released", "longrope2", "progressive", "short", "mixed")
# The stage whose result another begins with.
_NEEDS = {"progressive": "longrope", "short": "progressive", "mixed": "longrope2"}


@dataclasses.dataclass(frozen=True)
class Trials:
    """Says which documents searches read, and which the scores are made of.

    Attributes:
      search_split: the part of the corpus that all searches read.
      search_documents: how many documents a search reads; one at the train length reads as many
        tokens.
      far_documents: how many a search at the second extension reads.
      split: the part of the corpus that all scores are made of.
      documents: how many documents a score is made of.
      last_tokens: the tokens at the end of a document that one of the scores is made of.
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
        for name in ("search_documents", "far_documents", "documents", "last_tokens"):
            if getattr(self, name) < 1:
                raise ValueError(f"eval.{name}={getattr(self, name)} must be at least 1")
        if self.search_split == self.split:
            raise ValueError(
                f"eval.search_split={self.search_split!r} must be another split than eval.split: a "
                "score on documents that a search has read says nothing"
            )


@dataclasses.dataclass(frozen=True, eq=False)
class Plan:
    """Holds all that is the same for every seed.

    Attributes:
      stages: some of ``STAGES``.
      train_length: the tokens that the model was trained at.
      factor: how many times longer each extension is than what it extends.
      budget: that of the searches on the model; those on the fine-tuned model have half of it.
      trials: the documents.
      yarn: keywords of ``YaRN``, but for its length and factor.
      tune: the recipe of all fine-tuning.
      corpus: the documents, in the tokens of the model.
      mesh: the devices.
      console: the console that shows progress.
    """

    stages: tuple[str, ...]
    train_length: int
    factor: int
    budget: Budget
    trials: Trials
    yarn: dict[str, Any]
    tune: Recipe
    corpus: Corpus
    mesh: Mesh
    console: Console

    @property
    def near(self) -> int:
        """Returns the length of the first extension."""
        return self.factor * self.train_length

    @property
    def far(self) -> int:
        """Returns the length of the second extension."""
        return self.factor * self.near

    @property
    def most_start_tokens(self) -> int:
        """Returns the most tokens to turn as in RoPE: the paper's 16th of the train length."""
        return self.train_length // 16

    @property
    def longest(self) -> int:
        """Returns the number of tokens of the longest documents that are read."""
        return self.far if "progressive" in self.stages else self.near

    def check_lengths(self) -> None:
        """Refuses stages and lengths that cannot work, before any document is read.

        Raises:
          ValueError: a stage is unknown or lacks the one that it needs, the target is not longer
            than the train length, or the keywords of YaRN are none.
        """
        for name in self.stages:
            if name not in STAGES:
                raise ValueError(f"stages has {name!r}, which is none of {', '.join(STAGES)}")
            if _NEEDS.get(name, name) not in self.stages:
                raise ValueError(
                    f"the stage {name} begins with the result of {_NEEDS[name]}: add that to stages"
                )
        if self.factor < 2:
            raise ValueError(
                f"factor={self.factor} makes the target {self.near} tokens, and it must be longer "
                f"than the train length of {self.train_length}: give a factor of 2 or more"
            )
        if self.trials.last_tokens > self.train_length:
            raise ValueError(
                f"eval.last_tokens={self.trials.last_tokens} must be at most the train length "
                f"of {self.train_length}"
            )
        self.rules(self.train_length)
        if self.mesh.shape["context"] > 1:
            raise ValueError(
                f"mesh.context={self.mesh.shape['context']} spreads tokens over devices, but a "
                "search spreads candidates: let it be 1"
            )

    def check_documents(self) -> None:
        """Refuses a corpus that has no document as long as what is read.

        Raises:
          ValueError: there is none in a split that is read.
        """
        for split in (self.trials.search_split, self.trials.split):
            self.documents(split, self.longest, 1)
        if {"progressive", "mixed"} & set(self.stages):
            window_index(self.corpus, "train", self.near)

    def documents(self, split: str, length: int, count: int) -> np.ndarray:
        """Returns documents of a split, the same every time, int ``[N, length + 1]``."""
        return eval_windows(self.corpus, split, length=length + 1, count=count)

    def rules(self, length: int) -> dict[str, Frequencies]:
        """Returns the known methods by name, which make ``length`` tokens ``factor`` times more."""
        return {
            "pi": PositionInterpolation(float(self.factor)),
            "ntk": NTK(float(self.factor)),
            "yarn": YaRN(length, float(self.factor), **self.yarn),
        }
