"""Lists what the code of each published model does with the positions in its config.

A name is a value of ``model_type``, and a row has a column for each way in which models differ.
``parity/test_model_types.py`` runs every model listed here that transformers has, and compares how
its queries and keys rotate with what ``from_hf`` returns.
"""

from typing import Any

from posenc_jax.hf import rules
from posenc_jax.hf.row import Row, words
from posenc_jax.hf.rules import Config, every
from posenc_jax.hf.values import CHUNKED, FULL, LINEAR, SLIDING

BOTH = (FULL, SLIDING)


def alike(names: str, row: Row) -> dict[str, Row]:
    """Returns the same row for several models."""
    return dict.fromkeys(names.split(), row)


def _learned(table: str, **columns: Any) -> Row:
    return Row(scheme="learned", position_type="absolute", table=table, **columns)


_BERT = "position_embeddings.weight"
_GEMMA3_BASES = {"rope_theta": 1e6, "rope_local_base_freq": 1e4}
_GEMMA3: dict[str, Any] = dict(local=True, plain_sliding=True, defaults=_GEMMA3_BASES)
_MODERNBERT = {"rope_theta": 160000.0, "rope_local_base_freq": 1e4}
_BERT_BASES = {"global_rope_theta": "rope_theta", "local_rope_theta": "rope_local_base_freq"}
_ALIBI = {"alibi": True}
_PATTERN, _GLOBAL_EVERY = "sliding_window_pattern", "global_attn_every_n_layers"
_INTERVAL = "full_attention_interval"
_LISTED, _POSITION_TYPE = words("no_rope_layers"), words("position_embedding_type")

ROWS: dict[str, Row] = {
    **alike(
        """
        apertus1p5_text arcee aria_text bitnet chameleon csm dbrx diffllama
        emu3_text_model esmc eurobert evolla exaone falcon_h1 flex_olmo
        granite granite4_vision_text granite_docling_text granitemoe
        granitemoeshared gte hy_v3 hyperclovax internlm2 jais2 jetmoe jina_embeddings_v3
        lfm2 lfm2_moe nomic_bert olmo olmo2 olmoe solar_open
        """,
        Row(),
    ),
    **alike("gpt_neox_japanese step3p5", Row(fraction=1.0)),
    "minimax_m2": Row(rotary_dim="read", fraction=1.0),
    **alike(
        """
        axk1 axk2 deepseek_v2 deepseek_v3 deepseek_v32 glm4_moe_lite glm_moe_dsa kimi_k2
        longcat_flash sarvam_mla youtu
        """,
        Row(layout="interleaved", latent=True),
    ),
    **alike(
        "higgs_audio_v2 hrm_text internlm3 iquestcoder mellum molmo2_text seed_oss",
        Row(head_dim=128),
    ),
    "laguna": Row(head_dim=128, fraction=1.0),
    **alike("doge mixtral phimoe starcoder2", Row(window="every")),
    **alike("phi3 phi4_multimodal", Row(window="every", fraction=1.0)),
    **alike("mt5 pix2struct_text_model pop2piano switch_transformers t5", Row(scheme="t5")),
    **alike("cohere ernie4_5 ernie4_5_moe", Row(layout="interleaved")),
    **alike("ministral mllama_text_model unlimited_ocr_text", Row(kinds_needed=True)),
    **alike(
        "blt_global_transformer blt_local_decoder blt_local_encoder",
        Row(layout="interleaved", window="every"),
    ),
    **alike("glm4_moe nemotron persimmon", Row(fraction=0.5)),
    **alike(
        "qwen2_5_omni_text qwen2_5_vl_text qwen2_vl_text",
        Row(sections=(16, 24, 24), window="late", switched=True),
    ),
    **alike(
        "bailing_hybrid dots3_note_text", Row(layout="interleaved", latent=True, kinds_needed=True)
    ),
    **alike("codegen gptj", Row(layout="interleaved", rotary_dim="needed", base=1e4, fraction=1.0)),
    **alike(
        "cosmos3_edge_text qwen3_vl_text",
        Row(axes="interleaved", sections=(24, 20, 20), head_dim=128),
    ),
    "apertus": Row(scaled=True),
    "cwm": Row(kinds_needed=True, head_dim=128, scaled=True),
    "lfm3": Row(kinds_needed=True, head_dim=128),
    **alike("deepseek_ocr2_text moshi", Row(window="unused")),
    "diffusion_gemma_text": Row(
        kinds_needed=True, sees=rules.not_known, head_dim=256, full_head_dim=512
    ),
    "embedding_gemma2_text": Row(
        kinds_needed=True, sees=rules.radius, head_dim=256, full_head_dim=512
    ),
    **alike(
        "exaone4 exaone_moe",
        Row(
            rotates=rules.in_windows_if_any,
            kinds=BOTH,
            kind_rule=every(4, key=_PATTERN, all_full=True),
        ),
    ),
    **alike("gemma2 vaultgemma", Row(kind_rule=every(2), head_dim=256)),
    **alike(
        "gemma4_text gemma4_unified_text",
        Row(kind_rule=every(6, last=True), head_dim=256, full_head_dim=512),
    ),
    **alike("glm glm4", Row(layout="interleaved", fraction=0.5, head_dim=128)),
    **alike(
        "glm4v_text glm_ocr_text", Row(layout="interleaved", sections=(8, 12, 12), fraction=1.0)
    ),
    **alike(
        "granite_swa granitemoe_swa", Row(base_by_layer=True, kinds_needed=True, sinks="every")
    ),
    **alike("hunyuan_v1_dense hunyuan_v1_moe", Row(ntk_alpha=True)),
    "modernbert": Row(
        kind_rule=every(3, key=_GLOBAL_EVERY, first=True),
        sees=rules.halves,
        renamed={"local_attention": "sliding_window"} | _BERT_BASES,
        local=True,
        defaults={"sliding_window": 128} | _MODERNBERT,
        position_type="unread",
        kinds=BOTH,
    ),
    "modernbert-decoder": Row(
        kind_rule=every(3, key=_GLOBAL_EVERY, first=True),
        renamed=_BERT_BASES,
        local=True,
        defaults=_MODERNBERT,
        position_type="unread",
        kinds=BOTH,
    ),
    "ultrabert": Row(kinds_needed=True, sees=rules.radius),
    "nemotron_h": Row(scheme="nope", kinds_needed=True),
    "zamba": Row(scheme="nope", kind_rule=rules.zamba_kinds),
    **alike("minimax_m1 minimax_text_01", Row(kinds_needed=True, rotary_dim="read", fraction=1.0)),
    **alike(
        "qwen3_omni_moe_text qwen3_vl_moe_text", Row(axes="interleaved", sections=(24, 20, 20))
    ),
    "afmoe": Row(
        rotates=rules.in_windows, kinds=BOTH, kind_rule=every(4, key=_GLOBAL_EVERY), head_dim=128
    ),
    "bamba": Row(kinds_needed=True, fraction=0.5),
    "beam": Row(
        rotates=rules.in_windows_or_by_section,
        still=rules.beam_scale,
        kinds=BOTH,
        kind_rule=every(6, last=True),
        head_dim=128,
    ),
    "bloom": Row(scheme="alibi", reads_alibi=True, unread=words("offset_alibi"), fixed=_ALIBI),
    "blt_patcher": Row(layout="interleaved", window="every", defaults={"sliding_window": 512}),
    "cohere2": Row(
        layout="interleaved", rotates=rules.by_window, kinds=BOTH, kind_rule=every(4, key=_PATTERN)
    ),
    "cohere2_moe": Row(
        layout="interleaved",
        rotates=rules.dense_or_by_window,
        kinds=BOTH,
        kind_rule=every(4, key=_PATTERN),
        head_dim=128,
    ),
    "cohere_compass_text": Row(axes="interleaved", sections=(24, 20, 20), dangling=True),
    "dory": Row(kinds_needed=True, head_dim=256, per_layer=2),
    "dots1": Row(window="late"),
    "ernie4_5_vl_moe_text": Row(layout="interleaved", axes="time_last", sections=(22, 22, 20)),
    "esm": Row(position_type="absolute", base=1e4, reads=_POSITION_TYPE),
    "falcon": Row(reads_alibi=True, base=1e4, alibi_divided=True),
    "flint": Row(rotates=rules.in_windows, kinds=BOTH, kinds_needed=True, sinks="every"),
    "gemma": Row(head_dim=256),
    "gemma3_text": Row(
        kind_rule=every(6, key=_PATTERN), sees=rules.gemma3, head_dim=256, **_GEMMA3
    ),
    "gemma3n_text": Row(kind_rule=every(5), head_dim=256, **_GEMMA3),
    "glm4v_moe_text": Row(sections=(8, 12, 12), fraction=0.5),
    "glm5_next_text": Row(scheme="nope", fixed={"qk_rope_head_dim": 0}, kinds_needed=True),
    "glm_image_text": Row(sections=(8, 12, 12), fraction=1.0),
    "gpt_neox": Row(base=1e4, fraction=0.25),
    "gpt_oss": Row(kind_rule=every(2), sinks="every", head_dim=64, scaled=True),
    "granitemoehybrid": Row(kinds_needed=True, position_type="nope", reads=_POSITION_TYPE),
    "helium": Row(layout="interleaved", head_dim=128),
    "hunyuan_vl_text": Row(axes=None, ntk_alpha=True),
    "hy_v4": Row(latent=True, sinks="every"),
    "hy_v4_vl_text": Row(layout="interleaved", latent=True, axes="interleaved", sinks="every"),
    "jamba": Row(scheme="nope", kind_rule=rules.jamba_kinds),
    "kimi_linear": Row(
        scheme="nope", kind_rule=rules.kimi_linear_kinds, reads=words("mla_use_nope")
    ),
    "kolibri1": Row(
        rotates=rules.in_windows_if_any, kinds=BOTH, kind_rule=every(5, all_full=True), head_dim=128
    ),
    "lara_mini": Row(rotates=rules.in_windows, kinds=BOTH, kinds_needed=True),
    "llama": Row(base=1e4, bare_head_dim=128),
    "llama4_text": Row(
        layout="interleaved",
        rotates=rules.listed_or_chunked,
        still=rules.llama4_temperature,
        kinds=(CHUNKED, FULL),
        kind_rule=rules.llama4_kinds,
        head_dim=128,
        reads=_LISTED,
    ),
    "mimo_v2_flash": Row(kinds_needed=True, sinks="windows", head_dim=192, fraction=0.334),
    "minicpm3": Row(latent=True, base=1e4),
    "minimax": Row(kinds_needed=True, window="every"),
    "minimax_m3_vl_text": Row(head_dim=128, fraction=1.0),
    "ministral3": Row(window="every", scaled_queries=True, head_dim=128, scaled=True),
    "mistral": Row(window="every", base=1e4, bare_head_dim=128, defaults={"sliding_window": 4096}),
    "mistral4": Row(layout="interleaved", latent=True, scaled_queries=True, scaled=True),
    "mistral_large4_text": Row(
        layout="interleaved", latent=True, learned=True, rotates=rules.listed, reads=_LISTED
    ),
    "moonshine": Row(layout="interleaved", fraction=0.9),
    "moonshine_streaming": Row(layout="interleaved", fraction=0.8),
    "mpt": Row(
        scheme="alibi",
        reads_alibi=True,
        unread=words("rope rope_dail_config rope_hf_config rope_impl"),
        fixed=_ALIBI,
    ),
    "muse_glimmer_text": Row(rotates=rules.not_from_last, kinds_needed=True, head_dim=128),
    "muse_spark_text": Row(rotates=rules.not_from_last, kinds_needed=True, head_dim=64),
    "nanochat": Row(backwards=True),
    "neomme": Row(
        axes="rows_and_columns", kinds_needed=True, sees=rules.radius, head_dim=64, fraction=1.0
    ),
    "olmo3": Row(plain_sliding=True, kinds=BOTH, kind_rule=every(4)),
    "olmo_hybrid": Row(kind_rule=every(4, LINEAR)),
    "openai_privacy_filter": Row(
        layout="interleaved",
        window="every",
        sees=rules.radius,
        sinks="every",
        head_dim=64,
        scaled=True,
    ),
    "paddleocr_vl_text": Row(sections=(16, 24, 24), window="unused"),
    "phi": Row(base=1e4, fraction=0.5),
    "qwen2": Row(window="late", switched=True, dual_chunks=True, bare_head_dim=128),
    "qwen2_moe": Row(switched=True, dual_chunks=True),
    "qwen3": Row(window="late", switched=True, dual_chunks=True, head_dim=128),
    "qwen3_5_moe_text": Row(
        axes="interleaved",
        sections=(11, 11, 10),
        kind_rule=every(4, LINEAR, key=_INTERVAL),
        fraction=0.25,
    ),
    "qwen3_5_text": Row(
        axes="interleaved",
        sections=(11, 11, 10),
        kind_rule=every(4, LINEAR, key=_INTERVAL),
        fraction=0.25,
        head_dim=256,
    ),
    "qwen3_moe": Row(window="every", switched=True, dual_chunks=True),
    "qwen3_next": Row(kind_rule=every(4, LINEAR, key=_INTERVAL), dual_chunks=True, fraction=0.25),
    "qwen4_exp_text": Row(
        axes="interleaved", sections=(11, 11, 10), kinds_needed=True, fraction=1.0
    ),
    "recurrent_gemma": Row(
        kind_rule=rules.recurrent_gemma_kinds,
        window="every",
        renamed={"attention_window_size": "sliding_window"},
        fraction=0.5,
        defaults={"sliding_window": 2048},
    ),
    "roformer": Row(layout="interleaved", base=1e4),
    "sarvam_moe": Row(head_dim=64, fraction=1.0),
    "smollm3": Row(rotates=rules.listed, window="still", switched=True, reads=_LISTED),
    "stablelm": Row(fraction=0.25),
    "t5gemma2_text": Row(kinds_needed=True, sees=rules.t5gemma2, head_dim=256, **_GEMMA3),
    "umt5": Row(scheme="t5", own_tables=True),
    "zamba2": Row(
        kinds_needed=True,
        kind_rule=rules.zamba2_kinds,
        head_dim=rules.zamba2_head_dim,
        reads=words("use_mem_rope"),
        defaults={"use_mem_rope": False},
    ),
    "zaya": Row(dangling=True, head_dim=128, fraction=1.0),
    # Tables of positions
    **alike("gpt2 gpt_bigcode", _learned("wpe.weight")),
    "gpt_neo": _learned("wpe.weight", kinds_needed=True),
    "openai-gpt": _learned("positions_embed.weight"),
    **alike("albert bert electra", _learned(_BERT)),
    "distilbert": _learned(_BERT, renamed={"dim": "hidden_size"}),
    **alike("camembert roberta xlm-roberta", _learned(_BERT, reserved=2)),
    "opt": _learned("decoder.embed_positions.weight", reserved=2, counts_reserved=False),
}

# Models of several parts, and the part that reads text: some config.json files are flat, and some
# have a part without model_type.
TEXT_PARTS = {
    "glm46v": "glm4v_text",
    "kimi_k25": "kimi_k2",
    "mllama": "mllama_text_model",
    "qwen2_5_omni_thinker": "qwen2_5_omni_text",
    "qwen3_omni_moe_thinker": "qwen3_omni_moe_text",
} | {name.removesuffix("_text"): name for name in ROWS if name.endswith("_text")}

UNKNOWN = Row(
    rotary_dim="read", reads_alibi=True, scaled_queries=True, fraction=1.0, reads=_POSITION_TYPE
)


def row_of(config: Config) -> Row:
    """Returns the row of a model, or ``UNKNOWN``, whose layout the caller has given."""
    return ROWS.get(config.get("model_type") or "", UNKNOWN)


def having(**columns: Any) -> list[str]:
    """Returns the names of models that have these values in their rows, in order."""
    return sorted(
        name
        for name, row in ROWS.items()
        if all(getattr(row, key) == value for key, value in columns.items())
    )
