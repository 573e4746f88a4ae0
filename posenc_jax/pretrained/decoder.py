"""Reads the decoder of a published model from its ``config.json``.

It knows Llama and models that differ from it in a few settings of ``Transformer``. A key that is
not understood is an error, unless it is null or false, because it may change what the model
computes.
"""

from collections.abc import Mapping
from typing import Any

from posenc_jax.checks import check_choice
from posenc_jax.hf.config import about_positions, flattened
from posenc_jax.hf.families import family_of
from posenc_jax.hf.pattern import layers_from_hf
from posenc_jax.hf.rotary import head_dim_of
from posenc_jax.hf.values import flag, number, whole, words
from posenc_jax.model.layers import Layers

# Each model's differences from Llama, in keywords of Transformer.
DECODERS: dict[str, dict[str, Any]] = {
    "llama": {},
    "mistral": {},
    "olmo2": {"qk_norm": "all", "post_norm": True},
    "phi3": {},
    "qwen2": {"qkv_bias": True},
    "qwen3": {"qk_norm": "head"},
    "smollm3": {},
}

# Models whose config may leave out the number of kv heads (all heads), or the tying (tied).
_ALL_KV_HEADS = words("llama olmo2 phi3")
_TIED = words("smollm3")

_SIZES = words("""
    model_type vocab_size hidden_size intermediate_size num_hidden_layers num_attention_heads
    num_key_value_heads head_dim rms_norm_eps hidden_act tie_word_embeddings
""")
_LENGTHS = words("max_position_embeddings original_max_position_embeddings")
_SWITCHED_WINDOWS = words("sliding_window use_sliding_window max_window_layers layer_types")
# Keys about training, tokens, files and generation.
_WITHOUT_EFFECT = words("""
    _attn_implementation _attn_implementation_autoset _name_or_path architectures attention_dropout
    auto_map bos_token_id dtype embd_pdrop eos_token_id initializer_range is_llama_config
    max_sequence_length pad_token_id pretraining_tp resid_pdrop tokenizer_class torch_dtype
    transformers.js_config transformers_version unk_token_id use_cache chunk_size_feed_forward
    id2label label2id output_attentions output_hidden_states problem_type return_dict
    use_return_dict full_attn_mod interpolate_factor
""")


def sizes(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the keywords of ``Transformer`` that ``config``, from ``config.json``, describes.

    Raises:
      ValueError: the model is not known, or a key is missing, malformed or not understood.
    """
    config = _checked(config)
    model = config["model_type"]
    heads = whole(config, "num_attention_heads")
    return DECODERS[model] | dict(
        vocab_size=whole(config, "vocab_size"),
        model_dim=whole(config, "hidden_size"),
        num_layers=whole(config, "num_hidden_layers"),
        num_heads=heads,
        num_kv_heads=whole(
            config, "num_key_value_heads", default=heads if model in _ALL_KV_HEADS else None
        ),
        head_dim=head_dim_of(config),
        mlp_dim=whole(config, "intermediate_size"),
        norm_epsilon=number(config, "rms_norm_eps"),
        tied=flag(config, "tie_word_embeddings", default=model in _TIED),
    )


def layers(config: Mapping[str, Any]) -> Layers:
    """Returns the encoding and the window of each layer, as the shortest pattern that repeats.

    Layers that are equal share one instance.
    """
    return layers_from_hf(_checked(config))


def _checked(config):
    """Returns the flat config; raises ValueError for a model or a key that is not understood."""
    config = flattened(config, {})
    model = config.get("model_type")
    if model not in DECODERS:
        raise ValueError(
            f"model_type={model!r} must be one of {', '.join(DECODERS)}: no other decoder is "
            "known. If the code of one of them is also this model's, pass its model_type="
        )
    check_choice(("silu", "swish"), hidden_act=config.get("hidden_act", "silu"))
    family, known = family_of(config), _SIZES | _LENGTHS | _WITHOUT_EFFECT
    if "use_sliding_window" in family.reads:
        known |= _SWITCHED_WINDOWS
    elif family.windowed:
        known |= {"sliding_window"}
    unknown = [
        f"{key}={value!r}"
        for key, value in config.items()
        if key not in known and not about_positions(key) and value not in (None, False)
    ]
    if unknown:
        raise ValueError(
            f"{' and '.join(unknown)}: not understood, and what {model!r} computes may depend on "
            f"it. If it does not, remove the key: {unknown[0].partition('=')[0]}=None"
        )
    return config
