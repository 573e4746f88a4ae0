"""Compares attention in tiles with all logits at once, and its gradients with JAX's own."""

import functools

import common
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from attention_cases import TILED, WRITTEN, B, T, by, close, close_gradients, of_documents, sides

import posenc_jax
from posenc_jax.attention.blockwise import blockwise, take_apart
from posenc_jax.attention.visits import visits
from posenc_jax.positions import text

in_order = functools.partial(of_documents, order=WRITTEN)


def test_with_the_flags_that_users_have():
    encoding = common.build("shaw", num_kv_heads=2)
    static = dict(static_argnums=0, static_argnames="order")
    usual = jax.jit(of_documents.__wrapped__, **static, compiler_options=common.USUAL_FLAGS)
    actual = usual(TILED, encoding, *sides(), order=WRITTEN)
    close(actual, in_order(by("dense"), encoding, *sides()))


def test_tiles_in_which_all_keys_are_far():
    """The nearest key is at the distance from which none has a bias, or one nearer."""
    encoding = common.build("inkling", num_kv_heads=2, extent=6)
    attend = by(functools.partial(blockwise, block=8))
    for gap in (4, 5):
        positions = np.broadcast_to(np.arange(T) + gap * (np.arange(T) // 8), (B, T))
        expected = in_order(by("dense"), encoding, *sides(), positions)
        close(in_order(attend, encoding, *sides(), positions), expected)


def test_bfloat16():
    encoding = common.build("shaw", num_kv_heads=2)
    exact = in_order(by("dense"), encoding, *sides())
    (_, output), gradients = in_order(TILED, encoding, *sides(dtype=jnp.bfloat16))
    assert output.dtype == gradients[1].dtype == jnp.bfloat16
    rounded_sides = (output, *gradients[1:])
    for rounded, number in zip(rounded_sides, (exact[0][1], *exact[1][1:]), strict=True):
        error = np.abs(rounded.astype(np.float32) - number).mean() / np.abs(number).mean()
        assert error < 2e-2


def test_queries_and_keys_of_different_lengths():
    """Some of the heads attend, not causally, under a scale that is an array with a gradient."""
    encoding, heads = common.build("t5", bidirectional=True), jnp.array([3, 1])
    q, k, v = sides(num_kv_heads=4, q_length=21)

    @functools.partial(jax.jit, static_argnums=0)
    def value_and_gradients(attend, *arguments):
        def loss(encoding, q, k, v, scale):
            here, there = (encoding.at(text(n)).of_heads(heads, common.HEADS) for n in (21, T))
            q, k, v = (x[:, :, heads] for x in (q, k, v))
            out = attend(here, q, there.keys(k, v), causal=False, scale=scale)
            return (out**2).sum()

        return jax.value_and_grad(loss, argnums=(0, 1, 2, 3, 4))(*arguments)

    expected, actual = (
        value_and_gradients(attend, encoding, q, k, v, jnp.asarray(0.3))
        for attend in (by("dense"), TILED)
    )
    close_gradients(actual, expected)


def test_a_scan_over_layers_of_different_windows():
    """The window is traced, as it is for Gemma's layers under one scan."""
    encoding, (q, k, v) = common.build("alibi"), sides(4)
    windows = np.array([3, T, 9], np.int32)

    def layer(encoding, x, window):
        here = encoding.at(text(T))
        return x + TILED(here, x, k, v, window=window)

    def scanned(encoding, q):
        q, _ = jax.lax.scan(lambda x, window: (layer(encoding, x, window), None), q, windows)
        return (q**2).sum()

    def one_by_one(encoding, q):
        for window in windows.tolist():
            q = layer(encoding, q, window)
        return (q**2).sum()

    actual, expected = (
        jax.jit(jax.value_and_grad(run, argnums=1))(encoding, q) for run in (scanned, one_by_one)
    )
    close_gradients(actual, expected)


def lowered_for(platform, length):
    """Returns the program of a gradient of attention that this host makes for ``platform``."""
    encoding = common.build("t5")

    def loss(q, k, v):
        return posenc_jax.attend(encoding.at(text(length)), q, k, v).sum()

    q = jax.ShapeDtypeStruct((1, length, common.HEADS, 64), jnp.float32)
    program = jax.jit(jax.grad(loss, argnums=(0, 1, 2)))
    return jax.export.export(program, platforms=[platform])(q, q, q).mlir_module()


@pytest.mark.parametrize("length", [64, 1024])  # dense and in tiles
def test_the_forms_of_a_cpu_are_not_in_a_program_for_a_tpu(length):
    """A CPU host exports the program that a TPU host would."""
    assert "optimization_barrier" in lowered_for("cpu", length)
    assert "optimization_barrier" not in lowered_for("tpu", length)


def visited(length, *, num_keys=None, window=None, segment_ids=None, block=64):
    """Returns how many of the tiles are computed."""
    counts = []

    def count(encoding, tile, v, rule):
        _, queries, keys, shared, _ = take_apart(encoding, tile, v, rule, block)
        blocks = (min(block, rows.tokens.count) for rows in (queries, keys))
        sides = visits(shared.rule, queries.tokens, keys.tokens, *blocks)
        counts.extend(int(number.sum()) for _, number in sides)
        return tile.q

    encoding, k = common.build("nope"), jnp.zeros((1, num_keys or length, 1, 8))
    q, here = k[:, :length], encoding.at(text(k.shape[1]), segment_ids)
    queries = here if num_keys is None else here.part(0, length)
    keys = here.keys(k, k)
    posenc_jax.attend(queries, q, keys, window=window, implementation=count)
    assert counts[0] == counts[1]
    return counts[0]


def test_tiles_that_nobody_sees_are_not_visited():
    assert visited(512) == 8 * 9 // 2
    assert visited(512, window=65) == 8 + 7
    assert visited(512, window=66) == 8 + 7 + 6
    assert visited(512, segment_ids=np.repeat([[0, 1]], 256, axis=1)) == 2 * (4 * 5 // 2)


def test_a_last_tile_that_adds_no_key_is_not_visited():
    """A cache with a free slot has one more tile, which begins within the one before it."""
    assert visited(128, num_keys=129) == visited(128) == 1 + 2
    assert visited(129) == 1 + 2 + 3


def temporaries(implementation, length):
    """Returns the bytes that XLA plans for a gradient of attention over ``length`` tokens."""
    encoding = common.build("t5")

    def loss(q):
        here = encoding.at(text(length))
        return posenc_jax.attend(here, q, q, q, implementation=implementation).sum()

    q = jax.ShapeDtypeStruct((1, length, common.HEADS, 64), jnp.float32)
    return jax.jit(jax.grad(loss)).lower(q).compile().memory_analysis().temp_size_in_bytes


def test_memory():
    """Memory is a fifth of dense attention's at most at 4096 tokens, and linear from there on."""
    at_4096 = temporaries("blockwise", 4096)
    assert 5 * at_4096 < temporaries("dense", 4096)
    assert temporaries("blockwise", 8192) < 2.1 * at_4096


def test_choice(monkeypatch):
    """Many tokens are computed in tiles, few at once; a scheme of whole rows takes more at once."""
    chosen = []

    def note(name):
        def run(encoding, tile, v, rule):
            chosen.append(name)
            return v[:, : tile.q.shape[1]]

        return run

    monkeypatch.setattr(posenc_jax.attention.cpu, "dense", note("dense"))
    monkeypatch.setattr(posenc_jax.attention, "blockwise", note("blockwise"))

    for name, q_length, k_length in (
        ("rope", 64, 64),
        ("rope", 1024, 1024),
        ("rope", 1, 4096),
        ("cope", 1024, 1024),
        ("cope", 2048, 2048),
    ):
        here = common.build(name).at(text(k_length))
        queries = here.part(k_length - q_length, q_length)
        attend = functools.partial(posenc_jax.attend, queries)
        q, k, v = sides(4, q_length, k_length)
        jax.eval_shape(attend, q, here.keys(k, v))
    assert chosen == ["dense", "blockwise", "dense", "dense", "blockwise"]
