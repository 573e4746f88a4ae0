"""Tests encodings that are put over others."""

import common
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from common import close, far
from flax import nnx
from ml_collections import ConfigDict

import posenc_jax
from posenc_jax.encoding import Side
from posenc_jax.encodings.lib.wrapper import Wrapper
from posenc_jax.encodings.wrappers.on_axes import OnAxes
from posenc_jax.encodings.wrappers.soft_cap import SoftCap
from posenc_jax.positions import text

B, T = 2, 24


@pytest.mark.parametrize(("name", "over"), [("ssmax", {"name": "path", "rank": 3}), ("logn", "t5")])
def test_over_a_scheme_with_parameters(name, over):
    """Each layer has its own parameters where the inner or the outer scheme has such."""
    encoding = jax.eval_shape(lambda: common.build(name, num_layers=3, over=over, trained=False))
    shared = over == "t5"
    assert encoding.per_layer != shared
    assert all((p.shape[0] == 3) != shared for p in jax.tree.leaves(encoding))


@pytest.mark.parametrize(
    ("name", "axes", "read"), [("alibi_2d", (2, 0), [2, 0]), ("rope", (1,), 1)]
)
def test_a_scheme_on_some_axes_of_positions(name, axes, read):
    places = np.random.default_rng(0).integers(0, 9, (B, T, 3))
    x_BTD, inner = common.normal(0, B, T, common.WIDTH), common.build(name)
    on_axes = common.attention(OnAxes(inner, axes=axes), x_BTD, places)
    close(on_axes, common.attention(inner, x_BTD, places[..., read]))


def test_what_layers_share_is_in_one_encoding():
    """Otherwise its gradient would be cut in two."""
    lerope = common.build("lerope")
    sizes = dict(num_heads=common.HEADS, train_length=8, rngs=nnx.Rngs(0))
    scaled, other = (
        posenc_jax.make(name, over=lerope, num_layers=1, **sizes) for name in ("log_scale", "ssmax")
    )
    for pattern in ([scaled, other], [scaled, lerope]):
        common.refuses("LeRoPE", lambda pattern=pattern: posenc_jax.Layers(pattern))
    t5, rope = common.build("t5"), common.build("rope")
    for pattern in (lambda x: [x, SoftCap(over=x)], lambda x: [SoftCap(over=x), Wrapper(x)]):
        both = pattern(t5)
        common.refuses("T5", lambda both=both: common.build_model("nope").under(both))
        posenc_jax.Layers(pattern(rope))


def test_an_absolute_scheme_that_prepares_is_the_same_beneath():
    inner = common.build("learned", out_of_range="interpolate")
    x_BTD = common.normal(0, B, T, common.WIDTH)
    embedded = OnAxes(SoftCap(over=inner), axes=(0,)).at(text(T)).embed(x_BTD)
    close(embedded, inner.at(text(T)).embed(x_BTD))


def test_padding_may_have_the_largest_position():
    encoding = common.build("ssmax", over="nope")
    here = encoding.at(np.array([[0, 1, 2**31 - 1]]))
    side = Side(None, common.HEADS, is_query=True)
    ones = jnp.ones((1, 3, common.HEADS, common.HEAD_DIM))
    assert jnp.isfinite(encoding.rotate(ones, here.tokens, side)).all()


# Randomized positions


KEYS = [None, *(jax.random.key(seed) for seed in range(3))]


@jax.jit
def place(encoding, positions, key=None, length=None):
    return encoding.at(positions, length=length, key=key).tokens.positions


def test_real_positions_are_uniform_ascending_and_stay_in_their_range():
    encoding = common.build("random_float", over="nope", max_length=100)
    draws = np.stack([place(encoding, jnp.arange(90)[None], key)[0] for key in KEYS[1:]])
    assert (np.diff(draws) >= 0).all() and draws.min() >= 0 and draws.max() < 100
    assert (draws % 1 != 0).all() and abs(draws.mean() - 50) < 6
    assert not np.isclose(draws[0], draws[1]).all()


def test_every_subset_is_as_likely():
    encoding = common.build("randomized", over="nope", max_length=5)
    keys = jax.random.split(jax.random.key(0), 5000)
    pairs = jax.vmap(lambda key: encoding.at(text(2), key=key).tokens.positions[0])(keys)
    _, counts = np.unique(pairs, axis=0, return_counts=True)
    assert len(counts) == 10  # 5 choose 2, each about 500 times
    assert abs(counts - 500).max() < 120


def test_every_key_draws_anew():
    encoding, other = (
        common.build("randomized", over="nope", evaluation_seed=seed) for seed in (0, 1)
    )
    draws = [place(encoding, text(20), key) for key in KEYS]
    with jax.debug_nans(True):  # none is made on the way, also outside of a program
        np.testing.assert_array_equal(draws[0], encoding.at(text(20)).tokens.positions)
    for i, one in enumerate(draws):
        assert not any((one == other).all() for other in draws[:i])
    assert (place(other, text(20)) != draws[0]).any()
    np.testing.assert_array_equal(place(other, text(20), KEYS[1]), draws[1])


def test_the_length_decides_how_many_are_drawn():
    encoding = common.build("randomized", over="nope", max_length=64)
    drawn = place(encoding, text(10), length=jnp.full((1, 1), 64))
    np.testing.assert_array_equal(drawn[0], np.arange(10))
    assert (place(encoding, text(10))[0] != np.arange(10)).any()


def test_positions_outside_the_draw():
    encoding = common.build("randomized", over="nope", max_length=64)
    positions = jnp.array([[-1.0, 0.0, 2.5, 9.0, 10.0]])
    drawn = place(encoding, positions, length=jnp.full((1, 1), 10))[0]
    np.testing.assert_array_equal(np.isnan(drawn), [True, False, True, False, True])
    for bad in (-1.0, 2.5, 10.0):
        common.refuses("position", lambda p=bad: encoding.at(np.array([[0.0, p]]), length=10))
    common.refuses("length", lambda: encoding.at(text(65)))


@pytest.mark.parametrize("name", ["randomized", "random_float"])
def test_a_scheme_beneath_adapts_to_the_length_of_the_text(name):
    """The length is given where positions are known to be text, and is found elsewhere."""
    inner = common.build("dynamic_ntk", train_length=8)
    encoding = common.build(name, over=inner, max_length=64)
    for positions in (text(T), jnp.asarray(text(T))):
        here = encoding.at(positions)
        beneath = encoding.inner.at(here.tokens.positions, length=T)
        assert not far(here.tokens.made, beneath.tokens.made)


def test_names_mappings_and_configs():
    rope = {"name": "rope", "base": 300.0, "layout": "interleaved"}
    for over in (rope, ConfigDict(rope), common.build("rope", base=300.0, layout="interleaved")):
        inner = common.build("randomized", over=over).inner
        assert (inner.base, inner.layout) == (300.0, "interleaved")
    # A table must hold what is drawn, whatever the training length.
    assert common.build("randomized", over="learned", max_length=99).inner.table.shape[0] == 99


def test_a_model_draws_in_training_only():
    model = common.build_model("randomized")
    tokens = np.arange(12)[None]
    run = jax.jit(lambda key: model(tokens, text(12), key=key))
    assert jnp.abs(run(KEYS[1]) - run(KEYS[2])).max() > 1e-3
    np.testing.assert_array_equal(run(None), run(None))
