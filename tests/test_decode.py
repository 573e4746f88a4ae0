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
from experiments.long_document import read_chunk
from posenc_jax import generate
from posenc_jax.cache import Cache, Kept
from posenc_jax.decode import sample
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


def in_pieces(model, cache, positions, segment_ids=None, pieces=(8, 1, 1, 1, 1), **options):
    """Logits ``[B, T, V]``: a chunk, and token by token."""
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


@pytest.mark.parametrize("scan", [False, True])
@pytest.mark.parametrize("read", [extend, read_chunk], ids=["extend", "read_chunk"])
def test_the_cache_is_not_copied(read, scan):
    """What a step needs beside it is for one layer at a time, of six."""
    model = common.build_model("rope", num_layers=6, scan=scan)
    cache = Cache.empty(model, 1, 8192)
    size = sum(x.nbytes for x in jax.tree.leaves(cache))
    if read is extend:
        arguments = model, TOKEN_IDS[:1], text(T), cache
    else:
        arguments = model, TOKEN_IDS[:1], cache, 8192, model.layers
    memory = read.lower(*arguments).compile().memory_analysis()
    assert memory.alias_size_in_bytes > 0.99 * size
    assert memory.temp_size_in_bytes < 0.7 * size


def assert_in_pieces_or_at_once(name, pieces):
    """Adapted to one length, past the training length, all the while."""
    model = common.build_model(name, scan=True)
    cache = used(Cache.empty(model, B, SIZE))
    expected = forward(model, TOKEN_IDS, text(T), length=100)
    close(in_pieces(model, cache, text(T), pieces=pieces, length=100), expected)


@pytest.mark.parametrize("name", common.one_of_each_program())
def test_token_by_token_or_at_once(name):
    assert_in_pieces_or_at_once(name, pieces=T * (1,))


@pytest.mark.parametrize("name", ["rope", "fox", "path", "cope"])
def test_in_chunks_or_at_once(name):
    assert_in_pieces_or_at_once(name, pieces=(6, 6))


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
    gates = common.build("fox", num_layers=2)
    pattern = [gates, common.build("alibi")]
    model = common.build_model(pattern, num_layers=4, scan=scan)
    cache = Cache.empty(model, B, SIZE)
    assert [kept.x is not None for kept in cache.layers] == [True, False]
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


# Generating

NEW = 6


def talker(encoding, **keywords):
    """A model that does not say the last token again, as a tied embedding of large numbers does."""
    model = common.build_model(encoding, seed=2, **keywords)
    model.embedding[...] = model.embedding[...] / 50
    return model


def greedy(model, prompt_T, count=NEW, **options):
    """The likeliest token, again and again, by whole forward passes of one padded shape."""
    tokens = list(prompt_T)
    for _ in range(count):
        padded = np.pad(tokens, (0, T + NEW - len(tokens)))[None]
        logits = forward(model, padded, text(T + NEW), **options)
        tokens.append(int(logits[0, len(tokens) - 1].argmax()))
    return tokens[len(prompt_T) :]


KEY = jax.random.key(0)


@pytest.mark.parametrize("name", ["rope", "dynamic_ntk", "alibi", "path", "transformer_xl"])
def test_greedy(name):
    """Prompts of different lengths, each as it goes on alone."""
    model = talker(name, scan=True)
    options = {"length": 40} if name == "dynamic_ntk" else {}
    lengths = [T, 5]
    actual = generate(
        model, TOKEN_IDS, KEY, max_new_tokens=NEW, lengths=lengths, prefill_chunk=4, **options
    )
    expected = [
        greedy(model, row[:n], **options) for row, n in zip(TOKEN_IDS, lengths, strict=True)
    ]
    assert actual.tolist() == expected
    assert all(len({*row}) > 1 for row in expected)


def test_greedy_under_a_window_and_another_encoding():
    model = talker("nope")
    other = posenc_jax.make("rnope_swa", head_dim=common.HEAD_DIM, interval=2, window=3)
    actual = generate(model, TOKEN_IDS, KEY, max_new_tokens=NEW, lengths=[T, 5], encoding=other)
    expected = [
        greedy(model, row[:n], encoding=other) for row, n in zip(TOKEN_IDS, (T, 5), strict=True)
    ]
    assert actual.tolist() == expected


def test_a_ragged_row_adapts_to_its_own_length():
    """At every step, to the length of that step: a model of one layer is exact."""
    model = talker(common.build("dynamic_ntk", train_length=4), num_layers=1)
    actual = generate(model, TOKEN_IDS, KEY, max_new_tokens=NEW, lengths=[T, 5])
    for row, n, new in zip(TOKEN_IDS, (T, 5), actual, strict=True):
        tokens = [*row[:n], *new.tolist()]
        for t in range(n, n + NEW):
            padded = np.pad(tokens[:t], (0, T + NEW - t))[None]
            logits = forward(model, padded, text(T + NEW), length=t)
            assert int(logits[0, t - 1].argmax()) == tokens[t]


def test_sequences_stop_each_by_itself():
    model = talker("rope")
    free = np.asarray(generate(model, TOKEN_IDS, KEY, max_new_tokens=NEW))
    stop = int(free[0, 1])
    assert stop != free[0, 0] and stop not in free[1]
    stopped = generate(model, TOKEN_IDS, KEY, max_new_tokens=NEW, stop_token=stop)
    assert stopped.tolist() == [[*free[0, :2], *[stop] * (NEW - 2)], free[1].tolist()]


def test_randomness_is_the_key():
    model = talker("rope")
    options = dict(max_new_tokens=NEW, temperature=5.0, top_p=0.9)
    one, same, other = (
        generate(model, TOKEN_IDS, jax.random.key(seed), **options) for seed in (0, 0, 1)
    )
    assert one.tolist() == same.tolist() != other.tolist()
    assert (one != generate(model, TOKEN_IDS, KEY, max_new_tokens=NEW)).any()


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (2.0, 0.7), (0.5, 0.95)])
def test_frequencies_of_drawn_tokens(temperature, top_p):
    logits_V, draws = np.array([1.0, 3.0, -1.0, 2.5, 0.0], np.float32), 20_000
    shares = np.exp(logits_V / temperature)
    shares /= shares.sum()
    kept, total = [], 0.0
    for token in np.argsort(-shares):
        if total < top_p:
            kept.append(token)
            total += shares[token]
    expected = np.where(np.isin(np.arange(5), kept), shares, 0)
    expected /= expected.sum()
    tokens = sample(jnp.tile(logits_V[None], (draws, 1)), KEY, temperature, top_p)
    counts = np.bincount(tokens, minlength=5)
    assert (counts[expected == 0] == 0).all()
    # Five standard deviations of a count.
    deviation = np.sqrt(draws * expected * (1 - expected))
    assert (abs(counts - draws * expected) <= 5 * deviation + 1e-9).all()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"temperature": -1.0}, r"temperature=-1.0 must be finite, and at least 0 for greedy"),
        ({"top_p": 0.0}, r"top_p=0.0 must be within \(0, 1\]"),
        ({"top_p": 1.5}, r"top_p=1.5 must be within \(0, 1\]"),
        ({"max_new_tokens": 0}, "max_new_tokens=0 must be at least 1"),
        ({"prefill_chunk": 0}, "prefill_chunk=0 must be at least 1"),
        ({"stop_token": 64}, r"stop_token has token 64, but the model knows 0\.\.63"),
        ({"prompt_BT": np.full((1, 2), -1)}, "prompt_BT has token -1"),
        ({"prompt_BT": np.zeros((2, 0), int)}, r"prompt_BT has shape \(2, 0\).*at least one token"),
        ({"prompt_BT": np.zeros(3, int)}, r"prompt_BT has shape \(3,\)"),
        ({"lengths": [T, 0]}, r"lengths=\[12, 0\] must be 2 numbers within 1\.\.12"),
        ({"lengths": [T]}, r"lengths=\[12\] must be 2 numbers"),
        ({"max_new_tokens": 22}, "position 32 is not a row of the learned table"),
    ],
)
def test_bad_arguments(arguments, sentence):
    model = talker(common.build("learned", out_of_range="error"))
    arguments = {"prompt_BT": TOKEN_IDS, "max_new_tokens": 1} | arguments
    with pytest.raises(ValueError, match=sentence):
        generate(model, arguments.pop("prompt_BT"), KEY, **arguments)
