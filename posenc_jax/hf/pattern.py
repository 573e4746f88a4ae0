"""Reads all layers of a published model from its ``config.json``, as a pattern for ``Transformer``.

``from_hf`` is separate, because it returns one encoding for ``attend`` and also takes a section of
a config alone, whereas a pattern needs the number of layers.
"""

import os
from collections.abc import Mapping
from typing import Any

import jax
from flax import nnx

from posenc_jax.encoding import Encoding
from posenc_jax.encodings.wrappers.logit_scale import LogScale
from posenc_jax.hf import bias, from_hf
from posenc_jax.hf.config import check_known, flattened
from posenc_jax.hf.layers import WITHOUT_ATTENTION, kinds_of, number_of_layers, window_of
from posenc_jax.hf.table import row_of
from posenc_jax.hf.values import FULL, LAYERS, SLIDING, whole
from posenc_jax.model.layers import Layers
from posenc_jax.registry import make


def layers_from_hf(
    config: Mapping[str, Any] | str | os.PathLike[str] | Any,
    *,
    layer_type: str | None = None,
    layout: str | None = None,
    rngs: nnx.Rngs | None = None,
    **keys: Any,
) -> Layers:
    """Returns the encoding and the window of every layer, as the shortest pattern that repeats.

    Layers that are equal share one instance. A layer without attention to the text (Mamba, linear
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
    config = flattened(config, keys)
    check_known(config, layout)
    if bias.has_t5(config):
        return _of_t5(config, layer_type, layout, rngs)
    if layer_type is not None:
        raise ValueError(f"layer_type={layer_type!r} must be left out: the result has all layers")
    if bias.has_alibi(config):
        return Layers([from_hf(config, layout=layout)])
    kinds = _kinds(config)
    if row_of(config).scheme == "learned":  # Added once, at the input.
        return Layers([from_hf(config, layout=layout, rngs=rngs)])
    distinct: dict[Any, Encoding] = {}

    def layer(number):
        if kinds and kinds[number] in WITHOUT_ATTENTION:
            return None, None
        encoding = from_hf(config, layer=number, layout=layout, rngs=rngs)
        encoding = distinct.setdefault(jax.tree.structure(encoding), encoding)
        return encoding, window_of(config, number, kinds[number] if kinds else None)

    layers = [layer(number) for number in range(number_of_layers(config))]
    for encoding in distinct.values():
        if isinstance(encoding, LogScale) and rngs is not None:
            count = sum(other is encoding for other, _ in layers)
            sizes = {"num_heads": encoding.s.shape[0], "num_layers": count}
            stacked: Any = make("log_scale", **sizes, over=encoding.inner, rngs=rngs)
            layers = [(stacked if e is encoding else e, window) for e, window in layers]
    return _shortest(layers)


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
      ValueError: the model is not known or not offered, or the config does not give the kind of
        each layer.
    """
    config = flattened(config, keys)
    check_known(config, None)
    kinds, sinks = _kinds(config), row_of(config).sinks
    count = number_of_layers(config)
    kinds = kinds or [FULL] * count
    having = {SLIDING} if sinks == "windows" else {*kinds} - WITHOUT_ATTENTION if sinks else set()
    return ["head" if kind in having else None for kind in kinds]


def same(encoding: Encoding | None, other: Encoding | None) -> bool:
    """Returns whether two encodings have the same settings."""
    structure: Any = jax.tree.structure(encoding)
    return structure == jax.tree.structure(other)


def _of_t5(config, layer_type, layout, rngs):
    of_decoder = layer_type == "decoder" and "num_decoder_layers" in config
    spellings = ("num_decoder_layers",) if of_decoder else LAYERS
    count = whole(config, *spellings) if row_of(config).own_tables else 1
    arguments: dict[str, Any] = dict(layer_type=layer_type, layout=layout, rngs=rngs)
    return Layers([from_hf(config, **arguments) for _ in range(count)])


def _kinds(config) -> list[str]:
    """Returns the kind of each layer; the config must say it if layers differ."""
    kinds = kinds_of(config)
    if row_of(config).kinds_needed and not kinds:
        raise ValueError(
            f"layer_types is missing: layers of model_type={config['model_type']!r} differ, and it "
            "gives the kind of each; add the list that the model's code makes"
        )
    return kinds


def _shortest(layers) -> Layers:
    names = [(id(encoding), window) for encoding, window in layers]
    count = len(layers)
    period = next(
        period
        for period in range(1, count + 1)
        if count % period == 0 and names == names[:period] * (count // period)
    )
    encodings, windows = zip(*layers[:period], strict=True)
    return Layers(encodings, windows)
