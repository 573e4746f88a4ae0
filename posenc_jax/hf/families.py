"""Lists what the code of each published model does with the positions in its config.

A name is a value of ``model_type``. What no column can express is a function in ``odd.py``, or in
``around.py`` if it returns an encoding.
``parity/test_model_types.py`` runs every model listed here that transformers has, and compares how
its queries and keys rotate, and which keys they see, with what ``from_hf`` returns.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

from flax import nnx

from posenc_jax.encoding import Encoding
from posenc_jax.encodings.lib import axes
from posenc_jax.hf import around, odd
from posenc_jax.hf.odd import bare, defaults, every, late_windows, only, two_bases
from posenc_jax.hf.values import LINEAR, Config, words
from posenc_jax.registry import make


@dataclasses.dataclass(frozen=True)
class Family:
    """Says what the code of one model does; the defaults describe Llama."""

    # "rope", "alibi", "t5" (a bias by distance), "learned" (a table that is added to the
    # embeddings), or "nope" for attention that has no positions whatever else the config says.
    scheme: str = "rope"
    # Pair i is the channels i and i + rotary_dim / 2 ("half"), or 2 i and 2 i + 1 ("interleaved").
    layout: str = "half"
    # The width of a head where it is not the model's width over the number of heads.
    head_dim: int | None = None
    latent: bool = False  # whether only a part of a head rotates, its ``qk_rope_head_dim`` channels
    # The share of a head that rotates where the config does not say; None if the code rotates whole
    # heads whatever it says (the share of p-RoPE is read in every model).
    fraction: float | None = None
    base: float | None = None  # the base where the config has none; None if it must have one
    needs_section: bool = False  # whether the class scales its rates where it has no section
    # How many pairs rotate by each position axis where the config leaves it out, and how pairs are
    # dealt out to axes; None: the two channels of a pair rotate by different axes.
    sections: tuple[int, ...] | None = None
    axes: Callable[[tuple[int, ...]], Any] | None = axes.chunked
    kinds_needed: bool = False  # whether layers differ and only the config says which
    windowed: bool = False  # whether a window is that of all layers, whatever their kind
    reach: odd.Reach = odd.back  # the keys that a query sees, from the config and its window
    # Layers in which each head has a learned sink: "every", or layers with "windows". Or "keys",
    # where every kv head has a learned key, whose product with a query is the sink.
    sinks: str | None = None
    reads: frozenset[str] = frozenset()  # keys about positions that most models do not read
    unread: frozenset[str] = frozenset()  # keys that change nothing
    steps: tuple[odd.Step, ...] = ()  # what puts the config into common words
    still: Callable[[Config], Encoding] = odd.nope  # the encoding of layers that do not rotate
    # The encoding that the model has around the one of the config.
    around: Callable[[Config, Encoding, nnx.Rngs | None], Encoding] | None = None
    table: str = ""  # how the name of the tensor ends that has the learned positions
    reserved: int = 0  # rows at the start of this table that no token reads


def _alike(names: str, *parts: dict[str, Any], **columns: Any) -> dict[str, Family]:
    """Returns the same family under several names; ``parts`` are columns that others share."""
    merged = {key: value for part in (*parts, columns) for key, value in part.items()}
    return dict.fromkeys(names.split(), Family(**merged))


def _time_last(counts: tuple[int, ...]) -> Any:
    """Deals out pairs as VideoRoPE does; the config counts row, column and time."""
    return axes.temporal_last((*counts[2:], *counts[:2]))


_LISTED, _POSITION_TYPE = words("no_rope_layers"), words("position_embedding_type")
_NOPE_MLA = words("use_mla_nope")
_ROTARY_DIM, _SCALED_QUERIES = words("rotary_dim"), words("llama_4_scaling_beta")
_WINDOW, _SWITCHED = words("sliding_window"), words("use_sliding_window")
_QWEN = _SWITCHED | words("dual_chunk_attention_config")
_EVERY_4 = every(4, key="sliding_window_pattern")
_LINEAR_4 = every(4, LINEAR, key="full_attention_interval")
_AFMOE = every(4, key="global_attn_every_n_layers")
_EVERY_6 = every(6, key="sliding_window_pattern")
_PAIRED, _WINDOWED, _KINDS = (
    dict(layout="interleaved"),
    dict(windowed=True),
    dict(kinds_needed=True),
)
_MLA = dict(layout="interleaved", latent=True)  # DeepSeek's attention
_IMROPE = dict(axes=axes.interleaved, sections=(24, 20, 20))
_QWEN2_VL = dict(sections=(16, 24, 24), reads=_SWITCHED)
_QWEN35 = dict(
    axes=axes.interleaved, sections=(11, 11, 10), steps=(_LINEAR_4,), fraction=0.25, head_dim=256
)
_GEMMA3 = dict(head_dim=256, steps=(_EVERY_6, two_bases(1e6, 1e4)))
_WIDE = dict(head_dim=256, steps=(every(6, last=True), defaults(global_head_dim=512)))
_MODERNBERT = dict(unread=_POSITION_TYPE, steps=(odd.modernbert,))
_ALWAYS_ALIBI = dict(scheme="alibi", reads=words("alibi"), steps=(only(alibi=True),))
_TABLE = dict(scheme="learned")
_BERT = dict(scheme="learned", table="position_embeddings.weight")

FAMILIES: dict[str, Family] = {
    **_alike("""
        apertus1p5_text arcee aria_text bitnet chameleon csm dbrx diffllama emu3_text_model esmc
        eurobert evolla exaone falcon_h1 flex_olmo granite granite4_vision_text
        granite_docling_text granitemoe granitemoeshared gte hyperclovax internlm2 jais2
        jetmoe jina_embeddings_v3 lfm2 lfm2_moe nomic_bert olmo olmo2 olmoe
    """),
    **_alike("llama", base=1e4, steps=(bare(128),)),
    **_alike("higgs_audio_v2 hrm_text internlm3 iquestcoder mellum", head_dim=128),
    **_alike("hy_v3 molmo2_text seed_oss solar_open", head_dim=128),
    **_alike("gemma", head_dim=256),
    **_alike("nanochat", around=around.nanochat),
    **_alike("apertus", needs_section=True),
    **_alike("cohere ernie4_5 ernie4_5_moe", _PAIRED),
    **_alike("helium", _PAIRED, head_dim=128),
    **_alike("roformer", _PAIRED, base=1e4),
    # A part of each head rotates
    **_alike("axk1 axk2 deepseek_v2 deepseek_v3 deepseek_v32 glm4_moe_lite glm_moe_dsa", _MLA),
    **_alike("kimi_k2 longcat_flash sarvam_mla youtu", _MLA),
    **_alike("minicpm3", latent=True, base=1e4),
    **_alike("mistral4", _MLA, needs_section=True, reads=_SCALED_QUERIES),
    **_alike("hy_v4", latent=True, sinks="every"),
    **_alike("hy_v4_vl_text", _MLA, axes=axes.interleaved, sinks="every"),
    **_alike("gpt_neox_japanese", fraction=1.0),
    **_alike("laguna minimax_m3_vl_text", fraction=1.0, head_dim=128),
    **_alike("sarvam_moe", fraction=1.0, head_dim=64),
    **_alike("zaya", fraction=1.0, head_dim=128, steps=(odd.kinds_alone,)),
    **_alike(
        "step3p5",
        fraction=1.0,
        head_dim=128,
        reads=words("partial_rotary_factors"),
        steps=(odd.step3p5,),
    ),
    **_alike("xllm", reads=words("rope_head_dim"), steps=(odd.xllm,)),
    **_alike("moonshine", _PAIRED, fraction=0.9),
    **_alike("moonshine_streaming", _PAIRED, fraction=0.8),
    **_alike("glm4_moe nemotron persimmon", fraction=0.5),
    **_alike("phi", fraction=0.5, base=1e4),
    **_alike("glm glm4", _PAIRED, fraction=0.5, head_dim=128),
    **_alike("gpt_neox", fraction=0.25, base=1e4),
    **_alike("stablelm", fraction=0.25),
    **_alike("minimax_m2", head_dim=128, fraction=1.0, reads=_ROTARY_DIM),
    **_alike("minimax_m1 minimax_text_01", _KINDS, fraction=1.0, reads=_ROTARY_DIM),
    **_alike("codegen gptj", _PAIRED, fraction=1.0, base=1e4, reads=_ROTARY_DIM, steps=(odd.gptj,)),
    # Several axes of positions
    **_alike("qwen2_5_vl_text qwen2_vl_text", _QWEN2_VL, steps=(late_windows(80),)),
    **_alike("qwen2_5_omni_text", _QWEN2_VL, steps=(late_windows(28),)),
    **_alike("paddleocr_vl_text", head_dim=128, sections=(16, 24, 24), unread=_WINDOW),
    **_alike("glm4v_text glm_ocr_text", _PAIRED, sections=(8, 12, 12), fraction=1.0),
    **_alike("glm4v_moe_text", sections=(8, 12, 12), fraction=0.5),
    **_alike("glm_image_text", sections=(8, 12, 12), fraction=1.0),
    **_alike("qwen3_omni_moe_text qwen3_vl_moe_text", _IMROPE),
    **_alike("cosmos3_edge_text qwen3_vl_text", _IMROPE, head_dim=128),
    **_alike("cohere_compass_text", _IMROPE, steps=(odd.kinds_alone,)),
    **_alike("qwen3_5_moe_text qwen3_5_text", _QWEN35),
    **_alike("qwen4_exp_text", _QWEN35, _KINDS, fraction=1.0, steps=()),
    **_alike("ernie4_5_vl_moe_text", _PAIRED, sections=(22, 22, 20), axes=_time_last),
    **_alike("hunyuan_vl_text", axes=None, reads=words("alpha")),
    **_alike("hunyuan_v1_dense hunyuan_v1_moe", reads=words("alpha")),
    **_alike(
        "neomme",
        axes=axes.interleaved,
        head_dim=64,
        fraction=1.0,
        reach=odd.radius,
        steps=(every(6, last=True), odd.neomme),
    ),
    # Windows in all layers, in some, or in none
    **_alike("doge mixtral phimoe starcoder2", _WINDOWED),
    **_alike("minimax", _WINDOWED, _KINDS),
    **_alike("phi3 phi4_multimodal", _WINDOWED, fraction=1.0),
    **_alike("mistral", _WINDOWED, base=1e4, steps=(bare(128), defaults(sliding_window=4096))),
    **_alike("blt_global_transformer blt_local_decoder blt_local_encoder", _WINDOWED, _PAIRED),
    **_alike("blt_patcher", _WINDOWED, _PAIRED, steps=(defaults(sliding_window=512),)),
    **_alike("ministral3", _WINDOWED, head_dim=128, needs_section=True, reads=_SCALED_QUERIES),
    **_alike(
        "openai_privacy_filter",
        _WINDOWED,
        _PAIRED,
        head_dim=64,
        needs_section=True,
        reach=odd.radius,
        sinks="every",
        steps=(defaults(sliding_window=128),),
    ),
    **_alike("recurrent_gemma", _WINDOWED, fraction=0.5, steps=(odd.recurrent_gemma,)),
    **_alike("deepseek_ocr2_text moshi", unread=_WINDOW),
    **_alike("dots1", steps=(late_windows(62),)),
    **_alike("qwen2", reads=_QWEN, steps=(bare(128), late_windows(28))),
    **_alike("qwen3", reads=_QWEN, head_dim=128, steps=(late_windows(28),)),
    **_alike("qwen2_moe", reads=_QWEN),
    **_alike("qwen3_moe", _WINDOWED, reads=_QWEN),
    **_alike("gemma2 vaultgemma", head_dim=256, steps=(every(2),)),
    **_alike("gemma3_text", _GEMMA3, reach=odd.gemma3),
    **_alike("gemma3n_text", head_dim=256, steps=(every(5), two_bases(1e6, 1e4))),
    **_alike("t5gemma2_text", _GEMMA3, reach=odd.t5gemma2),
    **_alike("t5gemma2_decoder", _GEMMA3),
    **_alike("gemma4_text gemma4_unified_text", _WIDE),
    **_alike("diffusion_gemma_text", _WIDE, reach=odd.not_known),
    **_alike("embedding_gemma2_text", _WIDE, reach=odd.radius),
    **_alike("modernbert", _MODERNBERT, reach=odd.radius),
    **_alike("modernbert-decoder", _MODERNBERT),
    **_alike("ultrabert", _KINDS, reach=odd.radius),
    **_alike("olmo3", steps=(every(4), odd.plain_in_windows)),
    **_alike("mimo_v2_flash", head_dim=192, fraction=0.334, sinks="windows", steps=(odd.mimo,)),
    **_alike("gpt_oss", head_dim=64, needs_section=True, sinks="every", steps=(every(2),)),
    **_alike("ministral mllama_text_model unlimited_ocr_text", _KINDS),
    **_alike("cwm", _KINDS, head_dim=128, needs_section=True),
    **_alike("lfm3", _KINDS, head_dim=128),
    **_alike("dory", _KINDS, head_dim=256, steps=(odd.dory,)),
    # Some layers do not attend to the text
    **_alike("olmo_hybrid", steps=(every(4, LINEAR),)),
    **_alike(
        "qwen3_next", head_dim=256, fraction=0.25, reads=_QWEN - _SWITCHED, steps=(_LINEAR_4,)
    ),
    **_alike(
        "bailing_hybrid", _MLA, reads=_NOPE_MLA, steps=(every(6, LINEAR, key="layer_group_size"),)
    ),
    **_alike(
        "bailing_moe_v3", _MLA, reads=_NOPE_MLA, steps=(every(4, LINEAR, key="layer_group_size"),)
    ),
    **_alike("gigachat3_5", _MLA, _KINDS),
    **_alike("dots3_note_text", _MLA, _KINDS),
    **_alike("bamba", _KINDS, fraction=0.5),
    **_alike("zamba2", _KINDS, reads=words("use_mem_rope"), steps=(odd.zamba2,)),
    # Some layers do not rotate
    **_alike("afmoe", head_dim=128, steps=(_AFMOE, odd.rotates_in_windows)),
    **_alike("lara_mini", _KINDS, head_dim=128, steps=(odd.rotates_in_windows,)),
    **_alike("flint", _KINDS, head_dim=128, sinks="every", steps=(odd.rotates_in_windows,)),
    **_alike("exaone4 exaone_moe", steps=(_EVERY_4, odd.rotates_in_windows_if_any)),
    **_alike("kolibri1", head_dim=128, steps=(every(5), odd.rotates_in_windows_if_any)),
    **_alike("cohere2", _PAIRED, steps=(_EVERY_4, odd.cohere2)),
    **_alike("cohere2_moe", _PAIRED, head_dim=128, steps=(_EVERY_4, odd.cohere2_moe)),
    **_alike(
        "beam",
        head_dim=128,
        steps=(every(6, last=True), odd.beam),
        still=lambda _: make("beam_scale"),
    ),
    **_alike(
        "iquest_q1",
        head_dim=128,
        fraction=0.25,
        sinks="keys",
        reads=_LISTED | _ROTARY_DIM,
        steps=(odd.iquest_q1,),
    ),
    **_alike("smollm3", reads=_LISTED | _SWITCHED, steps=(odd.smollm3,)),
    **_alike("muse_glimmer_text", _KINDS, head_dim=128, steps=(odd.muse,)),
    **_alike("muse_spark_text", _KINDS, head_dim=64, steps=(odd.muse,)),
    **_alike("granite_swa granitemoe_swa", _KINDS, sinks="every", reads=words("layer_rope_theta")),
    **_alike(
        "llama4_text",
        _PAIRED,
        head_dim=128,
        reads=_LISTED,
        steps=(odd.llama4,),
        still=odd.llama4_temperature,
    ),
    **_alike(
        "mistral_large4_text",
        _MLA,
        reads=_LISTED,
        steps=(odd.listed_rope,),
        around=around.mistral_large4,
    ),
    # No layer rotates
    **_alike("nemotron_h", _KINDS, scheme="nope"),
    **_alike("glm5_next_text", _KINDS, scheme="nope", steps=(only(qk_rope_head_dim=0),)),
    **_alike("jamba", scheme="nope", steps=(odd.jamba,)),
    **_alike("kimi_linear", scheme="nope", reads=words("mla_use_nope"), steps=(odd.kimi_linear,)),
    **_alike("zamba", scheme="nope", steps=(odd.zamba,)),
    # The config says whether anything rotates
    **_alike(
        "granitemoehybrid",
        _KINDS,
        reads=_POSITION_TYPE,
        steps=(defaults(position_embedding_type="nope"),),
    ),
    **_alike(
        "esm", base=1e4, reads=_POSITION_TYPE, steps=(defaults(position_embedding_type="absolute"),)
    ),
    # Biases
    **_alike("bloom", _ALWAYS_ALIBI, unread=words("offset_alibi")),
    **_alike("mpt", _ALWAYS_ALIBI, unread=words("rope rope_dail_config rope_hf_config rope_impl")),
    **_alike("falcon", base=1e4, reads=words("alibi"), steps=(odd.falcon,)),
    **_alike("mt5 pix2struct_text_model pop2piano switch_transformers t5 umt5", scheme="t5"),
    # Tables of positions
    **_alike("gpt2 gpt_bigcode", _TABLE, table="wpe.weight"),
    **_alike("gpt_neo", _TABLE, _KINDS, table="wpe.weight"),
    **_alike("openai-gpt", _TABLE, table="positions_embed.weight"),
    **_alike("bert distilbert", _BERT),
    **_alike("albert electra", _BERT, steps=(defaults(embedding_size=128),)),
    **_alike("camembert roberta xlm-roberta", _BERT, reserved=2),
    **_alike("opt", _TABLE, table="decoder.embed_positions.weight", reserved=2),
}

# Models of several parts, and the part that reads text: some config.json files are flat, and some
# have a part without model_type.
TEXT_PARTS = {
    "glm46v": "glm4v_text",
    "kimi_k25": "kimi_k2",
    "kimi_k3": "kimi_linear",
    "mllama": "mllama_text_model",
    "qwen2_5_omni_thinker": "qwen2_5_omni_text",
    "qwen3_omni_moe_thinker": "qwen3_omni_moe_text",
    "t5gemma2_encoder": "t5gemma2_text",
} | {name.removesuffix("_text"): name for name in FAMILIES if name.endswith("_text")}
del TEXT_PARTS["t5gemma2"]  # It has two, an encoder and a decoder.

# What is read of a model whose layout the caller has given.
_UNKNOWN = Family(
    fraction=1.0,
    reads=words("""
    alibi dual_chunk_attention_config llama_4_scaling_beta mla_use_nope position_embedding_type
    rotary_dim
    """),
)


def family_of(config: Config) -> Family:
    """Returns the family of a model, or that of models whose layout the caller has given."""
    return FAMILIES.get(config.get("model_type") or "", _UNKNOWN)


def having(**columns: Any) -> list[str]:
    """Returns the names of models that have these values in their rows, in order."""
    return sorted(
        name
        for name, family in FAMILIES.items()
        if all(getattr(family, key) == value for key, value in columns.items())
    )


def reading(key: str) -> list[str]:
    """Returns the names of models whose code reads a key that most do not read, in order."""
    return sorted(name for name, family in FAMILIES.items() if key in family.reads)
