"""Builds the encodings of methods that make a trained RoPE model longer, as a config says.

A method is a variant of a scheme of the registry: the scheme's name in ``scheme`` and its keywords,
in which "ratio" and "length/8" mean numbers (see :func:`experiments.training.encodings.at_ratio`).
``tuned_at`` is the length that fine-tuning uses, "target" or "train_length".
"""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import jax

from experiments.pretrained.trained import in_place_of_rope, rope_of, sizes_of
from experiments.results.extensions import PLAIN
from experiments.settings import one_of
from experiments.training.encodings import RATIO, as_trained, at_ratio, make_encoding
from posenc_jax import Encoding, Layers, Transformer, positions

TUNED_AT = ("target", "train_length")


@dataclasses.dataclass(frozen=True)
class Methods:
    """Builds the encodings of methods for one trained model, or for one that has shapes alone."""

    variants: Mapping[str, Mapping[str, Any]]
    model: Transformer
    train_length: int

    def encoding(self, name: str, ratio: int) -> Encoding | None:
        """Returns the encoding for ``ratio`` times the length, or None for the model's own."""
        variant = self.variants[name]
        if variant["scheme"] == PLAIN or (ratio == 1 and RATIO in variant.values()):
            return None
        keywords = self.keywords(name, ratio)
        made: Any = make_encoding(keywords, sizes_of(self.model), self.train_length, rngs=None)
        return made

    def keywords(self, name: str, ratio: int) -> dict[str, Any]:
        """Returns the keywords of ``make``; what the trained RoPE has keeps its trained values."""
        variant = {key: v for key, v in self.variants[name].items() if key != "tuned_at"}
        scheme = variant.pop("scheme")
        rope = rope_of(self.model, "the model")
        trained = {key: getattr(rope, key) for key in ("base", "rotary_dim", "layout")}
        changed = at_ratio(variant, ratio, self.train_length)
        return {"name": scheme} | changed | as_trained(scheme, trained)

    def layers(self, name: str, ratio: int) -> Layers | None:
        """Returns the argument of ``Transformer.under``, or None for the model as it is."""
        encoding = self.encoding(name, ratio)
        return None if encoding is None else in_place_of_rope(self.model, encoding)

    def check(self, names: Iterable[str], ratios: Iterable[int]) -> None:
        """Raises an error if a method cannot be built, or cannot prepare the positions it needs."""
        for name in names:
            one_of(f"variants.{name}.tuned_at", self.variants[name]["tuned_at"], TUNED_AT)
            for ratio in ratios:
                encoding, length = self.encoding(name, ratio), ratio * self.train_length
                if encoding is not None:
                    places = positions.text(length)
                    jax.eval_shape(lambda e=encoding, p=places: e.at(p).tokens.made)
