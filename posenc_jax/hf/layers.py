"""Selects the requested layer of a model, and the part of the config that applies to it."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from posenc_jax.hf import models
from posenc_jax.hf.kinds import (
    FULL,
    SLIDING,
    WITHOUT_ATTENTION,
    has_only_full,
    kinds_of,
    number_of_layers,
    turns_rule,
)
from posenc_jax.hf.positions import about_positions
from posenc_jax.hf.values import (
    LAYERS,
    agreed,
    by_number_of_layer,
    is_number,
    numbers_of_layers,
    whole,
)

# Keys for the base of sliding layers. ModernBERT also has its own key for that of full layers.
_LOCAL_BASES = ("rope_local_base_freq", "local_rope_theta", "swa_rope_theta")
_OWN_SIZES = {"head_dim", "qk_rope_head_dim", "qk_nope_head_dim"}
_HEAD_DIMS = {FULL: "global_head_dim", SLIDING: "swa_head_dim"}


@dataclasses.dataclass(frozen=True)
class Layer:
    """Holds what a config says about one layer, or about all layers if they are alike.

    Attributes:
      config: every key, with this layer's own values in place of the common ones.
      where: the name of the rotary section in errors.
      section: the rotary section, or None for a layer without RoPE.
    """

    config: dict[str, Any]
    where: str
    section: dict[str, Any] | None


def select(config: dict[str, Any], layer_type: str | None, layer: int | None) -> Layer:
    """Returns the layer of this kind or number; None means both where layers are alike."""
    asked = _Asked(config, layer_type, layer)
    config = dict(config) | _own_sizes(config, asked)
    where, section = _section(config, asked)
    if section is not None:
        section = {key: value for key, value in section.items() if value is not None}
        section = _own_section(config, section, asked)
    return Layer(config, where, section)


class _Asked:
    """Holds which layers were asked for, by number and by kind."""

    def __init__(self, config, layer_type, layer):
        self.model = config.get("model_type")
        self.kinds = kinds_of(config)
        given = [key for key in LAYERS if key in config]
        count = len(self.kinds) or (whole(config, *given) if given else None)
        self.kind, self.layer = layer_type, layer
        if layer is None:
            self.numbers = [
                number
                for number in range(count or 0)
                if not self.kinds or self.kinds[number] not in WITHOUT_ATTENTION
                if layer_type is None or not self.kinds or self.kinds[number] == layer_type
            ]
            return
        if type(layer) is not int or layer < 0 or (count is not None and layer >= count):
            last = "" if count is None else f" below {count}"
            raise ValueError(f"layer={layer!r} must be a whole number of 0 or more{last}")
        self.numbers = [layer]
        if self.kinds:
            self.kind = self.kinds[layer]
        if layer_type not in (None, self.kind):
            raise ValueError(
                f"layer_type={layer_type!r} contradicts layer={layer}, which is of kind "
                f"{self.kind!r}: pass one of them"
            )
        if self.kind in WITHOUT_ATTENTION:
            raise ValueError(f"layer={layer} is of kind {self.kind!r}, which has no attention")

    def kind_of(self, allowed):
        """Returns the kind that was asked for, which must be one of ``allowed``."""
        kind = self.kind
        if kind is None and self.kinds and len({self.kinds[n] for n in self.numbers}) == 1:
            kind = self.kinds[self.numbers[0]]
        if kind is None and self.layer is not None:
            raise ValueError(
                f"layer={self.layer}: the config has no layer_types, which would say of what kind "
                f"this layer is; pass layer_type=, one of {', '.join(map(repr, allowed))}"
            )
        if kind not in allowed:
            raise ValueError(
                f"layer_type={kind!r} must be one of {', '.join(map(repr, allowed))}: they differ "
                "in this config"
            )
        return kind

    def agreed(self, key, value_of):
        """Returns the one value that ``value_of`` gives for all layers that were asked for."""
        if not self.numbers:
            raise ValueError(
                f"{key} differs between layers: pass layer=, the number of the layer that is meant"
            )
        try:
            values = {number: value_of(number) for number in self.numbers}
        except IndexError:
            raise ValueError(f"{key} must have one entry for each layer") from None
        if any(value != values[self.numbers[0]] for value in values.values()):
            raise ValueError(
                f"{key} differs between layers {self.numbers[0]}..{self.numbers[-1]}: pass layer=, "
                "the number of the layer that is meant"
            )
        return values[self.numbers[0]]


def _own_sizes(config, asked) -> dict[str, Any]:
    """Returns the sizes in which these layers differ from the common ones."""
    own = config.get("per_layer_config") or {}
    if not isinstance(own, Mapping) or not all(map(_is_mapping, own.values())):
        raise ValueError(f"per_layer_config={own!r} must be a dict of dicts")
    if own:
        by_number = by_number_of_layer("per_layer_config", own)
        keys = {key for sizes in by_number.values() for key in sizes}
        for key in sorted(filter(about_positions, keys - _OWN_SIZES)):
            raise ValueError(f"{key} in per_layer_config is not read")
        sizes = {
            key: asked.agreed(
                f"{key} in per_layer_config",
                lambda number, key=key: by_number.get(number, {}).get(key, config.get(key)),
            )
            for key in sorted(keys & _OWN_SIZES)
        }
        return {key: value for key, value in sizes.items() if value is not None}
    for kind, key in _HEAD_DIMS.items():
        default = models.GLOBAL_HEAD_DIM.get(asked.model) if kind == FULL else None
        value = config.get(key, default)
        differs = value is not None and value != config.get("head_dim")
        if differs and asked.kind_of((FULL, SLIDING)) == kind:
            return {"head_dim": value}
    return {}


def _section(config, asked) -> tuple[str, dict[str, Any] | None]:
    """Returns the section of these layers and its name; removes the bases of other layers."""
    where, section = _only_section(config)
    if "global_rope_theta" in config:
        config.setdefault("rope_theta", config.pop("global_rope_theta"))
    local_bases = {key: config.pop(key) for key in _LOCAL_BASES if key in config}
    dangling = asked.model in models.DANGLING_KEYS
    if dangling and any(isinstance(value, Mapping) for value in section.values()):
        section = {k: v for k, v in section.items() if k not in ("rope_type", "rope_theta")}
    if section.keys() & {FULL, SLIDING} or any(map(_is_mapping, section.values())):
        _check_sections(config, where, section, local_bases)
        kind = asked.kind_of(list(section))
        section = section[kind]
        if section is not None:
            local = {"rope_theta": agreed(local_bases)} if local_bases and kind == SLIDING else {}
            section = local | {key: value for key, value in section.items() if value is not None}
            if "rope_theta" in section:
                config.pop("rope_theta", None)  # The base of the other layers.
        return f"{where}[{kind!r}]", section
    if local_bases:
        if asked.kind_of((FULL, SLIDING)) == FULL:
            return where, section
        config.pop("rope_theta", None)
        partial = {k: v for k, v in section.items() if k == "partial_rotary_factor"}
        return where, {"rope_type": "default", "rope_theta": agreed(local_bases), **partial}
    if asked.model in models.BASES:
        raise ValueError(
            f"{where} of {asked.model!r} must have a section for each kind of layer, "
            "'full_attention' and 'sliding_attention', or rope_local_base_freq beside it"
        )
    if asked.layer is None and asked.kind is not None:
        known = asked.kinds or models.KINDS.get(asked.model, ())
        if asked.kind not in known:
            raise ValueError(f"layer_type={asked.kind!r} must be left out in this config")
    return where, section


def _is_mapping(value):
    return isinstance(value, Mapping)


def _only_section(config):
    given = {name: config[name] for name in ("rope_parameters", "rope_scaling") if name in config}
    for name, section in given.items():
        if not isinstance(section, Mapping):
            raise ValueError(f"{name}={section!r} must be a dict")
    if len(given) == 2 and config["rope_parameters"] != config["rope_scaling"]:
        raise ValueError("rope_parameters contradicts rope_scaling: one of them is not the model's")
    return next(iter(given.items()), ("config", {}))


def _check_sections(config, where, section, local_bases):
    for kind, value in section.items():
        if not isinstance(value, Mapping | None):
            raise ValueError(f"{kind}={value!r} in {where} must be a dict, or null for no RoPE")
    bases = [value.get("rope_theta") for value in section.values() if value is not None]
    outside = {"rope_theta": config.get("rope_theta"), **local_bases}
    for key, base in outside.items():
        if base is not None and None not in bases and base not in bases:
            raise ValueError(
                f"{key}={base!r} contradicts rope_theta in {where}: one of them is not the model's"
            )


def _own_section(config, section, asked):
    """Returns the section as it applies to these layers, or None if they have no RoPE."""
    if not _turns(config, asked):
        return None
    plain = {k: v for k, v in section.items() if k in ("rope_theta", "partial_rotary_factor")}
    if "rope_scaling_layers" in config:
        scaled = numbers_of_layers("rope_scaling_layers", config["rope_scaling_layers"])
        turned = asked.agreed("rope_scaling_layers", lambda number: number in scaled)
        return section if turned else plain
    if asked.model in models.PLAIN_SLIDING and section.keys() - plain.keys() - {"rope_type"}:
        is_full = asked.kind_of((FULL, SLIDING)) == FULL
        # A section for each kind is read unchanged.
        return section if is_full or _has_sections(config) else plain
    if "layer_rope_theta" in config:
        return _with_own_base(config, section, asked)
    return section


def _has_sections(config):
    _, section = _only_section(config)
    return any(map(_is_mapping, section.values()))


def _with_own_base(config, section, asked):
    bases = config["layer_rope_theta"]
    if not isinstance(bases, (list, tuple)) or not all(map(is_number, bases)):
        raise ValueError(
            f"layer_rope_theta={bases!r} must be a list of numbers, one for each layer"
        )
    base = asked.agreed("layer_rope_theta", lambda number: bases[number])
    if base == 0:
        return None
    shared = section.get("rope_theta", config.get("rope_theta"))
    if asked.model not in models.BASE_BY_LAYER and shared not in (None, base):
        raise ValueError(
            f"layer_rope_theta={base!r} contradicts rope_theta={shared!r}: the code of "
            f"{asked.model!r} only asks whether the former is 0"
        )
    config.pop("rope_theta", None)
    return section | {"rope_theta": base}


def _turns(config, asked) -> bool:
    """Returns whether these layers have RoPE."""
    if config.get("no_rope_layers") or asked.model in models.NO_ROPE_LAYERS:
        if asked.model == "llama4_text" and not asked.numbers and asked.kind is not None:
            return asked.kind_of(("chunked_attention", FULL)) == "chunked_attention"
        return asked.agreed("no_rope_layers", turns_rule(config))
    if asked.model in models.NOPE_FROM_LAST and "layer_rope_theta" not in config:
        last = number_of_layers(config) - 1
        return asked.agreed("layer_rope_theta", lambda number: (last - number) % 4 != 0)
    if asked.model not in models.NOPE_ON_FULL or has_only_full(config):
        return True
    if asked.model == "beam" and _has_sections(config):  # A null among them has been read.
        return True
    if asked.model == "cohere2_moe" and config.get("prefix_dense_sliding_window_pattern") == 1:
        kinds = config.get("mlp_layer_types") or []
        if "dense" in kinds:  # Dense layers turn, whatever their window.
            return asked.agreed(
                "rotation", lambda n: kinds[n] == "dense" or asked.kinds[n] == SLIDING
            )
    is_sliding = asked.kind_of((FULL, SLIDING)) == SLIDING
    is_null = "sliding_window" in config and config["sliding_window"] is None
    if is_sliding and is_null and asked.model in models.TURNS_BY_WINDOW:
        raise ValueError(
            f"sliding_window=null: the code of {asked.model!r} turns nothing without a window, and "
            "that of transformers does not run without one: give the window that the model has"
        )
    return is_sliding
