"""Translates the metadata of a GGUF file of Llama into what its ``config.json`` would hold."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from posenc_jax.checks import check_choice
from posenc_jax.hf.values import ORIGINAL

# Keys of the metadata, after "llama.", and what transformers calls them.
_SIZES = {
    "block_count": "num_hidden_layers",
    "context_length": "max_position_embeddings",
    "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
    "attention.key_length": "head_dim",
    "vocab_size": "vocab_size",
    "rope.freq_base": "rope_theta",
}
_SCALING = {
    "rope.scaling.original_context_length": ORIGINAL,
    "rope.scaling.yarn_beta_fast": "beta_fast",
    "rope.scaling.yarn_beta_slow": "beta_slow",
}
_BLEND = "rope.scaling.yarn_ext_factor"
# Keys that must agree with the others.
_CHECKED = ("rope.dimension_count", "attention.value_length")
# All keys that are read, and one that transformers does not read.
_KNOWN = {*_SIZES, *_SCALING, *_CHECKED, _BLEND, "rope.scaling.finetuned"}
_KNOWN |= {f"rope.scaling.{key}" for key in ("type", "factor", "attn_factor")}


def config_of(metadata: Mapping[str, Any], vocab_size: int, tied: bool) -> dict[str, Any]:
    """Returns what ``config.json`` would hold, given a file's keys and values.

    ``tied`` says whether the file has no output layer of its own.
    """
    architecture = metadata.get("general.architecture")
    if architecture != "llama":
        raise ValueError(
            f"general.architecture={architecture!r} must be 'llama': GGUF files of no other model "
            "are read; give the folder of its Hugging Face checkpoint"
        )
    keys = {
        key.removeprefix("llama."): _shortest(value)
        for key, value in metadata.items()
        if key.startswith("llama.")
    }
    unknown = [
        f"llama.{key}={value!r}" for key, value in keys.items() if key not in _KNOWN and value
    ]
    if unknown:
        raise ValueError(
            f"{' and '.join(unknown)}: not understood, and what the model computes may depend on "
            "it; give the folder of its Hugging Face checkpoint"
        )
    config = {
        "model_type": "llama",
        "vocab_size": vocab_size,
        "hidden_act": "silu",
        "tie_word_embeddings": tied,
        "rope_theta": 10000.0,
    }
    config |= {_SIZES[key]: value for key, value in keys.items() if key in _SIZES}
    for name in ("bos", "eos", "padding"):
        if (number := metadata.get(f"tokenizer.ggml.{name}_token_id")) is not None:
            config[f"{name.replace('padding', 'pad')}_token_id"] = number
    _check_head(config, keys)
    scaling = _scaling(keys)
    return config | ({"rope_scaling": scaling} if scaling else {})


def _scaling(keys) -> dict[str, Any]:
    """Returns the rotary section, empty for plain RoPE, as llama.cpp reads these keys."""
    kind = keys.get("rope.scaling.type", "linear")
    check_choice(("none", "linear", "yarn"), **{"llama.rope.scaling.type": kind})
    attn_factor = keys.get("rope.scaling.attn_factor", 1.0)
    if kind != "yarn":
        check_choice((1,), **{"llama.rope.scaling.attn_factor": attn_factor})
    # The share to which llama.cpp keeps the trained frequencies of fast pairs; below 0 is unset.
    usual = int(kind == "yarn")
    blend = keys.get(_BLEND, usual)
    if blend >= 0:
        check_choice((usual,), **{f"llama.{_BLEND}": blend})
    section = {_SCALING[key]: value for key, value in keys.items() if key in _SCALING}
    if kind == "linear":  # Only YaRN reads the length before the extension.
        section.pop(ORIGINAL, None)
    # llama.cpp takes 0 for a factor that is missing.
    factor = keys.get("rope.scaling.factor") or 1.0
    if kind == "none" or (kind == "linear" and factor == 1 and not section):
        return {}
    if attn_factor != 1:  # It multiplies YaRN's own factor.
        section["attention_factor"] = attn_factor * (0.1 * math.log(factor) + 1)
    return {"rope_type": kind, "factor": factor, **section}


def _check_head(config, keys):
    head_dim, width, heads = map(config.get, ("head_dim", "hidden_size", "num_attention_heads"))
    if head_dim is None and not (width and heads):
        return  # The reader of the config names the size that is missing.
    head_dim = width // heads if head_dim is None else head_dim
    for key in _CHECKED:
        check_choice((head_dim,), **{f"llama.{key}": keys.get(key, head_dim)})


def _shortest(value):
    """Returns a float as the shortest decimal number that rounds to the same float32."""
    return float(str(np.float32(value))) if isinstance(value, float) else value
