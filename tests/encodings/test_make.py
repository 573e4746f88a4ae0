"""Tests parameters for each layer, which ``make`` stacks."""

import common
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import schemes

import posenc_jax

PER_LAYER = """
    cable circulant_string cope dape deberta fope fox grape_a grape_ap grape_m grape_m_contextual
    inkling inkling2 kv_shift log_scale path pope repo rope_mixed selective_rope shaw short_conv
    ssmax string swin_v2 transformer_xl wall
"""


def test_which_schemes_have_parameters_for_each_layer():
    actual = {name for name in schemes.ALL if common.outline(name).per_layer}
    assert actual == set(PER_LAYER.split())


def test_stacked_encodings_say_for_how_many_layers():
    stacked = common.build("transformer_xl", num_layers=3)
    assert stacked.stacked == 3 and stacked.of_layer(1).stacked is None
    assert common.build("rope", num_layers=3).stacked is None
    assert common.build("ssmax", num_layers=3, over="t5").stacked == 3
    one = common.build("ssmax", num_layers=3, over="nope").of_layer(0)
    assert jax.tree.structure(one.inner) == jax.tree.structure(common.build("nope"))


@pytest.mark.parametrize("name", ["ssmax", "log_scale"])
def test_a_scheme_that_draws_nothing_is_stacked_without_rngs(name):
    sizes = dict(num_heads=2, head_dim=16, train_length=8)
    assert posenc_jax.make(name, num_layers=3, **sizes).s.shape == (3, 2)


@pytest.mark.parametrize(
    "over",
    ["seqpe", "lerope", {"name": "randomized", "over": "learned"}],
    ids=["seqpe", "lerope", "randomized"],
)
def test_what_cannot_be_stacked_is_refused(over):
    """Layers have no parameters of their own where these are read once for all layers."""
    common.refuses("over=", lambda: common.build("ssmax", over=over, num_layers=2))
    assert common.build("ssmax", over=over).stacked is None


def test_what_is_built_is_not_copied_to_each_layer():
    t5 = common.build("t5")
    over = {"name": "soft_cap", "over": {"name": "soft_cap", "over": t5}}
    common.refuses("over=", lambda: common.build("ssmax", over=over, num_layers=2))
    shared = common.build("ssmax", over=posenc_jax.make(**over), num_layers=2, trained=False)
    assert shared.inner.inner.inner is t5 and t5.stacked is None
    assert common.build("ssmax", over=over | {"over": common.build("rope")}, num_layers=2).stacked


@pytest.mark.parametrize("over", ["learned", "t5"])
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
    common.refuses("layer=3", lambda: stacked.of_layer(3))


@pytest.mark.parametrize("name", common.one_of_each_kind())
def test_the_recipe_of_readme_runs_every_scheme(name):
    """Each layer gets parameters of its own where the scheme has them for each layer."""
    x_BTD, q_BTHC = jnp.ones((2, 8, common.WIDTH)), jnp.ones((2, 8, common.HEADS, common.HEAD_DIM))

    def recipe():
        encoding = common.build(name, num_layers=2, trained=False)
        tokens = encoding.tokens(posenc_jax.positions.text(8))
        embedded_BTD = encoding.embed(x_BTD, tokens)
        layers = [encoding.of_layer(i) for i in range(2)]
        for layer in layers:
            assert layer is encoding or layer.stacked is None
            posenc_jax.attend(layer, q_BTHC, q_BTHC, q_BTHC, tokens, x=embedded_BTD)
        return encoding, layers

    stacked, layers = jax.eval_shape(recipe)
    has_own = stacked.per_layer and common.has_parameters(stacked)
    assert (stacked.stacked == 2) == has_own
    assert jax.tree.structure(layers[0]) == jax.tree.structure(layers[1])
