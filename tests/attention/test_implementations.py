"""Every implementation of attention gives the values and gradients of the reference."""

import functools

import common
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from attention_cases import (
    IN_KERNELS,
    SMALLER,
    B,
    by,
    close,
    plain,
    sides,
    slow_unless_quick,
    tokens_of,
)

import posenc_jax
from posenc_jax.attention.blockwise import blockwise
from posenc_jax.attention.dense import dense
from posenc_jax.attention.pallas import pallas
from posenc_jax.attention.ring import zigzag

T, DEVICES = 40, 4
DOCUMENTS = np.repeat([[0, 1], [1, 0]], (15, T - 15), axis=1)
POSITIONS = np.random.default_rng(0).integers(0, 30, (B, T))
# As tokens lie on the devices of a ring: not in the order in which they were written.
ORDER = zigzag(T, DEVICES)


@functools.partial(jax.jit, static_argnums=0)
def value_and_gradients(attend, encoding, q, k, v):
    """Returns attention over two documents a row, and its gradients by all that it is given."""

    def loss(encoding, q, k, v):
        tokens = tokens_of(encoding, POSITIONS[:, ORDER], DOCUMENTS[:, ORDER], index=ORDER[None])
        output = attend(encoding, q, k, v, tokens)
        return (output**2).sum() + output[:, 3].sum(), output

    return jax.value_and_grad(loss, argnums=range(4), has_aux=True)(encoding, q, k, v)


@functools.cache
def operands(name):
    """Returns a scheme with tables of few rows, which kernels take one by one, and q, k and v."""
    return common.build(name, num_kv_heads=2, **SMALLER.get(name, {})), *sides(2, T, T)


@functools.cache
def reference(name):
    return jax.device_get(value_and_gradients(by(dense), *operands(name)))


@pytest.mark.parametrize("name", ["value_rope", "shaw", "fox"])
def test_the_reference_is_that_of_a_textbook(name):
    close(value_and_gradients(plain, *operands(name)), reference(name))


@pytest.mark.parametrize("name", ["rope", "shaw"])
def test_forms_for_a_cpu(name):
    close(value_and_gradients(by("dense"), *operands(name)), reference(name))
    close(value_and_gradients(by(None), *operands(name)), reference(name))


@pytest.mark.parametrize("name", common.one_of_each_tile())
def test_blockwise(name):
    """The last of three blocks begins within the second."""
    tiled = by(functools.partial(blockwise, block=16))
    close(value_and_gradients(tiled, *operands(name)), reference(name))


# A ring runs the tiles of ``blockwise``. Some schemes change what goes round, or what is left of
# it: values, the layer's input, weights, all heads or whole rows.
@pytest.mark.parametrize(
    "name", ["value_rope", "swin_v2", "shaw", "dape", "cope", "fox", "path", "kv_shift"]
)
def test_ring(name):
    with jax.set_mesh(common.mesh_of(context=DEVICES)):
        actual = value_and_gradients(by("ring"), *operands(name))
    close(actual, reference(name))


@pytest.mark.parametrize("name", common.one_of_each_tile()[2::3])
def test_float64(name):
    """Parameters and operands are float64, and logits and sums in tiles are float32."""
    with jax.enable_x64(True):
        encoding = common.build(name, num_kv_heads=2)
        qkv = sides(2, T, T, np.float64)
        tiled = by(functools.partial(blockwise, block=16))
        actual, expected = (value_and_gradients(run, encoding, *qkv) for run in (tiled, by(dense)))
        assert all(gradient.dtype == jnp.float64 for gradient in actual[1][1:])
        close(actual, expected)
        if name == "fox":
            with jax.set_mesh(common.mesh_of(context=DEVICES)):
                close(value_and_gradients(by("ring"), encoding, *qkv), expected)


@pytest.mark.parametrize("name", [slow_unless_quick(name) for name in IN_KERNELS])
def test_pallas(name):
    actual = value_and_gradients(by(pallas), *operands(name))
    close(actual, reference(name), tolerance=1e-4)


@pytest.mark.parametrize(("implementation", "name"), [("dense", "fox"), ("blockwise", "t5")])
def test_a_second_call_outside_of_jit_compiles_nothing(implementation, name):
    encoding, *qkv = operands(name)

    def run():
        tokens = tokens_of(encoding, np.arange(T)[None])
        return by(implementation)(encoding, *qkv, tokens)

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
    queries = tokens_of(encoding, np.arange(T)[None], segments.at[0, 2].set(7))
    keys = tokens_of(encoding, np.arange(T)[None], segments)

    @jax.jit
    def gradients(q, k, v):
        def loss(q, k, v):
            out = by(implementation)(encoding, q, k, v, queries, keys)
            return (out**2).sum(), out

        return jax.grad(loss, argnums=(0, 1, 2), has_aux=True)(q, k, v)

    by_sides, output = gradients(*(x.astype(dtype) for x in qkv))
    assert (output[:, 2] == 0).all()
    assert (jnp.abs(output[:, 3:]).max(axis=(0, 2, 3)) > 0.1).all()
    assert all(np.isfinite(x.astype(jnp.float32)).all() for x in by_sides)


def test_huge_logits_do_not_overflow():
    encoding, (q, k, v) = common.build("nope"), sides(4, 6, 6)
    out = posenc_jax.attend(encoding, 1e7 * q, 1e7 * k, v, tokens_of(encoding, np.arange(6)[None]))
    logits = np.where(np.tri(6, dtype=bool), np.einsum("bthc,bshc->bhts", q, k), -np.inf)
    winner = np.take_along_axis(np.swapaxes(v, 1, 2), logits.argmax(-1)[..., None], axis=2)
    np.testing.assert_allclose(out, np.swapaxes(winner, 1, 2), rtol=1e-6)
