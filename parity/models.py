"""Runs small models of transformers with random weights.

``python -m parity.models`` writes them to ``tests/golden``, for the tests that run without torch.
"""

import json
import pathlib
import re
from typing import Any

import numpy as np
import torch
import transformers

from posenc_jax.positions import Text, Vision, qwen2_vl, qwen3_vl

GOLDEN = pathlib.Path(__file__).parent.parent / "tests" / "golden"

_IDS = dict(vocab_size=48, bos_token_id=1, eos_token_id=2)
_TINY = _IDS | dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, pad_token_id=0)
_TINY |= dict(num_key_value_heads=2, intermediate_size=48, rms_norm_eps=1e-6)
_TIED, _UNTIED = dict(tie_word_embeddings=True), dict(tie_word_embeddings=False)
# A tiny vision tower, because only the text tower is compared.
_NO_VISION = dict(depth=1, num_heads=2, patch_size=4)


def _llama(model_type: str, *parts: dict[str, Any], **keys: Any) -> dict[str, Any]:
    """Returns the config of a decoder in Llama's words: tiny, with the keys of parts and others."""
    config = _TINY | {"model_type": model_type}
    for part in (*parts, keys):
        config |= part
    return config


def _rope(kind: str = "default", base: float = 100.0, **keys: Any) -> dict[str, Any]:
    """Returns the keys of a config about positions."""
    return {"rope_parameters": {"rope_type": kind, "rope_theta": base} | keys}


_LLAMA3 = _rope("llama3", 50.0, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0)
_LLAMA3["rope_parameters"] |= {"original_max_position_embeddings": 32}
_YARN = _rope("yarn", factor=4.0, original_max_position_embeddings=32, beta_fast=4.0)
_LONGROPE = dict(max_position_embeddings=64, original_max_position_embeddings=16, rope_theta=100.0)
_FACTORS = dict(short_factor=[1.0, 1.05, 1.1, 1.3], long_factor=[1.1, 1.7, 3.0, 4.5])
_LONGROPE |= {"rope_scaling": {"type": "longrope", **_FACTORS}}
# The heads of this model are wider than hidden_size / num_attention_heads.
_MISTRAL = dict(head_dim=16, sliding_window=5, rms_norm_eps=1e-3)
_QWEN2 = dict(use_sliding_window=True, sliding_window=5, max_window_layers=1)
_QWEN2 |= {"max_position_embeddings": 16}
_NEOX = _IDS | dict(hidden_size=64, num_hidden_layers=2, num_attention_heads=4)
_NEOX |= dict(intermediate_size=64, rotary_pct=0.25, rotary_emb_base=100, layer_norm_eps=1e-5)
# Six heads, because ALiBi has another rule for a number that is not a power of two.
_BLOOM = _IDS | dict(hidden_size=48, n_layer=2, n_head=6, layer_norm_epsilon=1e-5)
_MPT = dict(vocab_size=48, d_model=48, n_layers=2, n_heads=6, max_seq_len=64)
_MPT |= dict(layer_norm_epsilon=1e-5, attn_config={"alibi": True})
_T5 = dict(vocab_size=48, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_decoder_layers=2)
_T5 |= dict(num_heads=4, relative_attention_num_buckets=16, relative_attention_max_distance=24)
_T5 |= dict(layer_norm_epsilon=1e-6, pad_token_id=0, eos_token_id=1)
_QWEN2_AXES = {"type": "mrope", "rope_theta": 50.0, "mrope_section": [2, 3, 3]}
_QWEN2_VL = _UNTIED | {
    "vision_config": dict(embed_dim=8, hidden_size=64, mlp_ratio=1, **_NO_VISION),
    "text_config": _llama("qwen2_vl_text", hidden_size=64, rope_parameters=_QWEN2_AXES),
}
_QWEN3_AXES = _rope(base=50.0, mrope_section=[4, 2, 2], mrope_interleaved=True)
_QWEN3_VISION = dict(hidden_size=8, intermediate_size=8, out_hidden_size=32, **_NO_VISION)
_QWEN3_VISION |= dict(num_position_embeddings=4, deepstack_visual_indexes=[0])
_QWEN3_VL = _TIED | {
    "vision_config": _QWEN3_VISION,
    "text_config": _llama("qwen3_vl_text", _QWEN3_AXES, head_dim=16),
}

# The class and config of transformers by case, and the lengths of the sequences.
CASES: dict[str, tuple[str, dict, tuple[int, ...]]] = {
    "hf_llama": ("LlamaForCausalLM", _llama("llama", _TIED, _rope(base=500.0)), (24,)),
    "hf_llama3": (
        "LlamaForCausalLM",
        _llama("llama", _TIED, _LLAMA3, max_position_embeddings=256),
        (24,),
    ),
    "hf_qwen3_yarn": (
        "Qwen3ForCausalLM",
        _llama("qwen3", _UNTIED, _YARN, head_dim=16, max_position_embeddings=128),
        (40,),
    ),
    # 16 is the last length with short factors.
    "hf_phi3_longrope": ("Phi3ForCausalLM", _llama("phi3", _TIED, _LONGROPE), (16, 17, 40)),
    "hf_mistral": (
        "MistralForCausalLM",
        _llama("mistral", _UNTIED, _MISTRAL, _rope("linear", factor=2.0)),
        (24,),
    ),
    "hf_qwen2": (
        "Qwen2ForCausalLM",
        _llama("qwen2", _TIED, _QWEN2, _rope("dynamic", factor=2.0)),
        (16, 24),
    ),
    "hf_olmo2": ("Olmo2ForCausalLM", _llama("olmo2", _UNTIED, _rope(), rms_norm_eps=1e-3), (24,)),
    "hf_smollm3": (
        "SmolLM3ForCausalLM",
        _llama("smollm3", _TIED, _rope(), num_hidden_layers=4, no_rope_layer_interval=2),
        (24,),
    ),
    "hf_gpt_neox": ("GPTNeoXForCausalLM", {"model_type": "gpt_neox"} | _NEOX, (24,)),
    "hf_bloom": ("BloomForCausalLM", {"model_type": "bloom"} | _BLOOM, (24,)),
    "hf_mpt": ("MptForCausalLM", {"model_type": "mpt"} | _MPT, (24,)),
    "hf_t5": ("T5ForConditionalGeneration", {"model_type": "t5"} | _T5, (40,)),
    "hf_qwen2_vl": (
        "Qwen2VLForConditionalGeneration",
        {"model_type": "qwen2_vl"} | _QWEN2_VL,
        (24,),
    ),
    "hf_qwen3_vl": (
        "Qwen3VLForConditionalGeneration",
        {"model_type": "qwen3_vl"} | _QWEN3_VL,
        (24,),
    ),
}

# Positions of an image in the first row and of a video in the second, ``[3, 2, T]`` as in
# transformers.
_FRAMES = [Text(2), Vision(1, 2, 2)] * 3
_QWEN2_ROWS = [Text(5), Vision(1, 2, 5), Text(9)], [Text(3), Vision(4, 2, 2), Text(5)]
_QWEN3_ROWS = [Text(4), Vision(1, 4, 3), Text(8)], [Text(1), *_FRAMES, Text(5)]
POSITIONS = {
    name: np.moveaxis(np.concatenate([place(row).positions for row in rows]), -1, 0)
    for name, place, rows in (
        ("hf_qwen2_vl", qwen2_vl, _QWEN2_ROWS),
        ("hf_qwen3_vl", qwen3_vl, _QWEN3_ROWS),
    )
}


def build(name: str, seed: int):
    """Returns the torch model, its weights drawn so widely that attention is far from uniform."""
    architecture, given, _ = CASES[name]
    keywords = json.loads(json.dumps(given))
    keywords.pop("model_type")
    model_class = getattr(transformers, architecture)
    for part in ("text_config", "vision_config"):
        keywords.get(part, {}).pop("model_type", None)
    config = model_class.config_class(**keywords, attn_implementation="eager")
    model = model_class(config).eval()
    rng = np.random.default_rng(seed)
    with torch.no_grad():
        for key, parameter in sorted(model.named_parameters()):
            value = rng.standard_normal(parameter.shape)
            is_table = re.search("relative_attention_bias|embed|shared|wte", key)
            if parameter.ndim == 1 and not is_table:
                value = 0.2 * value + ("bias" not in key)
            elif not is_table:
                value = 1.3 * parameter.shape[1] ** -0.5 * value
                if "SelfAttention.q" in key or "EncDecAttention.q" in key:  # No 1 / sqrt(d) in T5.
                    value = value * given["d_kv"] ** -0.5
            parameter.copy_(torch.as_tensor(value.astype(np.float32)))
    return model


def weights_of(model) -> dict[str, np.ndarray]:
    return {
        key: value.detach().numpy().copy()
        for key, value in model.named_parameters()
        if "visual" not in key
    }


def logits_of(model, ids: np.ndarray, positions: np.ndarray | None = None) -> np.ndarray:
    ids = torch.as_tensor(ids, dtype=torch.long)
    inputs = dict(input_ids=ids)
    if model.config.model_type == "t5":
        inputs["decoder_input_ids"] = ids
    else:
        inputs["use_cache"] = False
    if positions is not None:
        inputs["position_ids"] = torch.as_tensor(positions, dtype=torch.long)
    with torch.no_grad():
        return model(**inputs).logits.numpy()


def arguments(name: str, length: int) -> dict[str, np.ndarray]:
    """Returns further arguments of a forward pass over the first ``length`` tokens."""
    return {"positions": POSITIONS[name][..., :length]} if name in POSITIONS else {}


def token_ids(name: str, seed: int) -> np.ndarray:
    """Returns ids for the longest sequence, with no padding among them."""
    _, config, lengths = CASES[name]
    rng = np.random.default_rng(seed)
    vocab_size = config.get("text_config", config)["vocab_size"]
    return rng.integers(3, vocab_size, (2, max(lengths))).astype(np.int32)


def write_golden(name: str) -> dict:
    """Saves one case; returns its entry of the index."""
    _, config, lengths = CASES[name]
    model, ids = build(name, seed=0), token_ids(name, seed=0)
    arrays = {"ids": ids} | {f"w.{key}": value for key, value in weights_of(model).items()}
    arrays |= arguments(name, max(lengths))
    arrays |= {f"logits_T{T}": logits_of(model, ids[:, :T], **arguments(name, T)) for T in lengths}
    np.savez_compressed(GOLDEN / f"{name}.npz", **arrays)
    return {
        "params": {"config": config, "lengths": list(lengths)},
        "source": f"transformers=={transformers.__version__} {CASES[name][0]}, eager, float32",
        "arrays": {
            key: [list(value.shape), str(value.dtype)]
            for key, value in arrays.items()
            if not key.startswith("w.")
        },
        "notes": "Written by parity/models.py: w.* are the model's parameters, logits_T<n> its "
        "logits for the first n ids of each row, at their positions where there are any.",
    }


def main():
    path = GOLDEN / "index.json"
    index = json.loads(path.read_text()) | {name: write_golden(name) for name in CASES}
    path.write_text(_dump(dict(sorted(index.items()))) + "\n")


def _dump(value, indent: str = "") -> str:
    """Returns JSON with one line for each entry of a dict, and one for a whole list."""
    if not isinstance(value, dict) or not value:
        flat = json.dumps(value, ensure_ascii=False)
        return flat.replace("{", "{ ").replace("}", " }") if isinstance(value, list) else flat
    inner = indent + " "
    lines = [f"{inner}{json.dumps(key)}: {_dump(item, inner)}" for key, item in value.items()]
    return "{\n" + ",\n".join(lines) + f"\n{indent}}}"


if __name__ == "__main__":
    main()
