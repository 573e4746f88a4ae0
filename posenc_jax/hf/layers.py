"""Selects a layer of a model: the part of the config that applies to it, and its window."""

from collections.abc import Mapping
from typing import Any

from posenc_jax.attention import Chunks
from posenc_jax.checks import check_choice
from posenc_jax.hf import rules
from posenc_jax.hf.config import about_positions
from posenc_jax.hf.row import words
from posenc_jax.hf.rules import At, has_sections
from posenc_jax.hf.sections import Section
from posenc_jax.hf.table import ROWS, row_of
from posenc_jax.hf.values import (
    CHUNKED,
    FULL,
    LAYERS,
    LINEAR,
    SLIDING,
    agreed,
    entries,
    flag,
    is_number,
    is_text,
    is_whole,
    mapping,
    whole,
)
from posenc_jax.model.layers import Window

# Kinds of layers in which the text does not attend to itself.
WITHOUT_ATTENTION = {LINEAR} | words("conv cross_attention mamba mamba2 recurrent moe mlp")
_SLIDING = {SLIDING, "hybrid_sliding"}
# Sparse attention ("indexed") may choose among all keys.
_FULL = {FULL, "attention", "hybrid", "indexed_attention"}

# Lists of the layers of one kind, and the kind of the others.
_LISTS = {
    "attn_layer_indices": (FULL, LINEAR),
    "full_attn_idxs": (FULL, "conv"),
    "cross_attention_layers": ("cross_attention", FULL),
    "hybrid_layer_ids": ("hybrid", "mamba"),
}
# The letters of a pattern of Nemotron-H.
_LETTERS = {"M": "mamba", "-": "mlp", "E": "moe", "*": FULL}
# Keys for the base of sliding layers.
_LOCAL_BASES = ("rope_local_base_freq", "local_rope_theta", "swa_rope_theta")
_LAYER_SIZES = {"head_dim", "qk_rope_head_dim", "qk_nope_head_dim"}
_PLAIN = ("rope_theta", "partial_rotary_factor")


def kinds_of(config: Mapping[str, Any]) -> list[str]:
    """Returns the kind of each layer, or an empty list if the config does not distinguish them."""
    row = row_of(config)
    for key in ("layer_types", "layers_block_type"):
        if config.get(key):
            kinds = entries(config, key, is_text)
            # Dory lists each of its layers as attention and MLP.
            return kinds[:: row.per_layer] if "mlp" in kinds else kinds
    if pattern := config.get("hybrid_override_pattern"):
        return [_LETTERS.get(letter, letter) for letter in pattern]
    if "attn_type_list" in config:
        return [FULL if kind else LINEAR for kind in entries(config, "attn_type_list", is_whole)]
    count = whole(config, *LAYERS, default=0)
    if not count:
        return []
    if row.kind_rule and (by_rule := row.kind_rule(config, count)):
        return by_rule
    for key, (kind, other) in _LISTS.items():
        if key in config:
            listed = entries(config, key, is_whole)
            return [kind if number in listed else other for number in range(count)]
    return []


def number_of_layers(config: Mapping[str, Any]) -> int:
    """Returns how many layers the model has, by the list of their kinds if there is one."""
    kinds, listed = kinds_of(config), config.get("layer_types")
    count = whole(config, *LAYERS, default=len(listed or kinds) or None)
    if listed and len(listed) != count:
        raise ValueError(f"layer_types has {len(listed)} entries for {count} layers")
    return len(kinds) or count


def select(config: Mapping[str, Any], layer_type: str | None, layer: int | None) -> Section:
    """Returns the layer of this kind or number; None means both where layers are alike."""
    layers = [at_layer(config, at) for at in _asked(config, layer_type, layer)]
    if any(other != layers[0] for other in layers):
        kinds = ", ".join(sorted(set(kinds_of(config))))
        raise ValueError(
            "layers of this config differ: pass layer=, the number of the layer that is meant"
            + f", or layer_type=, one of {kinds}" * bool(kinds)
        )
    return layers[0]


def at_layer(config: Mapping[str, Any], at: At) -> Section:
    """Returns the keys of a config about the rotation of one layer."""
    config = {**config, **_sizes_of_layer(config, at)}
    if "global_rope_theta" in config:
        config = {"rope_theta": config["global_rope_theta"], **config}
    section = _of_kind(config, at)
    return section if section.keys is None else _of_number(section, at)


def window_of(config: Mapping[str, Any], number: int, kind: str | None) -> Window:
    """Returns which keys a query sees in a layer, as an entry of ``Layers``."""
    if kind == CHUNKED:
        return Chunks(whole(config, "attention_chunk_size", default=8192))
    if kind is not None:  # Which keys a layer of another kind sees is not known.
        check_choice(sorted(_SLIDING | _FULL | {CHUNKED}), **{f"layer_types[{number}]": kind})
    if not _slides(config, number, kind):
        return None
    window = _by_number(config).get(number, {}).get("sliding_window")
    of_layer = config if window is None else {**config, "sliding_window": window}
    return row_of(config).sees(config, whole(of_layer, "sliding_window"))


def _asked(config, layer_type, layer) -> list[At]:
    """Returns the layers of this number or kind; one without a number if the config lists none."""
    kinds = kinds_of(config)
    count = len(kinds) or whole(config, *LAYERS, default=0)
    if layer is not None:
        if type(layer) is not int or layer < 0 or layer >= (count or layer + 1):
            raise ValueError(f"layer={layer!r} must be a whole number of 0 or more below {count}")
        kind = kinds[layer] if kinds else layer_type
        if layer_type not in (None, kind):
            raise ValueError(f"layer_type={layer_type!r} contradicts layer={layer}, a {kind!r}")
        if kind in WITHOUT_ATTENTION:
            raise ValueError(f"layer={layer} is of kind {kind!r}, which has no attention")
        return [At(layer, kind)]
    numbers = [
        number
        for number in range(count)
        if not kinds or kinds[number] not in WITHOUT_ATTENTION
        if layer_type is None or not kinds or kinds[number] == layer_type
    ]
    row, section = row_of(config), _only_section(config)[1]
    known = {*(kinds or row.kinds)}
    known |= {key for key, value in section.items() if isinstance(value, Mapping | None)}
    if row.local or not config.keys().isdisjoint(_LOCAL_BASES):
        known |= {FULL, SLIDING}
    if layer_type is not None and layer_type not in known:
        raise ValueError(
            f"layer_type={layer_type!r} must be left out, or one of {', '.join(sorted(known))}"
        )
    return [At(n, kinds[n] if kinds else layer_type) for n in numbers] or [At(None, layer_type)]


def _by_number(config) -> dict[int, Mapping[str, Any]]:
    """Returns the keys in which single layers differ, by their number."""
    return {int(name): keys for name, keys in mapping(config, "per_layer_config").items()}


def _sizes_of_layer(config, at) -> dict[str, Any]:
    """Returns the sizes in which a layer differs from the common ones."""
    row, by_number = row_of(config), _by_number(config)
    if by_number:
        keys = {key for of_layer in by_number.values() for key in of_layer}
        if unread := sorted(filter(about_positions, keys - _LAYER_SIZES)):
            raise ValueError(f"{unread[0]} in per_layer_config is not read")
        if keys.isdisjoint(_LAYER_SIZES):
            return {}
        of_layer = by_number.get(at.number_for("per_layer_config"), {})
        return {key: of_layer[key] for key in keys & _LAYER_SIZES if of_layer.get(key) is not None}
    for kind, key, default in (
        (FULL, "global_head_dim", row.full_head_dim),
        (SLIDING, "swa_head_dim", None),
    ):
        value = config.get(key, default)
        differs = value is not None and value != config.get("head_dim")
        if differs and at.one_of(FULL, SLIDING) == kind:
            return {"head_dim": value}
    return {}


def _of_kind(config, at) -> Section:
    """Returns the section of the layer's kind, with the base of this kind."""
    row = row_of(config)
    where, keys = _only_section(config)
    local = {key: config[key] for key in _LOCAL_BASES if key in config}
    if row.dangling and has_sections(config):
        keys = {k: v for k, v in keys.items() if k not in ("rope_type", "rope_theta")}
    if keys.keys() & {FULL, SLIDING} or has_sections(config):
        _check_bases(config, where, keys, local)
        kind = at.one_of(*keys)
        section = Section(_without_nulls(keys[kind]), f"{where}[{kind!r}]", config)
        if section.keys is None:
            return section
        base = agreed(local) if local and kind == SLIDING else None
        base = section.keys.get("rope_theta", base)
        return section if base is None else section.with_base(base)
    section = Section(_without_nulls(keys), where, config)
    if local:
        if at.one_of(FULL, SLIDING) == FULL:
            return section
        if row.local and not row.plain_sliding:
            return section.with_base(agreed(local))
        partial = {k: v for k, v in section.keys.items() if k == "partial_rotary_factor"}
        return section._replace(keys={"rope_type": "default", **partial}).with_base(agreed(local))
    if row.local:
        raise ValueError(
            f"{where} must have a section for each kind of layer, 'full_attention' and "
            "'sliding_attention', or rope_local_base_freq beside it"
        )
    return section


def _without_nulls(keys):
    return None if keys is None else {k: v for k, v in keys.items() if v is not None}


def _only_section(config) -> tuple[str, Mapping[str, Any]]:
    given = [name for name in ("rope_parameters", "rope_scaling") if name in config]
    if len(given) == 2 and config[given[0]] != config[given[1]]:
        raise ValueError("rope_parameters contradicts rope_scaling: one of them is not the model's")
    if not given:
        return "config", {}
    section = mapping(config, given[0])
    # The code of transformers asks whether this key is true, so that null is false and not missing.
    null = {"truncate": False} if section.get("truncate", True) is None else {}
    return given[0], {**section, **null}


def _check_bases(config, where, section, local):
    """Checks that bases beside the sections are bases of some of them."""
    if wrong := [kind for kind, keys in section.items() if not isinstance(keys, Mapping | None)]:
        raise ValueError(f"{wrong[0]} in {where} must be a dict, or null for no RoPE")
    bases = [keys.get("rope_theta") for keys in section.values() if keys is not None]
    for key, base in {"rope_theta": config.get("rope_theta"), **local}.items():
        if base is not None and None not in bases and base not in bases:
            raise ValueError(
                f"{key}={base!r} contradicts rope_theta in {where}: one of them is not the model's"
            )


def _of_number(section, at) -> Section:
    """Returns the section of a kind as it applies to one layer, which may have no RoPE."""
    keys, _, config = section
    row = row_of(config)
    rotates = row.rotates or (rules.listed if config.get("no_rope_layers") else None)
    if rotates is not None and not rotates(config, at):
        return section._replace(keys=None)
    plain = section._replace(keys={key: keys[key] for key in _PLAIN if key in keys})
    if "rope_scaling_layers" in config:
        scaled = entries(config, "rope_scaling_layers", is_whole)
        return section if at.number_for("rope_scaling_layers") in scaled else plain
    if row.plain_sliding and keys.keys() - {*_PLAIN, "rope_type"} and not has_sections(config):
        return section if at.one_of(FULL, SLIDING) == FULL else plain
    if "layer_rope_theta" not in config:
        return section
    base = at.of("layer_rope_theta", entries(config, "layer_rope_theta", is_number))
    shared = keys.get("rope_theta", config.get("rope_theta"))
    if base and not row.base_by_layer and shared not in (None, base):
        raise ValueError(
            f"layer_rope_theta={base!r} contradicts rope_theta={shared!r}: the model's code only "
            "checks whether layer_rope_theta is 0"
        )
    return section.with_base(base) if base else section._replace(keys=None)


def _slides(config, number: int, kind: str | None) -> bool:
    """Returns whether a layer has the window of the config."""
    row = row_of(config)
    if row.window == "unused":
        return False
    if row.window == "still" and kind in _SLIDING:
        return True
    if row.switched and not flag(config, "use_sliding_window", default=False):
        return False
    if kind in _SLIDING:
        return True
    window = config.get("sliding_window")
    if row.window == "every":
        return window is not None
    if kind is not None or window is None:
        return False
    if row.window == "late":
        return number >= whole(config, "max_window_layers", minimum=0)
    if row.window == "still":
        return not rules.listed(config, At(number, kind))
    is_known = config.get("model_type") in ROWS and row.scheme == "rope"
    if is_known and not row.kinds_needed and not row.switched:
        return False
    raise ValueError(
        f"sliding_window={window!r}: which layers have it is not known without layer_types, the "
        "kind of each layer"
    )
