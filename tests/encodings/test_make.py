"""Tests ``make``: the types of its arguments, and parameters for each layer."""

import inspect

import common
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import posenc_jax
from posenc_jax.encodings.rotary.videorope import videorope_pp

SIZES = dict(num_heads=4, head_dim=8, model_dim=32, train_length=32)


@pytest.mark.parametrize("kind", [np.int64, np.int32, np.uint8])
def test_sizes_are_whole_numbers_of_any_type(kind):
    encoding = posenc_jax.make("rope", head_dim=kind(64))
    assert encoding.head_dim == 64 and type(encoding.head_dim) is int
    for bad in (True, 64.0, np.float32(64), "64", kind(0)):
        with pytest.raises(ValueError, match=r"head_dim=.* must be at least 1, and a whole number"):
            posenc_jax.make("rope", head_dim=bad)
    with pytest.raises(ValueError, match="num_layers=0 must be at least 1"):
        posenc_jax.make("fope", rngs=nnx.Rngs(0), num_layers=0, **SIZES)


def test_builders_of_rope_say_which_of_its_keywords_they_take():
    keywords = ["head_dim", "train_length", "factor", "sections", "base", "rotary_dim", "layout"]
    assert list(inspect.signature(videorope_pp).parameters) == keywords
    for other in ("axes", "frequencies", "bass"):
        with pytest.raises(TypeError, match=other):
            videorope_pp(head_dim=8, train_length=32, **{other: None})


@pytest.mark.parametrize("name", ["t5", "rope"])
def test_what_is_no_rngs_is_refused(name):
    with pytest.raises(ValueError, match=r"rngs=0 .*pass nnx.Rngs\(0\)"):
        posenc_jax.make(name, rngs=0, **SIZES)


def test_stacked_encodings_say_for_how_many_layers():
    stacked = common.build("transformer_xl", num_layers=3)
    assert stacked.stacked == 3 and stacked.of_layer(1).stacked is None
    assert common.build("rope", num_layers=3).stacked is None
    assert common.build("ssmax", num_layers=3, over="t5").stacked == 3


@pytest.mark.parametrize(
    "over",
    ["seqpe", "learned", {"name": "randomized", "over": "learned"}],
    ids=["seqpe", "learned", "randomized"],
)
def test_what_cannot_be_stacked_is_refused(over):
    """Layers have no parameters of their own where these are read once for all layers."""
    match = "needed before the first layer .*build that first, .*all layers then share it"
    with pytest.raises(ValueError, match=match):
        common.build("ssmax", over=over, num_layers=2)
    assert common.build("ssmax", over=over).stacked is None


def test_what_is_built_is_not_copied_to_each_layer():
    t5 = common.build("t5")
    over = {"name": "soft_cap", "over": {"name": "soft_cap", "over": t5}}
    with pytest.raises(ValueError, match=r"would copy the parameters of the T5 .* give over= what"):
        common.build("ssmax", over=over, num_layers=2)
    shared = common.build("ssmax", over=posenc_jax.make(**over), num_layers=2, trained=False)
    assert shared.inner.inner.inner is t5 and t5.stacked is None
    assert common.build("ssmax", over=over | {"over": common.build("rope")}, num_layers=2).stacked


@pytest.mark.parametrize("over", ["learned", "t5", "lerope"])
def test_layers_share_what_is_built(over):
    inner = common.build(over)
    stacked = common.build("ssmax", over=inner, num_layers=3, trained=False)
    assert stacked.stacked == 3 and stacked.inner is inner and stacked.s.shape == (3, 4)
    stacked.s[...] += jnp.arange(3.0)[:, None]
    for layer, around in enumerate(
        (stacked, common.build("soft_cap", over=stacked, trained=False))
    ):
        one = around.of_layer(layer + 1)
        assert one.stacked is None
        scale, leaves = (one, one.inner) if layer == 0 else (one.inner, one.inner.inner)
        np.testing.assert_array_equal(scale.s[...], stacked.s[layer + 1])
        same = jax.tree.map(np.array_equal, leaves, inner)
        assert all(jax.tree.leaves(same))
    with pytest.raises(ValueError, match=r"layer=3 must be within 0..2"):
        stacked.of_layer(3)
