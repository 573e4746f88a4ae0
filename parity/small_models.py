"""Measures how the attention layers of transformers rotate queries and keys.

A model is run with every position 0 and with other positions, and its queries and keys are read
where attention begins. The result of attention is replaced by zeros, so that queries and keys of
the two runs differ only by the rotation.
"""

import contextlib
import importlib
import inspect
import json
import re
import sys

import numpy as np
import torch
import transformers
from transformers import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_MAPPING

TOKENS = 7
_LAYERS = 6
_SMALL = dict(
    vocab_size=32,
    vocab_size_per_layer_input=32,
    pad_token_id=0,
    bos_token_id=1,
    eos_token_id=2,
    num_experts_per_tok=2,
    moe_k=2,
    moe_topk=2,
    n_group=1,
    topk_group=1,
    index_n_heads=4,
    **dict.fromkeys(("intermediate_size", "intermediate_size_mlp", "ffn_hidden_size"), 32),
    **dict.fromkeys(
        ("moe_intermediate_size", "shared_expert_intermediate_size", "expert_ffn_hidden_size"), 16
    ),
    **dict.fromkeys(("n_routed_experts", "num_experts", "num_local_experts", "moe_num_experts"), 4),
)
# Windows shorter than the text, for classes that have any.
_WINDOWS = dict(
    sliding_window=4,
    local_attention=4,
    attention_chunk_size=3,
    use_sliding_window=True,
    max_window_layers=2,
)
_HALF = dict(rope_theta=1e4, rope_type="default", partial_rotary_factor=0.5)
_YARN = dict(rope_type="yarn", factor=16.0)


def _rope(section: dict, **keys) -> dict:
    """Returns the keys of a config about positions."""
    return {"rope_parameters": section | keys}


def _layers(*kinds: str) -> dict:
    """Returns the keys of a config about the kind of each layer."""
    return dict(num_hidden_layers=len(kinds), layer_types=list(kinds))


def _heads(count: int, kv_heads: int, width: int) -> dict:
    """Returns the keys of a config about heads, and the width of the model."""
    heads = dict(num_attention_heads=count, num_key_value_heads=kv_heads)
    return heads | dict(hidden_size=width)


_DEFAULT = dict(rope_theta=1e4, rope_type="default")
_LINEAR, _FULL, _SLIDING = "linear_attention", "full_attention", "sliding_attention"
_GLM4V = _heads(2, 1, 128) | _rope(_HALF, mrope_section=[4, 6, 6])
_BAMBA = dict(num_hidden_layers=2, attn_layer_indices=[1], mamba_n_heads=16, mamba_d_head=64)
_ZAMBA2 = dict(num_hidden_layers=3, layers_block_type=[_LINEAR, "hybrid", _LINEAR])
_ZAMBA2 |= dict(use_mem_rope=True, n_mamba_heads=8, mamba_ngroups=1, num_mem_blocks=1)
_ZAMBA2 |= dict(mamba_d_state=8)
# Further keywords that small models of some types need.
_BY_TYPE: dict[str, dict] = {
    "bailing_hybrid": dict(first_k_dense_replace=2, **_layers(_FULL, _FULL)),
    "bamba": _heads(4, 2, 512) | _BAMBA,
    "cohere_compass_text": _heads(2, 2, 256)
    | _layers(_SLIDING, _FULL)
    | _rope({_SLIDING: _DEFAULT | {"mrope_section": [24, 20, 20]}, _FULL: None}),
    "deepseek_v2": dict(num_hidden_layers=2, num_experts_per_tok=2, n_group=1, topk_group=1),
    "dots1": dict(n_shared_experts=1, num_hidden_layers=2, first_k_dense_replace=2),
    "esm": dict(vocab_size=33, position_embedding_type="rotary", mask_token_id=32, pad_token_id=1),
    "gemma3n_text": dict(num_kv_shared_layers=0),
    "glm4_moe": dict(head_dim=64, hidden_size=256),
    "glm4v_moe_text": dict(first_k_dense_replace=6, head_dim=64, **_GLM4V),
    "glm4v_text": _GLM4V,
    "glm_image_text": _GLM4V,
    "granitemoehybrid": _layers(_LINEAR, _FULL)
    | dict(position_embedding_type="rope", num_local_experts=0),
    "hunyuan_v1_dense": dict(head_dim=64),
    "hunyuan_v1_moe": dict(head_dim=64, num_experts=2, moe_topk=1, num_hidden_layers=2),
    "hy_v4_vl_text": _rope(_DEFAULT, mrope_section=[12, 10, 10]),
    "lfm2_moe": dict(num_dense_layers=4, **_layers("conv", _FULL, "conv", _FULL)),
    "ministral": dict(head_dim=64),
    "ministral3": _rope(
        _YARN, rope_theta=1e6, original_max_position_embeddings=4, llama_4_scaling_beta=0.3
    ),
    "mistral4": _rope(
        _YARN, rope_theta=1e4, original_max_position_embeddings=256, llama_4_scaling_beta=0.0
    ),
    "minimax_m3_vl_text": _rope(_HALF, rope_theta=5e6),
    "nemotron": dict(num_key_value_heads=2),
    "neomme": {
        "per_layer_config": {n: {"sliding_window": size} for n, size in ((1, 2), (3, 2), (5, None))}
    },
    "zamba2": _heads(4, 4, 128) | _ZAMBA2,
}


def small_config(model_type: str, **keys):
    """Returns the config of a small model, with heads as wide as those of the class's default."""
    config_class = CONFIG_MAPPING[model_type]
    default = config_class().to_dict()
    given = {key: value for key, value in _SMALL.items() if type(default.get(key)) is int}
    for key in ("num_hidden_layers", "n_layer", "num_layers"):
        if default.get(key):
            given[key] = min(_LAYERS, default[key])
            break
    given |= {key: value for key, value in _WINDOWS.items() if key in default}
    heads, width = default.get("num_attention_heads"), default.get("hidden_size")
    if type(heads) is int and type(width) is int:
        kv_heads = default.get("num_key_value_heads")
        given["num_attention_heads"] = 4
        given["hidden_size"] = 4 * (default.get("head_dim") or width // heads)
        if type(kv_heads) is int:
            given["num_key_value_heads"] = 4 if kv_heads == heads else min(kv_heads, 2)
    return config_class(**given | _BY_TYPE.get(model_type, {}) | keys)


def as_published(config) -> dict:
    """Returns the content of a ``config.json`` for this config."""
    return json.loads(json.dumps(config.to_dict(), default=str))


class SmallModel:
    """Runs a small model whose queries and keys can be read.

    Attributes:
      masks: which keys ``[T, T]`` each call may see, in the order of the calls; None for all.
      deinterleaves: whether the code that rotates also moves each pair's channels apart.
    """

    def __init__(self, config):
        self.config, self.calls, self.masks, self.deinterleaves = config, [], [], False
        config._attn_implementation = "eager"
        torch.manual_seed(0)
        self.model = _model_class(config)(config).eval().float()
        for parameter in self.model.parameters():
            if parameter.ndim > 1:
                torch.nn.init.normal_(parameter, std=0.3)

    def read(self, positions: np.ndarray) -> list[tuple[torch.nn.Module, np.ndarray, np.ndarray]]:
        """Returns each attention layer with its queries and keys ``[B, T, H, C]``."""
        inputs = dict(
            input_ids=torch.arange(3, 3 + TOKENS)[None],
            position_ids=torch.tensor(positions, dtype=torch.long),
            use_cache=False,
        )
        taken = inspect.signature(self.model.forward).parameters
        if not any(p.kind is p.VAR_KEYWORD for p in taken.values()):
            inputs = {name: value for name, value in inputs.items() if name in taken}
        self.calls.clear()
        self.masks.clear()
        with torch.no_grad(), self._watched():
            self.model(**inputs)
        return [(layer, *(x.transpose(1, 2).numpy() for x in (q, k))) for layer, q, k in self.calls]

    def _attention(self, layer, q, k, v, mask=None, *_, attention_mask=None, **__):
        self.calls.append((layer, q.clone(), k.clone()))
        mask = attention_mask if mask is None else mask
        self.masks.append(None if mask is None else _visible(mask))
        return torch.zeros(q.shape[0], q.shape[2], q.shape[1], v.shape[-1]), None

    def _rotation(self, rotate):
        def watched(q, *arguments, **keywords):
            out = rotate(q, *arguments, **keywords)
            rotated = out[0] if isinstance(out, tuple) else out
            apart = torch.cat([q[..., 0::2], q[..., 1::2]], -1)
            norms = rotated.norm() * apart.norm()  # So that an attention factor does not matter.
            if rotated.shape == q.shape and (rotated * apart).sum() > 0.9999 * norms:
                self.deinterleaves = True
            return out

        return watched

    @contextlib.contextmanager
    def _watched(self):
        """Replaces functions in the model's modules by those above."""
        replaced = []
        for module in {sys.modules[type(part).__module__] for part in self.model.modules()}:
            for name, function in list(vars(module).items()):
                if name == "eager_attention_forward":
                    new = self._attention
                elif re.match("apply_rotary", name) and inspect.isfunction(function):
                    new = self._rotation(function)
                else:
                    continue
                replaced.append((module, name, function))
                setattr(module, name, new)
        try:
            yield
        finally:
            for module, name, function in replaced:
                setattr(module, name, function)


def _visible(mask) -> np.ndarray:
    mask = mask[0, 0]
    return (mask if mask.dtype == torch.bool else mask > -1).numpy()


def _model_class(config):
    for mapping in (MODEL_MAPPING, MODEL_FOR_CAUSAL_LM_MAPPING):
        if type(config) in mapping:
            classes = mapping[type(config)]
            return classes[0] if isinstance(classes, (tuple, list)) else classes
    module = importlib.import_module(type(config).__module__.replace("configuration_", "modeling_"))
    classes = [
        member
        for member in vars(module).values()
        if inspect.isclass(member)
        and issubclass(member, transformers.PreTrainedModel)
        and getattr(member, "config_class", None) is type(config)
        and "PreTrained" not in member.__name__
    ]
    return min(classes, key=lambda member: ("For" in member.__name__, len(member.__name__)))
