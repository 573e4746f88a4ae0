"""Reads all layers of a published model from its ``config.json``, as a pattern for ``Transformer``.

It is separate from ``from_hf``, which returns one encoding for ``attend`` and also takes a mere
section of a config; a pattern needs the number of layers.
"""

from collections.abc import Mapping
from typing import Any

import jax
from flax import nnx

from posenc_jax.encoding import Encoding
from posenc_jax.encodings.wrappers.logit_scale import LogScale
from posenc_jax.hf import bias, from_hf, models
from posenc_jax.hf.config import flattened
from posenc_jax.hf.kinds import FULL, SLIDING, WITHOUT_ATTENTION, kinds_of, number_of_layers
from posenc_jax.hf.learned import scale_of_each_layer
from posenc_jax.hf.windows import window_of
from posenc_jax.model.layers import Layers


def layers_from_hf(
    config: Mapping[str, Any],
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
    use it, if each has its own (Mistral Large 4).

    Args:
      config: what ``config.json`` holds, of any model that ``from_hf`` knows.
      layer_type: "encoder" or "decoder" of T5, and left out for all others.
      layout, rngs, keys: as in ``from_hf``.

    The caller must add what ``from_hf`` leaves to the caller, except for windows. The same holds
    for sinks (``sinks_from_hf``), sizes that differ between layers, and the choice of keys in
    sparse attention.

    Raises:
      ValueError: the model is not known or not offered, the config does not say which layers are of
        which kind, or a window reaches to both sides; the message names the reason.
    """
    config = flattened(config, keys)
    models.check_known(config, layout)
    if bias.has_t5(config):
        return _of_t5(config, layer_type, layout, rngs)
    if layer_type is not None:
        raise ValueError(f"layer_type={layer_type!r} must be left out: the result has all layers")
    if bias.has_alibi(config):
        return Layers([from_hf(config, layout=layout)])
    _check_kinds(config)
    kinds = kinds_of(config)
    distinct: list[Encoding] = []

    def shared(encoding):
        found = next((other for other in distinct if same(other, encoding)), None)
        if found is None:
            distinct.append(encoding)
        return encoding if found is None else found

    def layer(number):
        if kinds and kinds[number] in WITHOUT_ATTENTION:
            return None, None
        encoding = from_hf(config, layer=number, layout=layout, rngs=rngs)
        return shared(encoding), window_of(config, number)

    each = [layer(number) for number in range(number_of_layers(config))]
    for encoding in distinct:
        if isinstance(encoding, LogScale) and rngs is not None:
            count = sum(other is encoding for other, _ in each)
            stacked = scale_of_each_layer(encoding, count, rngs)
            each = [(stacked if e is encoding else e, window) for e, window in each]
    return _shortest(each)


def sinks_from_hf(config: Mapping[str, Any], **keys: Any) -> list[str | None]:
    """Returns the sinks of every layer, as ``Transformer(sinks=...)`` takes them.

    "head" means one learned sink per head, and None a layer without sinks, or without
    attention to the text. The values are in the checkpoint.

    Args:
      config: what ``config.json`` holds, of any model that ``from_hf`` knows.
      **keys: as in ``from_hf``.

    In MiMo-V2-Flash the layers with sinks also have twice as many kv heads as the others, which
    ``Transformer`` cannot have.

    Raises:
      ValueError: the model is not known or not offered, or the config does not say which layers are
        of which kind.
    """
    config = flattened(config, keys)
    models.check_known(config, None)
    _check_kinds(config)
    model, kinds = config.get("model_type"), kinds_of(config)
    if model in models.SINKS_IN_WINDOWS:
        return ["head" if kind == SLIDING else None for kind in kinds]
    if model not in models.SINKS:
        return [None] * number_of_layers(config)
    kinds = kinds or [FULL] * number_of_layers(config)
    return [None if kind in WITHOUT_ATTENTION else "head" for kind in kinds]


def same(encoding: Encoding | None, other: Encoding | None) -> bool:
    """Returns whether two encodings have the same settings."""
    structure: Any = jax.tree.structure(encoding)
    return structure == jax.tree.structure(other)


def _of_t5(config, layer_type, layout, rngs):
    if config.get("model_type") == "umt5":
        raise ValueError(
            "model_type='umt5' has a table in each layer: give each an encoding of its own, "
            "Layers([from_hf(config, layer_type=..., rngs=rngs) for _ in range(num_layers)])"
        )
    return Layers([from_hf(config, layer_type=layer_type, layout=layout, rngs=rngs)])


def _check_kinds(config):
    """Checks that a config lists the kinds of its layers if they differ."""
    if config.get("model_type") in models.KINDS_NEEDED and not kinds_of(config):
        raise ValueError(
            f"layer_types is missing: layers of model_type={config['model_type']!r} differ, and it "
            "says of which kind each is; add the list that the model's code makes"
        )


def _shortest(each) -> Layers:
    names = [(id(encoding), window) for encoding, window in each]
    count = len(each)
    period = next(
        period
        for period in range(1, count + 1)
        if count % period == 0 and names == names[:period] * (count // period)
    )
    encodings, windows = zip(*each[:period], strict=True)
    return Layers(encodings, windows)
