"""Builds biases by distance from a config: ALiBi and T5's buckets."""

from typing import Any

from flax import nnx

from posenc_jax.encoding import Encoding
from posenc_jax.hf import models
from posenc_jax.hf.values import HEADS, WIDTH, flag, head_dim_of, whole
from posenc_jax.registry import make


def has_t5(config: dict[str, Any]) -> bool:
    """Returns whether the model has T5's bias."""
    return "relative_attention_num_buckets" in config or config.get("model_type") in models.T5


def t5(config: dict[str, Any], layer_type: str | None, rngs: nnx.Rngs | None) -> Encoding:
    """Returns T5's bias for the stack of the encoder or of the decoder."""
    model = config.get("model_type")
    if model is not None and model not in models.T5:
        raise ValueError(
            f"model_type={model!r} has relative_attention_num_buckets, but it is not known to have "
            f"T5's bias and nothing else; those known are {', '.join(sorted(models.T5))}. Read the "
            "model's code, then use posenc_jax.make('t5', ...)"
        )
    if layer_type not in ("encoder", "decoder"):
        raise ValueError(
            f"layer_type={layer_type!r} must be 'encoder' or 'decoder': a T5 config describes both"
        )
    return make(
        "t5",
        num_heads=whole(config, *HEADS),
        model_dim=whole(config, *WIDTH),
        num_buckets=whole(config, "relative_attention_num_buckets"),
        max_distance=whole(config, "relative_attention_max_distance", default=128),
        bidirectional=layer_type == "encoder",
        rngs=rngs,
    )


def has_alibi(config: dict[str, Any]) -> bool:
    """Returns whether the model has ALiBi; raises ValueError if other keys contradict it."""
    model = config.get("model_type")
    alibi = flag(config, "alibi", default=model in models.ALIBI)
    if alibi and model is not None and model not in models.READS_ALIBI:
        raise ValueError(
            f"alibi=true: the code of {model!r} is not known to read it; those known to are "
            f"{', '.join(sorted(models.READS_ALIBI))}. Read the model's code, then use "
            "posenc_jax.make('alibi', ...) if it does"
        )
    bias_max = config.get("alibi_bias_max", 8)
    if alibi and bias_max != 8:
        raise ValueError(f"alibi_bias_max={bias_max!r} must be 8: no other is offered")
    if not alibi and model in models.ALIBI:
        raise ValueError(f"alibi=false: the other positions of {model!r} are not offered")
    for key in ("rope", "rope_scaling", "rope_parameters"):
        if alibi and config.get(key):
            raise ValueError(
                f"alibi=true contradicts {key}={config[key]!r}: one of them is not the model's"
            )
    return alibi


def alibi(config: dict[str, Any]) -> Encoding:
    """Returns ALiBi with one slope for each head."""
    num_heads = whole(config, *HEADS)
    if config.get("model_type") != "falcon":
        return make("alibi", num_heads=num_heads)
    # Falcon adds the bias before it divides by sqrt(head_dim).
    return make("alibi", num_heads=num_heads, slope_scale=head_dim_of(config) ** -0.5)
