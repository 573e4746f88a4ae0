"""Lists what the code of each published model does with the positions in its config.

The names are values of ``model_type``. ``parity/test_model_types.py`` runs every model listed here
that transformers has, and compares how its queries and keys turn with what ``from_hf`` returns.
"""

from typing import Any


def words(text: str) -> frozenset[str]:
    """Returns the words of a text."""
    return frozenset(text.split())


# Pair i is the channels i and i + rotary_dim / 2.
HALF = words("""
    afmoe apertus apertus1p5_text arcee aria_text bamba beam bitnet chameleon cohere_compass_text
    cosmos3_edge_text csm cwm dbrx deepseek_ocr2_text diffllama diffusion_gemma_text doge dory
    dots1 embedding_gemma2_text emu3_text_model esm esmc eurobert evolla exaone exaone4 exaone_moe
    falcon falcon_h1 flex_olmo flint gemma gemma2 gemma3_text gemma3n_text gemma4_text
    gemma4_unified_text glm4_moe glm4v_moe_text glm_image_text gpt_neox gpt_neox_japanese gpt_oss
    granite granite4_vision_text granite_docling_text granite_swa granitemoe granitemoe_swa
    granitemoehybrid granitemoeshared gte higgs_audio_v2 hrm_text hunyuan_v1_dense hunyuan_v1_moe
    hunyuan_vl_text hy_v3 hy_v4 hyperclovax internlm2 internlm3 iquestcoder jais2 jetmoe
    jina_embeddings_v3 kolibri1 laguna lara_mini lfm2 lfm2_moe lfm3 llama mellum mimo_v2_flash
    minicpm3 minimax minimax_m2 minimax_m3_vl_text ministral ministral3 mistral mixtral
    mllama_text_model modernbert modernbert-decoder molmo2_text moshi muse_glimmer_text
    muse_spark_text nanochat nemotron neomme nomic_bert olmo olmo2 olmo3 olmo_hybrid olmoe
    paddleocr_vl_text persimmon phi phi3 phi4_multimodal phimoe qwen2 qwen2_5_omni_text
    qwen2_5_vl_text qwen2_moe qwen2_vl_text qwen3 qwen3_5_moe_text qwen3_5_text qwen3_moe
    qwen3_next qwen3_omni_moe_text qwen3_vl_moe_text qwen3_vl_text qwen4_exp_text recurrent_gemma
    sarvam_moe seed_oss smollm3 solar_open stablelm starcoder2 step3p5 t5gemma2_text ultrabert
    unlimited_ocr_text vaultgemma zamba2 zaya
""")

# Pair i is the channels 2 i and 2 i + 1.
INTERLEAVED = words("""
    axk1 axk2 bailing_hybrid blt_global_transformer blt_local_decoder blt_local_encoder
    blt_patcher codegen cohere cohere2 cohere2_moe deepseek_v2 deepseek_v3 deepseek_v32
    dots3_note_text ernie4_5 ernie4_5_moe ernie4_5_vl_moe_text glm glm4 glm4_moe_lite glm4v_text
    glm_moe_dsa glm_ocr_text gptj helium hy_v4_vl_text kimi_k2 llama4_text longcat_flash mistral4
    mistral_large4_text moonshine moonshine_streaming openai_privacy_filter roformer
    sarvam_mla youtu
""")

LAYOUTS = dict.fromkeys(HALF, "half") | dict.fromkeys(INTERLEAVED, "interleaved")

# Attention without positions, whatever else the config says.
NO_POSITIONS = words("glm5_next_text jamba kimi_linear nemotron_h zamba")

# Biases by distance, and nothing else.
T5 = words("t5 mt5 umt5 switch_transformers pop2piano pix2struct_text_model")
ALIBI = words("bloom mpt")
# Models that read alibi=true; falcon has RoPE without it.
READS_ALIBI = ALIBI | words("falcon")
# Keys that change nothing in a model with a bias; rope=true contradicts the bias.
BESIDE_BIAS = {
    "bloom": words("offset_alibi"),
    "mpt": words("rope rope_impl rope_dail_config rope_hf_config"),
}

KNOWN = NO_POSITIONS | T5 | ALIBI | LAYOUTS.keys()

# Models of several parts, and the part that reads text: some config.json files are flat, and some
# have a part without model_type.
TEXT_PARTS = {
    "glm46v": "glm4v_text",
    "kimi_k25": "kimi_k2",
    "mllama": "mllama_text_model",
    "qwen2_5_omni_thinker": "qwen2_5_omni_text",
    "qwen3_omni_moe_thinker": "qwen3_omni_moe_text",
} | {name.removesuffix("_text"): name for name in HALF | INTERLEAVED if name.endswith("_text")}

# A head has a part that turns, of qk_rope_head_dim channels, and one that does not.
LATENT = words("""
    axk1 axk2 bailing_hybrid deepseek_v2 deepseek_v3 deepseek_v32 dots3_note_text glm4_moe_lite
    glm_moe_dsa hy_v4 hy_v4_vl_text kimi_k2 longcat_flash minicpm3 mistral4 mistral_large4_text
    sarvam_mla youtu
""")

# Frequencies and the scale of queries are parameters of the checkpoint.
LEARNED = words("mistral_large4_text")

# Every pair turns the other way.
BACKWARDS = words("nanochat")

# Channel pairs alternate between position axes, whether mrope_interleaved is set or not.
AXES_INTERLEAVED = words("""
    cohere_compass_text cosmos3_edge_text hy_v4_vl_text qwen3_5_moe_text qwen3_5_text
    qwen3_omni_moe_text qwen3_vl_moe_text qwen3_vl_text qwen4_exp_text
""")
# Sections of row, column and time, laid out as in VideoRoPE.
TIME_LAST = words("ernie4_5_vl_moe_text")
# Channel pairs alternate between two position axes, row and column.
ROW_AND_COLUMN = words("neomme")
# Two channels that are a pair turn by different axes, which is no rotation.
SECTIONS_NOT_OFFERED = words("hunyuan_vl_text")

# The sections of models whose config leaves them out.
SECTIONS = {
    "cohere_compass_text": (24, 20, 20),
    "cosmos3_edge_text": (24, 20, 20),
    "ernie4_5_vl_moe_text": (22, 22, 20),
    "glm4v_moe_text": (8, 12, 12),
    "glm4v_text": (8, 12, 12),
    "glm_image_text": (8, 12, 12),
    "glm_ocr_text": (8, 12, 12),
    "paddleocr_vl_text": (16, 24, 24),
    "qwen2_5_omni_text": (16, 24, 24),
    "qwen2_5_vl_text": (16, 24, 24),
    "qwen2_vl_text": (16, 24, 24),
    "qwen3_5_moe_text": (11, 11, 10),
    "qwen3_5_text": (11, 11, 10),
    "qwen3_omni_moe_text": (24, 20, 20),
    "qwen3_vl_moe_text": (24, 20, 20),
    "qwen3_vl_text": (24, 20, 20),
    "qwen4_exp_text": (11, 11, 10),
}

_FULL_AND_SLIDING = ("full_attention", "sliding_attention")

# Only the layers with a window turn. In some of these all layers turn if there is no window.
NOPE_BESIDE_WINDOWS = words("exaone4 exaone_moe kolibri1")
NOPE_ON_FULL = NOPE_BESIDE_WINDOWS | words("afmoe beam cohere2 cohere2_moe flint lara_mini")
# The code asks whether a layer has a window, and not of which kind it is.
TURNS_BY_WINDOW = words("cohere2 cohere2_moe")
# no_rope_layers lists the layers that turn, by default all but every fourth.
NO_ROPE_LAYERS = words("llama4_text mistral_large4_text smollm3")
# A flat section is that of the full layers; the others have RoPE of the same base.
PLAIN_SLIDING = words("olmo3")
# Every fourth layer, counted back from the last, has no rotation, unless layer_rope_theta is given.
NOPE_FROM_LAST = words("muse_glimmer_text muse_spark_text")
# layer_rope_theta is the base of a layer; in other models it only says which layers turn.
BASE_BY_LAYER = words("granite_swa granitemoe_swa")
# The kinds of layers that differ where no section says so.
KINDS = dict.fromkeys(NOPE_ON_FULL | PLAIN_SLIDING, _FULL_AND_SLIDING)
KINDS |= {"llama4_text": ("chunked_attention", "full_attention")}
# Published sections for each kind of layer have an unread rope_theta or rope_type next to them.
DANGLING_KEYS = words("cohere_compass_text zaya")

# If a config does not list the kinds of its layers, every n-th layer has full attention, and the
# others are of the named kind.
FULL_EVERY = {
    "afmoe": (4, "sliding_attention"),
    "beam": (6, "sliding_attention"),
    "cohere2": (4, "sliding_attention"),
    "cohere2_moe": (4, "sliding_attention"),
    "exaone4": (4, "sliding_attention"),
    "exaone_moe": (4, "sliding_attention"),
    "gemma2": (2, "sliding_attention"),
    "gemma3_text": (6, "sliding_attention"),
    "gemma3n_text": (5, "sliding_attention"),
    "gemma4_text": (6, "sliding_attention"),
    "gemma4_unified_text": (6, "sliding_attention"),
    "gpt_oss": (2, "sliding_attention"),
    "kolibri1": (5, "sliding_attention"),
    "olmo3": (4, "sliding_attention"),
    "olmo_hybrid": (4, "linear_attention"),
    "qwen3_5_moe_text": (4, "linear_attention"),
    "qwen3_5_text": (4, "linear_attention"),
    "qwen3_next": (4, "linear_attention"),
    "vaultgemma": (2, "sliding_attention"),
}
# The last layer of these models has full attention too.
LAST_FULL = words("beam gemma4_text gemma4_unified_text")
# Layers differ, and only the config says which.
KINDS_NEEDED = words("""
    bailing_hybrid bamba cwm diffusion_gemma_text dory dots3_note_text embedding_gemma2_text flint
    glm5_next_text granite_swa granitemoe_swa granitemoehybrid lara_mini lfm3 mimo_v2_flash minimax
    ministral mllama_text_model modernbert modernbert-decoder muse_glimmer_text muse_spark_text
    nemotron_h neomme qwen4_exp_text t5gemma2_text ultrabert unlimited_ocr_text zamba zamba2
""")

# sliding_window applies to every layer, unless it is null.
WINDOW_EVERYWHERE = words("""
    blt_global_transformer blt_local_decoder blt_local_encoder blt_patcher doge minimax ministral3
    mistral mixtral openai_privacy_filter phi3 phi4_multimodal phimoe qwen3_moe starcoder2
""")
# The window that a class has where the config does not give one.
WINDOWS = {"blt_patcher": 512, "mistral": 4096}
# sliding_window counts only if use_sliding_window is true.
WINDOW_SWITCHED = words("""
    qwen2 qwen2_5_omni_text qwen2_5_vl_text qwen2_moe qwen2_vl_text qwen3 qwen3_moe smollm3
""")
# Layers from the number max_window_layers on have the window, where no kinds are listed.
WINDOW_FROM = words("dots1 qwen2 qwen2_5_omni_text qwen2_5_vl_text qwen2_vl_text qwen3")
# sliding_window is in the config, but hides no text.
WINDOW_UNUSED = words("deepseek_ocr2_text moshi paddleocr_vl_text")
# Queries see keys on both sides of them within the window.
WINDOW_BOTH_SIDES = words("""
    diffusion_gemma_text embedding_gemma2_text modernbert neomme openai_privacy_filter t5gemma2_text
    ultrabert
""")

# Each head has a learned attention sink in every layer, or in those with a window.
SINKS = words("""
    flint gpt_oss granite_swa granitemoe_swa hy_v4 hy_v4_vl_text openai_privacy_filter
""")
SINKS_IN_WINDOWS = words("mimo_v2_flash")

# SGLang and vLLM read dual_chunk_attention_config; transformers reads it for no model.
DUAL_CHUNKS = words("qwen2 qwen2_moe qwen3 qwen3_moe qwen3_next")

# llama_4_scaling_beta is read, and multiplies queries; the code of all others leaves it unread.
SCALED_QUERIES = words("ministral3 mistral4")

# The default of position_embedding_type, where it is not "rope".
POSITION_TYPE = {"esm": "absolute", "granitemoehybrid": "nope"}
# rope_type "dynamic" with a fixed alpha.
NTK_ALPHA = words("hunyuan_v1_dense hunyuan_v1_moe hunyuan_vl_text")
# Part of a head turns, and only rotary_dim in the config says how much.
ROTARY_DIM_NEEDED = words("codegen gptj")
# rotary_dim is in the config, but only partial_rotary_factor is read.
IGNORE_ROTARY_DIM = words("minimax minimax_m3_vl_text")

# Keys that a config may leave out, and the values that the model then has.
BASE_10000 = words("codegen esm falcon gpt_neox gptj llama mistral phi roformer")
_GEMMA3 = {"rope_theta": 1e6, "rope_local_base_freq": 1e4}
BASES: dict[str, dict[str, Any]] = {"gemma3_text": _GEMMA3, "gemma3n_text": _GEMMA3}
FRACTIONS = {
    "bamba": 0.5,
    "glm": 0.5,
    "glm4": 0.5,
    "glm4_moe": 0.5,
    "glm4v_moe_text": 0.5,
    "gpt_neox": 0.25,
    "moonshine": 0.9,
    "nemotron": 0.5,
    "persimmon": 0.5,
    "phi": 0.5,
    "qwen3_5_moe_text": 0.25,
    "qwen3_5_text": 0.25,
    "qwen3_next": 0.25,
    "recurrent_gemma": 0.5,
    "stablelm": 0.25,
}
# The width of a head where it is not hidden_size / num_attention_heads.
HEAD_DIM = {
    name: head_dim
    for head_dim, names in {
        64: """
            gpt_oss muse_spark_text neomme openai_privacy_filter sarvam_moe
        """,
        128: """
            afmoe beam cohere2_moe cosmos3_edge_text cwm glm glm4 helium higgs_audio_v2 hrm_text
            internlm3 iquestcoder kolibri1 laguna lfm3 llama4_text mellum minimax_m3_vl_text
            ministral3 molmo2_text muse_glimmer_text qwen3 qwen3_vl_text seed_oss zaya
        """,
        192: """
            mimo_v2_flash
        """,
        256: """
            diffusion_gemma_text dory embedding_gemma2_text gemma gemma2 gemma3_text
            gemma3n_text gemma4_text gemma4_unified_text qwen3_5_text t5gemma2_text vaultgemma
        """,
    }.items()
    for name in names.split()
}
GLOBAL_HEAD_DIM = dict.fromkeys(
    words("diffusion_gemma_text embedding_gemma2_text gemma4_text gemma4_unified_text"), 512
)

_TWO_AXES = "its pairs turn by the rows and columns of an image, in an order of its own"
_INKLING = (
    "num_heads=..., model_dim=..., rank=d_rel, extent=..., log_floor=..., "
    "log_scale=log_scaling_alpha, rngs=...); in layers with a window extent is the window and "
    "log_floor None, in the others they are rel_extent and log_scaling_n_floor. The docstring of "
    "Inkling says what else attention has: scale="
)
_INKLING_2 = (
    "its checkpoint has a bias of relative positions. Build it: posenc_jax.make('inkling2', "
    "head_dim=..., clip=qk_l2_clip_threshold, vector_clip=rel_l2_clip_threshold, "
    f"{_INKLING}1 / sqrt(head_dim), sinks and more (Inkling2)"
)
_DINO_V3 = (
    "its pairs turn by the rows and columns of an image. Build that: posenc_jax.make('dinov3', "
    "head_dim=..., base=rope_theta), at posenc_jax.positions.centred_grid(rows, columns, "
    "others=...); shift=, jitter= and rescale= are what training draws"
)
# Models that are known, and not offered by from_hf. Where an encoding exists, the reason names it.
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
REFUSED |= dict.fromkeys(words("inkling2_text inkling2_loop_text"), _INKLING_2)
REFUSED |= dict.fromkeys(words("dinov3_vit eomt_dinov3"), _DINO_V3)
REFUSED |= {
    "chatglm": "its releases differ in their own code, in which channels turn and what rope_ratio "
    "does",
    "deepseek_v4": "values turn with the keys, and outputs turn back. Build that: "
    "posenc_jax.make('value_rope', head_dim=..., rotary_dim=qk_rope_head_dim, base=...), with "
    "base=rope_theta in layers of sliding_attention, and in the others with base="
    "compress_rope_theta and frequencies=YaRN(..., attention_factor=1.0); attend with its sinks",
    "ernie4_5_moe_vl": "its own code has axes that its config does not describe",
    "inkling_text": "its checkpoint has a bias of relative positions. Build it: "
    f"posenc_jax.make('inkling', {_INKLING}1 / head_dim, and more",
    "longt5": "its encoder has a bias for blocks of tokens besides T5's",
    "mpnet": "it has learned absolute positions besides T5's bias",
    "pix2struct_vision_model": "it has learned rows and columns",
    "qwen2_5_omni_dit": "only its first head turns",
    "udop": "it has a bias by row and column besides T5's",
}


def check_known(config: dict[str, Any], layout: str | None) -> None:
    """Checks that a model is offered, and that a layout is given for an unknown one."""
    model = config.get("model_type")
    if model in REFUSED:
        raise ValueError(f"model_type={model!r} is not offered by from_hf: {REFUSED[model]}")
    if not model or model in KNOWN or layout is not None:
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
        f"model_type={model!r} is not known. Read in the model's code which two channels of a head "
        "turn together, and what of the config it reads; then pass layout='half' or "
        "layout='interleaved', or build the encoding with posenc_jax.make(...)"
    )
