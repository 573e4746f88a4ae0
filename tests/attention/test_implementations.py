"""Every implementation of attention gives the values and gradients of the reference."""

import functools

import common
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from attention_cases import (
    DOCUMENTS,
    TILED,
    B,
    T,
    by,
    close,
    of_documents,
    operands,
    reference,
    seen,
    sides,
)

import posenc_jax
from posenc_jax.attention import cpu
from posenc_jax.positions import text


@pytest.mark.parametrize("name", common.one_of_each_tile())
def test_blockwise(name):
    close(of_documents(TILED, *operands(name)), reference(name))


@pytest.mark.parametrize(
    ("name", "devices", "why"),
    [("rope", 4, "num_kv_heads=2 .*4 devices.*gather"), ("dape", 2, "DAPE mixes heads")],
)
def test_heads_that_ulysses_cannot_share(name, devices, why):
    given = operands(name)
    with jax.set_mesh(common.mesh_of(context=devices)):
        common.refuses(why, lambda: of_documents(by("ulysses"), *given))


@pytest.mark.parametrize(("name", "implementation"), [("shaw", TILED), ("t5", by("ring"))])
def test_float64(name, implementation):
    """Parameters and operands are float64, and logits and sums in tiles are float32."""
    with jax.enable_x64(True), jax.set_mesh(common.mesh_of(context=4)):
        given = common.build(name, num_kv_heads=2), *sides(dtype=np.float64)
        actual, expected = (of_documents(run, *given) for run in (implementation, by("dense")))
        assert all(gradient.dtype == jnp.float64 for gradient in actual[1][1:])
        close(actual, expected)


def test_a_second_call_outside_of_jit_compiles_nothing():
    encoding, *qkv = operands("fox")

    def run():
        return by("blockwise")(seen(encoding, np.arange(T)[None]), *qkv)

    run()
    assert common.compilations(run) == 0


def test_huge_logits_do_not_overflow():
    encoding, (q, k, v) = common.build("nope"), sides(4, 6, 6)
    out = posenc_jax.attend(encoding.at(text(6)), 1e7 * q, 1e7 * k, v)
    logits = np.where(np.tri(6, dtype=bool), np.einsum("bthc,bshc->bhts", q, k), -np.inf)
    winner = np.take_along_axis(np.swapaxes(v, 1, 2), logits.argmax(-1)[..., None], axis=2)
    np.testing.assert_allclose(out, np.swapaxes(winner, 1, 2), rtol=1e-6)


# Sinks


LATE = 2


def in_a_column(here, q, keys, *, sinks):
    """Attends to the keys and, in the last column, to the sink, whose value is nothing."""
    logits = posenc_jax.logits(here, q, keys)
    shown = np.tri(T, k=-LATE, dtype=bool) & (DOCUMENTS[:, None] == DOCUMENTS[..., None])
    logits = jnp.where(shown[:, None], logits, -jnp.inf)
    sinks_BTH = jnp.broadcast_to(sinks, q.shape[:3])
    logits = jnp.concatenate([logits, sinks_BTH.swapaxes(1, 2)[..., None]], axis=-1)
    weights = jax.nn.softmax(logits)[..., :-1]
    return jnp.einsum("bhts,bshc->bthc", weights, jnp.repeat(keys.v, 2, axis=2))


@functools.partial(jax.jit, static_argnums=0)
def with_sinks(attend, encoding, q, k, v, *sinks):
    """Returns attention under a sink a head, and a sink a query, and the gradients by all."""

    def loss(encoding, q, k, v, *sinks):
        here = seen(encoding, text(T), DOCUMENTS)
        index = jnp.arange(T, dtype=jnp.int32)[None] - LATE  # the first queries see no key
        queries = seen(encoding, text(T), DOCUMENTS, index=index)
        outputs = [attend(queries, q, here.keys(k, v), sinks=one) for one in sinks]
        return sum((out**2).sum() for out in outputs), jnp.stack(outputs)

    arguments = encoding, q, k, v, *sinks
    return jax.value_and_grad(loss, argnums=range(6), has_aux=True)(*arguments)


@pytest.mark.parametrize("implementation", ["dense", "blockwise", "gather", "ulysses", "ring"])
def test_sinks(implementation):
    """They are one key more for each query; one head's sink takes nothing."""
    sinks_H = jnp.asarray(common.normal(8, common.HEADS)).at[1].set(-30.0)
    sinks_BTH = jnp.asarray(common.normal(9, B, T, common.HEADS))
    given = common.build("alibi"), *sides(), sinks_H, sinks_BTH
    attend = TILED if implementation == "blockwise" else by(implementation)
    with jax.set_mesh(common.mesh_of(context=2)):
        actual = with_sinks(attend, *given)
    assert (np.asarray(actual[0][1])[:, :, :LATE] == 0).all()
    close(actual, with_sinks(in_a_column, *given))


# Rows: attention to the keys before a part of the queries, here of six tokens and of five


ROWS = 11
SEGMENTS = np.repeat([[0, 1], [1, 2]], (4, 7), axis=1)


def is_near(q_index, k_index):
    return q_index - k_index != 2


RULES = {
    "plain": {},
    "all": dict(
        window=5,
        sinks=jnp.asarray(common.normal(4, B, ROWS, common.HEADS)),
        mask=is_near,
        dropout=(0.5, jax.random.key(5)),
    ),
}


@pytest.mark.parametrize(
    ("name", "rule", "has_tiles"),
    [("shaw", "plain", False), ("fox", "plain", False), ("t5", "all", False), ("t5", "all", True)],
)
def test_rows_are_dense_attention(name, rule, has_tiles, monkeypatch):
    """They are three parts without gradients; with gradients two, or tiles where there are many."""
    monkeypatch.setattr(cpu, "_LEAST_ROWS", ROWS)
    monkeypatch.setattr(cpu, "_ROWS", -(-ROWS // 3))
    if has_tiles:
        monkeypatch.setattr(cpu, "_MOST_LOGITS", 0)
        monkeypatch.setattr(posenc_jax.attention, "_FEW_LOGITS", 0)
        monkeypatch.setattr(posenc_jax.attention, "_FEW_QUERIES", 0)

    @jax.jit
    def both(*operands):
        def loss(implementation, encoding, q, k, v):
            here = seen(encoding, text(ROWS), SEGMENTS)
            output = by(implementation)(here, q, k, v, **RULES[rule])
            return (output**2).sum(), output

        def run(implementation):
            both = jax.value_and_grad(loss, argnums=(1, 2, 3, 4), has_aux=True)
            return both(implementation, *operands)

        return run(None), loss(None, *operands)[1], run("dense")

    actual, alone, expected = both(common.build(name), *sides(4, ROWS, ROWS))
    close(actual, expected)
    common.close(alone, expected[0][1], rtol=0)


def test_rows_are_chosen_for_long_causal_attention_on_a_cpu(monkeypatch):
    monkeypatch.setattr(cpu, "has_one_core", lambda: False)  # one core attends in tiles instead

    def pieces(T, platform="cpu", **call):
        def attend(x):
            rope = posenc_jax.make("rope", head_dim=8)
            return posenc_jax.attend(rope.at(text(T)), x, x, x, **call)

        program = jax.export.export(jax.jit(attend), platforms=[platform])
        x = jax.ShapeDtypeStruct((1, T, 2, 8), jnp.float32)
        return program(x).mlir_module().count("stablehlo.exponential")

    assert [pieces(255), pieces(256), pieces(1024)] == [1, 2, 4]
    assert [pieces(256, causal=False), pieces(256, "tpu")] == [1, 1]
