"""Tests layers that differ: windows, patterns of encodings, and what layers share."""

import common
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from schemes.equations import Alternative

import posenc_jax
from posenc_jax import Cache
from posenc_jax.encodings.rotary.frequencies import PositionInterpolation
from posenc_jax.encodings.rotary.rope import RoPE
from posenc_jax.encodings.wrappers.logit_scale import BeamScale, Llama4Temperature
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


@pytest.mark.parametrize(
    ("name", "window", "segments"),
    [("rope", 1, False), ("alibi", 40, True), ("path", 40, True), ("path", 200, False)],
)
def test_a_window_is_masking_by_hand(name, window, segments):
    """There are several blocks of rows, whose first keys have left the window."""
    length, encoding = 300, common.build(name)
    q, k, v = (common.normal(s, B, length, common.HEADS, common.HEAD_DIM) for s in range(3))
    x_BTD = 0.5 * common.normal(3, B, length, common.WIDTH)
    segment_ids = np.repeat([[0, 1]], (110, 190), axis=1) if segments else None

    @jax.jit
    def both(encoding):
        hidden, x = Hidden(encoding, window), jnp.asarray(x_BTD)
        tokens, same = (each.tokens(text(length), segment_ids) for each in (encoding, hidden))
        by_hand = posenc_jax.attend(hidden, q, k, v, same, x=x)
        return posenc_jax.attend(encoding, q, k, v, tokens, x=x, window=window), by_hand

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


# Patterns


def rope(**keywords):
    return RoPE(head_dim=common.HEAD_DIM, **keywords)


def irope_by_hand():
    turning, still = (
        rope(base=5e5, layout="interleaved"),
        Llama4Temperature(over=posenc_jax.Encoding(), floor_scale=7),
    )
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
    near, still = rope(), BeamScale(over=posenc_jax.Encoding())
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
def test_a_pattern_is_its_layers(name):
    by_hand, own, turn = BY_HAND[name]
    layers = common.build(name, **own)
    assert isinstance(layers, posenc_jax.Layers) and len(layers.pattern) == turn
    model, expected = (
        common.forward(common.build_model(each, num_layers=turn, scan=True), TOKEN_IDS, text(T))
        for each in (layers, by_hand())
    )
    close(model, expected, rtol=1e-5, atol=1e-5)


def test_a_pattern_that_names_every_layer_under_scan():
    """Blocks run under several bases and windows, in a cache too."""
    near, far_away = rope(), rope(base=1e6, frequencies=PositionInterpolation(8.0))
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
    assert [one.layer_at(n) for n in range(5)] == [layers.at(n) for n in range(5)]


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


@each_pattern
def test_every_keyword_of_a_pattern_matters(name):
    assert set(own_keywords(name)) == set(ALTERNATIVES[name])

    def layers(**own):
        count = BY_HAND[name][2]
        found = map(common.build(name, **own).over(count).at, range(count))
        return [(jax.tree.structure(encoding), window) for encoding, window in found]

    for keyword, other in ALTERNATIVES[name].items():
        one, two = (layers(**other.beside, **value) for value in ({}, {keyword: other.value}))
        assert one != two, keyword


@each_pattern
def test_bad_patterns(name):
    _, own, turn = BY_HAND[name]
    common.refuses(f"pattern of {turn}", lambda: common.build_model(common.build(name, **own)))
    if "interval" in own_keywords(name):
        common.refuses("interval=1", lambda: common.build(name, **own | {"interval": 1}))


def test_a_pattern_over_any_number_of_layers():
    """It is cut at the end, or at the start where it is counted from the end."""
    near, still = rope(), posenc_jax.Encoding()
    layers = posenc_jax.Layers([near, near, still], [5, 6, None])
    assert layers.over(5).windows == (5, 6, None, 5, 6)
    assert layers.over(5, from_end=True).windows == (6, None, 5, 6, None)
    assert layers.over(2, from_end=True).windows == (6, None)
    assert layers.over(4).at(3)[0] is near and layers.over(6).pattern == (0, 0, 1) * 2
    assert influence(layers.over(4), num_layers=4).min() > 0


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
        out = posenc_jax.attend(encoding, q, k, v, encoding.tokens(text(T)))
        x = x + of.out(out.reshape(B, T, -1))
        x = x + block.mlp(block.mlp_norm(x))
    return final_norm(x) @ embedding.T


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
