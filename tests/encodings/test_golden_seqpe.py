"""Compares SeqPE with its authors' code."""

import functools

import common
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from golden_checks import close, empty

import posenc_jax
from posenc_jax.encodings.absolute.seqpe_losses import (
    contrastive_loss,
    nearest,
    squared_distances,
    transfer_loss,
)
from posenc_jax.positions import text

# The released names of what is in a block; Conv1D matrices are [in, out], as here.
IN_BLOCK = {
    "layernorm_1": "attention_norm",
    "attn.c_attn": "attention_in",
    "attn.c_proj": "attention_out",
    "layernorm_2": "mlp_norm",
    "mlp.c_fc": "mlp_in",
    "mlp.c_proj": "mlp_out",
}


def seqpe(width, num_heads=2, **keywords):
    sizes = dict(num_heads=num_heads, head_dim=width // num_heads, model_dim=width, train_length=4)
    return empty("seqpe", **sizes, **keywords)


def load(encoder, weights):
    """Puts released weights into an encoder."""

    def affine(module, name):
        weight, bias = (weights[f"w/{name}.{kind}"] for kind in ("weight", "bias"))
        if isinstance(module, nnx.LayerNorm):
            module.scale[...] = weight
        else:
            module.kernel[...] = weight.T if name == "out_proj" else weight
        module.bias[...] = bias

    encoder.digit_table[...] = weights["w/token_of_seqpe_embed.weight"]
    encoder.slot_table[...] = weights["w/pos_of_seqpe_embed.weight"]
    encoder.summary[...] = weights["w/cls_token_embed"][0, 0]
    if "w/dim_token_embed" in weights:
        encoder.axis_table[...] = weights["w/dim_token_embed"][:, 0]
    for i, block in enumerate(encoder.digit_blocks):
        for released, ours in IN_BLOCK.items():
            affine(getattr(block, ours), f"transformers.{i}.{released}")
    affine(encoder.last_norm, "layernorm")
    affine(encoder.out, "out_proj")


@pytest.mark.parametrize(
    "name",
    ["seqpe_encoder_1d", "seqpe_encoder_1d_bi", "seqpe_encoder_1d_masked", "seqpe_encoder_2d"],
)
def test_encoder(name):
    """The vectors are read off as what is added to token embeddings of zero."""
    arrays, params = common.golden(name)
    positions = jnp.asarray(arrays["positions"].astype(np.int32))
    given = {key: params[key] for key in ("mask_padding", "temperature")}
    given |= dict(num_axes=params["data_dim"], max_position=10 ** params["max_digits"])
    given |= dict(encoder_layers=params["layers"], encoder_heads=params["heads"])
    given |= dict(bidirectional=params["attn_direction"] == "bi", train_length=4)
    width = params["embed_dim"]
    encoding = empty("seqpe_input_add", model_dim=width, **given)
    load(encoding.encoder, arrays)
    zeros = jnp.zeros((1, len(positions), params["embed_dim"]))

    @jax.jit
    def embedded(encoding, positions):
        return encoding.at(positions).embed(zeros)

    tolerance = {key: value / 10 for key, value in common.INDEX[name]["tolerance"].items()}
    close(embedded(encoding, positions[None])[0], arrays["pe"], **tolerance)


def test_number_of_digits():
    arrays, _ = common.golden("seqpe_digits")
    for max_position, expected in zip(arrays["n_digits_of"], arrays["n_digits"], strict=True):
        assert seqpe(8, max_position=int(max_position)).encoder.max_digits == expected


@functools.partial(jax.jit, static_argnames="causal")
def out_and_weights(encoding, q, k, v, pe, causal):
    """Attends with the vectors ``pe`` given; the encoder's own are not computed."""
    here = common.having(encoding.at(text(q.shape[1])), encoding.by_head(pe))
    one_hot = jnp.broadcast_to(jnp.eye(k.shape[1])[None, :, None], (*k.shape[:3], k.shape[1]))
    both = jnp.concatenate([v, one_hot], axis=-1)
    both = posenc_jax.attend(here, q, k, both, causal=causal)
    out, weights = jnp.split(both, [v.shape[-1]], axis=-1)
    return out, weights.swapaxes(1, 2)


def attended(hook, projection, arrays, prefix, num_heads, causal):
    """Returns output and weights of one attention layer of the released code."""
    x, pe = arrays["x"], arrays["pe"]
    B, T, D = x.shape
    pe_qk = "none" if projection is None else "single"
    encoding = seqpe(D, num_heads, hook=hook, pe_qk=pe_qk, encoder_layers=1)
    if projection is not None:
        weight, bias = projection
        encoding.pe_qk.kernel[...], encoding.pe_qk.bias[...] = weight.T, bias
    in_weight, in_bias, out_weight, out_bias = (arrays[f"w/{name}"] for name in prefix)
    parts = np.split(x @ in_weight + in_bias, 3, -1)
    q, k, v = (part.reshape(B, T, num_heads, -1) for part in parts)
    out, weights = out_and_weights(encoding, q, k, v, pe, causal)
    return out.reshape(B, T, D) @ out_weight + out_bias, weights


@pytest.mark.parametrize("hook", ["attn_scalar", "attn_add", "attn_mul"])
@pytest.mark.parametrize("pe_qk", ["single", "none"])
def test_text_attention(hook, pe_qk):
    arrays, params = common.golden("seqpe_attention_gpt2")
    projection = (arrays["pe_qk_weight"], arrays["pe_qk_bias"]) if pe_qk == "single" else None
    arrays = {key: reshaped(key, value) for key, value in arrays.items()}
    names = ["c_attn.weight", "c_attn.bias", "c_proj.weight", "c_proj.bias"]
    out, probabilities = attended(hook, projection, arrays, names, params["heads"], True)
    close(out, arrays[f"{hook}_{pe_qk}/out"], rtol=1e-5, atol=1e-5)
    close(probabilities, arrays[f"{hook}_{pe_qk}/probs"], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("hook", ["attn_scalar", "attn_add", "attn_mul"])
def test_image_attention(hook):
    """The class token's row of ``pe`` is given as any other."""
    arrays, params = common.golden("seqpe_attention_vit")
    projection = arrays["w/pe_qk.weight"], arrays["w/pe_qk.bias"]
    arrays = {key: reshaped(key, value) for key, value in arrays.items()}
    arrays |= {key: arrays[key].T for key in ("w/qkv.weight", "w/proj.weight")}
    names = ["qkv.weight", "qkv.bias", "proj.weight", "proj.bias"]
    out, _ = attended(hook, projection, arrays, names, params["heads"], False)
    close(out, arrays[f"{hook}/out"], rtol=1e-5, atol=1e-5)


def reshaped(key, value):
    """Returns biases with the axes of what they are added to, and the rest as it is."""
    return value[None, None] if key.endswith(".bias") else value


def test_contrastive_loss():
    arrays, params = common.golden("seqpe_losses")
    candidates = arrays["candidates"].reshape(params["batch"], params["candidates"], -1)
    labels = jnp.asarray(arrays["labels"].astype(np.int32))
    both = jax.value_and_grad(contrastive_loss, argnums=(0, 1))
    loss, gradients = both(jnp.asarray(arrays["pivot"]), jnp.asarray(candidates), labels)
    close(loss, arrays["contrastive_loss"])
    close(gradients[0], arrays["contrastive_dpivot"])
    close(gradients[1].reshape(arrays["candidates"].shape), arrays["contrastive_dcandidates"])


@pytest.mark.parametrize("kind", ["multihead", "single"])
def test_transfer_loss(kind):
    arrays, params = common.golden("seqpe_losses")
    teacher = jnp.asarray(arrays["teacher_pe"][0][arrays["teacher_indices"]])
    student = jnp.asarray(arrays["student_pe"].reshape(teacher.shape))
    num_heads = params["heads"] if kind == "multihead" else 1
    loss, gradients = jax.value_and_grad(transfer_loss, argnums=(0, 1))(teacher, student, num_heads)
    close(loss, arrays[f"transfer_loss_{kind}"])
    close(gradients[0], np.zeros_like(teacher))
    assert not arrays[f"transfer_dteacher_{kind}"].any()
    actual = gradients[1].reshape(arrays["student_pe"].shape)
    close(actual, arrays[f"transfer_dstudent_{kind}"])


@pytest.mark.parametrize("axes", ["1d", "2d"])
def test_nearest_candidate(axes):
    arrays, _ = common.golden("seqpe_losses")
    both = (arrays[f"pos_{kind}_{axes}"].astype(np.int32) for kind in ("pivot", "cand"))
    both = (jnp.moveaxis(x, -1, 0) if axes == "2d" else jnp.asarray(x[None]) for x in both)
    pivots, candidates = both
    np.testing.assert_array_equal(squared_distances(pivots, candidates), arrays[f"sqdist_{axes}"])
    np.testing.assert_array_equal(nearest(pivots, candidates), arrays[f"label_{axes}"])
