"""Attention to the keys before a part of the queries is attention in one piece."""

import common
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import posenc_jax
from posenc_jax.attention import cpu
from posenc_jax.positions import text

T = 11  # the parts have six tokens and five
X_BTD = 0.5 * common.normal(3, 2, T, common.WIDTH)
SEGMENTS = np.repeat([[0, 1], [1, 2]], (4, 7), axis=1)
SINKS_BTH = jnp.asarray(common.normal(4, 2, T, common.HEADS))


def is_near(q_index, k_index):
    return q_index - k_index != 2


RULES = {
    "plain": {},
    "window": dict(window=3),
    "sinks": dict(sinks=SINKS_BTH),
    "mask": dict(mask=is_near),
    "dropout": dict(dropout=(0.5, jax.random.key(5))),
}
CASES = [(name, "plain") for name in common.one_of_each_tile()[::3]]
CASES += [("t5", rule) for rule in RULES]


@pytest.mark.parametrize(("name", "rule"), CASES)
def test_rows_are_dense_attention(name, rule, monkeypatch):
    monkeypatch.setattr(cpu, "_LEAST_ROWS", T)
    encoding = common.build(name)
    q, k, v = (jnp.asarray(common.normal(seed, 2, T, 4, common.HEAD_DIM)) for seed in range(3))

    @jax.jit
    def both(*operands):
        def loss(implementation, encoding, q, k, v):
            tokens = encoding.tokens(text(T), SEGMENTS).observed(encoding, X_BTD)
            call = dict(implementation=implementation, **RULES[rule])
            return (posenc_jax.attend(encoding, q, k, v, tokens, **call) ** 2).sum()

        run = jax.value_and_grad(loss, argnums=(1, 2, 3, 4))
        return run(None, *operands), run("dense", *operands)

    for actual, expected in zip(*map(jax.tree.leaves, both(encoding, q, k, v)), strict=True):
        np.testing.assert_allclose(
            actual, expected, rtol=2e-5, atol=2e-5 * max(1, abs(expected).max())
        )


def test_rows_are_chosen_for_long_causal_attention_on_a_cpu():
    def pieces(T, platform="cpu", **call):
        def attend(x):
            rope = posenc_jax.make("rope", head_dim=8)
            return posenc_jax.attend(rope, x, x, x, rope.tokens(text(T)), **call)

        program = jax.export.export(jax.jit(attend), platforms=[platform])
        x = jax.ShapeDtypeStruct((1, T, 2, 8), jnp.float32)
        return program(x).mlir_module().count("stablehlo.exponential")

    assert [pieces(256), pieces(255), pieces(256, causal=False), pieces(256, "tpu")] == [2, 1, 1, 1]
