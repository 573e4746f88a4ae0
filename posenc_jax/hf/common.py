"""Puts a config into common words, in place: what each kind of layer has, and each single layer.

``layer_types`` has the kind of each layer. ``rope_parameters`` or ``rope_scaling`` is a section for
all layers, or one for each kind, which is None where nothing rotates. ``per_layer_config`` has the
keys in which single layers differ, by number; ``rope_type`` there is None in a layer without
rotation, and "default" in one that the rest of the section does not scale.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from posenc_jax.hf.values import (
    FULL,
    LAYERS,
    LINEAR,
    SLIDING,
    Config,
    agreed,
    entries,
    is_number,
    is_text,
    is_whole,
    mapping,
    whole,
    words,
)

# Keys about rotation that are read in ``per_layer_config``.
LAYER_SIZES = words("head_dim qk_rope_head_dim qk_nope_head_dim partial_rotary_factor")
_SECTIONS = ("rope_parameters", "rope_scaling")
_MOST_LAYERS = 10_000
# Lists of the layers of one kind, and the kind of the others.
_LISTS = {
    "attn_layer_indices": (FULL, LINEAR),
    "full_attention_layers": (FULL, LINEAR),
    "full_attn_idxs": (FULL, "conv"),
    "cross_attention_layers": ("cross_attention", FULL),
    "hybrid_layer_ids": ("hybrid", "mamba"),
}
# The letters of a pattern of Nemotron-H.
_LETTERS = {"M": "mamba", "-": "mlp", "E": "moe", "*": FULL}
# Keys for the base of sliding layers.
_LOCAL_BASES = ("rope_local_base_freq", "local_rope_theta", "swa_rope_theta")


def begin(config: dict[str, Any]) -> None:
    """Reads what a config lists in any of the usual words, before the steps of its family."""
    for key in ("layer_types", "layers_block_type"):
        if config.get(key):
            fill_kinds(config, entries(config, key, is_text))
    if config.get("hybrid_override_pattern"):
        fill_kinds(config, [_LETTERS.get(x, x) for x in config["hybrid_override_pattern"]])
    if "attn_type_list" in config:
        listed = entries(config, "attn_type_list", is_whole)
        fill_kinds(config, [FULL if kind else LINEAR for kind in listed])
    given = [name for name in _SECTIONS if name in config]
    if len(given) == 2 and config[given[0]] != config[given[1]]:
        raise ValueError("rope_parameters contradicts rope_scaling: one of them is not the model's")
    if given:
        section = mapping(config, given[0])
        set_section(config, section if is_by_kind(section) else _without_nulls(section))
    by_number = mapping(config, "per_layer_config").items()
    config["per_layer_config"] = {int(number): dict(keys) for number, keys in by_number}


def finish(config: dict[str, Any]) -> None:
    """Reads what differs between layers, after the steps of the family."""
    for key in _LISTS.keys() & config.keys():
        (kind, other), listed = _LISTS[key], entries(config, key, is_whole)
        kinds = [kind if n in listed else other for n in range(count_of_layers(config))]
        fill_kinds(config, kinds)
    _fill_bases(config)
    if "rope_scaling_layers" in config:
        scaled = entries(config, "rope_scaling_layers", is_whole)
        count = count_of_layers(config, needed=True)
        plain = [{} if n in scaled else {"rope_type": "default"} for n in range(count)]
        by_layer(config, "rope_scaling_layers", plain)
    if config.get("no_rope_layers"):
        rotates = entries(config, "no_rope_layers", lambda x: x in (0, 1))
        by_layer(config, "no_rope_layers", [{} if x else {"rope_type": None} for x in rotates])
    if "layer_rope_theta" in config:
        bases = entries(config, "layer_rope_theta", is_number)
        differing = [{"rope_theta": base} if base else {"rope_type": None} for base in bases]
        by_layer(config, "layer_rope_theta", differing)


def count_of_layers(config: Config, *, needed: bool = False) -> int:
    """Returns how many layers the config has, 0 if it does not say and this is not ``needed``."""
    kinds = config.get("layer_types") or ()
    count = whole(config, *LAYERS, default=len(kinds) or (None if needed else 0))
    if count > _MOST_LAYERS:
        raise ValueError(f"{count} layers must be at most {_MOST_LAYERS}, as no model has more")
    if kinds and len(kinds) != count:
        raise ValueError(f"layer_types has {len(kinds)} entries for {count} layers")
    return count


def fill_kinds(config: dict[str, Any], kinds: Sequence[str] | Callable[[int], str]) -> None:
    """Sets the kind of each layer, in a list or by number, if the config does not list them."""
    if not config.get("layer_types"):
        listed = map(kinds, range(count_of_layers(config))) if callable(kinds) else kinds
        config["layer_types"] = list(listed)


def section_of(config: Config) -> tuple[str, dict[str, Any]]:
    """Returns the name of the rotary section, and the section, empty if there is none."""
    name = next((name for name in _SECTIONS if name in config), _SECTIONS[0])
    return name, config.get(name, {})


def set_section(config: dict[str, Any], section: Config) -> None:
    """Sets the rotary section, or one for each kind of layer."""
    name, _ = section_of(config)
    for other in _SECTIONS:
        config.pop(other, None)
    config[name] = dict(section)


def by_kind(config: Config) -> dict[str, Any]:
    """Returns the section of each kind of layer, empty where one section is for all."""
    name, section = section_of(config)
    if not is_by_kind(section):
        return {}
    if wrong := [kind for kind, keys in section.items() if not isinstance(keys, Mapping | None)]:
        raise ValueError(f"{wrong[0]} in {name} must be a dict, or null for no RoPE")
    return {k: None if keys is None else _without_nulls(keys) for k, keys in section.items()}


def is_by_kind(section: Config) -> bool:
    """Returns whether there is a section for each kind of layer."""
    return any(key in (FULL, SLIDING) or isinstance(section[key], Mapping) for key in section)


def by_layer(config: dict[str, Any], key: str, layers: Sequence[Config]) -> None:
    """Sets keys of single layers; ``key`` says where they come from."""
    count = count_of_layers(config) or len(layers)
    if len(layers) < count:
        raise ValueError(f"{key} must have one entry for each layer")
    config["num_hidden_layers"] = count
    for number, keys in enumerate(layers[:count]):
        config["per_layer_config"].setdefault(number, {}).update(keys)


def _without_nulls(section):
    # The code of transformers asks whether this key is true, so that null is false and not missing.
    null = {"truncate": False} if section.get("truncate", True) is None else {}
    return {key: value for key, value in section.items() if value is not None} | null


def _fill_bases(config):
    """Gives each kind of layer its base, where the config has those of kinds beside the section."""
    if "global_rope_theta" in config:
        config.setdefault("rope_theta", config["global_rope_theta"])
    local = {key: config[key] for key in _LOCAL_BASES if key in config}
    (name, section), sections = section_of(config), by_kind(config)
    if sections:
        bases = [keys.get("rope_theta") for keys in sections.values() if keys is not None]
        for key, base in {"rope_theta": config.get("rope_theta"), **local}.items():
            if base is not None and None not in bases and base not in bases:
                raise ValueError(f"{key}={base!r} contradicts rope_theta in {name}: one is wrong")
        if local and sections.get(SLIDING) is not None:
            sections[SLIDING].setdefault("rope_theta", agreed(local))
    elif local:
        near = {k: v for k, v in section.items() if k == "partial_rotary_factor"}
        sections = {FULL: section, SLIDING: {**near, "rope_theta": agreed(local)}}
    set_section(config, sections or section)
    alone = sections.values() if sections else [section or None]
    lacks_base = any(keys is not None and "rope_theta" not in keys for keys in alone)
    if lacks_base and "model_type" not in config and "rotary_emb_base" not in config:
        config.setdefault("rope_theta", 1e4)
