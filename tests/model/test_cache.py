"""Compares tokens that are read in pieces, past a cache, with tokens read at once."""

import dataclasses

import common
import jax
import numpy as np
import pytest
from pieces import SIZE, TOKEN_IDS, B, T, close, extend, in_pieces

import posenc_jax
from posenc_jax.encodings.wrappers.on_axes import OnAxes
from posenc_jax.model.cache import Cache
from posenc_jax.positions import packed, text


def used(cache):
    """Returns ``cache`` with numbers in its slots, as a previous sequence leaves behind."""
    return dataclasses.replace(cache, layers=jax.tree.map(lambda x: x + 7, cache.layers))


@pytest.mark.parametrize("scan", [False, True])
def test_the_cache_is_not_copied(scan):
    """A step of six layers needs memory for one layer beside the cache."""
    model = common.build_model("rope", num_layers=6, scan=scan)
    cache = Cache.empty(model, 1, 8192)
    size = sum(x.nbytes for x in jax.tree.leaves(cache))
    memory = extend.lower(model, TOKEN_IDS[:1], cache).compile().memory_analysis()
    assert memory.alias_size_in_bytes > 0.99 * size
    assert memory.temp_size_in_bytes < 0.7 * size


# ``test_kinds`` runs models under the other kinds.
@pytest.mark.parametrize(
    ("name", "pieces"),
    [(name, T * (1,)) for name in common.one_of_each_kind()[1::2]]
    + [(name, (6, 6)) for name in ("path", "cope", "dynamic_short_conv")],
)
def test_token_by_token_or_in_chunks_or_at_once(name, pieces):
    """Every step adapts to the same length, which is past the training length."""
    model = common.build_model(name, scan=True)
    cache = used(Cache.empty(model, B, SIZE, length=100))
    expected = common.forward(model, TOKEN_IDS, text(T), length=100)
    close(in_pieces(model, cache, pieces=pieces), expected)


@pytest.mark.parametrize(
    ("name", "keywords", "other"),
    [
        ("randomized", {}, 2 * T),
        *((name, {"train_length": 8}, 8) for name in ("dynamic_ntk", "longrope")),
    ],
)
def test_every_step_rotates_all_keys_by_the_length_it_has(name, keywords, other):
    """The steps begin below the training length and end past it."""
    model = common.build_model(common.build(name, **keywords), num_layers=1)
    steps = in_pieces(model, Cache.empty(model, B, SIZE), text(T), pieces=T * (1,))
    for t in range(8, T + 1):
        expected = common.forward(model, TOKEN_IDS, text(T), length=t)
        close(steps[:, t - 1], expected[:, t - 1])
    elsewhere = common.forward(model, TOKEN_IDS, text(T), length=other)
    assert float(abs(expected - elsewhere)[:, -1].max()) > 1e-3


def beam():
    sizes = dict(head_dim=common.HEAD_DIM, num_layers=4, interval=2, window=3)
    return posenc_jax.make("beam", **sizes, scale=4.0)


@pytest.mark.parametrize(
    ("build", "keywords"),
    [
        (lambda: common.build("irope", interval=2, floor_scale=4), dict(num_kv_heads=2)),
        (beam, dict(num_kv_heads=2, scan=True, remat=True)),
        (lambda: [common.build("fox", num_layers=2), common.build("alibi")], dict(scan=True)),
    ],
    ids=["irope", "beam", "some read the input"],
)
def test_patterns(build, keywords):
    """Layers differ in windows, and in whether they read the layer's input."""
    model = common.build_model(build(), num_layers=4, **keywords)
    expected = common.forward(model, TOKEN_IDS, text(T))
    close(in_pieces(model, Cache.empty(model, B, SIZE), text(T)), expected)


@pytest.mark.parametrize("name", ["dynamic_ntk", "path"])
def test_packed_documents(name):
    """The second document starts within a piece; each document has a length of its own."""
    segment_ids = np.array([[5] * 6 + [3] * 6, [1] * 6 + [2] * 6], np.int32)
    train_length = {"train_length": 4} if name == "dynamic_ntk" else {}
    encoding = common.build(name, num_layers=1, **train_length)
    model = common.build_model(encoding, num_layers=1)
    positions = packed(segment_ids)
    cache = Cache.empty(model, B, SIZE, segments=True)
    steps = in_pieces(model, cache, positions, segment_ids)
    together = common.forward(model, TOKEN_IDS, positions, segment_ids)
    for row in range(B):
        for start, end in ((0, 6), (6, 12)):
            alone = TOKEN_IDS[row : row + 1, start:end]
            expected = common.forward(model, alone, text(end - start))
            close(steps[row, end - 1], expected[0, -1])
            close(together[row, start:end], expected[0])


def test_several_axes_and_fractions_of_positions():
    model = common.build_model(OnAxes(common.build("swin_v2", num_layers=2), axes=(1, 0)))
    positions = np.random.default_rng(0).uniform(-9, 9, (B, T, 2)).astype(np.float32)
    cache = Cache.empty(model, B, SIZE, axes=2, dtype="float32")
    close(in_pieces(model, cache, positions), common.forward(model, TOKEN_IDS, positions))


def test_on_a_mesh():
    """Sequences lie over one axis, and kv heads over the other where XLA may move them there."""
    model = common.build_model("rope", scan=True)
    expected = common.forward(model, TOKEN_IDS, text(T))
    mesh = common.mesh_of(data=2, model=4)

    def place(array):
        spec = (None, "data", "model") if array.ndim == 5 else ()
        return common.placed(array, mesh, *spec)

    with jax.set_mesh(mesh):
        model = common.placed(model, mesh)
        cache = jax.tree.map(place, Cache.empty(model, B, SIZE))
        before, ids = cache.layers[0].k.sharding, common.placed(TOKEN_IDS, mesh, "data")
        first, cache = extend(model, ids[:, :6], cache)
        rest, cache = extend(model, ids[:, 6:], cache)
        assert cache.layers[0].k.sharding.is_equivalent_to(before, 5)
    close(np.concatenate(jax.device_get([first, rest]), axis=1), expected)


def test_full():
    model = common.build_model("rope")
    _, cache = extend(model, TOKEN_IDS[:, :-1], Cache.empty(model, B, T))
    common.refuses("size=13", lambda: model.extend(TOKEN_IDS[:, :2], cache))
    output, _ = extend(model, TOKEN_IDS[:, :2], cache)
    assert np.isnan(output).all(), "where the count is not known, no number"


def test_what_the_cache_was_not_made_for():
    model = common.build_model("rope")
    plain, segmented = (Cache.empty(model, B, T, segments=is_so) for is_so in (False, True))
    other = model.under(common.build("fox", num_layers=2))
    extend, places = model.extend, text(T)
    for word, call in (
        ("axes= and dtype=", lambda: extend(TOKEN_IDS, plain, np.zeros((B, T, 2), np.int32))),
        ("segments=False", lambda: extend(TOKEN_IDS, plain, places, np.ones((B, T), np.int32))),
        ("segments=True", lambda: extend(TOKEN_IDS, segmented, places)),
        ("other encodings", lambda: other.extend(TOKEN_IDS, plain)),
        ("batch", lambda: extend(TOKEN_IDS[:1], plain)),
    ):
        common.refuses(word, call)
