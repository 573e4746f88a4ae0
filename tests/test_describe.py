"""Tests parameter and operation counts, and the logits one looks at a scheme with."""

import common
import jax
import pytest

import posenc_jax

SIZES = dict(num_heads=common.HEADS, head_dim=common.HEAD_DIM, length=64)


@pytest.mark.parametrize("name", ["nope", *common.one_of_each_kind()[1::6], "fope"])
def test_every_scheme_is_described(name):
    encoding = common.build(name)
    result = posenc_jax.describe(encoding, **SIZES)
    # FoPE's coefficients are drawn and not trained.
    drawn = 0 if name == "fope" else sum(p.size for p in jax.tree.leaves(encoding))
    assert result.parameters == drawn
    assert (result.flops > result.flops_nope) == (name != "nope")
    assert {*result.hooks} == common.hooks(encoding)


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
