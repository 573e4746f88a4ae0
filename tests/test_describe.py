"""Tests parameter and operation counts, and the logits one looks at a scheme with."""

import common
import jax
import jax.numpy as jnp
import pytest

import posenc_jax
from posenc_jax.costs import _count

SIZES = dict(num_heads=common.HEADS, head_dim=common.HEAD_DIM, length=64)


@pytest.mark.parametrize("name", ["nope", *common.one_of_each_kind()[1::3], "fope"])
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
