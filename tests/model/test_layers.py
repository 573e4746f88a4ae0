"""Tests layers that differ: windows, patterns of encodings, and encodings put over others."""

import common
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from schemes.equations import Alternative

import posenc_jax
from posenc_jax import Cache, Side, Tokens
from posenc_jax.encodings.rotary.frequencies import PositionInterpolation
from posenc_jax.encodings.rotary.rope import RoPE
from posenc_jax.encodings.wrappers.logit_scale import BeamScale, Llama4Temperature, LogN, SSMax
from posenc_jax.encodings.wrappers.soft_cap import SoftCap
from posenc_jax.encodings.wrappers.wrapper import Wrapper
from posenc_jax.positions import text
from posenc_jax.registry import own_keywords

B, T = 2, 24
TOKEN_IDS = np.arange(B * T, dtype=np.int32).reshape(B, T)
UNUSED_ID = B * T + 3


def close(actual, expected, rtol=1e-5, atol=1e-5):
    np.testing.assert_allclose(actual, expected, rtol=rtol, atol=atol)


def far(actual, expected) -> bool:
    return float(jnp.abs(actual - expected).max()) > 1e-3


# Windows


class Hidden(Wrapper):
    """Hides by hand what a window would."""

    def __init__(self, inner, window):
        super().__init__(inner)
        self.window = window

    def score(self, logits_BHTS, tile):
        q_index, k_index = tile.q_tokens.order(), tile.k_tokens.order()
        ago = q_index[:, None, :, None] - k_index[:, None, None, :]
        return jnp.where(ago < self.window, self.inner.score(logits_BHTS, tile), -jnp.inf)


@pytest.mark.parametrize("name", ["rope", "alibi", "path"])
@pytest.mark.parametrize("window", [1, 40, 200])
@pytest.mark.parametrize("segments", [False, True])
def test_a_window_is_masking_by_hand(name, window, segments):
    """There are several blocks of rows, whose first keys have left the window."""
    length, encoding = 300, common.build(name)
    q, k, v = (common.normal(s, B, length, common.HEADS, common.HEAD_DIM) for s in range(3))
    x_BTD = 0.5 * common.normal(3, B, length, common.WIDTH)
    segment_ids = np.repeat([[0, 1]], (110, 190), axis=1) if segments else None

    @jax.jit
    def both(encoding):
        tokens = Tokens.of(encoding, text(length), segment_ids)
        tokens = tokens.read(encoding, jnp.asarray(x_BTD))
        by_hand = posenc_jax.attend(Hidden(encoding, window), q, k, v, tokens)
        return posenc_jax.attend(encoding, q, k, v, tokens, window=window), by_hand

    actual, expected = both(encoding)
    close(actual, expected, 1e-4, 1e-4)
    if window == 1:
        close(actual, v)


def influence(layers, query=T - 1, **keywords):
    """Returns how much the logits of one token depend on each token of its row."""
    model = common.build_model(layers, **keywords)
    weights_BTV = np.zeros((B, T, common.VOCAB), np.float32)
    weights_BTV[0, query, UNUSED_ID] = 1.0
    _, gradients = common.loss_and_gradients(model, TOKEN_IDS, text(T), weights_BTV)
    return np.abs(gradients.embedding[...]).max(axis=-1)[TOKEN_IDS[0]]


@pytest.mark.parametrize("scan", [False, True])
def test_a_model_reaches_as_far_as_its_windows(scan):
    rope, nope = common.build("rope"), common.build("nope")
    layers = posenc_jax.Layers([rope, nope], [5, 3])
    reach = 2 * (5 - 1) + 2 * (3 - 1)
    seen = influence(layers, num_layers=4, scan=scan, remat=scan)
    assert (seen[T - 1 - reach :] > 0).all() and (seen[: T - 1 - reach] == 0).all()
    unbounded = posenc_jax.Layers([rope, nope], [5, None])
    assert (influence(unbounded, num_layers=4, scan=scan) > 0).all()


def test_bad_windows():
    rope = common.build("rope")
    # A loop over layers makes an array of their windows, which would cut or read what is no number.
    for window in (0, True, 4.5, "4", 2**31):
        with pytest.raises(ValueError, match=f"window={window!r} must be a whole number of keys"):
            posenc_jax.Layers([rope], [window])
    for window in (np.int64(4), jnp.int32(4)):
        assert posenc_jax.Layers([rope], [window]).windows == (4,)
    with pytest.raises(ValueError, match="got 2 encodings and 1 windows"):
        posenc_jax.Layers([rope, rope], [3])


# Patterns


def rope(**keywords):
    return RoPE(head_dim=common.HEAD_DIM, **keywords)


def irope_by_hand():
    turning, still = rope(base=5e5, layout="interleaved"), Llama4Temperature(floor_scale=7)
    return posenc_jax.Layers([turning, turning, turning, still])


def rnope_swa_by_hand():
    near = rope()
    return posenc_jax.Layers([near, near, near, posenc_jax.Encoding()], [6, 6, 6, None])


def dual_base_by_hand():
    near = rope()
    far_away = rope(base=1e6, frequencies=PositionInterpolation(8.0))
    return posenc_jax.Layers([near] * 5 + [far_away], [6] * 5 + [None])


def global_nope_by_hand():
    near, still = rope(), posenc_jax.Encoding()
    return posenc_jax.Layers([near, still, near, near, near, still], [6, None, 6, 6, 6, None])


def global_yarn_by_hand():
    near, far_away = rope(base=5e5), common.build("yarn", factor=8.0, base=5e5)
    return posenc_jax.Layers([near, near, near, far_away], [6, 6, 6, None])


def beam_by_hand():
    near, still = rope(), BeamScale()
    return posenc_jax.Layers([near, near, still, near, still], [6, 6, None, 6, None])


def flint_by_hand():
    near, still = rope(), posenc_jax.Encoding()
    encodings = [still, still, near, near, near, still, still]
    return posenc_jax.Layers(encodings, [None, None, 6, 6, 6, None, None])


BY_HAND = {
    "irope": (irope_by_hand, {"floor_scale": 7}, 4),
    "rnope_swa": (rnope_swa_by_hand, {"window": 6}, 4),
    "dual_base": (dual_base_by_hand, {"window": 6, "global_factor": 8.0}, 6),
    "global_nope": (global_nope_by_hand, {"window": 6, "num_layers": 6, "from_end": True}, 6),
    "global_yarn": (global_yarn_by_hand, {"window": 6}, 4),
    "beam": (beam_by_hand, {"window": 6, "num_layers": 5, "interval": 3}, 5),
    "flint": (flint_by_hand, {"window": 6, "num_layers": 7}, 7),
}
each_pattern = pytest.mark.parametrize("name", common.PATTERNS)


@each_pattern
@pytest.mark.parametrize("scan", [False, True])
def test_a_pattern_is_its_layers(name, scan):
    by_hand, own, turn = BY_HAND[name]
    layers = common.build(name, **own)
    assert isinstance(layers, posenc_jax.Layers) and len(layers.pattern) == turn
    model, expected = (
        common.forward(common.build_model(each, num_layers=2 * turn, scan=scan), TOKEN_IDS, text(T))
        for each in (layers, by_hand())
    )
    close(model, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_layers_that_differ_in_numbers_are_one_block():
    """Under scan one block runs under several bases and windows, in a cache too."""
    near, far_away = rope(), rope(base=1e6, frequencies=PositionInterpolation(8.0))
    layers = posenc_jax.Layers([near, near, far_away, near, far_away], [5, 5, None, 9, 7])

    @jax.jit
    def both(model):
        x_BTD, cache = model.extend(TOKEN_IDS[:, :9], Cache.empty(model, B, T))
        rest_BTD, _ = model.extend(TOKEN_IDS[:, 9:], cache)
        in_parts = model.unembed(jnp.concatenate([x_BTD, rest_BTD], 1))
        return model(TOKEN_IDS, text(T)), in_parts

    one, several = (common.build_model(layers, num_layers=5, scan=scan) for scan in (True, False))
    assert len(one.layers) == 1 and len(several.layers) == 5
    expected, _ = both(several)
    for actual in both(one):
        close(actual, expected)
    assert far(expected, common.forward(one.under([near] * 5), TOKEN_IDS, text(T)))
    assert [one.layer_at(n) for n in range(5)] == [layers.at(n) for n in range(5)]
    # What adapts to the length, chunks, and what does not turn run in programs of their own.
    others = [common.build("dynamic_ntk"), posenc_jax.Encoding(), rope(layout="interleaved")]
    assert not any(posenc_jax.Layers([near, other]).alike() for other in others)
    assert not posenc_jax.Layers([near, near], [posenc_jax.Chunks(4), None]).alike()


@each_pattern
def test_a_pattern_trains(name):
    """A step down the gradient lowers the loss, and no parameter is left out."""
    _, own, turn = BY_HAND[name]
    model = common.build_model(common.build(name, **own), num_layers=turn)
    weights_BTV = common.normal(0, B, T, common.VOCAB)
    before, gradients = common.loss_and_gradients(model, TOKEN_IDS, text(T), weights_BTV)
    assert all(np.abs(g).max() > 1e-3 for g in jax.tree.leaves(gradients))
    squares = sum(float((g**2).sum()) for g in jax.tree.leaves(gradients))
    model = jax.tree.map(lambda p, g: p - 0.01 * before / squares * g, model, gradients)
    after, _ = common.loss_and_gradients(model, TOKEN_IDS, text(T), weights_BTV)
    assert abs(after - 0.99 * before) < 0.005 * abs(before)


ALTERNATIVES = {
    "irope": {
        "base": Alternative(100.0),
        "interval": Alternative(2),
        "floor_scale": Alternative(4),
        "attn_scale": Alternative(1.0, beside={"floor_scale": 4}),
    },
    "rnope_swa": {
        "base": Alternative(100.0),
        "interval": Alternative(2),
        "window": Alternative(4),
    },
    "dual_base": {
        "local_base": Alternative(100.0),
        "global_base": Alternative(100.0),
        "global_factor": Alternative(8.0, beside={"global_base": 100.0}),
        "interval": Alternative(3),
        "window": Alternative(4),
    },
    "global_nope": {
        "base": Alternative(100.0, beside={"num_layers": 6}),
        "interval": Alternative(2, beside={"num_layers": 6}),
        "window": Alternative(4, beside={"num_layers": 6}),
        "from_end": Alternative(True, beside={"num_layers": 6}),
        "layout": Alternative("interleaved", beside={"num_layers": 6}),
    },
    "global_yarn": {
        "base": Alternative(100.0),
        "factor": Alternative(2.0),
        "interval": Alternative(2),
        "window": Alternative(4),
    },
    "beam": {
        "base": Alternative(100.0, beside={"num_layers": 5}),
        "interval": Alternative(2, beside={"num_layers": 5}),
        "window": Alternative(4, beside={"num_layers": 5}),
        "scale": Alternative(4.0, beside={"num_layers": 5}),
        "exponent": Alternative(2.0, beside={"num_layers": 5, "scale": 4.0}),
    },
    "flint": {
        "base": Alternative(100.0, beside={"num_layers": 7}),
        "window": Alternative(4, beside={"num_layers": 7}),
    },
}


@pytest.mark.slow
@each_pattern
def test_every_keyword_of_a_pattern_matters(name):
    assert set(own_keywords(name)) == set(ALTERNATIVES[name])
    for keyword, other in ALTERNATIVES[name].items():
        one, two = (
            common.build_model(
                common.build(name, **other.beside, **value), num_layers=BY_HAND[name][2]
            )
            for value in ({}, {keyword: other.value})
        )
        assert far(*(common.forward(m, TOKEN_IDS, text(T)) for m in (one, two))), keyword


@each_pattern
def test_bad_patterns(name):
    _, own, turn = BY_HAND[name]
    message = f"a pattern of {turn} encodings does not repeat evenly over 2 layers"
    with pytest.raises(ValueError, match=message):
        common.build_model(common.build(name, **own))
    if "interval" in own_keywords(name):
        with pytest.raises(ValueError, match="interval=1 must be at least 2"):
            common.build(name, **own | {"interval": 1})
        with pytest.raises(TypeError, match="has no keyword 'intervall', did you mean 'interval'"):
            common.build(name, intervall=4)
    if "num_layers" in own:
        with pytest.raises(ValueError, match=rf"make\('{name}', ...\) needs num_layers="):
            common.build(name)
    with pytest.raises(ValueError, match=rf"make\('{name}', ...\) needs head_dim="):
        posenc_jax.make(name)
    with pytest.raises(ValueError, match=f"over='{name}' must be an encoding, not a pattern"):
        common.build("logn", over=name)


def test_a_pattern_over_any_number_of_layers():
    """It is cut at the end, or at the start where it is counted from the end."""
    near, still = rope(), posenc_jax.Encoding()
    layers = posenc_jax.Layers([near, near, still], [5, 6, None])
    assert layers.over(5).windows == (5, 6, None, 5, 6)
    assert layers.over(5, from_end=True).windows == (6, None, 5, 6, None)
    assert layers.over(2, from_end=True).windows == (6, None)
    assert layers.over(4).at(3)[0] is near and layers.over(6).pattern == (0, 0, 1) * 2
    assert influence(layers.over(4), num_layers=4).min() > 0


# Over another encoding


@pytest.mark.parametrize("name", common.one_of_each_kind())
def test_a_wrapper_that_changes_nothing(name):
    inner = common.build(name)
    x_BTD = 0.5 * common.normal(0, B, T, common.WIDTH)
    output = common.attention(Wrapper(inner), x_BTD, text(T))
    close(output, common.attention(inner, x_BTD, text(T)))
    for attribute in ("per_layer", "whole_rows", "stacked"):
        assert getattr(Wrapper(inner), attribute) == getattr(inner, attribute)
    assert Wrapper(inner).hooks() == inner.hooks()


@pytest.mark.parametrize("name", ["logn", "ssmax"])
@pytest.mark.parametrize("over", ["fox", "transformer_xl", {"name": "path", "rank": 3}, "t5"])
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


@jax.jit
def by_hand(blocks, ends, lerope, scales):
    """Returns the logits of a decoder whose layers multiply queries before they turn, if they do.

    ``scales`` are s and b of each layer, ``ends`` the embedding and the last norm.
    """
    embedding, final_norm = ends
    x, logs = embedding[TOKEN_IDS], jnp.log(jnp.arange(1.0, T + 1))[None, :, None]
    for number, (block, (s, b)) in enumerate(zip(blocks, scales, strict=True)):
        encoding = lerope if (number + 1) % 4 else posenc_jax.Encoding()
        of, read = block.attention, block.attention_norm(x)
        q, k, v = (each(read).reshape(B, T, -1, common.HEAD_DIM) for each in (of.q, of.k, of.v))
        q = q * (s[None, None] * logs + b[None, None])[..., None]
        out = posenc_jax.attend(encoding, q, k, v, Tokens.of(encoding, text(T)))
        x = x + of.out(out.reshape(B, T, -1))
        x = x + block.mlp(block.mlp_norm(x))
    return final_norm(x) @ embedding.T


@pytest.mark.slow
@pytest.mark.parametrize("scan", [False, True])
def test_layers_with_a_scale_of_their_own_share_what_is_beneath(scan):
    """The gradient of the shared rates is that of all layers together."""
    lerope = common.build("lerope")
    turning = common.build("log_scale", over=lerope, num_layers=6, trained=False)
    still = common.build("log_scale", over="nope", num_layers=2)
    turning.s[...] += 0.1 * common.normal(5, 6, common.HEADS)
    pattern = posenc_jax.Layers([turning] * 3 + [still])
    sizes = dict(vocab_size=B * T, model_dim=common.WIDTH, num_heads=common.HEADS, num_layers=8)
    plain, model = (
        posenc_jax.Transformer(pattern, **sizes, scan=each, rngs=nnx.Rngs(0))
        for each in (False, scan)
    )
    places = [(still, n // 4) if n % 4 == 3 else (turning, n - n // 4) for n in range(8)]
    scales = [(each.s[row], each.b[row]) for each, row in places]
    blocks, ends = [layer.block for layer in plain.layers], (plain.embedding[...], plain.final_norm)
    weights = common.normal(6, B, T, B * T)

    def expected(lerope, scales):
        return (weights * by_hand(blocks, ends, lerope, scales)).sum()

    def found(model):
        return (weights * model(TOKEN_IDS, text(T))).sum()

    of_lerope, of_scales = jax.grad(expected, argnums=(0, 1))(lerope, scales)
    ours = jax.jit(jax.grad(found))(model).encodings[0]
    close(common.forward(model, TOKEN_IDS, text(T)), by_hand(blocks, ends, lerope, scales))
    close(ours.inner.alpha[...], of_lerope.alpha[...], rtol=1e-4, atol=1e-3)
    own = [gradients for number, gradients in enumerate(of_scales) if number % 4 != 3]
    for name, each in (("s", [s for s, _ in own]), ("b", [b for _, b in own])):
        close(getattr(ours, name)[...], jnp.stack(each), rtol=1e-4, atol=1e-3)
    extended, _ = model.extend(TOKEN_IDS, Cache.empty(model, B, T))
    close(model.unembed(extended), common.forward(model, TOKEN_IDS, text(T)), atol=1e-4)


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
        Tokens.of(Unsaid(common.build(name)), text(T))


class Unlike(Wrapper):
    """Overrides the hooks that the scheme beneath promises something about."""

    whole_rows = True

    def place(self, positions, key=None, length=None):
        return super().place(positions, key, length)

    def read(self, x_BTD, tokens):
        return super().read(x_BTD, tokens)

    def mix(self, out_BTHC, weights_BHTS, tile):
        return super().mix(out_BTHC, weights_BHTS, tile)


def test_what_a_scheme_promises_is_not_promised_of_the_hooks_above_it():
    """Else tiles would be cut or skipped, keys kept, and orders left out, with wrong numbers."""
    inner = common.build("inkling")
    outer = Unlike(inner)
    assert inner.extent and outer.extent is None
    assert not inner.whole_rows and outer.whole_rows
    assert inner.reads_order is False and outer.reads_order is None
    assert not inner.adapts and outer.adapts
    assert inner.resumes and not outer.resumes


@pytest.mark.parametrize("over", ["rope", "alibi", "fox", "path"])
def test_a_logit_scale_is_scaling_queries_by_hand(over):
    """There are several blocks of rows; biases added to the logits are not scaled."""
    length, inner = 300, common.build(over)
    q, k, v = (common.normal(s, B, length, common.HEADS, common.HEAD_DIM) for s in range(3))
    x_BTD = 0.5 * common.normal(3, B, length, common.WIDTH)
    factor = np.maximum(1, np.log(np.arange(1, length + 1)) / np.log(8))[:, None, None]

    @jax.jit
    def attend(encoding, q):
        tokens = Tokens.of(encoding, text(length)).read(encoding, jnp.asarray(x_BTD))
        return posenc_jax.attend(encoding, q, k, v, tokens)

    scaled = attend(LogN(over=inner, train_length=8), q)
    close(scaled, attend(inner, q * factor[None].astype(np.float32)), 1e-4, 1e-4)


@pytest.mark.parametrize("over", ["rope", "alibi", "fox", "prope", "randomized"])
@pytest.mark.parametrize("name", ["logn", "ssmax", "llama4_temperature", "soft_cap", "randomized"])
def test_the_hooks_of_a_wrapper(name, over):
    """A wrapper has its hooks and those beneath; only what reads the layer's input asks for it."""
    own = {"soft_cap": "score", "randomized": "place"}.get(name, "rotate")
    encoding, inner = common.build(name, over=over), common.build(over)
    assert encoding.hooks() == inner.hooks() | {own}
    assert ("read" in encoding.hooks()) == (over == "fox")


def test_a_soft_cap_bounds_the_logits():
    """The cap bounds any logits; small ones stay, since ``tanh`` is near its argument at 0."""
    q, k = (30 * common.normal(s, B, T, common.HEADS, common.HEAD_DIM) for s in range(2))
    for over in ("nope", "alibi", "transformer_xl"):
        inner = common.build(over)
        tokens = Tokens.of(inner, text(T))
        free = np.asarray(posenc_jax.logits(inner, q, k, tokens), np.float64)
        for cap in (5.0, 50.0):
            capped = posenc_jax.logits(SoftCap(over=inner, cap=cap), q, k, tokens)
            close(capped, cap * np.tanh(free / cap), 1e-4, 1e-4)
            assert np.abs(capped).max() <= cap < np.abs(free).max()


def test_a_soft_cap_over_a_logit_scale():
    """The cap comes last: it bounds what the logit scale made of the logits."""
    inner = common.build("logn", over="alibi")
    encoding = common.build("soft_cap", over=inner, cap=3.0)
    q, k = (common.normal(s, B, T, common.HEADS, common.HEAD_DIM) for s in range(2))
    capped, free = (
        posenc_jax.logits(each, q, k, Tokens.of(each, text(T))) for each in (encoding, inner)
    )
    close(capped, 3 * np.tanh(free / 3))


def test_ssmax_knows_its_heads_in_a_shard():
    encoding = common.build("ssmax")
    q, k, v = (common.normal(s, B, T, common.HEADS, common.HEAD_DIM) for s in range(3))
    tokens = Tokens.of(encoding, text(T))
    whole = posenc_jax.attend(encoding, q, k, v, tokens)
    some = np.array([2, 3])
    part = posenc_jax.HeadShard(encoding, jnp.array(some), common.HEADS)
    sides = (x[:, :, some] for x in (q, k, v))
    close(posenc_jax.attend(part, *sides, tokens), whole[:, :, some])


def test_ssmax_starts_as_softmax_at_the_training_length():
    encoding = SSMax(num_heads=3, train_length=50, rngs=nnx.Rngs(0), over=posenc_jax.Encoding())
    ones = jnp.ones((1, 3, 3, 1))
    tokens = Tokens.of(encoding, np.array([[0, 49, 2499]]))
    side = Side(None, num_heads=3, num_kv_heads=3, is_query=True)
    close(encoding.rotate(ones, tokens, side)[0, :, 0, 0], [0, 1, 2])


def test_bad_logit_scales():
    encoding, q = common.build("ssmax"), jnp.ones((1, T, 2, common.HEAD_DIM))
    with pytest.raises(ValueError, match="made for num_heads=4, but attention has 2 query heads"):
        posenc_jax.attend(encoding, q, q, q, Tokens.of(encoding, text(T)))
    encoding = common.build("logn", over="axial_rope")
    tokens = Tokens.of(encoding, np.zeros((1, T, 2), np.int32))
    with pytest.raises(ValueError, match=r"\(1, 24, 2\), .* knows one position axis"):
        posenc_jax.attend(encoding, q, q, q, tokens)
    for name in ("logn", "ssmax"):
        with pytest.raises(ValueError, match="train_length=1 must be at least 2"):
            common.build(name, train_length=1)
    with pytest.raises(ValueError, match="cap=0 must be a positive number"):
        common.build("soft_cap", cap=0)
    with pytest.raises(ValueError, match="floor_scale=0 must be at least 1, and a whole number"):
        common.build("llama4_temperature", floor_scale=0)
    with pytest.raises(ValueError, match="unknown encoding 'ropee', did you mean 'rope'"):
        common.build("logn", over="ropee")
    with pytest.raises(TypeError, match=r"unknown keyword 'heads': besides its own .*num_heads"):
        LogN(over=posenc_jax.Encoding(), train_length=8, heads=2)
