"""The fused cross-entropy equals optax's on all logits, and never holds them."""

import functools

import common
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType

from posenc_jax import cross_entropy

D = 8


def operands(*shape, vocab=37, dtype="float32", scale=1.0):
    """Returns vectors, table and targets, and a weight for the loss of each."""
    x, table = scale * common.normal(0, *shape, D), common.normal(1, vocab, D)
    targets = np.random.default_rng(2).integers(0, vocab, shape).astype(np.int32)
    return jnp.asarray(x, dtype), jnp.asarray(table), targets, common.normal(3, *shape)


def on_all_logits(x, table, targets):
    logits = jnp.matmul(x, table.astype(x.dtype).T, preferred_element_type=jnp.float32)
    return optax.softmax_cross_entropy_with_integer_labels(logits, targets)


def losses_and_gradients(function, x, table, targets, weights):
    def loss(x, table):
        losses = function(x, table, targets)
        return (losses * weights).sum(), losses

    gradients, losses = jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))(x, table)
    return losses, *gradients


def close(actual, expected, rtol=1e-5):
    for a, b in zip(actual, expected, strict=True):
        assert a.dtype == b.dtype
        a, b = np.asarray(a, np.float32), np.asarray(b, np.float32)
        common.close(a, b, rtol=rtol, atol=rtol * abs(b).max())


@pytest.mark.parametrize(
    ("dtype", "chunk"), [("float32", None), ("float32", 36), ("float32", 5), ("bfloat16", 19)]
)
def test_is_the_cross_entropy_of_all_logits(dtype, chunk):
    arguments = operands(3, 7, dtype=dtype)
    fused = functools.partial(cross_entropy, chunk=chunk)
    losses, *gradients = losses_and_gradients(fused, *arguments)
    expected, *expected_gradients = losses_and_gradients(on_all_logits, *arguments)
    close([losses], [expected])
    # The gradient of bfloat16 logits is a bfloat16 number, of 8 bits.
    close(gradients, expected_gradients, rtol=1e-5 if dtype == "float32" else 2**-7)


def test_tokens_that_are_sharded_over_the_context_keep_their_axes():
    x, table, targets, weights = operands(3, 8)
    expected = losses_and_gradients(on_all_logits, x, table, targets, weights)
    fused = functools.partial(cross_entropy, chunk=10)
    assert "[24," in str(jax.make_jaxpr(fused)(x, table, targets)), "this test can tell"
    with jax.set_mesh(common.mesh_of(context=4)):
        assert "[24," not in str(jax.make_jaxpr(fused)(x, table, targets))
        close(losses_and_gradients(fused, x, table, targets, weights), expected)


def test_huge_logits():
    x, table, _, weights = operands(5, scale=1e4)
    targets = np.asarray(x @ table.T).argsort(-1)[range(5), [-1, -1, -2, 0, 3]]
    fused = functools.partial(cross_entropy, chunk=8)
    losses, *gradients = losses_and_gradients(fused, x, table, targets, weights)
    logits = np.asarray(x @ table.T, np.float64)
    largest = logits.max(-1)
    log_sum = np.log(np.exp(logits - largest[:, None]).sum(-1))
    np.testing.assert_allclose(losses, log_sum + largest - logits[range(5), targets], rtol=1e-5)
    assert all(np.isfinite(g).all() for g in gradients)


def test_a_near_certain_target_among_huge_logits():
    table = np.array([[1], [1 - 2**-10], [0]], np.float32)  # logits 8192, 8184 and 0
    losses = cross_entropy(np.full((1, 1), 8192, np.float32), table, np.zeros(1, int), chunk=1)
    np.testing.assert_allclose(losses, np.log1p(np.exp(-8)), rtol=1e-3)


@pytest.mark.parametrize("bad", [-100, 37])
def test_a_target_that_is_no_id_is_nan_and_can_be_left_out(bad):
    x, table, targets, weights = operands(6)
    targets[2] = bad
    fused = functools.partial(cross_entropy, chunk=10)
    losses = fused(x, table, targets)
    np.testing.assert_array_equal(np.isnan(losses), np.arange(6) == 2)

    def left_out(x, table, targets):
        return jnp.where(targets == bad, 0, fused(x, table, targets))

    actual = losses_and_gradients(left_out, x, table, targets, weights)
    weights[2], targets[2] = 0, 0
    expected = losses_and_gradients(on_all_logits, x, table, targets, weights)
    close(actual[1:], expected[1:])


def test_the_logits_are_never_all_there():
    T, V = 2048, 8192
    shapes = jnp.zeros((1, T, D)), jnp.zeros((V, D)), jnp.zeros((1, T), jnp.int32)

    def temporaries(function):
        gradient = jax.grad(lambda x, table, targets: function(x, table, targets).sum(), (0, 1))
        return jax.jit(gradient).lower(*shapes).compile().memory_analysis().temp_size_in_bytes

    logits = 4 * T * V
    assert temporaries(on_all_logits) >= logits, "this test can tell"
    assert temporaries(cross_entropy) < logits / 2


@pytest.mark.parametrize(
    ("kind", "table_spec", "vocab"),
    [(AxisType.Auto, (), 40), (AxisType.Explicit, ("model",), 48)],
)
def test_sharded(kind, table_spec, vocab):
    """Tokens lie over one axis of the mesh and ids over the other: neither is gathered."""
    arguments = operands(4, 6, vocab=vocab)
    fused = functools.partial(cross_entropy, chunk=20)
    expected = losses_and_gradients(fused, *arguments)
    specs = ("data",), table_spec, ("data",), ("data",)
    with jax.set_mesh(mesh := common.mesh_of(kind, data=2, model=4)):
        pairs = zip(arguments, specs, strict=True)
        arguments = [common.placed(array, mesh, *spec) for array, spec in pairs]
        program = jax.jit(functools.partial(losses_and_gradients, fused))
        actual = program(*arguments)
        assert "all-gather" not in program.lower(*arguments).compile().as_text()
    close(actual, expected)
    losses, dx, d_table = actual
    assert losses.sharding.shard_shape(losses.shape) == (2, 6)
    assert dx.sharding.shard_shape(dx.shape) == (2, 6, D)
    rows = vocab // 4 if table_spec else vocab
    assert d_table.sharding.shard_shape(d_table.shape) == (rows, D)
