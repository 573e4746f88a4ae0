"""Masks, windows to both sides and dropout hide the same weights in every implementation."""

import functools
import warnings

import common
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from attention_cases import TILED, B, by, close, seen, sides
from common import refuses

import posenc_jax
from posenc_jax.positions import text

T, H, PREFIX = 40, common.HEADS, 13
DRAWN = np.random.default_rng(5).random((B, H, T, T)) < 0.6
DRAWN[:, :, 3] = False  # a query that sees nothing
KEY = jax.random.key(7)


def of_prefix(q_index, k_index):
    """Shows each query the prefix, and what was written before it."""
    return (k_index <= q_index) | (k_index < PREFIX)


def in_blocks(table, q_index, k_index):
    """Shows a query the blocks of eight keys that a table says."""
    return table[q_index // 8, k_index // 8]


BLOCKS = jnp.asarray(np.random.default_rng(6).random((5, 5)) < 0.5)
AHEAD = np.arange(T)[:, None] - np.arange(T)
CHUNK = np.arange(T) // 9  # tiles of 16 tokens do not divide chunks
# A scheme, keywords of ``attend``, and the pairs of tokens that they show, [T, S] or more axes.
SHOWN = {
    "every head": ("shaw", dict(mask=DRAWN), DRAWN),
    "keys alone": ("shaw", dict(mask=DRAWN[:, :1, :1]), DRAWN[:, :1, :1]),
    "rows alone": ("shaw", dict(mask=DRAWN[0, 0]), DRAWN[0, 0]),
    "prefix": ("rope", dict(mask=of_prefix), (AHEAD >= 0) | (np.arange(T) < PREFIX)),
    "blocks": (
        "shaw",
        dict(mask=jax.tree_util.Partial(in_blocks, BLOCKS)),
        np.repeat(np.repeat(BLOCKS, 8, axis=0), 8, axis=1),
    ),
    "chunks": (
        "rope",
        dict(causal=True, window=posenc_jax.Chunks(9)),
        (CHUNK[:, None] == CHUNK) & (AHEAD >= 0),
    ),
    "beside a mask": (
        "fox",
        dict(causal=True, window=6, mask=DRAWN),
        DRAWN & (AHEAD < 6) & (AHEAD >= 0),
    ),
    "both sides": ("t5_both", dict(window=(3, 5)), (AHEAD <= 3) & (AHEAD >= -5)),
    "ahead": ("t5_both", dict(window=(None, 2)), AHEAD >= -2),
}


@functools.cache
def operands(name):
    if name == "t5_both":
        return common.build("t5", bidirectional=True), *sides()
    return common.build(name, num_kv_heads=2), *sides()


@functools.partial(jax.jit, static_argnums=(0, 1))
def _run(attention, static, encoding, q, k, v, traced):
    options = dict(static) | traced
    if "rate" in options:
        options["dropout"] = options.pop("rate"), options.pop("key")

    def loss(encoding, q, k, v):
        out = attention(seen(encoding, text(T)), q, k, v, **options)
        return (out**2).sum() + out[:, 3].sum(), out

    return jax.value_and_grad(loss, argnums=range(4), has_aux=True)(encoding, q, k, v)


def run(attention, name, mask=None, causal=False, **options):
    """Returns attention and its gradients; functions are static, arrays and keys are traced."""
    is_static = callable(mask) and not isinstance(mask, jax.tree_util.Partial)
    traced = {} if mask is None or is_static else {"mask": mask}
    options |= dict(causal=causal) | (dict(mask=mask) if is_static else {})
    if "rate" in options:
        traced["key"] = KEY
    return _run(attention, tuple(options.items()), *operands(name), traced)


by_dense = by("dense")


def of_every_pair(table):
    return np.broadcast_to(table, (B, H, T, T))


def written_out(here, q, k, v, *, mask, causal):
    """Attends as a textbook has it, with a mask of all pairs."""
    logits = posenc_jax.logits(here, q, k)
    weights = jnp.where(mask, jax.nn.softmax(jnp.where(mask, logits, -1e9)), 0)
    return posenc_jax.combine(here, weights, v)


@pytest.mark.parametrize("name", ["shaw", "value_rope"])
def test_a_mask_is_that_of_a_textbook(name):
    close(run(by_dense, name, DRAWN), run(written_out, name, DRAWN))


@pytest.mark.parametrize(("name", "options", "table"), SHOWN.values(), ids=SHOWN)
def test_what_is_shown(name, options, table):
    """A mask or a window of any kind shows what a mask of every pair shows."""
    expected = run(by_dense, name, of_every_pair(table))
    for attention in (by_dense, TILED, *([by("fused")] if name == "rope" else [])):
        close(run(attention, name, **options), expected)


def test_weights_of_some_heads_for_a_part_of_the_queries():
    """Made of ``logits``, weights of one's own are summed as ``attend`` sums its own."""

    @jax.jit
    def both(encoding, q, k, v):
        here = encoding.at(text(T)).of_heads(np.array([2, 3]), H)
        part, keys = here.part(T - 2, 2), here.keys(k, v)
        logits = posenc_jax.logits(part, q, keys)
        shown = np.tri(T, dtype=bool)[-2:]
        weights = jax.nn.softmax(jnp.where(shown[None, None], logits, -jnp.inf))
        return posenc_jax.combine(part, weights, keys), posenc_jax.attend(part, q, keys)

    q, k, v = (x[:, :, 2:] for x in sides(H))
    combined, usual = both(common.build("shaw"), q[:, -2:], k, v)
    np.testing.assert_allclose(combined, usual, atol=2e-5)


def test_a_function_reads_traced_arrays_and_the_order_of_a_part():
    encoding, q, k, v = operands("rope")
    here, lengths = encoding.at(text(T)), jnp.array([5, 20])

    @functools.partial(jax.jit, static_argnums=0)
    def last(attention, q, k, v, lengths):
        def shown(lengths, q_index, k_index):
            return (k_index <= q_index) & (k_index >= lengths[:, None, None, None])

        mask = jax.tree_util.Partial(shown, lengths)
        part = here.part(T - 7, 7)
        return attention(part, q[:, -7:], here.keys(k, v), mask=mask, causal=False)

    table = (AHEAD >= 0) & (np.arange(T) >= np.array(lengths)[:, None, None, None])
    (_, expected), _ = run(by_dense, "rope", of_every_pair(table))
    for attention in (by_dense, TILED):
        np.testing.assert_allclose(last(attention, q, k, v, lengths), expected[:, -7:], atol=1e-5)


def of_heads(q_index, k_index):
    """Shows each head the prefix, and other tokens before it."""
    heads = jnp.arange(H)[None, :, None, None]
    return (k_index <= q_index - heads) | (k_index < PREFIX)


@pytest.mark.parametrize("implementation", ["gather", "ulysses", "ring"])
def test_several_devices_take_a_mask_by_function_and_drop_the_same(implementation):
    options = dict(rate=0.3, window=(20, None))
    expected = run(by_dense, "t5_both", of_heads, **options)
    with jax.set_mesh(common.mesh_of(context=2)):
        close(run(by(implementation), "t5_both", of_heads, **options), expected)
        refuses("mask", lambda: run(by(implementation), "t5_both", DRAWN))


# Dropout


def test_dropout_in_tiles_and_in_its_gradients():
    options = dict(window=(20, 30))
    expected = run(by_dense, "shaw", rate=0.4, **options)
    close(run(TILED, "shaw", rate=0.4, **options), expected)
    (_, whole), _ = run(by_dense, "shaw", **options)
    assert abs(expected[0][1] - whole).max() > 0.1


def test_weights_are_dropped_at_the_rate_and_independently():
    """Rows, heads, queries and keys all differ, and so does another key."""
    here, (q, k, _) = posenc_jax.make("nope").at(text(T)), sides(H)
    one_hot = jnp.broadcast_to(jnp.eye(T)[None, :, None], (B, T, H, T))

    @jax.jit
    def weights(key=None):
        dropout = key if key is None else (0.25, key)
        return posenc_jax.attend(here, q, k, one_hot, causal=False, dropout=dropout)

    whole = weights()
    ratio = np.asarray(weights(KEY) / whole)
    left = ratio > 0
    np.testing.assert_allclose(ratio[left], 1 / 0.75, rtol=1e-5)
    assert abs(left.mean() - 0.75) < 4 * (0.25 * 0.75 / left.size) ** 0.5
    again, other = (weights(key) > 0 for key in (KEY, jax.random.key(8)))
    assert (left == again).all() and abs((left == other).mean() - 0.625) < 0.02
    for axis in range(4):
        shifted = np.roll(left, 1, axis=axis)
        assert abs((left == shifted).mean() - 0.625) < 0.03


def test_packed_documents_under_chunks():
    """Chunks count the tokens of each document from its first; a function reads the row's order."""
    half = T // 2
    twice = [jnp.concatenate([x, x], axis=1) for x in sides(4, half, half)]
    segments = np.repeat([[0, 1]], half, axis=1)
    here = posenc_jax.make("nope").at(posenc_jax.positions.packed(segments), segments)

    def without_10(q_index, k_index):
        return (k_index != 10) | (q_index == 10)

    def attend(**options):
        run = functools.partial(posenc_jax.attend, here, window=posenc_jax.Chunks(7), **options)
        return jax.jit(run)(*twice)

    for dropout in (None, (0.5, KEY)):
        first, second = np.split(attend(dropout=dropout), 2, axis=1)
        assert np.allclose(first, second, atol=1e-6) == (dropout is None)
    pairs = without_10(np.arange(T)[:, None], np.arange(T))
    np.testing.assert_allclose(attend(mask=without_10), attend(mask=pairs), atol=1e-5)


# Mistakes


@pytest.mark.parametrize(
    ("name", "fix"), [("t5", "bidirectional=True"), ("stick_breaking", "causal=True")]
)
def test_one_sided_schemes_refuse_later_keys(name, fix):
    _, *qkv = operands("t5_both")
    one_sided = common.build(name)
    for encoding in (one_sided, posenc_jax.make("soft_cap", over=one_sided, cap=5.0)):
        attend = functools.partial(posenc_jax.attend, encoding.at(text(T)), *qkv)
        refuses(f"causal=False.*{fix}", lambda attend=attend: attend(causal=False))


def test_absolute_schemes_without_embed_are_named_once():
    from posenc_jax.encodings.lib import added

    here, qkv = common.build("learned", train_length=T).at(text(T)), sides(4)
    added._WITHOUT_WARNING.clear()
    for time in range(2):
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            posenc_jax.attend(here, *qkv)
        assert len(said) == (time == 0)
