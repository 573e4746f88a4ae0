"""Reads all layers of a published model from its ``config.json``."""

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
from flax import nnx

from posenc_jax.checks import count_of
from posenc_jax.encoding import Encoding
from posenc_jax.encodings.wrappers.logit_scale import LogScale
from posenc_jax.hf import bias, encoding_of
from posenc_jax.hf.common import count_of_layers
from posenc_jax.hf.config import read
from posenc_jax.hf.families import family_of
from posenc_jax.hf.layers import WITHOUT_ATTENTION, window_of
from posenc_jax.hf.values import FULL, LAYERS, SLIDING, flag, whole
from posenc_jax.model.layers import Layers, Window
from posenc_jax.registry import make


class ModelLayers(Layers):
    """Describes the layers of one model as the shortest pattern that repeats; it has a length."""

    def __init__(self, layers: Sequence[tuple[Encoding | None, Window]]):
        self.count = count = len(layers)
        names = [(id(encoding), window) for encoding, window in layers]
        periods = [p for p in range(1, count + 1) if count % p == 0]
        period = next(p for p in periods if names == names[:p] * (count // p))
        super().__init__(*zip(*layers[:period], strict=True))

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[tuple[Encoding | None, Window]]:
        return map(self.at, range(self.count))

    def at(self, number: int) -> tuple[Encoding | None, Window]:
        """Returns the encoding and the window of layer ``number``, from 0."""
        return super().at(count_of("number", number, 0, self.count - 1))


def layers_from_hf(
    config: Mapping[str, Any] | str | os.PathLike[str] | Any,
    *,
    layer_type: str | None = None,
    layout: str | None = None,
    rngs: nnx.Rngs | None = None,
    **keys: Any,
) -> ModelLayers:
    """Returns the encoding and the window of every layer, as the shortest pattern that repeats.

    ``len`` counts the layers, and a loop gives the pair of each. Layers that are equal share one
    instance. A layer without attention to the text (Mamba, linear
    attention, convolution, attention to images) is None; ``Transformer`` accepts no pattern that
    has one. ``Layers.at(n)`` is layer n; the encoding there holds the parameters of all layers that
    use it, if each has its own (Mistral Large 4). The window of an encoder (ModernBERT,
    EmbeddingGemma) is a pair, for ``attend(..., causal=False, window=window)``.

    Args:
      config: as in ``from_hf``, of any model that it knows.
      layer_type: "encoder" or "decoder" of T5, and left out for all others.
      layout, rngs, keys: as in ``from_hf``.

    The caller must add what ``from_hf`` leaves to the caller, except for windows. The same holds
    for sinks (``sinks_from_hf``), sizes that differ between layers, and the choice of keys in
    sparse attention.

    Raises:
      ValueError: the model is not known or not offered, the config does not give the kind of each
        layer, or the reach of a window is not known; the message names the reason.
    """
    config = read(config, keys, layout)
    if bias.has_t5(config):
        of_decoder = layer_type == "decoder" and "num_decoder_layers" in config
        count = whole(config, *(("num_decoder_layers",) if of_decoder else LAYERS))
        # UMT5 has a table in each layer, and the others share one.
        tables = [
            encoding_of(config, layer_type=layer_type, layout=layout, rngs=rngs)
            for _ in range(count if config.get("model_type") == "umt5" else 1)
        ]
        return ModelLayers([(tables[n % len(tables)], None) for n in range(count)])
    if layer_type is not None:
        raise ValueError(f"layer_type={layer_type!r} must be left out: the result has all layers")
    kinds, count = _kinds(config), count_of_layers(config, needed=True)
    if bias.of_all_layers(config, rngs) is not None:
        return ModelLayers([(encoding_of(config, layout=layout, rngs=rngs), None)] * count)
    distinct: dict[Any, Encoding] = {}

    def layer(number):
        if kinds and kinds[number] in WITHOUT_ATTENTION:
            return None, None
        encoding = encoding_of(config, layer=number, layout=layout, rngs=rngs)
        encoding = distinct.setdefault(jax.tree.structure(encoding), encoding)
        return encoding, window_of(config, number)

    layers = [layer(number) for number in range(count)]
    for encoding in distinct.values():
        if isinstance(encoding, LogScale) and rngs is not None:
            users = sum(other is encoding for other, _ in layers)
            sizes = {"num_heads": encoding.s.shape[0], "num_layers": users}
            stacked: Any = make("log_scale", **sizes, over=encoding.inner, rngs=rngs)
            layers = [(stacked if e is encoding else e, window) for e, window in layers]
    return ModelLayers(layers)


def sinks_from_hf(
    config: Mapping[str, Any] | str | os.PathLike[str] | Any, **keys: Any
) -> list[str | None]:
    """Returns the sinks of every layer, as ``Transformer(sinks=...)`` takes them.

    "head" means one learned sink per head, and None a layer without sinks, or without
    attention to the text. The values are in the checkpoint.

    Args:
      config: as in ``from_hf``, of any model that it knows.
      **keys: as in ``from_hf``.

    In MiMo-V2-Flash the layers with sinks also have twice as many kv heads as the others, which
    ``Transformer`` cannot have.

    Raises:
      ValueError: the model is not known or not offered, the config does not give the kind of each
        layer, or the sinks are not those of heads (IQuest-Q1).
    """
    config = read(config, keys)
    kinds, sinks = _kinds(config), family_of(config).sinks
    if sinks == "keys" and flag(config, "enable_sink_attention", default=True):
        raise ValueError(
            f"model_type={config['model_type']!r} has a learned key for each kv head, and no sink "
            "of its own for each head: multiply it with the rotated queries and the softmax scale, "
            "and pass the products [B, T, H] as sinks= of attend"
        )
    count = count_of_layers(config, needed=True)
    kinds = kinds or [FULL] * count
    having = {"windows": {SLIDING}, "every": {*kinds} - WITHOUT_ATTENTION}.get(sinks or "", ())
    return ["head" if kind in having else None for kind in kinds]


def same(encoding: Encoding | None, other: Encoding | None) -> bool:
    """Returns whether two encodings have the same settings."""
    structure: Any = jax.tree.structure(encoding)
    return structure == jax.tree.structure(other)


def _kinds(config) -> list[str]:
    """Returns the kind of each layer; the config must say it if layers differ."""
    kinds = config.get("layer_types") or []
    if family_of(config).kinds_needed and not kinds:
        raise ValueError(
            f"layer_types is missing: layers of model_type={config['model_type']!r} differ, and it "
            "gives the kind of each; add the list that the model's code makes"
        )
    return kinds
