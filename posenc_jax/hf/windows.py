"""Says which keys the queries of each layer of a model see, by its config."""

from collections.abc import Mapping
from typing import Any

from posenc_jax.attention import Chunks
from posenc_jax.hf import models
from posenc_jax.hf.kinds import CHUNKED, SLIDING, kinds_of, turns_rule
from posenc_jax.hf.values import by_number_of_layer, flag, whole
from posenc_jax.model.layers import Window

_SLIDING = {SLIDING, "hybrid_sliding"}
# Sparse attention ("indexed") may choose among all keys.
_FULL = {"full_attention", "attention", "hybrid", "indexed_attention"}


def window_of(config: Mapping[str, Any], number: int) -> Window:
    """Returns which keys a query sees in layer ``number``, as an entry of ``Layers``.

    Raises:
      ValueError: the layer has a window that ``Layers`` cannot express, or it is not known whether
        it has one.
    """
    model = config.get("model_type")
    if model == "recurrent_gemma":
        return whole(config, "attention_window_size", default=2048)
    kinds = kinds_of(config)
    kind = kinds[number] if kinds else None
    if kind == CHUNKED:
        return Chunks(whole(config, "attention_chunk_size", default=8192))
    if kind is not None and kind not in _SLIDING | _FULL:
        raise ValueError(
            f"layer_types[{number}]={kind!r}: which keys such a layer sees is not known; those "
            f"known are {', '.join(sorted(_SLIDING | _FULL | {CHUNKED}))}"
        )
    if model in models.WINDOW_UNUSED or not _slides(config, kind, number):
        return None
    both_sides = config.get("use_bidirectional_attention") not in (None, False, "vision")
    if model in models.WINDOW_BOTH_SIDES or both_sides:
        raise ValueError(
            f"layer {number} of {model!r} has a window that reaches to both sides of a query; "
            "windows here reach back"
        )
    return _width(config, number)


def _slides(config, kind, number) -> bool:
    """Returns whether a layer has the window of the config."""
    model = config.get("model_type")
    switched = model in models.WINDOW_SWITCHED
    if switched and not flag(config, "use_sliding_window", default=False):
        return False
    if kind in _SLIDING:
        return True
    if model in models.WINDOW_EVERYWHERE:
        # Without the key, the class has a window of its own, or none.
        return config.get("sliding_window", models.WINDOWS.get(model)) is not None
    if kind is not None or config.get("sliding_window") is None:
        return False
    if model in models.WINDOW_FROM:
        return number >= whole(config, "max_window_layers", minimum=0)
    if model == "smollm3":
        return not turns_rule(config)(number)
    if model in models.LAYOUTS and model not in models.KINDS_NEEDED and not switched:
        return False
    raise ValueError(
        f"sliding_window={config['sliding_window']!r}: which layers have it is not known without "
        "layer_types, the kind of each layer"
    )


def _width(config, number) -> Window:
    by_layer = by_number_of_layer("per_layer_config", config.get("per_layer_config") or {})
    window = by_layer.get(number, {}).get("sliding_window", config.get("sliding_window"))
    window = models.WINDOWS.get(config.get("model_type")) if window is None else window
    return whole({} if window is None else {"sliding_window": window}, "sliding_window")
