"""Tests layers that differ: windows, patterns of encodings, and what layers share."""

import functools

import common
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from common import close, far

import posenc_jax
from posenc_jax import Cache
from posenc_jax.encodings.rotary.frequencies.pi import PositionInterpolation
from posenc_jax.encodings.rotary.rope import RoPE
from posenc_jax.encodings.wrappers.logit_scale import Llama4Temperature
from posenc_jax.positions import text
from posenc_jax.registry import own_keywords

B, T = 2, 24
TOKEN_IDS = np.arange(B * T, dtype=np.int32).reshape(B, T)
UNUSED_ID = B * T + 3


# Windows


def test_a_window_is_a_mask():
    """There are several blocks of rows, whose first keys have left the window."""
    length, encoding = 300, common.build("path")
    q, k, v = (common.normal(s, B, length, common.HEADS, common.HEAD_DIM) for s in range(3))
    x_BTD = 0.5 * common.normal(3, B, length, common.WIDTH)
    segment_ids = np.repeat([[0, 1]], (110, 190), axis=1)

    def is_near(q_index, k_index):
        return q_index - k_index < 40

    @jax.jit
    def both(encoding, *qkv):
        attend = functools.partial(posenc_jax.attend, encoding.at(text(length), segment_ids), *qkv)
        return attend(x=x_BTD, window=40), attend(x=x_BTD, mask=is_near)

    close(*both(encoding, q, k, v), 1e-4, 1e-4)


def influence(layers, query=T - 1, **keywords):
    """Returns how much the logits of one token depend on each token of its row."""
    model = common.build_model(layers, **keywords)
    weights_BTV = np.zeros((B, T, common.VOCAB), np.float32)
    weights_BTV[0, query, UNUSED_ID] = 1.0
    _, gradients = common.loss_and_gradients(model, TOKEN_IDS, text(T), weights_BTV)
    return np.abs(gradients.embedding[...]).max(axis=-1)[TOKEN_IDS[0]]


def test_a_model_reaches_as_far_as_its_windows():
    rope, nope = common.build("rope"), common.build("nope")
    layers = posenc_jax.Layers([rope, nope], [5, 3])
    reach = 2 * (5 - 1) + 2 * (3 - 1)
    reached = influence(layers, num_layers=4, scan=True, remat=True) > 0
    np.testing.assert_array_equal(reached, np.arange(T) >= T - 1 - reach)


# Patterns


def rope(**keywords):
    return RoPE(head_dim=common.HEAD_DIM, **keywords)


def by_hand():
    """Returns the layers of patterns without golden arrays, as their papers say, and keywords."""
    near, still = rope(), posenc_jax.Encoding()
    rotating = rope(base=5e5, layout="interleaved")
    warm = Llama4Temperature(over=still, floor_scale=7)
    far = PositionInterpolation(head_dim=common.HEAD_DIM, base=1e6, factor=8.0)
    return {
        "irope": ([rotating] * 3 + [warm], [None] * 4, dict(floor_scale=7)),
        "rnope_swa": ([near] * 3 + [still], [6] * 3 + [None], dict(window=6)),
        "dual_base": ([near] * 5 + [far], [6] * 5 + [None], dict(window=6, global_factor=8.0)),
        "flint": (
            [still, still, near, near, near, still, still],
            [None, None, 6, 6, 6, None, None],
            dict(window=6, num_layers=7),
        ),
    }


def said(layers, count):
    """Returns encoding and window of each layer, in a form in which equal ones compare as equal."""
    pairs = map(layers.over(count).at, range(count))
    return [(jax.tree.structure(encoding), window) for encoding, window in pairs]


@pytest.mark.parametrize("name", by_hand())
def test_a_pattern_is_its_layers(name):
    encodings, windows, keywords = by_hand()[name]
    layers, count = common.build(name, **keywords), len(encodings)
    assert isinstance(layers, posenc_jax.Layers) and len(layers.pattern) == count
    assert said(layers, count) == said(posenc_jax.Layers(encodings, windows), count)
    common.refuses(f"pattern of {count}", lambda: common.build_model(layers))


def test_a_pattern_that_names_every_layer_under_scan():
    """Blocks run under several bases and windows, in a cache too."""
    near, far_away = rope(), PositionInterpolation(head_dim=common.HEAD_DIM, base=1e6, factor=8.0)
    layers = posenc_jax.Layers([near, near, far_away, near, far_away], [5, 5, None, 9, 7])

    @jax.jit
    def both(model):
        x_BTD, cache = model.extend(TOKEN_IDS[:, :9], Cache.empty(model, B, T))
        rest_BTD, _ = model.extend(TOKEN_IDS[:, 9:], cache)
        in_parts = model.unembed(jnp.concatenate([x_BTD, rest_BTD], 1))
        return model(TOKEN_IDS, text(T)), in_parts

    one, several = (common.build_model(layers, num_layers=5, scan=scan) for scan in (True, False))
    expected, _ = both(several)
    for actual in both(one):
        close(actual, expected)
    assert far(expected, common.forward(one.under([near] * 5), TOKEN_IDS, text(T)))


# Another value of each keyword.
USUAL = dict(base=100.0, interval=2, window=4)
ALTERNATIVES = {
    "irope": dict(base=100.0, interval=2, floor_scale=4, attn_scale=1.0),
    "rnope_swa": USUAL,
    "dual_base": dict(local_base=100.0, global_base=100.0, interval=3, window=4, global_factor=8.0),
    "global_nope": USUAL | dict(from_end=True, layout="interleaved"),
    "global_yarn": USUAL | dict(factor=2.0),
    "beam": USUAL | dict(scale=4.0, exponent=2.0),
    "flint": dict(base=100.0, window=4),
}
COUNTS = {"global_nope": {"num_layers": 6}, "beam": {"num_layers": 5}, "flint": {"num_layers": 7}}


@pytest.mark.parametrize("name", common.PATTERNS)
def test_every_keyword_of_a_pattern_matters(name):
    assert set(own_keywords(name)) == set(ALTERNATIVES[name])

    def layers(**keywords):
        return said(common.build(name, **COUNTS.get(name, {}) | keywords), 7)

    for keyword, value in ALTERNATIVES[name].items():
        assert layers() != layers(**{keyword: value}), keyword


def test_a_pattern_over_any_number_of_layers():
    """It is cut at the end, or at the start where it is counted from the end."""
    near, still = rope(), posenc_jax.Encoding()
    layers = posenc_jax.Layers([near, near, still], [5, 6, None])
    assert layers.over(5).windows == (5, 6, None, 5, 6)
    assert layers.over(5, from_end=True).windows == (6, None, 5, 6, None)
    assert layers.over(2, from_end=True).windows == (6, None)
    assert layers.over(4).at(3)[0] is near and layers.over(6).pattern == (0, 0, 1) * 2
    assert influence(layers.over(4), num_layers=4).min() > 0
