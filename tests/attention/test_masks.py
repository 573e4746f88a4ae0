"""Masks, windows to both sides and dropout hide the same weights in every implementation."""

import functools

import common
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from attention_cases import B, by, close, seen, sides
from common import refuses

import posenc_jax
from posenc_jax.attention.blockwise import blockwise
from posenc_jax.positions import text

T, H, PREFIX = 40, common.HEADS, 13
# The last of three blocks begins within the second.
TILED = functools.partial(blockwise, block=16)
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
PREFIX_TABLE = np.tri(T, dtype=bool) | (np.arange(T) < PREFIX)
# A mask, and what it says of every pair, [T, S] or more axes.
MASKS = {
    "every head": (DRAWN, DRAWN),
    "one for all heads": (DRAWN[:, :1], DRAWN[:, :1]),
    "keys alone": (DRAWN[:, :1, :1], DRAWN[:, :1, :1]),
    "rows alone": (DRAWN[0, 0], DRAWN[0, 0]),
    "prefix": (of_prefix, PREFIX_TABLE),
    "blocks": (
        jax.tree_util.Partial(in_blocks, BLOCKS),
        np.repeat(np.repeat(BLOCKS, 8, axis=0), 8, axis=1),
    ),
}


@functools.cache
def operands(name):
    if name == "t5_both":
        return common.build("t5", bidirectional=True), *sides(2, T, T)
    return common.build(name, num_kv_heads=2), *sides(2, T, T)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _run(attention, static, encoding, q, k, v, traced):
    options = dict(static) | traced
    if "rate" in options:
        options["dropout"] = options.pop("rate"), options.pop("key")

    def loss(encoding, q, k, v):
        out = attention(seen(encoding, text(T)), q, k, v, **options)
        return (out**2).sum() + out[:, 3].sum(), out

    return jax.value_and_grad(loss, argnums=range(4), has_aux=True)(encoding, q, k, v)


def run(attention, name, mask=None, **options):
    """Returns attention and its gradients; functions are static, arrays and keys are traced."""
    is_static = callable(mask) and not isinstance(mask, jax.tree_util.Partial)
    traced = {} if mask is None or is_static else {"mask": mask}
    if is_static:
        options["mask"] = mask
    if "rate" in options:
        traced["key"] = KEY
    return _run(attention, tuple(options.items()), *operands(name), traced)


by_dense, by_default, by_tiles = by("dense"), by(None), by(TILED)


def of_every_pair(table):
    return np.broadcast_to(table, (B, H, T, T))


def written_out(here, q, k, v, *, mask):
    """Attends as a textbook has it, with a mask of all pairs."""
    logits = posenc_jax.logits(here, q, k)
    weights = jnp.where(mask, jax.nn.softmax(jnp.where(mask, logits, -1e9)), 0)
    return posenc_jax.combine(here, weights, v)


@pytest.mark.parametrize("name", ["rope", "shaw", "value_rope"])
def test_a_mask_is_that_of_a_textbook(name):
    expected = run(written_out, name, DRAWN)
    for attention in (by_dense, by_tiles):
        close(run(attention, name, DRAWN, causal=False), expected)


@pytest.mark.parametrize("kind", MASKS)
def test_a_mask_of_any_kind_in_tiles(kind):
    given, table = MASKS[kind]
    expected = run(by_dense, "shaw", of_every_pair(table), causal=False)
    close(run(by_tiles, "shaw", given, causal=False), expected)


@pytest.mark.parametrize("implementation", ["dense", "fused"])
def test_a_mask_in_other_implementations(implementation):
    for given, table in (MASKS["every head"], MASKS["prefix"]):
        expected = run(by_dense, "rope", of_every_pair(table), causal=False)
        close(run(by(implementation), "rope", given, causal=False), expected)


def test_weights_of_some_heads_for_a_part_of_the_queries():
    """Made of ``logits``, weights of one's own are summed as ``attend`` sums its own."""
    encoding, (q, k, v) = common.build("shaw"), sides(H, T, T)
    q, k, v = (x[:, :, 2:] for x in (q[:, -2:], k, v))
    here = encoding.at(text(T)).of_heads(np.array([2, 3]), H)
    part, keys = here.part(T - 2, 2), here.keys(k, v)
    logits = posenc_jax.logits(part, q, keys)
    shown = np.tri(T, dtype=bool)[-2:]
    weights = jax.nn.softmax(jnp.where(shown[None, None], logits, -jnp.inf))
    combined = posenc_jax.combine(part, weights, keys)
    usual = posenc_jax.attend(part, q, keys)
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

    table = np.tri(T, dtype=bool) & (np.arange(T) >= np.array(lengths)[:, None, None, None])
    (_, expected), _ = run(by_dense, "rope", of_every_pair(table), causal=False)
    for attention in (by_dense, by_tiles):
        np.testing.assert_allclose(last(attention, q, k, v, lengths), expected[:, -7:], atol=1e-5)


@pytest.mark.parametrize("implementation", ["dense", "blockwise"])
def test_a_function_reads_the_order_of_the_row_beside_chunks_of_segments(implementation):
    def without_10(q_index, k_index):
        return (k_index != 10) | (q_index == 10)

    index = np.arange(T)
    encoding, segment_ids = common.build("nope"), (index >= 7)[None].astype(np.int32)
    here = encoding.at(text(T), segment_ids)
    attend = functools.partial(
        posenc_jax.attend, here, *sides(2, T, T), implementation=implementation
    )
    chunks = posenc_jax.Chunks(5)
    by_function = attend(window=chunks, mask=without_10)
    by_array = attend(window=chunks, mask=without_10(index[:, None], index))
    np.testing.assert_allclose(by_function, by_array, atol=1e-5)


def of_heads(q_index, k_index):
    """Shows each head the prefix, and other tokens before it."""
    heads = jnp.arange(H)[None, :, None, None]
    return (k_index <= q_index - heads) | (k_index < PREFIX)


@pytest.mark.parametrize("implementation", ["gather", "ulysses", "ring"])
def test_several_devices_take_a_mask_by_function_and_drop_the_same(implementation):
    options = dict(causal=False, rate=0.3, window=(20, None))
    expected = run(by_dense, "fox", of_heads, **options)
    with jax.set_mesh(common.mesh_of(context=2)):
        close(run(by(implementation), "fox", of_heads, **options), expected)
        refuses("mask", lambda: run(by(implementation), "fox", DRAWN, causal=False))


# Windows


AHEAD = np.arange(T)[:, None] - np.arange(T)
CHUNK = np.arange(T) // 9  # tiles of 16 tokens do not divide chunks
# A scheme, keywords of ``attend``, and the pairs of tokens that they show.
WINDOWS = {
    "chunks": ("rope", dict(window=posenc_jax.Chunks(9)), CHUNK[:, None] == CHUNK),
    "beside a mask": ("fox", dict(window=6, mask=DRAWN), DRAWN & (AHEAD < 6)),
    "both sides": ("t5_both", dict(window=(3, 5), causal=False), (AHEAD <= 3) & (AHEAD >= -5)),
    "ahead": ("t5_both", dict(window=(None, 2), causal=False), AHEAD >= -2),
    "behind": ("t5_both", dict(window=(4, None), causal=False), AHEAD <= 4),
}


@pytest.mark.parametrize(("name", "options", "table"), WINDOWS.values(), ids=WINDOWS)
def test_a_window_is_a_mask(name, options, table):
    table = table & (AHEAD >= 0) if options.get("causal", True) else table
    expected = run(by_dense, name, of_every_pair(table), causal=False)
    for attention in (by_dense, by_tiles, *([by("fused")] if name == "rope" else [])):
        close(run(attention, name, **options), expected)


# Dropout


@pytest.mark.parametrize("name", ["rope", "shaw"])
def test_dropout_in_tiles_and_in_its_gradients(name):
    options = dict(causal=False, window=(20, 30))
    expected = run(by_dense, name, rate=0.4, **options)
    for attention in (by_default, by_tiles) if name == "rope" else (by_tiles,):
        close(run(attention, name, rate=0.4, **options), expected)
    (_, whole), _ = run(by_dense, name, **options)
    assert abs(expected[0][1] - whole).max() > 0.1


def test_weights_are_dropped_at_the_rate_and_independently():
    """Rows, heads, queries and keys all differ, and so does another key."""
    encoding, (q, k, _) = operands("nope")[0], sides(4, T, T)
    one_hot = jnp.broadcast_to(jnp.eye(T)[None, :, None], (B, T, H, T))

    def weights(**options):
        here = encoding.at(text(T))
        return posenc_jax.attend(here, q, k, one_hot, causal=False, **options)

    whole = weights()
    ratio = np.asarray(weights(dropout=(0.25, KEY)) / whole)
    left = ratio > 0
    np.testing.assert_allclose(ratio[left], 1 / 0.75, rtol=1e-5)
    assert abs(left.mean() - 0.75) < 4 * (0.25 * 0.75 / left.size) ** 0.5
    again, other = (weights(dropout=(0.25, key)) > 0 for key in (KEY, jax.random.key(8)))
    assert (left == again).all() and abs((left == other).mean() - 0.625) < 0.02
    for axis in range(4):
        shifted = np.roll(left, 1, axis=axis)
        assert abs((left == shifted).mean() - 0.625) < 0.03


def test_packed_documents_drop_other_weights_under_chunks():
    """There the tokens of each document are counted from its first."""
    encoding, (q, k, v) = operands("nope")[0], sides(4, T // 2, T // 2)
    twice = [jnp.concatenate([x, x], axis=1) for x in (q, k, v)]
    segments = np.repeat([[0, 1]], T // 2, axis=1)
    here = encoding.at(posenc_jax.positions.packed(segments), segments)
    for dropped in (False, True):
        more = {"dropout": (0.5, KEY)} if dropped else {}
        out = posenc_jax.attend(here, *twice, window=posenc_jax.Chunks(T), **more)
        first, second = jnp.split(out, 2, axis=1)
        assert bool(jnp.allclose(first, second, atol=1e-6)) != dropped


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
    import warnings

    from posenc_jax.encodings.lib import added

    encoding, (q, k, v) = common.build("learned", train_length=T), sides(4, T, T)
    here = encoding.at(text(T))
    added._WITHOUT_WARNING.clear()
    with pytest.warns(UserWarning, match=r"here\.embed"):
        posenc_jax.attend(here, q, k, v)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        posenc_jax.attend(here, q, k, v)
        added._WITHOUT_WARNING.clear()
        here.embed(jnp.ones((B, T, common.WIDTH)))
        posenc_jax.attend(here, q, k, v)
