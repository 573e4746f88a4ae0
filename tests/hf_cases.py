"""Holds configs of Hugging Face as models are published with them, at small sizes.

``READ`` has configs and the encoding of each, and ``REFUSED`` has configs that are refused.
"""

HEAD = dict(head_dim=8)
INTERLEAVED = HEAD | dict(layout="interleaved")
FULL, SLIDING = dict(layer_type="full_attention"), dict(layer_type="sliding_attention")
DECODER = dict(layer_type="decoder")
LLAMA = dict(model_type="llama", head_dim=8, rope_theta=1e4)

LINEAR = dict(rope_type="linear", factor=8.0)
YARN = dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=512)
UNROUNDED = HEAD | dict(train_length=512, factor=4.0, truncate=False)
LLAMA3 = dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0)
LLAMA3 |= dict(original_max_position_embeddings=8192)
SCALED_QUERIES = dict(rope_type="yarn", rope_theta=1e6, factor=16.0, llama_4_scaling_beta=0.1)
SCALED_QUERIES |= dict(original_max_position_embeddings=4)
QUERIES = dict(rope_theta=1e6, rope_parameters=SCALED_QUERIES)

FACTORS = dict(short_factor=[1.0] * 24 + [1.25] * 24, long_factor=[1.0] * 24 + [32.0] * 24)
PHI3 = dict(model_type="phi3", hidden_size=192, num_attention_heads=2, rope_theta=1e4)
PHI3 |= dict(max_position_embeddings=131072, original_max_position_embeddings=4096)
PHI3 |= dict(rope_scaling=dict(type="longrope", **FACTORS))
QWEN2_VL = dict(model_type="qwen2_vl", hidden_size=1536, num_attention_heads=12, rope_theta=1e6)
QWEN2_VL |= dict(rope_scaling=dict(type="mrope", mrope_section=[16, 24, 24]))
REWRITTEN = {"rope_scaling": QWEN2_VL["rope_scaling"] | {"rope_type": "default"}}
QWEN3_VL = dict(head_dim=128, base=5e6, sections=(24, 20, 20))
GLM4V = dict(head_dim=128, rotary_dim=64, sections=(8, 12, 12))
AXES = dict(sections=(1, 2, 1))
OMNI = dict(model_type="qwen2_5_omni_text", head_dim=128, rope_theta=1e6)
OF_OMNI = dict(head_dim=128, base=1e6, sections=(16, 24, 24))
NOMIC = dict(model_type="nomic_bert", head_dim=8, rotary_emb_base=1000)
NOMIC |= dict(rotary_emb_interleaved=False)
# Its attn_config is not MPT's.
DBRX = dict(model_type="dbrx", d_model=64, n_heads=8, max_seq_len=32)
DBRX |= dict(attn_config={"model_type": "", "rope_theta": 500000, "kv_n_heads": 2})
DEEPSEEK = dict(model_type="deepseek_v3", qk_rope_head_dim=16, qk_nope_head_dim=24)
DEEPSEEK |= dict(hidden_size=64, num_attention_heads=4, rope_theta=1e4)
MISTRAL4 = dict(model_type="mistral4", partial_rotary_factor=0.4)
MISTRAL4 |= dict(rope_parameters={"rope_type": "default", "rope_theta": 1e4})
ZAMBA2 = dict(model_type="zamba2", hidden_size=3584, num_attention_heads=32, rope_theta=1e4)
BAMBA = dict(model_type="bamba", hidden_size=512, num_attention_heads=4, rope_theta=1e4)
HALVES = {}, {"attn_rotary_emb": 64}
PART = dict(head_dim=16, rope_theta=1e4, rope_scaling={"type": "proportional"})
QUARTER = dict(head_dim=16, fraction=0.25)
SHARES = "partial_rotary_factor", "rotary_pct", "rope_pct", "rotary_emb_fraction"
HALF = dict(partial_rotary_factor=0.5)
HUNYUAN = dict(model_type="hunyuan_v1_dense", head_dim=8, rope_theta=1e4)
PARTIAL, PART_4 = ("phi3", "laguna", "step3p5"), dict(rotary_dim=4)
HUNYUAN |= dict(rope_scaling={"type": "dynamic", "alpha": 1000.0, "factor": 1.0, "mscale": 1.0})
DAIL = {"alibi": True, "rope": False, "rope_theta": 10000, "rope_impl": "dail"}
DAIL |= {"rope_dail_config": {"type": "original"}, "rope_hf_config": {"type": "no_scaling"}}
MPT = dict(model_type="mpt", n_heads=4, d_model=8, attn_config=DAIL)
FALCON = dict(model_type="falcon", num_attention_heads=4, hidden_size=64)
T5 = dict(model_type="t5", d_model=64, d_kv=8, num_heads=4, relative_attention_num_buckets=16)
COHERE = dict(model_type="cohere")
# As a config without model_type, which the caller has read the code of.
VOUCHED = {key: value for key, value in LLAMA.items() if key != "model_type"}
OFF = {"rope_ratio": 1, "use_logn_attn": False, "indexer_rope_interleave": True}

# Two spellings of the same, and bases beside the sections
GEMMA3 = dict(model_type="gemma3_text", head_dim=256)
OF_KINDS = {"full_attention": LINEAR, "sliding_attention": {}}
WHOLE = {"full_attention": LINEAR | {"rope_theta": 1e6}, "sliding_attention": {"rope_theta": 1e4}}
BESIDE = dict(rope_theta=1e6, rope_local_base_freq=1e4)
GEMMAS = [GEMMA3 | {"rope_parameters": WHOLE}, GEMMA3 | BESIDE | {"rope_scaling": LINEAR}]
# Sections without bases, beside a base, or alone: that of full layers, and its class has the other.
OF_T5 = dict(model_type="t5gemma2_text", head_dim=256)
BARE = [part | {"rope_parameters": OF_KINDS} for part in ({}, {"rope_theta": 1e6})]
GEMMAS += [model | bare for model in (GEMMA3, OF_T5) for bare in BARE]
PI, NEAR = ("pi", dict(head_dim=256, base=1e6, factor=8.0)), ("rope", dict(head_dim=256))
OLMO3 = dict(model_type="olmo3", head_dim=8, rope_theta=5e5, rope_scaling=YARN)
OLMO3 |= {"layer_types": ["sliding_attention"] * 3 + ["full_attention"]}
BY_KIND = {"full_attention": YARN, "sliding_attention": LINEAR}
COHERE2 = dict(model_type="cohere2", head_dim=8, rope_theta=5e4, sliding_window=4096)
EXAONE4 = dict(model_type="exaone4", head_dim=8, rope_theta=1e6)
SMOLLM3 = dict(model_type="smollm3", head_dim=8, rope_theta=2e6, num_hidden_layers=8)
LLAMA4 = dict(model_type="llama4_text", head_dim=8, rope_theta=5e5, num_hidden_layers=8)
OF_WARM = dict(floor_scale=16, attn_scale=0.2)
WARM = LLAMA4 | OF_WARM | dict(attn_temperature_tuning=4)
QUARTERS = dict(rope_type="proportional", rope_theta=1e6, partial_rotary_factor=0.25)
GEMMA4 = dict(model_type="gemma4_text", head_dim=256, rope_parameters=dict(WHOLE))
GEMMA4["rope_parameters"]["full_attention"] = QUARTERS
AS_WRITTEN = {"layer_types": ["sliding_attention", "full_attention"]}
AS_WRITTEN |= {"per_layer_config": {"01": {"head_dim": 512}}}
OF_GEMMA4 = dict(head_dim=512, base=1e6, fraction=0.25)
BASES = dict(model_type="granite_swa", head_dim=8, layer_rope_theta=[1e4, 0, 5e5, 1e4])
BASES |= {"rope_parameters": {"rope_theta": 1e4, "rope_type": "default"}, "num_hidden_layers": 4}
MUSE = dict(model_type="muse_spark_text", head_dim=8, rope_theta=5e5, num_hidden_layers=8)
MOLMO2 = dict(model_type="molmo2_text", head_dim=8, num_hidden_layers=2, rope_theta=1e6)
MOLMO2 |= {"rope_scaling": LINEAR, "rope_scaling_layers": [0]}
MODERNBERT = dict(model_type="modernbert", head_dim=8)
MODERNBERT |= dict(global_rope_theta=160000.0, local_rope_theta=10000.0)
BEAM = dict(model_type="beam", head_dim=8, num_hidden_layers=12, rope_theta=1e4)
BASES_BY_KIND = {"sliding_attention": {"rope_theta": 1e4}, "full_attention": {"rope_theta": 1e6}}
# The published config has a type for all kinds of layers beside their sections.
ZAYA = {"hybrid": {"rope_theta": 5e6}, "hybrid_sliding": {"rope_theta": 1e4}}
ZAYA = dict(model_type="zaya", rope_parameters=ZAYA | {"rope_type": "default"})
QWEN3_NEXT = LLAMA | {"model_type": "qwen3_next"}
QWEN3_NEXT |= {"layer_types": ["linear_attention", "linear_attention", "full_attention"]}
MISTRAL_LARGE_4 = dict(model_type="mistral_large4_text", num_attention_heads=4, rope_theta=1e4)
MISTRAL_LARGE_4 |= dict(num_hidden_layers=8, qk_nope_head_dim=2, qk_rope_head_dim=6)

# Configs, what ``from_hf`` is told beside them, and the scheme and its keywords

READ = [
    # Sections alone, with sizes beside them
    ({"rope_theta": 1e4}, INTERLEAVED, "rope", INTERLEAVED),
    (LINEAR, HEAD, "pi", HEAD | dict(factor=8.0)),
    # So it is in transformers: one mscale is not read.
    (YARN | {"mscale": 0.7}, HEAD, "yarn", HEAD | dict(train_length=512, factor=4.0)),
    # So is this: only true, or a missing key, rounds the ramp.
    *((YARN | {"truncate": value}, HEAD, "yarn", UNROUNDED) for value in (None, False)),
    (YARN | {"truncate": True}, HEAD, "yarn", HEAD | dict(train_length=512, factor=4.0)),
    ({"mrope_section": [1, 2, 1], "rope_theta": 1e4}, HEAD, "mrope", HEAD | AXES),
    # Keys of single models
    # As transformers itself rewrites it.
    (QWEN2_VL | REWRITTEN, {}, "mrope", dict(head_dim=128, base=1e6)),
    (dict(model_type="qwen3_vl_text", head_dim=128, rope_theta=5e6), {}, "i_mrope", QWEN3_VL),
    (dict(model_type="glm4v_moe_text", head_dim=128, rope_theta=1e4), {}, "mrope", GLM4V),
    (dict(model_type="roformer", head_dim=8), {}, "rope", INTERLEAVED),
    (NOMIC, {}, "rope", dict(head_dim=8, base=1000.0)),
    (DBRX, {}, "rope", dict(head_dim=8, base=5e5)),
    (DEEPSEEK | {"rope_interleave": False}, {}, "rope", dict(head_dim=16)),
    (DEEPSEEK | MISTRAL4, {}, "rope", dict(head_dim=16, layout="interleaved")),
    (
        dict(model_type="moonshine_streaming", head_dim=40, rope_theta=1e4),
        {},
        "rope",
        dict(head_dim=40, rotary_dim=32, layout="interleaved"),
    ),
    (ZAMBA2 | {"use_mem_rope": True}, {}, "rope", dict(head_dim=224)),
    (ZAMBA2, {}, "nope", {}),
    *((BAMBA | keys, {}, "rope", dict(head_dim=128, rotary_dim=64)) for keys in HALVES),
    *((PART | {key: 0.25}, {}, "p_rope", QUARTER) for key in SHARES),
    (PART, {}, "p_rope", QUARTER | {"fraction": 1.0}),
    (PART | {"model_type": "phi"}, {}, "p_rope", QUARTER | {"fraction": 0.5}),
    *((LLAMA | HALF | {"model_type": name}, {}, "rope", HEAD | PART_4) for name in PARTIAL),
    (LLAMA | {"partial_rotary_factor": 1.0, "rotary_dim": 8}, {}, "rope", HEAD),
    (PART | HALF | {"model_type": "llama"}, {}, "p_rope", dict(head_dim=16, fraction=0.5)),
    (HUNYUAN, {}, "ntk", dict(head_dim=8, factor=1000.0)),
    (MPT, {}, "alibi", dict(num_heads=4)),
    (FALCON | {"alibi": True}, {}, "alibi", dict(num_heads=4, slope_scale=0.25)),
    # Switches, and other words for the same
    (LLAMA | {"use_rope": True}, {}, "rope", HEAD),
    (VOUCHED | {"use_rope": False}, {}, "nope", {}),
    (VOUCHED | {"mla_use_nope": True}, {}, "nope", {}),
    (VOUCHED | {"position_embedding_type": "nope"}, {}, "nope", {}),
    (VOUCHED | {"no_rope_layers": [1, 0]}, {"layer": 1}, "nope", {}),
    (LLAMA | COHERE | {"position_embedding_type": "rope_gptj"}, {}, "rope", INTERLEAVED),
    (LLAMA | OFF, {}, "rope", HEAD),
    (LLAMA | {"rope_ratio": 50}, {"rope_ratio": None}, "rope", HEAD),
    (LLAMA | {"num_hidden_layers": 4, "no_rope_layers": []}, {}, "rope", HEAD),
    # Parts of models
    ({"rope_theta": None, "text_config": LLAMA}, {}, "rope", HEAD),
    ({"thinker_config": {"text_config": OMNI, "audio_config": {"rope": 1}}}, {}, "mrope", OF_OMNI),
    ({"model_type": "internvl_chat", "llm_config": LLAMA}, {}, "rope", HEAD),
    # Layers that differ
    *(row for config in GEMMAS for row in ((config, FULL, *PI), (config, SLIDING, *NEAR))),
    ({"rope_parameters": {"full_attention": None}}, FULL | HEAD, "nope", {}),
    (OLMO3 | {"rope_scaling": BY_KIND}, SLIDING, "pi", HEAD | dict(base=5e5, factor=8.0)),
    (COHERE2 | {"layer_types": ["full_attention"] * 2}, {}, "nope", {}),
    (EXAONE4 | {"sliding_window": None}, {}, "rope", HEAD | {"base": 1e6}),
    (SMOLLM3 | {"no_rope_layers": [1] * 8}, {}, "rope", HEAD | {"base": 2e6}),
    (SMOLLM3 | {"no_rope_layers": []}, {"layer": 3}, "nope", {}),
    (WARM, FULL, "llama4_temperature", OF_WARM),
    (LLAMA4 | {"attn_temperature_tuning": False}, FULL, "nope", {}),
    (GEMMA4 | AS_WRITTEN, FULL, "p_rope", OF_GEMMA4),
    (BASES, {"layer": 2}, "rope", HEAD | {"base": 5e5}),
    (MUSE, {"layer": 6}, "rope", HEAD | {"base": 5e5}),
    (MUSE, {"layer": 7}, "nope", {}),
    (MOLMO2, {"layer": 0}, "pi", HEAD | dict(base=1e6, factor=8.0)),
    (MOLMO2, {"layer": 1}, "rope", HEAD | {"base": 1e6}),
    (MODERNBERT | {"rope_scaling": LINEAR}, SLIDING, "pi", HEAD | dict(factor=8.0)),
    (BEAM | {"rope_parameters": BASES_BY_KIND}, FULL, "rope", HEAD | {"base": 1e6}),
    (ZAYA | {"rope_parameters": {"rope_theta": 5e6}}, {}, "rope", dict(head_dim=128, base=5e6)),
]

# Configs that are refused, what ``from_hf`` is told beside them, and a word of the error

REFUSED = [
    ("config.json", {}, "config="),
    # Models that are not known, or have no rotation to read
    ({"model_type": "zebra9"}, {}, "'zebra9' is not known.*layout='half'"),
    ({"model_type": "zebra9", "text_config": HEAD | {"rope_theta": 1e4}}, {}, "zebra9"),
    (LLAMA | {"model_type": "dinov3_vit"}, {"layout": "half"}, "is not offered"),
    (dict(model_type="t5gemma", encoder=LLAMA, decoder=LLAMA), {}, "has several parts"),
    # Types of sections, and keys that are unknown to a type, or missing
    ({"rope_type": "yarm"}, HEAD, "rope_type=yarm"),
    (YARN | {"beta_fats": 32}, HEAD, "beta_fats.*'beta_fast'"),
    ({"rope_type": "linear"}, HEAD, "type 'linear' lacks 'factor'"),
    (LLAMA | {"model_type": "smollm3", "no_rope_layers": [1, 2]}, {"layer": 0}, "no_rope_layers"),
    (BASES | {"model_type": "muse_spark_text"}, {"layer": 2}, "layer_rope_theta"),
    # Not max_position_embeddings, which may be the length after it.
    ({"rope_type": "yarn", "factor": 4.0}, HEAD, "original_max_position_embeddings"),
    ({"model_type": "qwen2", "rope_scaling": YARN}, HEAD, "rope_theta is missing.*'qwen2'"),
    ({"model_type": "gpt_oss", "rope_theta": 1e4, "rope_scaling": None}, HEAD, "one of its own"),
    ({"rope_theta": 1e4}, {}, "head_dim"),
    # Values
    ({"rope_type": "linear", "factor": 0.5}, HEAD, "factor=0.5"),
    (YARN | {"partial_rotary_factor": 0.7}, HEAD, "partial_rotary_factor=0.7"),
    ({"type": "default", "mrope_section": [2, 1]}, HEAD, "mrope_section="),
    # Contradictions
    ({"rope_parameters": YARN, "rope_scaling": LINEAR}, HEAD, "contradicts rope_scaling"),
    ({"rope_parameters": YARN | {"rope_theta": 1e6}, "rope_theta": 1e4}, HEAD, "rope_theta"),
    ({"rope_scaling": YARN, "max_position_embeddings": 256}, HEAD, "max_position_embeddings=256"),
    # A part of a head, in models whose code rotates whole heads
    (LLAMA | HALF, {}, "partial_rotary_factor=0.5.*whole heads"),
    # The default of the code is a half.
    (
        dict(model_type="phi", hidden_size=256, num_attention_heads=4, rotary_dim=16),
        {},
        "partial_rotary_factor=0.5 .32. and rotary_dim .16.",
    ),
    # Positions of another kind
    (LLAMA | {"no_rope_layers": [1, 0]}, {}, "no_rope_layers="),
    (LLAMA | {"rope_3d": True, "my_rope": 0}, {}, "rope_3d=True and my_rope=0: not understood"),
    (LLAMA | {"position_embedding_type": "absolute"}, {}, "position_embedding_type='absolute'"),
    (LLAMA | QUERIES, {}, "llama_4_scaling_beta=0.1 .* ministral3"),
    (DEEPSEEK | MISTRAL4 | QUERIES, {}, "multiplies whole queries"),
    (OLMO3 | {"rope_scaling": BY_KIND | {"rope_type": "yarn"}}, SLIDING, "rope_type"),
    # Which layer is meant
    (SMOLLM3, {}, "layer="),
    (OLMO3, {"layer": 4}, "layer=4"),
    (LLAMA, FULL, "layer_type='full_attention'"),
    (QWEN3_NEXT, {"layer": 0}, "layer=0"),
    (T5, DECODER, "rngs"),
    (MISTRAL_LARGE_4, {"layer": 0}, "rngs=nnx.Rngs"),
    (DEEPSEEK | {"head_dim": 8}, {"qk_rope_head_dim": None}, "qk_rope_head_dim"),
]
