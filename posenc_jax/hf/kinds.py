"""Says which kind each layer of a model has, as its config lists or counts them."""

from collections.abc import Callable, Mapping
from typing import Any

from posenc_jax.hf import models
from posenc_jax.hf.values import LAYERS, numbers_of_layers, whole

FULL, SLIDING, CHUNKED = "full_attention", "sliding_attention", "chunked_attention"
_LINEAR, _CONV, _CROSS = "linear_attention", "conv", "cross_attention"

# Kinds of layers in which the text does not attend to itself.
WITHOUT_ATTENTION = {_LINEAR, _CONV, _CROSS, "mamba", "mamba2", "recurrent", "moe", "mlp"}

# Lists of the layers of one kind, and the kind of the others.
_LISTS = {
    "attn_layer_indices": (FULL, _LINEAR),
    "full_attn_idxs": (FULL, _CONV),
    "cross_attention_layers": (_CROSS, FULL),
}
_INTERVALS = ("sliding_window_pattern", "global_attn_every_n_layers", "full_attention_interval")


def kinds_of(config: Mapping[str, Any]) -> list[str]:
    """Returns the kind of each layer, or an empty list if the config does not distinguish them."""
    kinds = config.get("layer_types") or config.get("layers_block_type") or []
    if not isinstance(kinds, (list, tuple)):
        raise ValueError(f"layer_types={kinds!r} must be a list")
    if config.get("model_type") == "dory":  # Each of its layers is listed as attention and MLP.
        return list(kinds[::2]) if "mlp" in kinds else list(kinds)
    given = [key for key in LAYERS if key in config]
    kind_at = None if kinds or not given else _rule(config)
    if kind_at is None:
        return list(kinds)
    return [kind_at(number) for number in range(whole(config, *given))]


def number_of_layers(config: Mapping[str, Any]) -> int:
    """Returns how many layers the model has, by the list of their kinds if there is one."""
    listed, kinds = config.get("layer_types"), kinds_of(config)
    if listed and any(key in config for key in LAYERS):
        count = whole(config, *LAYERS)
        if len(listed) != count:
            raise ValueError(f"layer_types has {len(listed)} entries for {count} layers")
    return len(kinds) or whole(config, *LAYERS)


def turns_rule(config: Mapping[str, Any]) -> Callable[[int], bool]:
    """Returns a function that says, by the number of a layer, whether it has RoPE."""
    listed = config.get("no_rope_layers")
    if listed:
        is_list = isinstance(listed, (list, tuple))
        if not is_list or not all(isinstance(each, int) and each in (0, 1) for each in listed):
            raise ValueError(f"no_rope_layers={listed!r} must be a list of 0 and 1")
        return lambda number: bool(listed[number])
    interval = config.get("no_rope_layer_interval", 4)
    if type(interval) is not int or interval < 1:
        raise ValueError(f"no_rope_layer_interval={interval!r} must be a positive whole number")
    return lambda number: (number + 1) % interval != 0


def has_only_full(config: Mapping[str, Any]) -> bool:
    """Returns whether a null window makes all layers full attention with RoPE."""
    by_window = config.get("model_type") in models.NOPE_BESIDE_WINDOWS
    return by_window and "sliding_window" in config and config["sliding_window"] is None


def _rule(config) -> Callable[[int], str] | None:
    """Returns a function from the number of a layer to its kind, or None."""
    model = config.get("model_type")
    if model == "llama4_text":
        turns = turns_rule(config)
        return lambda number: CHUNKED if turns(number) else FULL
    if model == "jamba":
        period = whole(config, "attn_layer_period", default=8)
        (first,) = numbers_of_layers("attn_layer_offset", [config.get("attn_layer_offset", 4)])
        return lambda number: FULL if number % period == first else _LINEAR
    if model == "recurrent_gemma":
        blocks = config.get("block_types", ["recurrent", "recurrent", "attention"])
        if not isinstance(blocks, (list, tuple)) or not blocks:
            raise ValueError(f"block_types={blocks!r} must be a list of kinds of layers")
        return lambda number: blocks[number % len(blocks)]
    if model == "kimi_linear":
        linear = config.get("linear_attn_config", {})
        if not isinstance(linear, Mapping):
            raise ValueError(f"linear_attn_config={linear!r} must be a dict")
        if (attending := linear.get("full_attn_layers")) is not None:  # Counted from 1.
            attending = numbers_of_layers("full_attn_layers", attending)
            return lambda number: FULL if number + 1 in attending else _LINEAR
        return lambda number: FULL if number and number % 4 == 0 else _LINEAR
    for key, (kind, other) in _LISTS.items():
        if key in config:
            listed = numbers_of_layers(key, config[key])
            return lambda number: kind if number in listed else other
    return _every(config, model)


def _every(config, model):
    if model not in models.FULL_EVERY or has_only_full(config):
        return None
    interval, other = models.FULL_EVERY[model]
    interval = whole(config, *_INTERVALS, default=interval)
    last = whole(config, *LAYERS) - 1 if model in models.LAST_FULL else None
    return lambda number: FULL if (number + 1) % interval == 0 or number == last else other
