"""Checks the keys of a config that say which positions a model has, or that it has none."""

import re
from typing import Any

from posenc_jax.hf import models
from posenc_jax.hf.values import flag

_ABOUT_POSITIONS = re.compile(
    "rope|rotary|alibi|_ntk|logn|nope|temperature_tuning|log_scaling|position_encoding"
)

# Switches that turn rotation on where they are true; where they are false, nothing turns.
_SWITCHES = (
    "rotary",
    "use_rope",
    "use_mem_rope",
    "use_rotary",
    "use_rotary_embedding",
    "use_rotary_pos_emb",
)

# Values at which these keys change nothing.
_HARMLESS: dict[str, tuple[Any, ...]] = {
    "rope_ratio": (1, 1.0),
    "rotary_value": (False,),
    "use_dynamic_ntk": (False,),
    "use_logn_attn": (False,),
    "attn_temperature_tuning": (False,),
    "rope_3d": (False,),
    "rope_interleaved": (False,),
    # The indexer of sparse attention only chooses keys.
    "indexer_rope_interleave": (True, False),
}

READ = {"rope_parameters", "rope_scaling", "rope_theta", "rope_local_base_freq", "rotary_emb_base"}
READ |= {"swa_rope_theta", "global_rope_theta", "local_rope_theta", "layer_rope_theta"}
READ |= {"rotary_dim", "attn_rotary_emb", "rotary_emb_fraction", "partial_rotary_factor"}
READ |= {"rotary_pct", "rope_pct", "qk_rope_head_dim", "qk_nope_head_dim"}
READ |= {"rope_interleave", "rotary_emb_interleaved", "alibi", "alibi_bias_max", "mla_use_nope"}
READ |= {"no_rope_layers", "rope_scaling_layers", "dual_chunk_attention_config", *_SWITCHES}
# The effect of these depends on the model: in most they have none.
_OF_KNOWN_MODELS = {"no_rope_layer_interval", "attn_temperature_tuning"}
READ |= _OF_KNOWN_MODELS


def about_positions(key: str) -> bool:
    """Returns whether a key says, by its name, something about positions."""
    return bool(_ABOUT_POSITIONS.search(key))


def check_keys(config: dict[str, Any]) -> None:
    """Checks that no unread key could change which positions the model has."""
    model = config.get("model_type") or ""
    read = READ | models.BESIDE_BIAS.get(model, frozenset())
    if model not in models.KNOWN:
        # A class may fill an empty list in, as that of SmolLM3 does.
        read -= _OF_KNOWN_MODELS | (set() if config.get("no_rope_layers") else {"no_rope_layers"})
    unknown = [
        f"{key}={value!r}"
        for key, value in config.items()
        if about_positions(key) and key not in read
        if not any(
            type(value) is type(known) and value == known for known in _HARMLESS.get(key, ())
        )
    ]
    if unknown:
        raise ValueError(
            f"{' and '.join(unknown)}: not understood, and the positions may depend on it. Find "
            "out what the model's code does with it, then build that with posenc_jax.make(...)"
        )


def has_no_positions(config: dict[str, Any]) -> bool:
    """Returns whether no layer has RoPE, by the model's code or by a key of its config."""
    model = config.get("model_type")
    kind = position_kind(config)
    if "mla_use_nope" in config and not flag(config, "mla_use_nope", default=True):
        raise ValueError(
            f"mla_use_nope=false: the code of {model!r} rotates nothing, so it is not known which "
            "channels it would rotate"
        )
    if model == "glm5_next_text" and config.get("qk_rope_head_dim", 0) != 0:
        raise ValueError(
            f"qk_rope_head_dim={config['qk_rope_head_dim']!r} must be 0: nothing turns in {model!r}"
        )
    switches = [flag(config, key, default=True) for key in _SWITCHES if key in config]
    return (
        model in models.NO_POSITIONS
        or kind == "nope"
        or not all(switches)
        or flag(config, "mla_use_nope", default=False)
        or (model == "zamba2" and "use_mem_rope" not in config)
    )


def position_kind(config: dict[str, Any]) -> str:
    """Returns ``position_embedding_type``: "rope", "rope_gptj" (pairs of neighbours) or "nope"."""
    kind = config.get("position_embedding_type")
    default = models.POSITION_TYPE.get(config.get("model_type") or "", "rope")
    kind = default if kind is None else kind
    if kind == "rotary":
        return "rope"
    if kind not in ("rope", "rope_gptj", "nope"):
        raise ValueError(
            f"position_embedding_type={kind!r} must be 'rope', 'rotary', 'rope_gptj' or 'nope': no "
            "other is read from a config"
        )
    return kind
