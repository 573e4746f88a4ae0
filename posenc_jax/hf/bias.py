"""Builds encodings without rotation from a config: ALiBi, T5's buckets, tables of positions."""

from collections.abc import Mapping
from typing import Any

from flax import nnx

from posenc_jax.checks import check_choice
from posenc_jax.encoding import Encoding
from posenc_jax.hf.rotary import head_dim_of
from posenc_jax.hf.table import having, row_of
from posenc_jax.hf.values import HEADS, LENGTH, WIDTH, flag, whole
from posenc_jax.registry import make

_BUCKETS = "relative_attention_num_buckets"


def has_t5(config: Mapping[str, Any]) -> bool:
    """Returns whether the model has T5's bias."""
    return _BUCKETS in config or row_of(config).scheme == "t5"


def t5(config: Mapping[str, Any], layer_type: str | None, rngs: nnx.Rngs | None) -> Encoding:
    """Returns T5's bias for the stack of the encoder or of the decoder."""
    model = config.get("model_type")
    if model is not None and row_of(config).scheme != "t5":
        raise ValueError(
            f"model_type={model!r} has {_BUCKETS}, but it is not known to have T5's bias and "
            f"nothing else; those known are {', '.join(having(scheme='t5'))}. Read the model's "
            "code, then use posenc_jax.make('t5', ...)"
        )
    check_choice(("encoder", "decoder"), layer_type=layer_type)
    return make(
        "t5",
        num_heads=whole(config, *HEADS),
        model_dim=whole(config, *WIDTH),
        num_buckets=whole(config, _BUCKETS),
        max_distance=whole(config, "relative_attention_max_distance", default=128),
        bidirectional=layer_type == "encoder",
        rngs=rngs,
    )


def has_alibi(config: Mapping[str, Any]) -> bool:
    """Returns whether the model has ALiBi; raises ValueError if other keys contradict it."""
    row = row_of(config)
    if not flag(config, "alibi", default=row.scheme == "alibi"):
        return False
    others = ("rope", "rope_scaling", "rope_parameters")
    rotary = [f"{key}={config[key]!r}" for key in others if config.get(key)]
    if rotary or not row.reads_alibi:
        raise ValueError(
            f"alibi=true contradicts {rotary or config['model_type']}: one is not the model's. The "
            f"models known to read the key are {', '.join(having(reads_alibi=True))}; if the code "
            "of another does, use posenc_jax.make('alibi', ...)"
        )
    return True


def alibi(config: Mapping[str, Any]) -> Encoding:
    """Returns ALiBi with one slope for each head."""
    heads = whole(config, *HEADS)
    # Falcon adds the bias before it divides by sqrt(head_dim).
    divided = {"slope_scale": head_dim_of(config) ** -0.5} if row_of(config).alibi_divided else {}
    return make("alibi", num_heads=heads, **divided)


def learned(config: Mapping[str, Any], rngs: nnx.Rngs | None) -> Encoding:
    """Returns the table of positions, which ``posenc_jax.pretrained.load_encoding`` fills."""
    row, kind = row_of(config), config.get("position_embedding_type", "absolute")
    check_choice(("absolute",), position_embedding_type=kind)
    # Embeddings of ALBERT and ELECTRA have a width of their own.
    spellings = ("embedding_size",) if "embedding_size" in config else WIDTH
    width = whole(config, *spellings)
    rows = whole(config, *LENGTH) - (row.reserved if row.counts_reserved else 0)
    return make("learned", model_dim=width, train_length=rows, rngs=rngs)
