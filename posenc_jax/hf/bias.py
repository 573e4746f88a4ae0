"""Builds encodings without rotation from a config: ALiBi, T5's buckets, tables of positions."""

from flax import nnx

from posenc_jax.checks import check_choice
from posenc_jax.encoding import Encoding
from posenc_jax.hf.families import family_of, having
from posenc_jax.hf.rotary import head_dim_of
from posenc_jax.hf.values import HEADS, LENGTH, WIDTH, Config, flag, whole
from posenc_jax.registry import make

_BUCKETS = "relative_attention_num_buckets"


def has_t5(config: Config) -> bool:
    """Returns whether the model has T5's bias."""
    return _BUCKETS in config or family_of(config).scheme == "t5"


def t5(config: Config, layer_type: str | None, rngs: nnx.Rngs | None) -> Encoding:
    """Returns T5's bias for the stack of the encoder or of the decoder."""
    model = config.get("model_type")
    if model is not None and family_of(config).scheme != "t5":
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


def of_all_layers(config: Config, rngs: nnx.Rngs | None) -> Encoding | None:
    """Returns ALiBi or the table of positions that all layers have, None if there is neither."""
    family = family_of(config)
    if flag(config, "alibi", default=False):
        others = ("rope", "rope_scaling", "rope_parameters")
        if rotary := [f"{key}={config[key]!r}" for key in others if config.get(key)]:
            raise ValueError(f"alibi=true contradicts {rotary}: one of them is not the model's")
        # Falcon adds the bias before it divides by sqrt(head_dim).
        is_falcon = config.get("model_type") == "falcon"
        divided = {"slope_scale": head_dim_of(config) ** -0.5} if is_falcon else {}
        return make("alibi", num_heads=whole(config, *HEADS), **divided)
    if family.scheme != "learned":
        return None
    kind = config.get("position_embedding_type", "absolute")
    check_choice(("absolute",), position_embedding_type=kind)
    # Embeddings of ALBERT and ELECTRA have a width of their own.
    spellings = ("embedding_size",) if "embedding_size" in config else (*WIDTH, "dim")
    # The length of OPT leaves out the rows that no token reads.
    reserved = 0 if config["model_type"] == "opt" else family.reserved
    rows = whole(config, *LENGTH) - reserved
    return make("learned", model_dim=whole(config, *spellings), train_length=rows, rngs=rngs)
