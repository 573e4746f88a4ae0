"""Tests encodings in the attention layers of Flax itself."""

import functools

import common
import jax
import jax.numpy as jnp
import numpy as np
import pages
import pytest
from common import close
from flax import linen as nn
from flax import nnx
from jax.lax import Precision

import posenc_jax
from posenc_jax.positions import text

B, T, H, C, D = 2, 12, common.HEADS, common.HEAD_DIM, common.WIDTH
SEGMENT_IDS = np.repeat([[0, 1], [2, 2]], T // 2, axis=1)
POSITIONS = np.stack([np.arange(T), np.arange(T)[::-1]]).astype(np.int32)


def residual(*batch) -> jax.Array:
    return jnp.asarray(common.normal(0, *(batch or (B,)), T, D))


def nnx_layer(attention_fn, **options):
    sizes = dict(num_heads=H, in_features=D, qkv_features=H * C, decode=False)
    options |= dict(attention_fn=attention_fn)
    return nnx.MultiHeadAttention(**sizes, **options, rngs=nnx.Rngs(0))


def by_hand(layer, encoding, x_BTD, positions, segment_ids=None, **options):
    """Runs the same layer with our own ``attend`` in it."""
    here = encoding.at(positions, segment_ids).see(x_BTD)[0]
    q, k, v = (project(x_BTD) for project in (layer.query, layer.key, layer.value))
    return layer.out(posenc_jax.attend(here, q, k, v, **options))


@pytest.mark.parametrize("name", ["rope", "deberta", "fox"])
def test_in_the_layer_of_nnx(name):
    encoding = common.build(name)
    fn = posenc_jax.attention_fn(encoding, POSITIONS, SEGMENT_IDS, x=residual())
    layer = nnx_layer(fn)
    expected = jax.jit(by_hand)(layer, encoding, residual(), POSITIONS, SEGMENT_IDS)
    close(jax.jit(lambda layer, x: layer(x))(layer, residual()), expected)


def test_in_the_layer_of_linen():
    encoding = common.build("fox")
    fn = posenc_jax.attention_fn(encoding, POSITIONS, SEGMENT_IDS, x=residual())
    sizes = dict(num_heads=H, qkv_features=H * C)
    layer = nn.MultiHeadDotProductAttention(**sizes, attention_fn=fn)
    output, variables = jax.jit(layer.init_with_output)(jax.random.key(0), residual())

    class ByHand(nn.Module):
        @nn.compact
        def __call__(self, x_BTD):
            q, k, v = (nn.DenseGeneral((H, C), name=n)(x_BTD) for n in ("query", "key", "value"))
            here = encoding.at(POSITIONS, SEGMENT_IDS)
            out = posenc_jax.attend(here, q, k, v, x=x_BTD)
            return nn.DenseGeneral(D, axis=(-2, -1), name="out")(out)

    close(output, jax.jit(ByHand().apply)(variables, residual()))


def test_parameters_train_with_the_layer_in_nnx():
    encoding = common.build("t5")
    layer = nnx_layer(posenc_jax.attention_fn(encoding, text(T)))
    weights = common.normal(1, B, T, D)
    # No leaf that is not a parameter: positions among them would stop jax.grad.
    gradient = jax.jit(jax.grad(lambda layer: (layer(residual()) * weights).sum()))(layer)
    expected = jax.jit(
        jax.grad(lambda encoding: (by_hand(layer, encoding, residual(), text(T)) * weights).sum())
    )(encoding)
    close(gradient.attention_fn.encoding.table[...], expected.table[...])
    assert np.abs(expected.table[...]).max() > 1e-2
    assert "attention_fn" in nnx.to_pure_dict(nnx.state(layer, nnx.Param))


def test_options_of_attend():
    encoding = common.build("alibi")
    for options in (dict(causal=False), dict(window=3), dict(scale=1.0)):
        layer = nnx_layer(posenc_jax.attention_fn(encoding, POSITIONS, **options))
        expected = by_hand(layer, encoding, residual(), POSITIONS, **options)
        close(layer(residual()), expected)
        assert np.abs(expected - by_hand(layer, encoding, residual(), POSITIONS)).max() > 1e-3
    drawn, key = common.build("randomized"), jax.random.key(0)
    layer, other = (nnx_layer(posenc_jax.attention_fn(drawn, text(T), key=k)) for k in (key, None))
    assert np.abs(layer(residual()) - other(residual())).max() > 1e-3


@pytest.mark.parametrize(("kind", "name"), [("nnx", "rope"), ("linen", "t5")])
def test_decoding_with_the_layers_own_cache(name, kind):
    """Decoding token after token gives what the whole sequence gives at once."""
    encoding, size = common.build(name), 3
    x_BTD, fn = residual()[:, :size], posenc_jax.attention_fn(encoding, text(size))
    if kind == "nnx":
        layer = nnx_layer(fn)
        whole = layer(x_BTD)
        layer.init_cache((B, size, D))
        steps = [layer(x_BTD[:, t : t + 1], decode=True) for t in range(size)]
    else:
        sizes, key = dict(num_heads=H, qkv_features=H * C, attention_fn=fn), jax.random.key(0)
        whole, variables = nn.MultiHeadDotProductAttention(**sizes).init_with_output(key, x_BTD)
        layer = nn.MultiHeadDotProductAttention(**sizes, decode=True)
        changed, steps = {"cache": layer.init(key, x_BTD)["cache"]}, []
        for t in range(size):
            token = x_BTD[:, t : t + 1]
            step, changed = layer.apply(variables | changed, token, mutable=["cache"])
            steps.append(step)
    close(np.concatenate(steps, axis=1), whole)


def test_what_is_refused():
    """The layer would be one without positions, or with other keys, and nobody would know."""
    fox, rope = common.build("fox"), common.build("rope")
    fn, q = posenc_jax.attention_fn(rope, text(T)), jnp.zeros((B, T, H, C))
    of_fox = nnx_layer(posenc_jax.attention_fn(fox, text(T), x=residual()))
    of_fox.init_cache((B, T, D))
    mask = nnx.make_causal_mask(jnp.ones((B, T)))
    for word, call in (
        ("x=", lambda: posenc_jax.attention_fn(fox, text(T))),
        ("embed", lambda: posenc_jax.attention_fn(common.build("sinusoidal"), text(T))),
        ("FoX", lambda: of_fox(residual()[:, :1], decode=True)),
        ("bias", lambda: fn(q, q, q, bias=jnp.zeros((1, H, T, T)))),
        ("hihgest", lambda: fn(q, q, q, precision="hihgest")),
        ("dropout=", lambda: fn(q, q, q, dropout_rate=0.1)),
        ("mask", lambda: fn(q, q, q, mask=mask[..., :5])),
    ):
        common.refuses(word, call)
    fn(q, q, q, dropout_rate=0.1, deterministic=True)


@pytest.mark.parametrize("precision", [None, *Precision])
def test_the_layers_own_precision(precision):
    """Flax's tests pass each one; products of gradients have it too, in long sequences as well."""
    long, sizes = 1024, (1, 1024, H, C)
    fn = posenc_jax.attention_fn(common.build("rope"), text(long))
    program = jax.make_jaxpr(jax.grad(lambda q: fn(q, q, q, precision=precision).sum()))
    printed, is_asked = str(program(jnp.ones(sizes))), precision not in (None, Precision.DEFAULT)
    assert printed.count("precision=") == (printed.count("dot_general[") if is_asked else 0)
    layer = nnx_layer(posenc_jax.attention_fn(common.build("nope"), text(T)), precision=precision)
    flax = nnx_layer(nnx.dot_product_attention, precision=precision)
    close(layer(residual()), flax(residual(), is_causal=True))


PADDING = np.arange(T) < np.array([[T], [7]])
# As Flax makes them: float32, with one head for all.
MASK = nn.combine_masks(
    nn.make_causal_mask(jnp.ones((B, T))), nn.make_attention_mask(PADDING, PADDING)
)


@pytest.mark.parametrize("name", ["nope", "fox"])
def test_the_layers_own_mask(name):
    """Without positions the layer is Flax's own, except for queries that see nothing."""
    encoding, x = common.build(name), residual()
    for causal in (True, False):
        layer = nnx_layer(posenc_jax.attention_fn(encoding, text(T), x=x, causal=causal))
        expected = by_hand(layer, encoding, x, text(T), mask=MASK.astype(bool))
        close(layer(x, mask=MASK), expected)
    if name == "nope":
        flax = nnx_layer(nnx.dot_product_attention)(x, mask=MASK)
        close(np.where(PADDING[..., None], flax, expected), expected)


def test_dropout_in_the_layer_of_nnx():
    fn = posenc_jax.attention_fn(common.build("alibi"), text(T))
    layer = nnx_layer(fn, dropout_rate=0.5)
    calm = layer(residual(), deterministic=True)
    first, again, other = (
        layer(residual(), deterministic=False, rngs=nnx.Rngs(seed)) for seed in (1, 1, 2)
    )
    close(first, again)
    assert abs(first - other).max() > 1e-2 and abs(first - calm).max() > 1e-2


# A cache of one's own


SIZE, K = 11, 2


@functools.cache
def page():
    """Returns the names of the page about caches, which takes long to run."""
    return pages.run("docs/how-to/decoding.md")


def layer_of(name):
    encoding = common.build(name, num_kv_heads=K)
    qkv = [common.normal(i, B, SIZE - 1, n, C) for i, n in enumerate((H, K, K), 1)]
    return encoding, [jnp.asarray(x) for x in (common.normal(0, B, SIZE - 1, D), *qkv)]


@pytest.mark.parametrize("name", ["rope", "fox", "path"])
def test_pieces_past_a_cache_are_the_whole_sequence(name):
    encoding, arrays = layer_of(name)
    x, *qkv = arrays
    here = encoding.at(text(SIZE - 1))
    whole = jax.jit(lambda x, *qkv: posenc_jax.attend(here, *qkv, x=x))(x, *qkv)
    begin = jax.jit(functools.partial(page()["begin"], encoding, SIZE))
    piece, cache = begin(*(y[:, :6] for y in arrays))
    pieces, start = [piece], 6
    run = jax.jit(functools.partial(page()["attend_to_past"], encoding))
    for count in (1, 1, 2):
        piece, cache = run(cache, *(y[:, start : start + count] for y in arrays))
        pieces.append(piece)
        start += count
    np.testing.assert_allclose(np.concatenate(pieces, axis=1), whole, atol=1e-5)


def test_a_cache_of_keys_that_rotate_again_is_refused():
    """Dynamic NTK rotates old keys by another length, and KV shift needs the key before."""
    for name in ("kv_shift", "dynamic_ntk"):
        encoding, arrays = layer_of(name)
        begin = functools.partial(page()["begin"], encoding, SIZE, *arrays)
        common.refuses("rotates all keys again", begin)


def test_compressed_keys_beside_those_of_a_window():
    """A query sees all blocks that have ended."""
    count, m, window = 14, 4, 5
    encoding = posenc_jax.make("value_rope", head_dim=C)
    q, keys = (
        common.normal(n, B, *s, C) for n, s in ((1, (count, 4)), (2, (count + count // m, 1)))
    )
    sinks = common.normal(3, 4)
    pieces = []
    for start in range(0, count, window):
        stop = min(start + window, count)
        rule = dict(window=window, sinks=jnp.asarray(sinks), implementation="blockwise")
        here, there = page()["both"](encoding, count, m, start, stop)
        both_keys = there.keys(jnp.asarray(keys), jnp.asarray(keys))
        pieces.append(posenc_jax.attend(here, jnp.asarray(q[:, start:stop]), both_keys, **rule))

    t, s, w = np.arange(count)[:, None], np.arange(count), np.arange(count // m)
    looked_at = np.concatenate([(s <= t) & (t - s < window), w < (t + 1) // m], axis=1)
    places = np.concatenate([s, m * w])[:, None, None] * 1e4 ** (-2 * np.arange(C // 2) / C)
    q, k = (x[..., 0::2] + 1j * x[..., 1::2] for x in (q, keys))
    q, k = q * np.exp(1j * places[:count]), (k * np.exp(1j * places))[:, :, 0]
    logits = np.einsum("bthp,bsp->bhts", q, k.conj()).real / np.sqrt(C)
    weights = np.where(looked_at, np.exp(logits), 0)
    weights /= weights.sum(-1, keepdims=True) + np.exp(sinks)[:, None, None]
    out = np.einsum("bhts,bsp->bthp", weights, k) * np.exp(-1j * places[:count])
    expected = np.stack([out.real, out.imag], axis=-1).reshape(B, count, 4, C)
    common.close(np.concatenate(pieces, axis=1), expected)
