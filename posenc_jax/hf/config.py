"""Reads a config: finds the keys of the text model, checks them, and puts them in common words."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from posenc_jax.checks import check_choice, count_of
from posenc_jax.files import read_json
from posenc_jax.hf.common import LAYER_SIZES, begin, finish
from posenc_jax.hf.families import FAMILIES, TEXT_PARTS, family_of, reading
from posenc_jax.hf.refused import REFUSED
from posenc_jax.hf.sections import SECTION_ONLY
from posenc_jax.hf.values import LENGTH, ORIGINAL, Config, flag, mapping, words

# The keys under which models of several parts keep their text model.
_PARTS = ("thinker_config", "text_config", "llm_config", "language_config")
_ABOUT_POSITIONS = re.compile(
    "rope|rotary|alibi|_ntk|logn|nope|temperature_tuning|log_scaling|position_encoding|dual_chunk"
)
# A null here means that there is no window.
_WINDOWS = ("sliding_window", "attention_chunk_size")
# Switches of the rotation: where one is false, nothing rotates.
_SWITCHES = words("rotary use_rope use_mem_rope use_rotary use_rotary_embedding use_rotary_pos_emb")
# Keys that this package reads in every model.
_READ = words("""
    rope_parameters rope_scaling rope_theta rope_local_base_freq rotary_emb_base swa_rope_theta
    global_rope_theta local_rope_theta layer_rope_theta rotary_dim attn_rotary_emb
    rotary_emb_fraction partial_rotary_factor rotary_pct rope_pct qk_rope_head_dim qk_nope_head_dim
    rope_interleave rotary_emb_interleaved rope_scaling_layers
""")
# These have an effect in few models; an unknown one may be one of them.
_OF_KNOWN_MODELS = words("no_rope_layer_interval attn_temperature_tuning")
# Values at which keys change nothing.
_HARMLESS: dict[str, tuple[Any, ...]] = {
    **dict.fromkeys(_SWITCHES, (True,)),
    **dict.fromkeys(
        words("""
        alibi rotary_value use_dynamic_ntk use_logn_attn use_mrope attn_temperature_tuning rope_3d
        rope_interleaved
        """),
        (False,),
    ),
    "rope_ratio": (1, 1.0),
    "alibi_bias_max": (8,),
    "dual_chunk_attention_config": ({},),
    "use_rope_layers": ([],),
    # The indexer of sparse attention only chooses keys.
    "indexer_rope_interleave": (True, False),
}


def read(config: Any, keys: Config, layout: str | None = None) -> dict[str, Any]:
    """Returns a checked config in common words. The arguments are as in ``from_hf``."""
    config = flattened(config, keys)
    _check_known(config, layout)
    _check_keys(config)
    begin(config)
    for step in family_of(config).steps:
        step(config)
    finish(config)
    return config


def flattened(config: Any, keys: Config) -> dict[str, Any]:
    """Returns the keys of the text model, overridden by ``keys``, without nulls.

    A null that has a meaning (a model without windows) is kept.
    """
    for key in keys:
        if key in SECTION_ONLY | {"rope_type", "type"}:
            raise ValueError(
                f"{key}={keys[key]!r} is no key of a config, but of the rotary section in it: "
                "change it there, in rope_parameters or rope_scaling"
            )
    config = _content(config)
    if _is_section(config):
        config = {"rope_parameters": config}
    config = _text(config)
    config = {**mapping(config, "attn_config"), **config, **keys}
    model = TEXT_PARTS.get(config.get("model_type") or "", config.get("model_type"))
    present = {k: value for k, value in config.items() if value is not None or k in _WINDOWS}
    return present | {"model_type": model} if model else present


def _check_known(config, layout):
    """Checks that a model is offered, and that a layout is given for an unknown one."""
    model = config.get("model_type")
    if model in REFUSED:
        raise ValueError(f"model_type={model!r} is not offered by from_hf: {REFUSED[model]}")
    if not model or model in FAMILIES or layout is not None:
        return
    parts = [
        name for name, part in config.items() if isinstance(part, dict) and part.get("model_type")
    ]
    if parts:
        raise ValueError(
            f"model_type={model!r} has several parts: pass the one that is meant, one of "
            + ", ".join(f"config[{name!r}]" for name in parts)
        )
    raise ValueError(
        f"model_type={model!r} is not known. If its code rotates queries and keys, read there "
        "which two channels of a head rotate together, and what of the config it reads; then pass "
        "layout='half' or layout='interleaved'. If its positions are absolute or a bias, use "
        "posenc_jax.make(...)"
    )


def _check_keys(config):
    """Checks that lengths are positive, and that no unread key could change the positions."""
    for key in (*LENGTH, ORIGINAL):
        if key in config:
            count_of(key, config[key])
    family, listed = family_of(config), config.get("no_rope_layers")
    read = {*_READ, *family.reads, *family.unread}
    if config.get("model_type") in FAMILIES:
        # The class of a model may fill in an empty list, as SmolLM3's does.
        read |= _OF_KNOWN_MODELS | ({"no_rope_layers"} if listed == [] else set())
    else:
        read |= _SWITCHES | ({"no_rope_layers"} if listed else set())
    unknown = {
        key: value
        for key, value in config.items()
        if about_positions(key) and key not in read
        if not any(type(value) is type(x) and value == x for x in _HARMLESS.get(key, ()))
    }
    if unknown:
        readers = [f"; {key} is read by {', '.join(reading(key))}" for key in unknown]
        raise ValueError(
            f"{' and '.join(f'{key}={value!r}' for key, value in unknown.items())}: not "
            "understood, and the positions may depend on it. Find out what the model's code does "
            "with it, then build that with posenc_jax.make(...)"
            + "".join(text for text in readers if not text.endswith("by "))
        )
    if config.get("mla_use_nope", True) is not True:
        raise ValueError("mla_use_nope=false is not offered: which channels rotate is not known")
    for keys in mapping(config, "per_layer_config").values():
        if unread := sorted(filter(about_positions, keys.keys() - LAYER_SIZES)):
            raise ValueError(f"{unread[0]} in per_layer_config is not read")


def has_no_positions(config: Config) -> bool:
    """Returns whether no layer has RoPE, by the model's code or by a key of its config."""
    off = [key for key in _SWITCHES if not flag(config, key, default=True)]
    is_nope = family_of(config).scheme == "nope" or position_kind(config) == "nope"
    drops = [key for key in ("mla_use_nope", "use_mla_nope") if flag(config, key, default=False)]
    return is_nope or bool(off or drops)


def position_kind(config: Config) -> str:
    """Returns ``position_embedding_type``: "rope", "rope_gptj" (pairs of neighbours) or "nope"."""
    family = family_of(config)
    if "position_embedding_type" in family.unread:
        return "rope"
    kind = config.get("position_embedding_type", "rope")
    may_be_none = ["nope"] if "position_embedding_type" in family.reads else []
    check_choice(["rope", "rotary", "rope_gptj", *may_be_none], position_embedding_type=kind)
    return "rope" if kind == "rotary" else kind


def about_positions(key: str) -> bool:
    """Returns whether a key says, by its name, something about positions."""
    return bool(_ABOUT_POSITIONS.search(key))


def part_of_text(config: Mapping[str, Any]) -> str | None:
    """Returns the key under which a model of several parts has its text model, or None."""
    return next((name for name in _PARTS if config.get(name)), None)


def read_object(path: Path) -> dict[str, Any]:
    """Returns the JSON object in a file of a model."""
    value = read_json(path)
    if not isinstance(value, dict):
        raise ValueError(f"{path} is damaged: it must hold an object of JSON; download it again")
    return value


def _content(config):
    if hasattr(config, "to_dict"):
        config = config.to_dict()
    if isinstance(config, str | os.PathLike):
        path = Path(config)
        path = path / "config.json" if path.is_dir() else path
        if not path.is_file():
            raise ValueError(f"config={str(config)!r} is no file, and no folder with a config.json")
        config = read_object(path)
    if not isinstance(config, Mapping):
        raise ValueError(f"config={config!r} must be a dict, a path or a config of transformers")
    return config


def _is_section(config):
    """Returns whether this is a rotary section alone, or one for each kind of layer."""
    if config.keys() & {"rope_type", "type", "full_attention", "sliding_attention"}:
        return True
    of_models = ("model_type", "rope_parameters", "rope_scaling", *_PARTS)
    return not any(map(config.get, of_models)) and not SECTION_ONLY.isdisjoint(config)


def _text(config):
    """Returns the innermost text model, with the outer model's type if it has no type itself."""
    part = part_of_text(config)
    if part is None:
        return config
    inner = mapping(config, part)
    for key in config:
        if about_positions(key) and config[key] is not None and config[key] != inner.get(key):
            raise ValueError(f"{key} contradicts {part}: pass config[{part!r}] instead")
    if "model_type" in config and not inner.get("model_type"):
        inner = {**inner, "model_type": config["model_type"]}
    return _text(inner)
