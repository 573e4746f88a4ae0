"""Every implementation of attention gives the values and gradients of the reference."""

import functools

import common
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from attention_cases import (
    DOCUMENTS,
    B,
    T,
    by,
    close,
    of_documents,
    seen,
    sides,
)

import posenc_jax
from posenc_jax.attention import cpu
from posenc_jax.attention.blockwise import blockwise
from posenc_jax.attention.context import zigzag
from posenc_jax.attention.dense import dense
from posenc_jax.positions import text

DEVICES = 4
# As tokens lie on the devices of a ring: not in the order in which they were written.
value_and_gradients = functools.partial(of_documents, order=tuple(zigzag(T, DEVICES).tolist()))
TILED = by(functools.partial(blockwise, block=16))  # the last of three begins within the second


@functools.cache
def operands(name):
    """Returns a scheme, and q, k and v."""
    return common.build(name, num_kv_heads=2), *sides()


@functools.cache
def reference(name):
    return jax.device_get(value_and_gradients(by(dense), *operands(name)))


@pytest.mark.parametrize("name", common.one_of_each_tile())
def test_blockwise(name):
    close(value_and_gradients(TILED, *operands(name)), reference(name))


# Strategies over several devices run the tiles of ``blockwise``. Some schemes change what devices
# send, or what is left of it: values, the layer's input, weights, all heads or whole rows.
OVER_CONTEXT = [("ring", name) for name in ("value_rope", "swin_v2", "shaw", "dape", "fox")]
OVER_CONTEXT += [("gather", name) for name in ("rope", "shaw", "dape", "cope", "path", "kv_shift")]
OVER_CONTEXT += [("ulysses", name) for name in ("rope", "alibi", "t5", "shaw", "cope", "path")]
OVER_CONTEXT += [("ulysses", name) for name in ("fox", "kv_shift", "value_rope")]


@pytest.mark.parametrize(("implementation", "name"), OVER_CONTEXT)
def test_tokens_on_several_devices(implementation, name):
    expected, given = reference(name), operands(name)
    mesh = common.mesh_of(context=2 if implementation == "ulysses" else DEVICES)
    with jax.set_mesh(mesh):
        actual = value_and_gradients(by(implementation), *given)
    close(actual, expected)


@pytest.mark.parametrize(
    ("name", "devices", "why"),
    [("rope", DEVICES, "num_kv_heads=2 .*4 devices.*gather"), ("dape", 2, "DAPE mixes heads")],
)
def test_heads_that_ulysses_cannot_share(name, devices, why):
    given = operands(name)
    with jax.set_mesh(common.mesh_of(context=devices)):
        common.refuses(why, lambda: value_and_gradients(by("ulysses"), *given))


@pytest.mark.parametrize("name", common.one_of_each_tile()[2::3])
def test_float64(name):
    """Parameters and operands are float64, and logits and sums in tiles are float32."""
    with jax.enable_x64(True):
        encoding = common.build(name, num_kv_heads=2)
        qkv = sides(2, T, T, np.float64)
        actual, expected = (value_and_gradients(run, encoding, *qkv) for run in (TILED, by(dense)))
        assert all(gradient.dtype == jnp.float64 for gradient in actual[1][1:])
        close(actual, expected)
        if name == "fox":
            with jax.set_mesh(common.mesh_of(context=DEVICES)):
                close(value_and_gradients(by("ring"), encoding, *qkv), expected)


@pytest.mark.parametrize(("implementation", "name"), [("dense", "fox"), ("blockwise", "t5")])
def test_a_second_call_outside_of_jit_compiles_nothing(implementation, name):
    encoding, *qkv = operands(name)

    def run():
        return by(implementation)(seen(encoding, np.arange(T)[None]), *qkv)

    run()
    assert common.compilations(run) == 0


@pytest.mark.parametrize(
    ("implementation", "name", "dtype"),
    [("dense", "t5", "float32"), ("dense", "nope", "bfloat16")]
    + [("blockwise", "t5", "bfloat16"), ("blockwise", "nope", "float32")],
)
def test_a_query_that_sees_nothing_gives_zeros(name, dtype, implementation):
    """The gradients are no NaN either."""
    encoding, *qkv = operands(name)
    segments = jnp.zeros((1, T), jnp.int32)
    queries = seen(encoding, np.arange(T)[None], segments.at[0, 2].set(7))
    every = seen(encoding, np.arange(T)[None], segments)

    @jax.jit
    def gradients(q, k, v):
        def loss(q, k, v):
            out = by(implementation)(queries, q, every.keys(k, v))
            return (out**2).sum(), out

        return jax.grad(loss, argnums=(0, 1, 2), has_aux=True)(q, k, v)

    by_sides, output = gradients(*(x.astype(dtype) for x in qkv))
    assert (output[:, 2] == 0).all()
    assert (jnp.abs(output[:, 3:]).max(axis=(0, 2, 3)) > 0.1).all()
    assert all(np.isfinite(x.astype(jnp.float32)).all() for x in by_sides)


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
    "window": dict(window=3),
    "sinks": dict(sinks=jnp.asarray(common.normal(4, B, ROWS, common.HEADS))),
    "mask": dict(mask=is_near),
    "dropout": dict(dropout=(0.5, jax.random.key(5))),
}
CASES = [(name, "plain", False) for name in common.one_of_each_tile()[::3]]
CASES += [("t5", rule, has_tiles) for rule in RULES for has_tiles in (False, True)]


@pytest.mark.parametrize(("name", "rule", "has_tiles"), CASES)
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
