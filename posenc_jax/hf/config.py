"""Finds the keys of the text model in a config, puts them into one flat dict, and checks them."""

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from posenc_jax.checks import check_choice
from posenc_jax.hf.refused import REFUSED
from posenc_jax.hf.row import words
from posenc_jax.hf.sections import SECTION_ONLY
from posenc_jax.hf.table import ROWS, TEXT_PARTS, row_of
from posenc_jax.hf.values import flag, mapping

# The keys under which models of several parts keep their text model.
_PARTS = ("thinker_config", "text_config", "llm_config", "language_config")

_ABOUT_POSITIONS = re.compile(
    "rope|rotary|alibi|_ntk|logn|nope|temperature_tuning|log_scaling|position_encoding"
)
# A null here means that there is no window.
_WINDOWS = ("sliding_window", "attention_chunk_size")
# Switches of the rotation: where one is false, nothing rotates.
_SWITCHES = words("rotary use_rope use_mem_rope use_rotary use_rotary_embedding use_rotary_pos_emb")
# Keys that stop the rotation in the models that read them (``Row.reads``).
_STOPS = _SWITCHES | words("mla_use_nope no_rope_layers")
# Values at which these keys change nothing.
_HARMLESS: dict[str, tuple[Any, ...]] = {
    "rope_ratio": (1, 1.0),
    "alibi_bias_max": (8,),
    # The indexer of sparse attention only chooses keys.
    "indexer_rope_interleave": (True, False),
}
_HARMLESS |= dict.fromkeys(
    words("""
    rotary_value use_dynamic_ntk use_logn_attn use_mrope attn_temperature_tuning rope_3d
    rope_interleaved
    """),
    (False,),
)
_HARMLESS |= dict.fromkeys(_SWITCHES, (True,))
# The effect of these depends on the model: in most they have none.
_OF_KNOWN_MODELS = words("no_rope_layer_interval attn_temperature_tuning")
READ = (
    _OF_KNOWN_MODELS
    | _SWITCHES
    | words("""
    rope_parameters rope_scaling rope_theta rope_local_base_freq rotary_emb_base swa_rope_theta
    global_rope_theta local_rope_theta layer_rope_theta rotary_dim attn_rotary_emb
    rotary_emb_fraction partial_rotary_factor rotary_pct rope_pct qk_rope_head_dim qk_nope_head_dim
    rope_interleave rotary_emb_interleaved alibi mla_use_nope no_rope_layers rope_scaling_layers
    dual_chunk_attention_config
    """)
)


def flattened(config: Any, keys: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the keys of the text model, overridden by ``keys``, without nulls.

    A null that has a meaning (a model without windows) is kept. The arguments are as in
    ``from_hf``.
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
    row = ROWS.get(model or "")
    config = _in_common_words(config, row) if row else config
    present = {k: value for k, value in config.items() if value is not None or k in _WINDOWS}
    return present | {"model_type": model} if model else present


def check_known(config: Mapping[str, Any], layout: str | None) -> None:
    """Checks that a model is offered, and that a layout is given for an unknown one."""
    model = config.get("model_type")
    if model in REFUSED:
        raise ValueError(f"model_type={model!r} is not offered by from_hf: {REFUSED[model]}")
    if not model or model in ROWS or layout is not None:
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


def check_keys(config: Mapping[str, Any]) -> None:
    """Checks that no unread key could change which positions the model has."""
    row, read = row_of(config), set(READ)
    if config.get("model_type") in ROWS:
        read -= {key for key in _STOPS - row.reads if config.get(key) != []}
    else:
        # The class of a model may fill in an empty list, as SmolLM3's does.
        read -= _OF_KNOWN_MODELS | (set() if config.get("no_rope_layers") else {"no_rope_layers"})
    unknown = [
        f"{key}={value!r}"
        for key, value in config.items()
        if about_positions(key) and key not in read | row.unread
        if not any(type(value) is type(x) and value == x for x in _HARMLESS.get(key, ()))
    ]
    if unknown:
        raise ValueError(
            f"{' and '.join(unknown)}: not understood, and the positions may depend on it. Find "
            "out what the model's code does with it, then build that with posenc_jax.make(...)"
        )
    # With mla_use_nope=false it would not be known which channels rotate.
    for key, value in {"mla_use_nope": True, **row.fixed}.items():
        if config.get(key, value) is not value:
            raise ValueError(f"{key}={config[key]!r} must be {value!r}: no other is offered")


def has_no_positions(config: Mapping[str, Any]) -> bool:
    """Returns whether no layer has RoPE, by the model's code or by a key of its config."""
    off = [key for key in _SWITCHES if not flag(config, key, default=True)]
    is_nope = row_of(config).scheme == "nope" or position_kind(config) == "nope"
    return is_nope or bool(off) or flag(config, "mla_use_nope", default=False)


def position_kind(config: Mapping[str, Any]) -> str:
    """Returns ``position_embedding_type``: "rope", "rope_gptj" (pairs of neighbours) or "nope"."""
    row = row_of(config)
    if row.position_type == "unread":
        return "rope"
    kind = config.get("position_embedding_type", row.position_type)
    offered = ["rope", "rotary", "rope_gptj"]
    if "position_embedding_type" in row.reads:
        offered.append("nope")
    check_choice(offered, position_embedding_type=kind)
    return "rope" if kind == "rotary" else kind


def about_positions(key: str) -> bool:
    """Returns whether a key says, by its name, something about positions."""
    return bool(_ABOUT_POSITIONS.search(key))


def part_of_text(config: Mapping[str, Any]) -> str | None:
    """Returns the key under which a model of several parts has its text model, or None."""
    return next((name for name in _PARTS if config.get(name)), None)


def read_object(path: Path) -> dict[str, Any]:
    """Returns the JSON object in a file of a model."""
    try:
        value = json.loads(path.read_bytes())
    except ValueError as error:  # UnicodeDecodeError and JSONDecodeError are both
        raise ValueError(f"{path} is damaged ({error}); download it again") from None
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
        is_read = key in READ or about_positions(key)
        if is_read and config[key] is not None and config[key] != inner.get(key):
            raise ValueError(f"{key} contradicts {part}: pass config[{part!r}] instead")
    if "model_type" in config and not inner.get("model_type"):
        inner = {**inner, "model_type": config["model_type"]}
    return _text(inner)


def _in_common_words(config, row):
    """Returns the keys under the names of most models, with the defaults of the model's class."""
    common = {common: config[key] for key, common in row.renamed.items() if key in config}
    config = {k: v for k, v in config.items() if k not in row.renamed.values()} | common
    sections = mapping(config, "rope_parameters").values()
    # The class gives a base to the sections of kinds that lack one.
    bare = [x for x in sections if isinstance(x, Mapping) and x.get("rope_theta") is None]
    in_sections = row.local and config.get("rope_parameters") is not None and not bare
    absent = {
        key: value
        for key, value in row.defaults.items()
        if config.get(key) is None and not (key in config and key in _WINDOWS)
        if not (in_sections and about_positions(key))
    }
    return config | absent
