"""Lists the models that are known and not offered by ``from_hf``, each with the reason."""

from posenc_jax.hf.values import words

_TWO_AXES = "its pairs rotate by the rows and columns of an image, in an order of its own"
_INKLING = (
    "num_heads=..., model_dim=..., rank=d_rel, extent=..., log_floor=..., "
    "log_scale=log_scaling_alpha, rngs=...); in layers with a window extent is the window and "
    "log_floor None, in the others they are rel_extent and log_scaling_n_floor. The docstring of "
    "Inkling says what else attention has: scale="
)
_INKLING_2 = (
    "its checkpoint has a bias of relative positions. Build it: posenc_jax.make('inkling2', "
    "head_dim=..., clip=qk_l2_clip_threshold, vector_clip=rel_l2_clip_threshold, "
    f"{_INKLING}1 / sqrt(head_dim), sinks and more (Inkling2). Layers "
    "without a window convolve keys and values first: posenc_jax.make('dynamic_short_conv', "
    "num_kv_heads=..., width=conv_kernel_size, over={'name': 'inkling2', ...}, ...)"
)
_DINO_V3 = (
    "its pairs rotate by the rows and columns of an image. Build that: posenc_jax.make('dinov3', "
    "head_dim=..., base=rope_theta), at posenc_jax.positions.centred_grid(rows, columns, "
    "others=...); shift=, jitter= and rescale= are what training draws"
)
# Where an encoding exists, the reason names it.
REFUSED = dict.fromkeys(
    words("""
    cohere_compass_vision dots3_note_vision_encoder edgetam_video efficientloftr
    ernie4_5_vl_moe_vision exaone4_5_vision gemma4_vision glm4v_moe_vision
    glm4v_vision glm5_next_vision glm_ocr_vision inkling2_vision kimi_k25_vision lfm3_vl_vision
    lightglue llama4_vision_model minimax_m3_vl_vision mlcd mlcd_vision_model muse_glimmer_vision
    muse_spark_vision paddleocr_vl_vision pixtral qwen2_5_omni_vision_encoder qwen2_5_vl_vision
    qwen2_vl_vision qwen3_5_moe_vision qwen3_5_vision qwen3_omni_moe_vision_encoder
    qwen3_vl_moe_vision qwen3_vl_vision qwen4_exp_vision sam2_video sam3_tracker_video
    sam3_vit_model sapiens2 step3p5_vision video_llama_3_vision vjepa2
    """),
    _TWO_AXES,
)
REFUSED |= dict.fromkeys(
    words("bart big_bird bigbird_pegasus blenderbot flaubert led longformer mbart xlm xmod"),
    "its positions are absolute: a learned table is added to the embeddings. Build it: "
    "posenc_jax.make('learned', model_dim=..., train_length=..., rngs=...); no token reads the "
    "first two rows of the table in bart, longformer, mbart and xmod, so leave them out",
)
REFUSED |= dict.fromkeys(
    words("ctrl m2m_100 marian pegasus transfo-xl xglm"),
    "its positions are sinusoids, which posenc_jax.make('sinusoidal', model_dim=...) or, where "
    "they are relative, 'transformer_xl' has; the order of their channels differs between models",
)
_DEBERTA = (
    "queries and keys are multiplied with learned vectors of their distance. Build it: "
    "posenc_jax.make('deberta', num_heads=..., head_dim=..., model_dim=..., rngs=..., "
    "max_distance=max_relative_positions"
)
REFUSED["deberta"] = f"{_DEBERTA})"
REFUSED["deberta-v2"] = f"{_DEBERTA}, num_buckets=position_buckets)"
REFUSED |= dict.fromkeys(words("inkling2_text inkling2_loop_text"), _INKLING_2)
REFUSED |= dict.fromkeys(words("dinov3_vit eomt_dinov3"), _DINO_V3)
REFUSED |= {
    "chatglm": "its releases differ in their own code, in which channels rotate and what "
    "rope_ratio does",
    "deepseek_v4": "values rotate with the keys, and outputs back. Build that: "
    "posenc_jax.make('value_rope', head_dim=..., rotary_dim=qk_rope_head_dim, base=...), with "
    "base=rope_theta in layers of sliding_attention, and in the others with base="
    "compress_rope_theta and frequencies=YaRNFrequencies(..., attention_factor=1.0); attend with "
    "its sinks",
    "ernie4_5_moe_vl": "its own code has axes that its config does not describe",
    "inkling_text": "its checkpoint has a bias of relative positions. Build it: "
    f"posenc_jax.make('inkling', {_INKLING}1 / head_dim, and more",
    "longt5": "its encoder has a bias for blocks of tokens besides T5's",
    "mpnet": "it has learned absolute positions besides T5's bias",
    "pix2struct_vision_model": "it has learned rows and columns",
    "qwen2_5_omni_dit": "only its first head rotates",
    "udop": "it has a bias by row and column besides T5's",
}
