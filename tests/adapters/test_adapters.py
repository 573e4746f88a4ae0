"""Tests encodings in the attention layers of Flax itself."""

import functools

import common
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from common import close
from flax import linen as nn
from flax import nnx

import posenc_jax
from posenc_jax.encoding import Encoding
from posenc_jax.positions import text

B, T, H, C, D = 2, 12, common.HEADS, common.HEAD_DIM, common.WIDTH
HOOKS = common.one_of_each_set_of_hooks()
IN_A_LAYER = [name for name in HOOKS if "embed" not in common.outline(name).hooks()]
SEGMENT_IDS = np.repeat([[0, 1], [2, 2]], T // 2, axis=1)
POSITIONS = np.stack([np.arange(T), np.arange(T)[::-1]]).astype(np.int32)


class Gated(Encoding):
    """Depends on the layer's input: what ``observe`` makes of it is added to queries."""

    def observe(self, x_BTD, tokens, state=None):
        return x_BTD[..., None, :C], ()

    def rotate(self, x_BTHC, tokens, side):
        return x_BTHC + tokens.made if side.is_query else x_BTHC


def residual(*batch) -> jax.Array:
    return jnp.asarray(common.normal(0, *(batch or (B,)), T, D))


def nnx_layer(attention_fn, **options):
    sizes = dict(num_heads=H, in_features=D, qkv_features=H * C)
    layer = nnx.MultiHeadAttention(
        **sizes, attention_fn=attention_fn, decode=False, rngs=nnx.Rngs(0), **options
    )
    return layer


def by_hand(layer, encoding, x_BTD, positions, segment_ids=None, **options):
    """Runs the same layer with our own ``attend`` in it."""
    tokens = encoding.tokens(positions, segment_ids).observed(encoding, x_BTD)
    q, k, v = (project(x_BTD) for project in (layer.query, layer.key, layer.value))
    return layer.out(posenc_jax.attend(encoding, q, k, v, tokens, **options))


@pytest.mark.parametrize("name", IN_A_LAYER[::4])
def test_in_the_layer_of_nnx(name):
    encoding = common.build(name)
    fn = posenc_jax.attention_fn(encoding, POSITIONS, SEGMENT_IDS, x=residual())
    layer = nnx_layer(fn)
    expected = jax.jit(by_hand)(layer, encoding, residual(), POSITIONS, SEGMENT_IDS)
    close(jax.jit(lambda layer, x: layer(x))(layer, residual()), expected)


@pytest.mark.parametrize("name", IN_A_LAYER[2::7])
def test_in_the_layer_of_linen(name):
    encoding = common.build(name)
    fn = posenc_jax.attention_fn(encoding, POSITIONS, SEGMENT_IDS, x=residual())
    sizes = dict(num_heads=H, qkv_features=H * C)
    layer = nn.MultiHeadDotProductAttention(**sizes, attention_fn=fn)
    output, variables = jax.jit(layer.init_with_output)(jax.random.key(0), residual())

    class ByHand(nn.Module):
        @nn.compact
        def __call__(self, x_BTD):
            q, k, v = (nn.DenseGeneral((H, C), name=n)(x_BTD) for n in ("query", "key", "value"))
            tokens = encoding.tokens(POSITIONS, SEGMENT_IDS)
            out = posenc_jax.attend(encoding, q, k, v, tokens, x=x_BTD)
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
    nothing = nnx_layer(posenc_jax.attention_fn(common.build("nope"), text(T), causal=False))
    layer = nnx.MultiHeadAttention(
        H, in_features=D, qkv_features=H * C, decode=False, rngs=nnx.Rngs(0)
    )
    close(nothing(residual()), layer(residual()))
    causal = nnx_layer(posenc_jax.attention_fn(common.build("nope"), text(T)))
    close(causal(residual()), layer(residual(), mask=nnx.make_causal_mask(jnp.ones((B, T)))))


def test_a_scheme_that_reads_the_input_asks_for_it():
    layer = nnx_layer(posenc_jax.attention_fn(Gated(), text(T)))
    common.refuses("x=x_BTD", lambda: layer(residual()))
    layer.init_cache((B, T, D))
    common.refuses("Gated", lambda: layer(residual()[:, :1], decode=True))
    layer = nnx_layer(posenc_jax.attention_fn(Gated(), text(T), x=residual()))
    close(layer(residual()), by_hand(layer, Gated(), residual(), text(T)))


def test_what_adds_to_embeddings_is_refused():
    """The layer would be one without positions, and nobody would know."""
    encoding = common.build("sinusoidal")
    common.refuses(r"encoding.embed\(x", lambda: posenc_jax.attention_fn(encoding, text(T)))


@pytest.mark.parametrize(("kind", "name"), [("nnx", "rope"), ("linen", "t5")])
def test_decoding_with_the_layers_own_cache(name, kind):
    """Decoding token after token gives what the whole sequence gives at once."""
    encoding, size = common.build(name), 5
    x_BTD, fn = residual()[:, :size], posenc_jax.attention_fn(encoding, text(size))
    if kind == "nnx":
        layer = nnx_layer(fn)
        whole = layer(x_BTD)
        layer.init_cache((B, size, D))
        steps = [layer(x_BTD[:, t : t + 1], decode=True) for t in range(size)]
    else:
        sizes = dict(num_heads=H, qkv_features=H * C, attention_fn=fn)
        whole, variables = nn.MultiHeadDotProductAttention(**sizes).init_with_output(
            jax.random.key(0), x_BTD
        )
        layer = nn.MultiHeadDotProductAttention(**sizes, decode=True)
        cache = layer.init(jax.random.key(0), x_BTD)["cache"]
        steps = []
        for t in range(size):
            step, changed = layer.apply(
                {**variables, "cache": cache}, x_BTD[:, t : t + 1], mutable=["cache"]
            )
            cache = changed["cache"]
            steps.append(step)
    close(np.concatenate(steps, axis=1), whole)


@pytest.mark.parametrize("window", [None, 2])
def test_slots_that_are_not_filled_are_never_seen(window):
    """Flax's mask hides them, also from a layer that sees later tokens elsewhere."""
    encoding, options = common.build("rope"), dict(causal=False, window=window)
    q, k, v = (jnp.asarray(common.normal(seed, B, 5, H, C)) for seed in range(3))
    fn = posenc_jax.attention_fn(encoding, text(5), **options)
    for count in (1, 3, 5):
        filled = (jnp.arange(5) < count)[None, None, None]
        step = fn(q[:, count - 1 : count], k, v, mask=filled)
        tokens = encoding.tokens(text(count))
        so_far = (x[:, :count] for x in (q, k, v))
        close(step, posenc_jax.attend(encoding, *so_far, tokens, **options)[:, -1:])


def test_another_mask_than_the_caches_gives_nan():
    """The mask is all that Flax tells of its cache, and it must be one of slots filled in order."""
    fn = posenc_jax.attention_fn(common.build("rope"), text(T))
    q, k = jnp.ones((B, 1, H, C)), jnp.ones((B, T, H, C))
    filled = jnp.arange(T)[None, None, None] < 3
    assert jnp.isfinite(fn(q, k, k, mask=filled)).all()
    assert jnp.isnan(fn(q, k, k, mask=filled.at[..., 1].set(False))).all()


def test_what_cannot_be_honoured_is_refused():
    fn = posenc_jax.attention_fn(common.build("rope"), text(T))
    q = jnp.zeros((B, T, H, C))
    mask = nnx.make_causal_mask(jnp.ones((B, T)))
    for word, bad in {
        "bias": jnp.zeros((1, H, T, T)),
        "precision": "highest",
        "dropout_rate": 0.1,
        "mask": mask[..., :5],
    }.items():
        common.refuses(word, lambda word=word, bad=bad: fn(q, q, q, **{word: bad}))
    fn(q, q, q, dropout_rate=0.1, deterministic=True)

    # Through the layers, which decide what they pass on.
    linen = nn.MultiHeadDotProductAttention(H, qkv_features=H * C, attention_fn=fn)
    run = functools.partial(linen.init, jax.random.key(0), residual(), sow_weights=True)
    common.refuses("sow_weights", run)
    common.refuses("k_tokens", lambda: nnx_layer(fn)(residual(), residual()[:, :5]))
    both_ways = posenc_jax.attention_fn(common.build("rope"), text(T), causal=False)
    common.refuses("is_causal", lambda: nnx_layer(both_ways)(residual(), is_causal=True))


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


def test_the_layer_of_flax_lm1b_with_its_defaults():
    """It is causal and padded, and drops attention weights, differently for each key."""
    fn = posenc_jax.attention_fn(common.build("rope"), text(T))
    options = dict(use_bias=False, broadcast_dropout=False, dropout_rate=0.1, attention_fn=fn)
    model = nn.MultiHeadDotProductAttention(num_heads=H, qkv_features=H * C, **options)
    variables = model.init(jax.random.key(0), residual(), mask=MASK, deterministic=True)

    @jax.jit
    def run(key):
        rngs = dict(dropout=key)
        return model.apply(variables, residual(), mask=MASK, deterministic=False, rngs=rngs)

    first, again, other = (run(jax.random.key(seed)) for seed in (1, 1, 2))
    assert (first == again).all() and abs(first - other).max() > 1e-2
    calm = model.apply(variables, residual(), mask=MASK, deterministic=True)
    mean = jax.jit(jax.vmap(run))(jax.random.split(jax.random.key(3), 4000)).mean(axis=0)
    np.testing.assert_allclose(mean, calm, atol=0.05)


def test_dropout_in_the_layer_of_nnx():
    fn = posenc_jax.attention_fn(common.build("alibi"), text(T))
    layer = nnx_layer(fn, dropout_rate=0.5)
    calm = layer(residual(), deterministic=True)
    first, again, other = (
        layer(residual(), deterministic=False, rngs=nnx.Rngs(seed)) for seed in (1, 1, 2)
    )
    close(first, again)
    assert abs(first - other).max() > 1e-2 and abs(first - calm).max() > 1e-2
