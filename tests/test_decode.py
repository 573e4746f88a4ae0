"""Tokens read in pieces, past a cache, are tokens read at once; and what is generated so."""

import dataclasses
import functools

import common
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import posenc_jax
from posenc_jax.cache import Cache, Kept
from posenc_jax.encodings.rope import RoPE
from posenc_jax.rotary.positions import packed, text

B, T, SIZE = 2, 12, 15
TOKEN_IDS = np.random.default_rng(0).integers(0, common.VOCAB, (B, T)).astype(np.int32)


@functools.partial(jax.jit, donate_argnames="cache")
def extend(model, token_ids, positions, cache, segment_ids=None, length=None, encoding=None):
    """Logits of the next tokens, and the cache."""
    x_BTD, cache = model.extend(
        token_ids, positions, cache, segment_ids, length=length, encoding=encoding
    )
    return model.unembed(x_BTD), cache


@jax.jit
def forward(model, token_ids, positions, segment_ids=None, length=None, encoding=None):
    return model(token_ids, positions, segment_ids, length=length, encoding=encoding)


def used(cache):
    """``cache`` with numbers in its slots, as a previous sequence leaves behind."""
    return dataclasses.replace(cache, layers=jax.tree.map(lambda x: x + 7, cache.layers))


def in_pieces(model, cache, positions, segment_ids=None, pieces=(4, 4, 1, 1, 1, 1), **options):
    """Logits ``[B, T, V]``: two chunks, and token by token."""
    outputs, start = [], 0
    for count in pieces:
        now = slice(start, start + count)
        segments = None if segment_ids is None else segment_ids[:, now]
        output, cache = extend(
            model, TOKEN_IDS[:, now], positions[..., now], cache, segments, **options
        )
        outputs.append(output)
        start += count
    return jnp.concatenate(outputs, axis=1)


def close(actual, expected, tolerance=1e-4):
    np.testing.assert_allclose(actual, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", common.one_of_each_program())
def test_in_pieces_or_at_once(name):
    model = common.build_model(name, scan=True)
    cache = used(Cache.empty(model, B, SIZE))
    expected = forward(model, TOKEN_IDS, text(T), length=T)
    close(in_pieces(model, cache, text(T), length=T), expected)


ADAPTIVE = ["dynamic_pi", "dynamic_ntk", "dynamic_yarn", "longrope", "longrope2"]


@pytest.mark.parametrize(
    ("name", "keywords", "other"),
    [("randomized", {}, 2 * T), *((name, {"train_length": 8}, 8) for name in ADAPTIVE)],
)
def test_every_step_turns_all_keys_by_the_length_it_has(name, keywords, other):
    """From below the training length to past it, one step after another."""
    model = common.build_model(common.build(name, **keywords), num_layers=1)
    steps = in_pieces(model, Cache.empty(model, B, SIZE), text(T))
    for t in range(8, T + 1):
        expected = forward(model, TOKEN_IDS, text(T), length=t)
        close(steps[:, t - 1], expected[:, t - 1])
    elsewhere = forward(model, TOKEN_IDS, text(T), length=other)
    assert float(abs(expected - elsewhere)[:, -1].max()) > 1e-3


@pytest.mark.parametrize("scan", [False, True])
@pytest.mark.parametrize("name", ["irope", "rnope_swa", "dual_base"])
def test_patterns_with_windows(name, scan):
    window = {} if name == "irope" else {"window": 3}
    layers = posenc_jax.make(name, head_dim=common.HEAD_DIM, interval=2, **window)
    model = common.build_model(layers, num_layers=4, num_kv_heads=2, scan=scan, remat=scan)
    expected = forward(model, TOKEN_IDS, text(T))
    close(in_pieces(model, Cache.empty(model, B, SIZE), text(T)), expected)


@pytest.mark.parametrize("scan", [False, True])
def test_pattern_of_layers_that_read_and_layers_that_do_not(scan):
    gates = common.build("fox", num_layers=4)
    pattern = [gates, common.build("alibi"), gates]
    model = common.build_model(pattern, num_layers=6, scan=scan)
    cache = Cache.empty(model, B, SIZE)
    assert [kept.x is not None for kept in cache.layers] == [True, False, True]
    close(in_pieces(model, cache, text(T)), forward(model, TOKEN_IDS, text(T)))


@pytest.mark.parametrize("name", ["dynamic_ntk", "fox", "path", "selective_rope", "cope"])
def test_packed_documents(name):
    """The second starts within a piece; each has a length of its own."""
    segment_ids = np.array([[5] * 6 + [3] * 6, [1] * 10 + [2] * 2], np.int32)
    train_length = {"train_length": 4} if name == "dynamic_ntk" else {}
    encoding = common.build(name, num_layers=1, **train_length)
    model = common.build_model(encoding, num_layers=1)
    positions = packed(segment_ids)
    cache = Cache.empty(model, B, SIZE, segments=True)
    steps = in_pieces(model, cache, positions, segment_ids)
    for row, ends in enumerate([(6, 12), (10, 12)]):
        for start, end in zip((0, *ends), ends, strict=False):
            alone = TOKEN_IDS[row : row + 1, start:end]
            expected = forward(model, alone, text(end - start))
            close(steps[row, end - 1], expected[0, -1])


def test_several_axes_and_fractions_of_positions():
    model = common.build_model(RoPE(head_dim=common.HEAD_DIM, axes=(0, 1, 1, 0)))
    positions = np.random.default_rng(0).uniform(-9, 9, (2, B, T)).astype(np.float32)
    cache = Cache.empty(model, B, SIZE, axes=2, dtype="float32")
    close(in_pieces(model, cache, positions), forward(model, TOKEN_IDS, positions))


def test_under_another_encoding():
    model, other = common.build_model("rope"), common.build("fox", num_layers=common.LAYERS)
    cache = Cache.empty(model, B, SIZE, encoding=other)
    expected = forward(model, TOKEN_IDS, text(T), encoding=other)
    close(in_pieces(model, cache, text(T), encoding=other), expected)


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit])
@pytest.mark.parametrize("name", ["rope", "fox", "path"])
def test_on_a_mesh(name, kind):
    """Sequences over one axis, and kv heads over the other where XLA may move them there."""
    model = common.build_model(name, scan=True)
    expected = forward(model, TOKEN_IDS, text(T))
    mesh = jax.make_mesh((2, 4), ("data", "model"), axis_types=(kind,) * 2)
    heads = "model" if kind is AxisType.Auto else None

    def place(tree, *spec):
        return jax.device_put(tree, NamedSharding(mesh, PartitionSpec(*spec)))

    def place_layer(kept):
        k, v = place((kept.k, kept.v), None, "data", None, heads)
        return Kept(k, v, place(kept.x, None, "data"))

    with jax.set_mesh(mesh):
        model, cache = place(model), Cache.empty(model, B, SIZE)
        layers = tuple(map(place_layer, cache.layers))
        cache = Cache(layers, place(cache.positions, "data"), None, place(cache.count))
        steps, start = [], 0
        for count in (8, 1, 1, 1, 1):
            now = slice(start, start + count)
            output, cache = extend(model, place(TOKEN_IDS[:, now], "data"), text(T)[:, now], cache)
            kept = cache.layers[0].k
            assert kept.sharding.is_equivalent_to(layers[0].k.sharding, kept.ndim)
            steps.append(output)
            start += count
    close(np.concatenate(jax.device_get(steps), axis=1), expected)


def test_a_donated_cache_is_written_in_place():
    model = common.build_model("rope")
    cache = Cache.empty(model, B, SIZE)
    before = cache.layers[0].k.unsafe_buffer_pointer()
    _, after = extend(model, TOKEN_IDS, text(T), cache)
    assert cache.layers[0].k.is_deleted()
    assert after.layers[0].k.unsafe_buffer_pointer() == before


def test_full():
    model = common.build_model("rope")
    cache = Cache.empty(model, B, T)
    _, cache = extend(model, TOKEN_IDS[:, :-1], text(T - 1), cache)
    with pytest.raises(ValueError, match=r"size=12 with 11 tokens has no room for 2 more.*size=13"):
        model.extend(TOKEN_IDS[:, :2], text(2), cache)
    with pytest.raises(ValueError, match="no room for 13 more"):
        extend(model, np.zeros((B, 13), np.int32), text(13), cache)
    output, _ = extend(model, TOKEN_IDS[:, :2], text(2), cache)
    assert np.isnan(output).all(), "where the count is not known, no number"


def test_what_the_cache_was_not_made_for():
    model = common.build_model("rope")
    cache = Cache.empty(model, B, T)
    for positions in (text(T).astype(np.float32), np.zeros((2, B, T), np.int32)):
        with pytest.raises(ValueError, match=r"made for int32 with 2; pass axes= and dtype="):
            model.extend(TOKEN_IDS, positions, cache)
    with pytest.raises(ValueError, match=r"segment_ids are given.*segments=False"):
        model.extend(TOKEN_IDS, text(T), cache, TOKEN_IDS)
    with pytest.raises(ValueError, match=r"segment_ids are not given.*segments=True"):
        model.extend(TOKEN_IDS, text(T), Cache.empty(model, B, T, segments=True))
    for other in ([common.build("rope"), common.build("nope")], common.build("fox", num_layers=2)):
        with pytest.raises(ValueError, match=r"a pattern of 1 encodings.*pass the same encoding="):
            model.extend(TOKEN_IDS, text(T), cache, encoding=other)
    for sizes in ((0, T), (B, 0)):
        with pytest.raises(ValueError, match="=0 must be at least 1"):
            Cache.empty(model, *sizes)
