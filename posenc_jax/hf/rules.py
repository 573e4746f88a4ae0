"""Defines rules of single models that no number in the table could express.

A rule of kinds returns the kind of every layer, or None where the config leaves it open. A rule of
rotation says whether one layer has RoPE. A rule of reach returns the window of ``attend`` for the
size that the config has.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from posenc_jax.encoding import Encoding
from posenc_jax.hf.values import (
    CHUNKED,
    FULL,
    HEADS,
    LAYERS,
    LINEAR,
    SLIDING,
    WIDTH,
    entries,
    is_text,
    is_whole,
    mapping,
    number,
    whole,
)
from posenc_jax.registry import make

Config = Mapping[str, Any]
Kinds = Callable[[Config, int], list[str] | None]
Reach = Callable[[Config, int], int | tuple[int, int]]


@dataclasses.dataclass(frozen=True)
class At:
    """Says which layer is meant."""

    number: int | None  # its number from 0, or None where it is not known
    kind: str | None  # its kind, or None where it is not known

    def one_of(self, *kinds: str) -> str:
        """Returns the kind of the layer, which must be one of ``kinds``."""
        if self.kind not in kinds:
            asked = "" if self.number is None else f"layer={self.number}: "
            raise ValueError(
                f"{asked}layer_type={self.kind!r} must be one of {', '.join(map(repr, kinds))}: "
                "they differ in this config"
            )
        return self.kind

    def number_for(self, key: str) -> int:
        """Returns the number of the layer, which must be known to read ``key``."""
        if self.number is None:
            raise ValueError(
                f"{key} differs between layers: pass layer=, the number of the layer that is meant"
            )
        return self.number

    def of(self, key: str, values: Sequence[Any]) -> Any:
        """Returns the layer's entry in a list that the config has under ``key``."""
        if self.number_for(key) >= len(values):
            raise ValueError(f"{key} must have one entry for each layer")
        return values[self.number_for(key)]


# Rules of kinds


def every(
    interval: int,
    other: str = SLIDING,
    *,
    key: str | None = None,
    first: bool = False,
    last: bool = False,
    all_full: bool = False,
) -> Kinds:
    """Returns the rule that every ``interval``-th layer has full attention.

    Args:
      interval: what the class has where the config does not say.
      other: the kind of the other layers.
      key: the key that gives another interval; None if the class reads none.
      first: whether layer 0 begins the count with full attention.
      last: whether the last layer has full attention too.
      all_full: whether a null window makes all layers full attention with RoPE.
    """

    def rule(config: Config, count: int) -> list[str] | None:
        if all_full and has_null_window(config):
            return None
        step = whole(config, key, default=interval) if key else interval
        kinds = [FULL if (n + (not first)) % step == 0 else other for n in range(count)]
        return [*kinds[:-1], FULL] if last else kinds

    return rule


def llama4_kinds(config: Config, count: int) -> list[str]:
    """Returns chunked attention for layers with RoPE, and full attention for the others."""
    return [CHUNKED if rotates else FULL for rotates in rope_layers(config, count)]


def jamba_kinds(config: Config, count: int) -> list[str]:
    """Returns full attention once in every period, by default in layers 4, 12, 20 and so on."""
    period = whole(config, "attn_layer_period", default=8)
    first = whole(config, "attn_layer_offset", default=4, minimum=0)
    return [FULL if n % period == first else LINEAR for n in range(count)]


def zamba_kinds(config: Config, count: int) -> list[str]:
    """Returns the hybrid layer 2, and then one in every period, counted from layer 3 on."""
    period = whole(config, "attn_layer_period", default=6)
    first = whole(config, "attn_layer_offset", default=4, minimum=0)
    rest = ["hybrid" if n % period == first else "mamba" for n in range(count - 3)]
    return ["mamba", "mamba", "hybrid", *rest][:count]


def zamba2_kinds(config: Config, count: int) -> list[str] | None:
    """Returns the kinds of Zamba2-2.7B, which alone leaves them out."""
    sixths = [*["mamba"] * 5, "hybrid"] * 7
    ends = [*["mamba"] * 4, "hybrid", *["mamba"] * 3, "hybrid", "mamba", "mamba"]
    return ["mamba", *sixths, *ends] if count == 54 else None


def recurrent_gemma_kinds(config: Config, count: int) -> list[str]:
    """Returns ``block_types``, repeated over all layers."""
    blocks = entries(config, "block_types", is_text, ["recurrent", "recurrent", "attention"])
    return [blocks[n % len(blocks)] for n in range(count)]


def kimi_linear_kinds(config: Config, count: int) -> list[str]:
    """Returns the listed layers as full attention, by default layers 4, 8, 12 and so on."""
    linear = mapping(config, "linear_attn_config")
    if linear.get("full_attn_layers") is None:
        return [FULL if n and n % 4 == 0 else LINEAR for n in range(count)]
    attending = entries(linear, "full_attn_layers", is_whole)  # Counted from 1.
    return [FULL if n + 1 in attending else LINEAR for n in range(count)]


# Rules of rotation


def rope_layers(config: Config, count: int) -> list[bool]:
    """Returns whether each layer has RoPE, by ``no_rope_layers`` or by its interval."""
    listed = entries(config, "no_rope_layers", lambda x: x in (0, 1))
    if listed and len(listed) < count:
        raise ValueError("no_rope_layers must have one entry for each layer")
    if listed:
        return [bool(x) for x in listed]
    interval = whole(config, "no_rope_layer_interval", default=4)
    return [(n + 1) % interval != 0 for n in range(count)]


def listed(config: Config, at: At) -> bool:
    """Returns whether ``no_rope_layers`` gives the layer RoPE."""
    count = 0 if at.number is None else at.number + 1
    return at.of("no_rope_layers", rope_layers(config, count))


def listed_or_chunked(config: Config, at: At) -> bool:
    """Returns the same as ``listed``, or whether a layer without a number is chunked."""
    if at.number is None and at.kind is not None:
        return at.one_of(CHUNKED, FULL) == CHUNKED
    return listed(config, at)


def not_from_last(config: Config, at: At) -> bool:
    """Says that every fourth layer, counted back from the last, has no RoPE."""
    if "layer_rope_theta" in config:  # It says so itself.
        return True
    kinds, count = config.get("layer_types"), whole(config, *LAYERS, default=0)
    last = (len(kinds) if kinds else count) - 1
    return at.of("layer_rope_theta", [(last - n) % 4 != 0 for n in range(last + 1)])


def in_windows(config: Config, at: At) -> bool:
    """Returns whether the layer has a window."""
    return at.one_of(FULL, SLIDING) == SLIDING


def in_windows_if_any(config: Config, at: At) -> bool:
    """Returns whether the layer has a window, or the model has none."""
    return has_null_window(config) or in_windows(config, at)


def in_windows_or_by_section(config: Config, at: At) -> bool:
    """Returns True where each kind of layer has a section, which then says whether it rotates."""
    return has_sections(config) or in_windows(config, at)


def by_window(config: Config, at: At) -> bool:
    """Returns whether the layer has a window, as Cohere's code does; a null window is refused."""
    if not in_windows(config, at):
        return False
    if has_null_window(config):
        raise ValueError(
            "sliding_window=null: the model's code rotates nothing without a window, and "
            "transformers does not run without one: give the window that the model has"
        )
    return True


def dense_or_by_window(config: Config, at: At) -> bool:
    """Returns whether the layer is dense, where the model has dense layers, or has a window."""
    kinds = config.get("mlp_layer_types") or ()
    if config.get("prefix_dense_sliding_window_pattern") == 1 and "dense" in kinds:
        # Dense layers rotate, whatever their window.
        return at.of("mlp_layer_types", kinds) == "dense" or at.kind == SLIDING
    return by_window(config, at)


def has_sections(config: Config) -> bool:
    """Returns whether the config has a rotary section for each kind of layer."""
    section = config.get("rope_parameters") or config.get("rope_scaling") or {}
    return any(isinstance(value, Mapping) for value in section.values())


def has_null_window(config: Config) -> bool:
    """Returns whether ``sliding_window`` is null, and not left out."""
    return "sliding_window" in config and config["sliding_window"] is None


# Windows


def back(config: Config, size: int) -> int:
    """Returns the last ``size`` keys, the query included, of a causal model."""
    sides = config.get("use_bidirectional_attention")
    return not_known(config, size) if sides not in (None, False, "vision") else size


def radius(config: Config, size: int) -> tuple[int, int]:
    """Returns ``size`` keys to both sides of the query."""
    return size, size


def halves(config: Config, size: int) -> tuple[int, int]:
    """Returns half of ``size`` keys to both sides of the query."""
    return size // 2, size // 2


def gemma3(config: Config, size: int) -> int | tuple[int, int]:
    """Returns ``halves`` for an encoder, and ``size`` for a decoder."""
    return halves(config, size) if config.get("use_bidirectional_attention") else size


def t5gemma2(config: Config, size: int) -> tuple[int, int]:
    """Returns ``size`` keys around the query; an even size has one more to the right."""
    return (size + 1) // 2 - 1, size // 2


def not_known(config: Config, size: int) -> Any:
    """Raises ValueError, because the reach of the windows was not verified."""
    raise ValueError(
        f"model_type={config.get('model_type')!r}: how far its windows reach to both sides of a "
        "query is not known"
    )


# Layers without rotation


def nope(config: Config) -> Encoding:
    return make("nope")


def beam_scale(config: Config) -> Encoding:
    return make("beam_scale")


def llama4_temperature(config: Config) -> Encoding:
    # The published configs hold a number where the class has a switch.
    if not config.get("attn_temperature_tuning", True):
        return make("nope")
    return make(
        "llama4_temperature",
        floor_scale=whole(config, "floor_scale", default=8192),
        attn_scale=number(config, "attn_scale", default=0.1),
    )


# Widths of heads


def zamba2_head_dim(config: Config) -> int:
    """Returns the width of a head: twice the model's width per head; kv_channels is not read."""
    if "attention_head_dim" in config:
        return whole(config, "attention_head_dim")
    return 2 * whole(config, *WIDTH) // whole(config, *HEADS)
