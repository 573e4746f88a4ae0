"""Tests encodings that are put over others."""

import common
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from common import close, far
from flax import nnx

import posenc_jax
from posenc_jax import Side
from posenc_jax.encodings.lib.wrapper import Wrapper
from posenc_jax.encodings.wrappers.logit_scale import LogN, SSMax
from posenc_jax.encodings.wrappers.on_axes import OnAxes
from posenc_jax.encodings.wrappers.soft_cap import SoftCap
from posenc_jax.positions import text

B, T = 2, 24
TOKEN_IDS = np.arange(B * T, dtype=np.int32).reshape(B, T)


def test_whole_rows_are_needed_where_the_scheme_beneath_needs_them():
    assert common.build("logn", over="cope").whole_rows
    assert not common.build("logn", over="t5").whole_rows


@pytest.mark.parametrize(("name", "over"), [("ssmax", {"name": "path", "rank": 3}), ("logn", "t5")])
def test_over_a_scheme_with_parameters(name, over):
    """Each layer has its own parameters where the inner or the outer scheme has such."""
    encoding = common.build(name, num_layers=3, over=over)
    shared = (name, over) == ("logn", "t5")
    assert encoding.per_layer != shared
    assert all((p.shape[0] == 3) != shared for p in jax.tree.leaves(encoding))
    output = common.forward(common.build_model(encoding, num_layers=3), TOKEN_IDS, text(T))
    other = jax.tree.map(lambda p: p[::-1], encoding)
    assert far(output, common.forward(common.build_model(other, num_layers=3), TOKEN_IDS, text(T)))


@pytest.mark.parametrize(
    ("name", "axes", "read"), [("alibi_2d", (2, 0), [2, 0]), ("rope", (1,), 1)]
)
def test_a_scheme_on_some_axes_of_positions(name, axes, read):
    places = np.random.default_rng(0).integers(0, 9, (B, T, 3))
    x_BTD, inner = common.normal(0, B, T, common.WIDTH), common.build(name)
    on_axes = common.attention(OnAxes(inner, axes=axes), x_BTD, places)
    close(on_axes, common.attention(inner, x_BTD, places[..., read]))


def test_over_a_scheme_already_built():
    sizes = dict(train_length=8, rngs=nnx.Rngs(0))
    named = common.build("logn", over={"name": "pi", "factor": 2.0}, train_length=8)
    built = LogN(over=common.build("pi", factor=2.0), train_length=8)
    x_BTD = common.normal(0, B, T, common.WIDTH)
    close(*(common.attention(item, x_BTD, text(T)) for item in (named, built)))
    stacked = common.build("fox", num_layers=3)
    assert LogN(over=stacked, train_length=8).per_layer
    given = dict(num_heads=4, num_layers=3, over=stacked)
    common.refuses("over=", lambda: posenc_jax.make("ssmax", **given, **sizes))


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


@pytest.mark.parametrize("over", ["rope", "fox", "prope"])
@pytest.mark.parametrize("name", ["logn", "soft_cap", "randomized"])
def test_the_hooks_of_a_wrapper(name, over):
    """A wrapper has its hooks and those beneath; only what reads the layer's input asks for it."""
    given = {"soft_cap": "score", "randomized": "prepare"}.get(name, "rotate")
    encoding, inner = common.build(name, over=over), common.build(over)
    assert encoding.hooks() == inner.hooks() | {given}
    assert ("observe" in encoding.hooks()) == (over == "fox")


def test_a_soft_cap_over_a_logit_scale():
    """The cap comes last: it bounds what the logit scale made of the logits."""
    inner = common.build("logn", over="alibi")
    encoding = common.build("soft_cap", over=inner, cap=3.0)
    q, k = (common.normal(s, B, T, common.HEADS, common.HEAD_DIM) for s in range(2))
    capped, free = (
        posenc_jax.logits(item, q, k, item.tokens(text(T))) for item in (encoding, inner)
    )
    close(capped, 3 * np.tanh(free / 3))


def test_ssmax_starts_as_softmax_at_the_training_length():
    encoding = SSMax(num_heads=3, train_length=50, over=posenc_jax.Encoding())
    ones = jnp.ones((1, 3, 3, 1))
    tokens = encoding.tokens(np.array([[0, 49, 2499]]))
    side = Side(None, num_heads=3, num_kv_heads=3, is_query=True)
    close(encoding.rotate(ones, tokens, side)[0, :, 0, 0], [0, 1, 2])
