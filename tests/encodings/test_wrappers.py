"""Tests encodings that are put over others."""

import common
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import posenc_jax
from posenc_jax import Side
from posenc_jax.encodings.wrappers.logit_scale import LogN, SSMax
from posenc_jax.encodings.wrappers.soft_cap import SoftCap
from posenc_jax.encodings.wrappers.wrapper import Wrapper
from posenc_jax.positions import text

B, T = 2, 24
TOKEN_IDS = np.arange(B * T, dtype=np.int32).reshape(B, T)


def close(actual, expected, rtol=1e-5, atol=1e-5):
    np.testing.assert_allclose(actual, expected, rtol=rtol, atol=atol)


def far(actual, expected) -> bool:
    return float(jnp.abs(actual - expected).max()) > 1e-3


@pytest.mark.parametrize("name", common.one_of_each_kind()[::3])
def test_a_wrapper_that_changes_nothing(name):
    inner = common.build(name)
    x_BTD = 0.5 * common.normal(0, B, T, common.WIDTH)
    output = common.attention(Wrapper(inner), x_BTD, text(T))
    close(output, common.attention(inner, x_BTD, text(T)))
    for attribute in ("per_layer", "whole_rows", "stacked"):
        assert getattr(Wrapper(inner), attribute) == getattr(inner, attribute)
    assert Wrapper(inner).hooks() == inner.hooks()


@pytest.mark.parametrize(
    ("name", "over"), [("logn", "fox"), ("ssmax", {"name": "path", "rank": 3}), ("logn", "t5")]
)
def test_over_a_scheme_with_parameters(name, over):
    """Each layer has its own parameters where the inner or the outer scheme has such."""
    encoding = common.build(name, num_layers=3, over=over)
    shared = (name, over) == ("logn", "t5")
    assert encoding.per_layer != shared
    assert all((p.shape[0] == 3) != shared for p in jax.tree.leaves(encoding))
    output = common.forward(common.build_model(encoding, num_layers=3), TOKEN_IDS, text(T))
    other = jax.tree.map(lambda p: p[::-1], encoding)
    assert far(output, common.forward(common.build_model(other, num_layers=3), TOKEN_IDS, text(T)))


def test_over_a_scheme_already_built():
    sizes = dict(train_length=8, rngs=nnx.Rngs(0))
    named = common.build("logn", over={"name": "pi", "factor": 2.0}, train_length=8)
    built = LogN(over=common.build("pi", factor=2.0), train_length=8)
    x_BTD = common.normal(0, B, T, common.WIDTH)
    close(*(common.attention(each, x_BTD, text(T)) for each in (named, built)))
    stacked = common.build("fox", num_layers=3)
    assert LogN(over=stacked, train_length=8).per_layer
    with pytest.raises(ValueError, match=r"over=FoX\(...\) has parameters for each layer"):
        posenc_jax.make("ssmax", num_heads=4, num_layers=3, over=stacked, **sizes)


def test_what_layers_share_is_in_one_encoding():
    """Otherwise its gradient would be cut in two."""
    lerope = common.build("lerope")
    sizes = dict(num_heads=common.HEADS, train_length=8, rngs=nnx.Rngs(0))
    scaled, other = (
        posenc_jax.make(name, over=lerope, num_layers=1, **sizes) for name in ("log_scale", "ssmax")
    )
    for pattern in ([scaled, other], [scaled, lerope]):
        with pytest.raises(ValueError, match="two encodings of the pattern share a LeRoPE"):
            posenc_jax.Layers(pattern)
    t5, rope = common.build("t5"), common.build("rope")
    for pattern in (lambda x: [x, SoftCap(over=x)], lambda x: [SoftCap(over=x), Wrapper(x)]):
        with pytest.raises(ValueError, match=r"share a T5, .* or build another for"):
            common.build_model("nope").under(pattern(t5))
        posenc_jax.Layers(pattern(rope))


class Unsaid(Wrapper):
    def __init__(self, inner):
        self.inner = inner


@pytest.mark.parametrize("name", ["nope", "cope"])
def test_a_wrapper_says_what_it_wraps(name):
    """CoPE needs whole rows, and a wrapper that does not know it would cut them into tiles."""
    with pytest.raises(ValueError, match=r"Unsaid does not .*must call super\(\).__init__\(over\)"):
        Unsaid(common.build(name)).tokens(text(T))


class Unlike(Wrapper):
    """Overrides the hooks that the scheme beneath promises something about."""

    whole_rows = True

    def prepare(self, tokens, *, length=None, key=None):
        return super().prepare(tokens, length=length, key=key)

    def observe(self, x_BTD, tokens, state=None):
        return super().observe(x_BTD, tokens, state)

    def mix(self, out_BTHC, weights_BHTS, tile):
        return super().mix(out_BTHC, weights_BHTS, tile)


def test_what_a_scheme_promises_is_not_promised_of_the_hooks_above_it():
    """Else rows would be cut into tiles, with wrong numbers."""
    inner = common.build("inkling")
    outer = Unlike(inner)
    assert not inner.whole_rows and outer.whole_rows


@pytest.mark.parametrize("over", ["alibi", "path"])
def test_a_logit_scale_is_scaling_queries_by_hand(over):
    """There are several blocks of rows; biases added to the logits are not scaled."""
    length, inner = 300, common.build(over)
    q, k, v = (common.normal(s, B, length, common.HEADS, common.HEAD_DIM) for s in range(3))
    x_BTD = 0.5 * common.normal(3, B, length, common.WIDTH)
    factor = np.maximum(1, np.log(np.arange(1, length + 1)) / np.log(8))[:, None, None]

    @jax.jit
    def attend(encoding, q):
        tokens = encoding.tokens(text(length)).observed(encoding, jnp.asarray(x_BTD))
        return posenc_jax.attend(encoding, q, k, v, tokens)

    scaled = attend(LogN(over=inner, train_length=8), q)
    close(scaled, attend(inner, q * factor[None].astype(np.float32)), 1e-4, 1e-4)


@pytest.mark.parametrize("over", ["rope", "alibi", "fox", "prope", "randomized"])
@pytest.mark.parametrize("name", ["logn", "ssmax", "llama4_temperature", "soft_cap", "randomized"])
def test_the_hooks_of_a_wrapper(name, over):
    """A wrapper has its hooks and those beneath; only what reads the layer's input asks for it."""
    own = {"soft_cap": "score", "randomized": "prepare"}.get(name, "rotate")
    encoding, inner = common.build(name, over=over), common.build(over)
    assert encoding.hooks() == inner.hooks() | {own}
    assert ("observe" in encoding.hooks()) == (over == "fox")


def test_a_soft_cap_bounds_the_logits():
    """The cap bounds any logits; small ones stay, since ``tanh`` is near its argument at 0."""
    q, k = (30 * common.normal(s, B, T, common.HEADS, common.HEAD_DIM) for s in range(2))
    for over in ("nope", "alibi", "transformer_xl"):
        inner = common.build(over)
        free = np.asarray(posenc_jax.logits(inner, q, k, inner.tokens(text(T))), np.float64)
        for cap in (5.0, 50.0):
            encoding = SoftCap(over=inner, cap=cap)
            capped = posenc_jax.logits(encoding, q, k, encoding.tokens(text(T)))
            close(capped, cap * np.tanh(free / cap), 1e-4, 1e-4)
            assert np.abs(capped).max() <= cap < np.abs(free).max()


def test_a_soft_cap_over_a_logit_scale():
    """The cap comes last: it bounds what the logit scale made of the logits."""
    inner = common.build("logn", over="alibi")
    encoding = common.build("soft_cap", over=inner, cap=3.0)
    q, k = (common.normal(s, B, T, common.HEADS, common.HEAD_DIM) for s in range(2))
    capped, free = (
        posenc_jax.logits(each, q, k, each.tokens(text(T))) for each in (encoding, inner)
    )
    close(capped, 3 * np.tanh(free / 3))


def test_ssmax_knows_its_heads_in_a_shard():
    encoding = common.build("ssmax")
    q, k, v = (common.normal(s, B, T, common.HEADS, common.HEAD_DIM) for s in range(3))
    tokens = encoding.tokens(text(T))
    whole = posenc_jax.attend(encoding, q, k, v, tokens)
    some = np.array([2, 3])
    part = posenc_jax.HeadShard(encoding, jnp.array(some), common.HEADS)
    sides = (x[:, :, some] for x in (q, k, v))
    close(posenc_jax.attend(part, *sides, tokens), whole[:, :, some])


def test_ssmax_starts_as_softmax_at_the_training_length():
    encoding = SSMax(num_heads=3, train_length=50, over=posenc_jax.Encoding())
    ones = jnp.ones((1, 3, 3, 1))
    tokens = encoding.tokens(np.array([[0, 49, 2499]]))
    side = Side(None, num_heads=3, num_kv_heads=3, is_query=True)
    close(encoding.rotate(ones, tokens, side)[0, :, 0, 0], [0, 1, 2])


def test_bad_wrappers():
    one_axis = common.build("logn", over="axial_rope")
    tokens, q = one_axis.tokens(np.zeros((1, T, 2), np.int32)), jnp.ones((1, T, 2, 8))
    common.refuses("one position axis", lambda: posenc_jax.attend(one_axis, q, q, q, tokens))
    misspelt = lambda: LogN(over=posenc_jax.Encoding(), train_length=8, heads=2)  # noqa: E731
    common.refuses("'heads'", misspelt, TypeError)
