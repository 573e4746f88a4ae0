"""Runs the cases of x-transformers' own tests of positions, beside its own modules.

The shapes and positions are those of ``tests/test_x_transformers.py`` of lucidrains/x-transformers
at 9252ed78, where most tests only ask that a model runs; each test here names theirs and compares
numbers. Its heads are ``[B, H, T, C]``, of 64 channels, half of which rotate, in neighbours.
"""

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from golden_checks import load
from x_transformers import attend as their_attend
from x_transformers import x_transformers as theirs

import posenc_jax
from posenc_jax import Encoding, attend
from posenc_jax.positions import text

torch.set_num_threads(1)
CUSTOM = np.array([[0, 1, 2, 4], [1, 3, 5, 7]])


def heads(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def torched(x_BTHC):
    return torch.tensor(np.swapaxes(x_BTHC, 1, 2))


def close(actual, expected, atol=1e-5):
    np.testing.assert_allclose(actual, expected.detach().numpy(), atol=atol)


def products(q_BHTC, k_BHSC):
    return q_BHTC @ k_BHSC.transpose(-1, -2) / q_BHTC.shape[-1] ** 0.5


def test_custom_alibi():
    """test_custom_alibi: positions that differ by row and skip."""
    here = posenc_jax.make("alibi", num_heads=8).at(CUSTOM)
    zeros = np.zeros((2, 4, 8, 64), np.float32)
    expected = theirs.AlibiPositionalBias(8).forward_custom_pos(torch.tensor(CUSTOM))
    close(posenc_jax.logits(here, zeros, zeros), expected)


@pytest.mark.parametrize("count", [6, 8])
def test_alibi(count):
    zeros = np.zeros((1, 9, count, 64), np.float32)
    here = posenc_jax.make("alibi", num_heads=count).at(text(9))
    close(posenc_jax.logits(here, zeros, zeros), theirs.AlibiPositionalBias(count)(9, 9)[None])


@pytest.mark.parametrize("use_xpos", [True, False])
@pytest.mark.parametrize("positions", [np.tile(np.arange(4), (2, 1)), CUSTOM])
def test_custom_rotary(use_xpos, positions):
    """test_custom_rotary_pos_emb: xPos or RoPE, at given positions."""
    name = "xpos" if use_xpos else "rope"
    encoding = posenc_jax.make(name, head_dim=64, rotary_dim=32, layout="interleaved")
    q, k = heads(0, 2, 4, 8, 64), heads(1, 2, 4, 8, 64)
    angles, scale = theirs.RotaryEmbedding(32, use_xpos=use_xpos)(torch.tensor(positions))
    expected = products(
        theirs.apply_rotary_pos_emb(torched(q), angles, scale),
        theirs.apply_rotary_pos_emb(torched(k), angles, scale**-1.0),
    )
    close(posenc_jax.logits(encoding.at(positions), q, k), expected)


def test_cross_attention_rotates():
    """test_cross_attn_rotary: 64 queries see 128 tokens of another text, each at its position."""
    encoding = posenc_jax.make("rope", head_dim=64, rotary_dim=32, layout="interleaved")
    q, k, v = heads(0, 1, 64, 4, 64), heads(1, 1, 128, 4, 64), heads(2, 1, 128, 4, 64)
    tables = theirs.RotaryEmbedding(32)
    rotated = [
        theirs.apply_rotary_pos_emb(torched(x), tables(torch.arange(x.shape[1]))[0]) for x in (q, k)
    ]
    expected = torch.softmax(products(*rotated), -1) @ torched(v)
    keys = encoding.at(text(128)).keys(k, v)
    actual = attend(encoding.at(text(64)), q, keys, causal=False)
    close(np.swapaxes(actual, 1, 2), expected)


@pytest.mark.parametrize("bias", ["zero", "uniform"])
def test_pope(bias):
    """test_pope: 10 tokens, 8 heads."""
    polar = theirs.PolarEmbedding(64, 8)
    if bias == "uniform":  # Half of these lie outside of what both clip to.
        torch.nn.init.uniform_(polar.learned_bias, -8.0, 2.0)
    encoding = posenc_jax.make("pope", num_kv_heads=8, head_dim=64, rngs=nnx.Rngs(0))
    load(encoding, {"phase": polar.learned_bias.detach()[:, 0].numpy()})
    q, k = heads(0, 2, 10, 8, 64), heads(1, 2, 10, 8, 64)
    angles, phases = polar(torch.arange(10))
    expected = 2**0.5 * products(
        theirs.apply_polar_pos_emb(torched(q), angles),
        theirs.apply_polar_pos_emb(torched(k), angles + phases),
    )
    close(posenc_jax.logits(encoding.at(text(10)), q, k), expected, atol=2e-5)


def test_forgetting():
    """test_forgetting_transformer, without memory: model width 128, 8 heads."""
    gates = theirs.DataDependentAlibi(128, 8)
    linear = gates.to_forget_gates[0]
    torch.nn.init.normal_(linear.bias)
    encoding = posenc_jax.make("fox", num_heads=8, model_dim=128, num_layers=1, rngs=nnx.Rngs(0))
    encoding = encoding.of_layer(0) if encoding.per_layer else encoding
    values = {"gate.kernel": linear.weight.detach().numpy().T, "gate.bias": linear.bias.detach()}
    load(encoding, {path: np.asarray(value) for path, value in values.items()})
    x, zeros = heads(0, 2, 32, 128), np.zeros((2, 32, 8, 16), np.float32)
    actual = posenc_jax.logits(encoding.at(text(32)), zeros, zeros, x=x)
    earlier = np.tri(32, dtype=bool)
    expected = np.where(earlier, gates(torch.tensor(x)).detach().numpy(), 0)
    np.testing.assert_allclose(np.where(earlier, actual, 0), expected, atol=1e-4)


@pytest.mark.parametrize("is_cope", [True, False], ids=["cope", "sinks"])
def test_what_attention_adds(is_cope):
    """test_cope and test_learned_head_attn_sink: both are parts of its attention itself."""
    q, k, v = (heads(seed, 2, 24, 4, 64) for seed in range(3))
    if is_cope:
        part = theirs.CoPE(64, 4, 16)
        torch.nn.init.normal_(part.pos_emb)
        settings = dict(head_dim=64, num_positions=16, nodiv=True, rngs=nnx.Rngs(0))
        encoding = load(
            posenc_jax.make("cope", **settings), {"table": part.pos_emb.detach().numpy()}
        )
        module, rule = their_attend.Attend(causal=True, heads=4, cope=part), {}
    else:
        encoding = Encoding()
        module = their_attend.Attend(causal=True, heads=4, head_learned_sink=True)
        torch.nn.init.normal_(module.head_attn_sink)
        rule = {"sinks": jnp.asarray(module.head_attn_sink.detach().numpy())}
    expected, _ = module(*map(torched, (q, k, v)))
    actual = attend(encoding.at(text(24)), q, k, v, **rule)
    close(np.swapaxes(actual, 1, 2), expected, atol=2e-5)
