"""Tests parameter and operation counts, and the logits one looks at a scheme with."""

import functools

import common
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import posenc_jax
from posenc_jax.costs import _count
from posenc_jax.positions import text

SIZES = dict(num_heads=common.HEADS, head_dim=common.HEAD_DIM, length=64)


@pytest.mark.parametrize("name", ["nope", *common.one_of_each_set_of_hooks()[1::3], "fope"])
def test_every_scheme_is_described(name):
    encoding = common.build(name)
    result = posenc_jax.describe(encoding, **SIZES)
    # FoPE's coefficients are drawn and not trained.
    drawn = 0 if name == "fope" else sum(p.size for p in jax.tree.leaves(encoding))
    assert result.parameters == drawn
    assert (result.flops > result.flops_nope) == (name != "nope")
    assert {*result.hooks} == encoding.hooks()
    assert type(encoding).__name__ in str(result)
    assert ("in each layer" in str(result)) == encoding.per_layer


def test_what_a_wrapper_overrides_is_its_own_and_its_inners():
    for over, hooks in (("nope", ("rotate",)), ("alibi", ("rotate", "score"))):
        assert posenc_jax.describe(common.build("logn", over=over), **SIZES).hooks == hooks


def test_operations_of_alibi_by_hand():
    """Attention has two products of 64 tokens and 8 channels; ALiBi adds to each logit."""
    result = posenc_jax.describe(common.build("alibi"), **SIZES)
    pairs = 64 * 64
    assert result.flops_nope > 4 * 2 * 2 * pairs * 8
    # A product and a difference a head; a distance, its cast and its absolute value for them all.
    assert result.flops - result.flops_nope == pytest.approx(pairs * (4 * 2 + 3), rel=0.01)


@pytest.mark.parametrize(("name", "most"), [("alibi", 0.1), ("path", 7)])
def test_overhead_hardly_depends_on_the_length(name, most):
    """Loops, and tiles of long sequences, count as often as they run; running sums are linear."""
    encoding = common.build(name)
    shares = [posenc_jax.describe(encoding, **SIZES | {"length": n}).overhead for n in (256, 2048)]
    assert shares[1] == pytest.approx(shares[0], rel=0.35)
    assert 0 < shares[1] < most


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (lambda x: jax.lax.fori_loop(0, 10, lambda _, x: x * 2, x), 10),
        (lambda x: jax.jit(lambda x: jax.lax.cumsum(x, axis=1) * 3)(x), 2),
    ],
    ids=["loop", "running sum"],
)
def test_operations_by_hand(function, expected):
    x = jnp.ones((4, 1024))
    assert _count(jax.make_jaxpr(function)(x)) == pytest.approx(expected * x.size, rel=0.001)


def test_operations_of_a_triangular_solve_by_hand():
    """Each of n rows is subtracted from those below: n^2 operations a column."""
    matrices, columns = jnp.ones((3, 16, 16)), jnp.ones((3, 16, 8))
    for left_side, given in ((True, columns), (False, jnp.swapaxes(columns, 1, 2))):

        def solve(a, b, left_side=left_side):
            return jax.lax.linalg.triangular_solve(a, b, left_side=left_side, lower=True)

        assert _count(jax.make_jaxpr(solve)(matrices, given)) == 3 * 16 * 16 * 8


def test_a_solve_with_a_transpose_counts_once():
    matrix, columns = jnp.eye(16), jnp.ones((16, 8))

    def solve(a, b):
        lower = functools.partial(jax.lax.linalg.triangular_solve, a, left_side=True, lower=True)
        return jax.lax.custom_linear_solve(
            lambda x: a @ x, b, lambda _, b: lower(b), lambda _, b: lower(b, transpose_a=True)
        )

    assert _count(jax.make_jaxpr(solve)(matrix, columns)) == 16 * 16 * 8


def test_logits_are_what_softmax_sees():
    encoding = common.build("t5")
    q, k, v = (common.normal(seed, 2, 9, common.HEADS, common.HEAD_DIM) for seed in range(3))
    tokens = encoding.tokens(text(9))
    observed = posenc_jax.logits(encoding, q, k, tokens)
    assert observed.shape == (2, common.HEADS, 9, 9) and observed.dtype == jnp.float32
    weights = jax.nn.softmax(jnp.where(np.tri(9, dtype=bool), observed, -jnp.inf))
    expected = jnp.einsum("bhts,bshc->bthc", weights, v)
    actual = posenc_jax.attend(encoding, q, k, v, tokens)
    common.close(actual, expected)
