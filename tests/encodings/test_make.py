"""Tests parameters for each layer, which ``make`` stacks."""

import chex
import common
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from calls import attend
from common import refuses
from flax import nnx

import posenc_jax
from posenc_jax.encodings.rotary.frequencies.pi import PositionInterpolationFrequencies
from posenc_jax.encodings.rotary.frequencies.yarn import YaRNFrequencies


def test_a_scheme_that_draws_nothing_is_stacked_without_rngs():
    sizes = dict(num_heads=2, head_dim=16, train_length=8)
    assert posenc_jax.make("ssmax", num_layers=3, **sizes).s.shape == (3, 2)


def test_a_class_stacks_layers_as_make_does():
    sizes = dict(num_heads=2, model_dim=8, num_layers=3)
    stacked = posenc_jax.FoX.of_layers(**sizes, rngs=nnx.Rngs(0))
    chex.assert_trees_all_equal(stacked, posenc_jax.make("fox", **sizes, rngs=nnx.Rngs(0)))
    assert stacked.stacked == 3 and stacked.of_layer(2).stacked is None
    t5 = posenc_jax.T5.of_layers(num_layers=3, num_heads=2, model_dim=8, rngs=nnx.Rngs(0))
    assert t5.stacked is None and t5.of_layer(2) is t5
    over = posenc_jax.SSMax.of_layers(num_layers=3, num_heads=2, train_length=8, over=t5)
    assert over.inner is t5 and over.s.shape == (3, 2)
    refuses("num_layers=0", lambda: posenc_jax.FoX.of_layers(**sizes | {"num_layers": 0}))


def test_what_cannot_be_stacked_is_refused():
    """Parameters that are read once, or built already, are not copied to each layer."""
    built = {"name": "soft_cap", "over": {"name": "soft_cap", "over": common.build("t5")}}
    stacked = common.build("fox", num_layers=3)
    for over in ("lerope", {"name": "randomized", "over": "learned"}, built, stacked):
        refuses("over=", lambda over=over: common.build("ssmax", over=over, num_layers=2))
    still = built | {"over": common.build("rope")}
    assert common.build("ssmax", over=still, num_layers=2).stacked == 2


def test_layers_share_what_is_built():
    inner = common.build("t5")
    stacked = common.build("ssmax", over=inner, num_layers=3, trained=False)
    assert stacked.stacked == 3 and stacked.inner is inner and stacked.s.shape == (3, 4)
    stacked.s[...] += jnp.arange(3.0)[:, None]
    capped = common.build("soft_cap", over=stacked, trained=False)
    for one in (stacked.of_layer(2), capped.of_layer(2).inner):
        assert one.stacked is None
        np.testing.assert_array_equal(one.s[...], stacked.s[2])
        np.testing.assert_array_equal(one.inner.table[...], inner.table[...])
    refuses("layer=3", lambda: stacked.of_layer(3))


@pytest.mark.parametrize("name", common.one_of_each_kind())
def test_the_recipe_of_readme_runs_every_scheme(name):
    """Each layer gets parameters of its own where the scheme has them for each layer."""
    x_BTD, q_BTHC = jnp.ones((2, 8, common.WIDTH)), jnp.ones((2, 8, common.HEADS, common.HEAD_DIM))

    def recipe():
        encoding = common.build(name, num_layers=2, trained=False)
        here = encoding.at(posenc_jax.positions.text(8))
        embedded_BTD = here.embed(x_BTD)
        layers = [here.of_layer(i) for i in range(2)]
        for layer in layers:
            assert layer.encoding is encoding or layer.encoding.stacked is None
            posenc_jax.attend(layer, q_BTHC, q_BTHC, q_BTHC, x=embedded_BTD)
        return encoding, layers

    stacked, layers = jax.eval_shape(recipe)
    has_own = stacked.per_layer and common.has_parameters(stacked)
    assert (stacked.stacked == 2) == has_own
    assert jax.tree.structure(layers[0]) == jax.tree.structure(layers[1])


# What make cannot build is refused by its name


BAD_KEYWORDS = {
    "alibi": [{"num_heads": wrong} for wrong in (-5, 0, 2.5, True, np.nan)],
    "dynamic_ntk": [{"train_length": wrong} for wrong in (0, 2.5)],
    "rope": [{"head_dim": 7}, {"rotary_dim": 10}, {"layout": "neox"}, {"base": 1.0}]
    + [{"axes": (0, 1)}, {"axes": ()}, {"axes": 1}, {"frequencies": YaRNFrequencies}],
    "mrope": [{"sections": wrong} for wrong in [(1, 1, 1), (5, -1, 0), (2.0, 1, 1), 4]],
    "i_mrope": [{"order": "thw"}, {"order": (0, 0, 1)}],
    "time_rope": [{"frequencies": "yarn"}],
    "resonance": [{"frequencies": "yarn"}],
    "mhrope": [{"axis_heads": (2, 2, 2)}, {"axis_heads": 4}],
    "swin_v2": [{"grid": 8}, {"grid": (8, 8, 8)}],
    "axial_rope": [{"num_axes": 3}],
    "pi": [{"factor": 0.5}],
    "yarn": [{"ramp": "linear"}, {"beta_fast": 0.5}],
    "longrope": [{"long_factor": (1.0, 2.0)}],
    "t5": [{"num_buckets": 7}, {"max_distance": 16}, {"bidirectional": "false"}],
    "learned_2d": [{"out_of_range": "wrap"}, {"grid": 8}, {"grid": ()}],
    "fox": [{"rngs": 0}, {"num_layers": 0}],
    "seqpe": [{"hook": "rotary"}, {"max_position": 63}],
    "path": [{"num_kv_heads": 3}],
    "soft_cap": [{"cap": 0}, {"over": None}],
    "logn": [{"over": "irope"}, {"train_length": 1}],
}


@pytest.mark.parametrize("name", BAD_KEYWORDS)
def test_bad_values_of_keywords(name):
    """The error names the keyword; some are found only where the pairs of channels are known."""
    for bad in BAD_KEYWORDS[name]:
        word = next(iter(bad)).replace("rotary_dim", "rotary_dim|axes")
        refuses(word, lambda bad=bad: build(name, **bad).at(np.zeros((1, 6), int)))


LONG = {
    "learned": {"train_length": 10**9},
    "learned_2d": {"train_length": 10**9},
    "shaw": {"max_distance": 10**9},
    "deberta": {"max_distance": 10**9, "num_buckets": None},
    "t5": {"num_buckets": 2 * 10**9, "max_distance": 2**31 - 1},
    "inkling": {"extent": 10**9},
}


@pytest.mark.parametrize("name", LONG)
def test_a_table_that_is_too_long_for_jax_is_refused(name):
    """JAX aborts the interpreter, unless it knows shapes alone."""
    refuses(r"2\*\*31", lambda: jax.eval_shape(lambda: build(name, **LONG[name])))


def build(name, **settings):
    """Builds a scheme at small sizes, with random numbers unless they are given."""
    given = common.arguments(name) | {"rngs": nnx.Rngs(0)} | settings
    return posenc_jax.make(name, **given)


def test_unknown_names_and_keywords_are_answered_with_the_nearest():
    refuses("'alibi'", lambda: posenc_jax.make("alibbi", num_heads=4))
    refuses("'rope'", lambda: common.build("logn", over="ropee"))
    refuses("'beta_fast'", lambda: common.build("yarn", beta_fats=3), TypeError)
    words = {"dim": "head_dim", "rope_theta": "base", "max_position_embeddings": "train_length"}
    for of_others, meant in words.items():
        wrong = {of_others: 8}
        refuses(f"mean '{meant}'", lambda wrong=wrong: posenc_jax.make("yarn", **wrong), TypeError)
    beneath = {"name": "rope", "bse": 1}
    refuses("'base'", lambda: common.build("randomized", over=beneath), TypeError)


def test_missing_arguments_are_named():
    refuses("head_dim=", lambda: posenc_jax.make("rope"))
    refuses(r"factor= \(how many", lambda: posenc_jax.make("yarn", head_dim=8, train_length=8))
    refuses("train_length=, rngs=", lambda: posenc_jax.make("learned", model_dim=8))
    refuses("grid=", lambda: posenc_jax.make("learned_2d", model_dim=8, rngs=nnx.Rngs(0)))


def test_a_keyword_may_be_a_number_of_numpy_or_jax():
    """It becomes a number of Python, because a gradient would change an array on the module."""
    factor = posenc_jax.make("pi", head_dim=8, factor=np.int64(4)).frequencies
    assert factor == PositionInterpolationFrequencies(4.0)
    over = {"name": "alibi", "slope_scale": np.array(0.5)}
    capped = posenc_jax.make("soft_cap", cap=jnp.array(5.0), over=over, num_heads=2)
    assert type(capped.cap) is float and not jax.tree.leaves(capped)


class Misspelt(posenc_jax.Encoding):
    def scores(self, logits_BHTS, pairs):
        return logits_BHTS - pairs.distance()


def test_a_misspelt_hook_is_refused(monkeypatch):
    monkeypatch.setitem(posenc_jax.REGISTRY, "misspelt", f"{__name__}:Misspelt")
    refuses("Misspelt.*hook", lambda: posenc_jax.make("misspelt"))
    refuses("Misspelt.*hook", lambda: attend(Misspelt()))
