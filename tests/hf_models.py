"""Rebuilds small Hugging Face models around ``attend``, from their configs and weights.

``FORWARD[model_type](config, weights, ids)`` gives logits ``[B, T, V]``; ``weights`` has the names
of transformers' state dict. Llama and its relatives are our own decoder with their weights in it.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import posenc_jax
from posenc_jax.positions import text
from posenc_jax.pretrained import decoder
from posenc_jax.pretrained import weights as hf_weights


class Weights(dict):
    """Holds a state dict, and the layers that read it."""

    def linear(self, name, x):
        y = x @ self[f"{name}.weight"].T
        return y + self[f"{name}.bias"][None, None] if f"{name}.bias" in self else y

    def embed(self, name, ids):
        return jnp.asarray(self[f"{name}.weight"])[ids]

    def layer_norm(self, name, x, epsilon):
        return self._scaled(name, _unit(x - x.mean(-1, keepdims=True), epsilon))

    def rms_norm(self, name, x, epsilon):
        return self._scaled(name, _unit(x, epsilon))

    def _scaled(self, name, x):
        shape = (1,) * (x.ndim - 1) + (-1,)
        y = x * self[f"{name}.weight"].reshape(shape)
        return y + self[f"{name}.bias"].reshape(shape) if f"{name}.bias" in self else y


def _unit(x, epsilon):
    return x / jnp.sqrt((x**2).mean(-1, keepdims=True) + epsilon)


def _heads(x, num_heads):
    return x.reshape(*x.shape[:2], num_heads, -1)


def _joined(x_BTHC):
    return x_BTHC.reshape(*x_BTHC.shape[:2], -1)


def our_decoder(config, weights) -> posenc_jax.Transformer:
    """Returns our decoder with the weights of a model that ``posenc_jax.pretrained`` knows."""
    layers, sizes = decoder.layers(config), decoder.sizes(config)
    model = posenc_jax.Transformer(layers, **sizes, rngs=nnx.Rngs(0))
    origins = hf_weights.of_config(model, config)
    hf_weights.check({name: value.shape for name, value in weights.items()}, origins)

    def read(name, *spans):
        return weights[name][spans]

    filled = [
        jnp.asarray(origins[path].part(read, [slice(None)] * leaf.ndim, leaf.dtype))
        for path, leaf in hf_weights.parameters(model).items()
    ]
    return jax.tree.unflatten(jax.tree.structure(model), filled)


def by_decoder(config, weights, ids):
    return our_decoder(config, weights)(ids)


def qwen_vl(config, weights, ids, positions):
    """Runs the tower of text: the decoder of Qwen 2 or 3, under the encoding of images."""
    text_config = config["text_config"]
    kind = text_config["model_type"].removesuffix("_text").removesuffix("_vl")
    plain = text_config | {"model_type": kind, "rope_scaling": None}
    plain["rope_parameters"] = {"rope_type": "default", "rope_theta": 1e4}
    plain["tie_word_embeddings"] = "lm_head.weight" not in weights
    weights = {k.replace("model.language_model.", "model."): v for k, v in weights.items()}
    model = our_decoder(plain, weights).under(posenc_jax.from_hf(text_config))
    return model(ids, np.moveaxis(positions, 0, -1))


def gpt_neox(config, weights, ids):
    """Attention and feed-forward network read the same residual."""
    w, epsilon = Weights(weights), config["layer_norm_eps"]
    here = _encoding(config, ids)
    x = w.embed("gpt_neox.embed_in", ids)
    for i in range(config["num_hidden_layers"]):
        layer = f"gpt_neox.layers.{i}"
        h = w.layer_norm(f"{layer}.input_layernorm", x, epsilon)
        qkv = w.linear(f"{layer}.attention.query_key_value", h)
        q, k, v = jnp.split(_heads(qkv, config["num_attention_heads"]), 3, axis=-1)
        out = posenc_jax.attend(here, q, k, v)
        h = w.layer_norm(f"{layer}.post_attention_layernorm", x, epsilon)
        h = jax.nn.gelu(w.linear(f"{layer}.mlp.dense_h_to_4h", h), approximate=False)
        x = x + w.linear(f"{layer}.attention.dense", _joined(out))
        x = x + w.linear(f"{layer}.mlp.dense_4h_to_h", h)
    return w.linear("lm_head", w.layer_norm("gpt_neox.final_layer_norm", x, epsilon))


def bloom(config, weights, ids):
    w, epsilon = Weights(weights), config["layer_norm_epsilon"]
    here = _encoding(config, ids)
    x = w.embed("transformer.word_embeddings", ids)
    x = w.layer_norm("transformer.word_embeddings_layernorm", x, epsilon)
    for i in range(config["n_layer"]):
        layer = f"transformer.h.{i}"
        h = w.layer_norm(f"{layer}.input_layernorm", x, epsilon)
        qkv = w.linear(f"{layer}.self_attention.query_key_value", h)
        q, k, v = jnp.split(_heads(qkv, config["n_head"]), 3, axis=-1)
        out = posenc_jax.attend(here, q, k, v)
        x = x + w.linear(f"{layer}.self_attention.dense", _joined(out))
        h = w.layer_norm(f"{layer}.post_attention_layernorm", x, epsilon)
        h = jax.nn.gelu(w.linear(f"{layer}.mlp.dense_h_to_4h", h), approximate=True)
        x = x + w.linear(f"{layer}.mlp.dense_4h_to_h", h)
    x = w.layer_norm("transformer.ln_f", x, epsilon)
    return x @ w["transformer.word_embeddings.weight"].T


def mpt(config, weights, ids):
    w, epsilon = Weights(weights), config["layer_norm_epsilon"]
    here = _encoding(config, ids)
    x = w.embed("transformer.wte", ids)
    for i in range(config["n_layers"]):
        layer = f"transformer.blocks.{i}"
        qkv = w.linear(f"{layer}.attn.Wqkv", w.layer_norm(f"{layer}.norm_1", x, epsilon))
        q, k, v = (_heads(part, config["n_heads"]) for part in jnp.split(qkv, 3, axis=-1))
        out = posenc_jax.attend(here, q, k, v)
        x = x + w.linear(f"{layer}.attn.out_proj", _joined(out))
        h = w.linear(f"{layer}.ffn.up_proj", w.layer_norm(f"{layer}.norm_2", x, epsilon))
        x = x + w.linear(f"{layer}.ffn.down_proj", jax.nn.gelu(h, approximate=False))
    return w.layer_norm("transformer.norm_f", x, epsilon) @ w["transformer.wte.weight"].T


def t5(config, weights, ids):
    """Encoder and decoder read the same ids; each has one bias table, and no ``1 / sqrt(d)``."""
    w, epsilon = Weights(weights), config["layer_norm_epsilon"]
    embedded = w.embed("shared", ids)
    nope = posenc_jax.make("nope")
    everywhere = nope.at(text(ids.shape[1]))

    def attention(name, x, source, here, causal):
        q, k, v = (
            _heads(w.linear(f"{name}.{part}", side), config["num_heads"])
            for part, side in (("q", x), ("k", source), ("v", source))
        )
        out = posenc_jax.attend(here, q, k, v, scale=1.0, causal=causal)
        return w.linear(f"{name}.o", _joined(out))

    def stack(side, source=None):
        here = _encoding(config, ids, layer_type=side)
        bias = f"{side}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
        here.encoding.table[...] = jnp.asarray(w[bias])
        x = embedded
        for i in range(config["num_layers"]):
            name = f"{side}.block.{i}.layer"
            h = w.rms_norm(f"{name}.0.layer_norm", x, epsilon)
            causal = side == "decoder"
            x = x + attention(f"{name}.0.SelfAttention", h, h, here, causal)
            last = 1
            if source is not None:
                h = w.rms_norm(f"{name}.1.layer_norm", x, epsilon)
                x = x + attention(f"{name}.1.EncDecAttention", h, source, everywhere, False)
                last = 2
            h = w.rms_norm(f"{name}.{last}.layer_norm", x, epsilon)
            h = jax.nn.relu(w.linear(f"{name}.{last}.DenseReluDense.wi", h))
            x = x + w.linear(f"{name}.{last}.DenseReluDense.wo", h)
        return w.rms_norm(f"{side}.final_layer_norm", x, epsilon)

    decoded = stack("decoder", source=stack("encoder"))
    return decoded * config["d_model"] ** -0.5 @ w["shared.weight"].T


def _encoding(config, ids, **options):
    return posenc_jax.from_hf(config, rngs=nnx.Rngs(0), **options).at(text(ids.shape[1]))


FORWARD = dict.fromkeys(decoder.DECODERS, by_decoder) | {
    "qwen2_vl": qwen_vl,
    "qwen3_vl": qwen_vl,
    "gpt_neox": gpt_neox,
    "bloom": bloom,
    "mpt": mpt,
    "t5": t5,
}


def relative_error(actual, expected) -> float:
    """Returns the largest difference, relative to the largest logit."""
    return float(np.abs(np.asarray(actual) - expected).max() / np.abs(expected).max())
