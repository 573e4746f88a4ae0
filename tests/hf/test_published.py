"""Reads published configs: each is right by a small formula, or refused for a true reason."""

import json

import common
import numpy as np
import pytest
from flax import nnx
from golden_checks import assert_frequencies
from schemes import rotary
from schemes.rotary_extension import Llama3

from posenc_jax import from_hf
from posenc_jax.encodings.lib.wrapper import innermost

CONFIGS = json.loads((common.ROOT / "parity" / "published.json").read_text())
PARTS = ("text_config", "thinker_config", "llm_config")
# What is said in the refusal of a model type: the code of most is in no release of transformers.
NOT_KNOWN = """baichuan deepseek falcon_mamba internlm mamba2 minicpm orion phi-msft phi3_v qwen
    rwkv5"""
REFUSED = dict.fromkeys(NOT_KNOWN.split(), "is not known") | {
    "chatglm": "rope_ratio",
    "deepseek_v4": "value_rope",
    "deberta-v2": "deberta",
}
INTERLEAVED = {"cohere", "deepseek_v2", "deepseek_v3", "deepseek_v32", "gptj", "llama4"}
INTERLEAVED |= {"bailing_moe_v3", "gigachat3_5"}
# Models whose class has a base of 10000 where the config has none.
BASE_10000 = {"gpt_neox", "gptj", "llama", "minicpm3", "mistral", "phi"}
# Dynamic NTK changes nothing at short lengths.
RULES = dict.fromkeys(("default", "mrope", "dynamic"), rotary.Rotary())
RULES |= {"linear": rotary.PositionInterpolation(), "yarn": rotary.YaRN(), "llama3": Llama3()}
TABLES = {"gpt2", "gpt_bigcode", "gpt_neo", "bert", "roberta", "opt"}


def text_of(config):
    """Returns the config of the text model, with the type of the whole where it has none."""
    for part in PARTS:
        if isinstance(config.get(part), dict):
            return text_of({"model_type": config["model_type"]} | config[part])
    return config


def section_of(config):
    return config.get("rope_parameters") or config.get("rope_scaling") or {}


def rates(dim, base, section, longest):
    """Returns radians per position of each pair, and the factor of cosines, in float64."""
    kind = section.get("rope_type") or section.get("type") or "default"
    trained = section.get("original_max_position_embeddings", longest)
    if kind in ("longrope", "su"):
        rate, _ = rotary.Rotary().frequencies(dim, base, {}, longest)
        attention_factor = np.sqrt(1 + np.log(longest / trained) / np.log(trained))
        return rate / np.array(section["short_factor"]), attention_factor
    both = section.get("mscale") and section.get("mscale_all_dim")
    given = {key: x for key, x in section.items() if both or "mscale" not in key}
    given |= {"train_length": trained}
    rate, on_logits = RULES[kind].frequencies(dim, float(base), given, longest)
    return rate, np.sqrt(on_logits)


def layer(config, number):
    """Returns what a layer is: "rope" with its base and section, "nope", or None."""
    model, section = config["model_type"], section_of(config)
    base = section.get("rope_theta", config.get("rope_theta", config.get("rotary_emb_base")))
    kinds = config.get("layer_types") or config.get("layers_block_type")
    kind = kinds[number] if kinds else "full_attention"
    if model.startswith("gemma3"):
        kind = "full_attention" if number % 6 == 5 else "sliding_attention"
        local = kind == "sliding_attention"
        return "rope", *((1e4, {}) if local else (base or 1e6, section))
    if model == "modernbert":
        kind = "full_attention" if number % 3 == 0 else "sliding_attention"
        key = "global_rope_theta" if number % 3 == 0 else "local_rope_theta"
        return "rope", section[kind]["rope_theta"] if section else config[key], {}
    if model in ("qwen3_next", "qwen3_5_moe", "qwen3_5_moe_text", "qwen3_5_text") and not kinds:
        kind = "full_attention" if number % 4 == 3 else "linear_attention"
    if "hybrid_override_pattern" in config:
        kind = "full_attention" if config["hybrid_override_pattern"][number] == "*" else "mamba"
    if "attn_type_list" in config:
        kind = "full_attention" if config["attn_type_list"][number] else "linear_attention"
    if model == "kimi_linear":
        return ("nope",) if number + 1 in config["linear_attn_config"]["full_attn_layers"] else None
    if model == "bailing_moe_v3" and number % 4 != 3:
        return None
    if model == "iquest_q1" and 0 < number < 85 and number % 4 != 1:
        return "rope", config["swa_rope_theta"], {}
    if model in ("granitemoehybrid", "nemotron_h") and kind in ("mamba", "mlp", "moe"):
        return None
    if model in ("granitemoehybrid", "nemotron_h") or (model == "smollm3" and number % 4 == 3):
        return ("nope",)
    if model == "llama4" and number % 4 == 3:
        return ("llama4_temperature",)
    crosses = number in config.get("cross_attention_layers", ())
    if crosses or kind in ("linear_attention", "conv", "mamba"):
        return None
    if model == "exaone4" and kind == "full_attention":
        return ("nope",)
    if model == "olmo3" and kind == "sliding_attention":
        section = {}
    return "rope", base, section


def width_of(config):
    """Returns the width of a head, and how many of its channels rotate."""
    heads = config.get("num_attention_heads", config.get("n_head", 32))
    width = config.get("hidden_size", config.get("n_embd", 4096))
    head = config.get("qk_rope_head_dim") or config.get("head_dim")
    if config["model_type"] == "zamba2":
        head = config.get("attention_head_dim", 2 * width // heads)
    head = head or {"gemma": 256, "gemma2": 256}.get(config["model_type"]) or width // heads
    if "qk_rope_head_dim" in config or "rope_head_dim" in config:
        return head, head
    share = section_of(config).get(
        "partial_rotary_factor", config.get("partial_rotary_factor", config.get("rotary_pct"))
    )
    return head, int(head * share) if share else config.get("rotary_dim", head)


def assert_rotates(encoding, config, base, section):
    encoding = innermost(encoding)
    head, rotating = width_of(config)
    model = config["model_type"]
    assert (encoding.head_dim, encoding.rotary_dim) == (head, rotating)
    assert encoding.layout == ("interleaved" if model in INTERLEAVED else "half")
    longest = config.get("max_position_embeddings", 1)
    section = (
        {"original_max_position_embeddings": longest}
        | {key: config[key] for key in ("original_max_position_embeddings",) if key in config}
        | section
    )
    inv_freq, factor = rates(config.get("rope_head_dim", rotating), base, section, longest)
    still = [0.0] * (rotating // 2 - len(inv_freq))  # xLLM: the other pairs of whole heads
    assert_frequencies(encoding, np.append(inv_freq, still), factor)


@pytest.mark.parametrize("name", CONFIGS)
def test_published_config(name):
    whole = CONFIGS[name]["config"]
    config = text_of(whole)
    model = config["model_type"]
    if model in REFUSED:
        common.refuses(REFUSED[model], lambda: from_hf(whole))
        return
    if model in TABLES:
        table = from_hf(whole, rngs=nnx.Rngs(0)).table
        rows = config.get("n_positions", config.get("max_position_embeddings"))
        width = config.get("hidden_size", config.get("n_embd"))
        assert table.shape == (rows - 2 * (model == "roberta"), width)
        return
    if model in ("bloom", "umt5", "t5"):
        stack = {} if model == "bloom" else {"layer_type": "encoder", "rngs": nnx.Rngs(0)}
        heads = config.get("n_head", config.get("num_attention_heads", config.get("num_heads")))
        encoding = from_hf(whole, **stack)
        assert heads == (encoding.num_heads if model == "bloom" else encoding.table.shape[1])
        return
    count = config.get("num_hidden_layers", config.get("n_layer"))
    for number in {0, 1, 2, count // 2, count - 1} if count else {None}:
        expected = layer(config, number or 0)
        if expected is None:
            with pytest.raises(ValueError, match="no attention"):
                from_hf(whole, layer=number)
        elif expected[0] != "rope":
            rotates = from_hf(whole, layer=number).overrides("rotate")
            assert not rotates or model == "llama4"
        elif expected[1] is None and model not in BASE_10000:
            with pytest.raises(ValueError, match="rope_theta"):
                from_hf(whole, layer=number)
        else:
            assert_rotates(from_hf(whole, layer=number), config, expected[1] or 1e4, expected[2])


@pytest.mark.parametrize("model", ["gpt2", "roberta", "deberta", "deberta-v2", "bert", "bart"])
def test_absolute_positions_never_become_rotation(model):
    """Keywords that a hint of another error names do not help."""
    config = dict(model_type=model, hidden_size=64, num_attention_heads=4, rope_theta=1e4)
    config |= dict(max_position_embeddings=32)
    try:
        encoding = from_hf(config, layout="half", rngs=nnx.Rngs(0))
    except ValueError:
        encoding = from_hf(config, rngs=nnx.Rngs(0)) if model in TABLES else None
    assert encoding is None or encoding.overrides("embed")
