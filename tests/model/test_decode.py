"""Compares tokens read in pieces, past a cache, with tokens read at once, and tests generation."""

import dataclasses
import functools
import re

import common
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import posenc_jax
from experiments.evaluation.long_document import read_chunk
from posenc_jax import Encoding, Layers, generate
from posenc_jax.encodings.absolute.seqpe_encoder import DigitEncoder
from posenc_jax.encodings.gated.fox import FoX
from posenc_jax.encodings.wrappers.on_axes import OnAxes
from posenc_jax.model.cache import Cache, Kept
from posenc_jax.model.decode import sample
from posenc_jax.positions import Text, Vision, circle_rope, packed, text
from posenc_jax.registry import PATTERNS

B, T, SIZE = 2, 12, 15
TOKEN_IDS = np.random.default_rng(0).integers(0, common.VOCAB, (B, T)).astype(np.int32)


@functools.partial(jax.jit, donate_argnames="cache")
def extend(model, token_ids, cache, positions=None, segment_ids=None):
    """Returns the logits of the next tokens, and the cache."""
    x_BTD, cache = model.extend(token_ids, cache, positions, segment_ids)
    return model.unembed(x_BTD), cache


def used(cache):
    """Returns ``cache`` with numbers in its slots, as a previous sequence leaves behind."""
    return dataclasses.replace(cache, layers=jax.tree.map(lambda x: x + 7, cache.layers))


def in_pieces(model, cache, positions=None, segment_ids=None, pieces=(8, 1, 1, 1, 1)):
    """Returns logits ``[B, T, V]`` of tokens read in pieces, by default a chunk and then singly."""
    outputs, start = [], 0
    for count in pieces:
        now = slice(start, start + count)
        places, segments = (None if x is None else x[:, now] for x in (positions, segment_ids))
        output, cache = extend(model, TOKEN_IDS[:, now], cache, places, segments)
        outputs.append(output)
        start += count
    return np.concatenate(outputs, axis=1)


def close(actual, expected, tolerance=1e-4):
    np.testing.assert_allclose(actual, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("scan", [False, True])
@pytest.mark.parametrize("read", [extend, read_chunk], ids=["extend", "read_chunk"])
def test_the_cache_is_not_copied(read, scan):
    """A step of six layers needs memory for one layer beside the cache."""
    model = common.build_model("rope", num_layers=6, scan=scan)
    cache = Cache.empty(model, 1, 8192)
    size = sum(x.nbytes for x in jax.tree.leaves(cache))
    memory = read.lower(model, TOKEN_IDS[:1], cache).compile().memory_analysis()
    assert memory.alias_size_in_bytes > 0.99 * size
    assert memory.temp_size_in_bytes < 0.7 * size


def test_a_step_moves_no_slots_in_memory():
    """The slots are written where they are and read as they lie, whatever their number."""
    model = common.build_model("rope", num_layers=3, num_kv_heads=2)
    cache = Cache.empty(model, 1, 8192)
    program = extend.lower(model, TOKEN_IDS[:1, :1], cache).compile().as_text()
    slots = rf"= f32\[(1,1,)?2,(8192,{common.HEAD_DIM}|{common.HEAD_DIM},8192)\]"
    moving = [
        line for line in program.splitlines() if re.search(rf"{slots}\S* (copy|transpose)\(", line)
    ]
    assert not moving


@pytest.mark.slow
def test_gradients_pass_through_the_cache():
    model = common.build_model("rope")

    def loss(model, in_pieces):
        cache, total = Cache.empty(model, B, T), 0.0
        for part in (TOKEN_IDS[:, :-1], TOKEN_IDS[:, -1:]) if in_pieces else (TOKEN_IDS,):
            x_BTD, cache = model.extend(part, cache)
            total += (x_BTD**2).sum()
        return total

    gradients = [jax.jit(jax.grad(loss), static_argnums=1)(model, each) for each in (True, False)]
    for a, b in zip(*map(jax.tree.leaves, gradients), strict=True):
        close(a, b, 1e-3)


def assert_in_pieces_or_at_once(name, pieces):
    """Compares what adapts to one length, past the training length, all the while."""
    model = common.build_model(name, scan=True)
    cache = used(Cache.empty(model, B, SIZE, length=100))
    expected = common.forward(model, TOKEN_IDS, text(T), length=100)
    close(in_pieces(model, cache, pieces=pieces), expected)


@pytest.mark.parametrize("name", common.one_of_each_program())
def test_token_by_token_or_at_once(name):
    assert_in_pieces_or_at_once(name, pieces=T * (1,))


@pytest.mark.parametrize("name", ["rope", "fox", "path", "cope"])
def test_in_chunks_or_at_once(name):
    assert_in_pieces_or_at_once(name, pieces=(6, 6))


ADAPTIVE = ["dynamic_pi", "dynamic_ntk", "dynamic_yarn", "longrope", "longrope2"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "keywords", "other"),
    [("randomized", {}, 2 * T), *((name, {"train_length": 8}, 8) for name in ADAPTIVE)],
)
def test_every_step_turns_all_keys_by_the_length_it_has(name, keywords, other):
    """The steps begin below the training length and end past it."""
    model = common.build_model(common.build(name, **keywords), num_layers=1)
    steps = in_pieces(model, Cache.empty(model, B, SIZE), text(T))
    for t in range(8, T + 1):
        expected = common.forward(model, TOKEN_IDS, text(T), length=t)
        close(steps[:, t - 1], expected[:, t - 1])
    elsewhere = common.forward(model, TOKEN_IDS, text(T), length=other)
    assert float(abs(expected - elsewhere)[:, -1].max()) > 1e-3


class OtherGates(FoX):
    """Reads gates of its own, and does not say how their sums go on."""

    def read(self, x_BTD, tokens):
        return super().read(-x_BTD, tokens)


class OfTwoKinds(Encoding):
    """Multiplies a number of the query's position with another of the key's."""

    adapts = False

    def prepare(self, positions, length):
        return {"query": jnp.cos(positions), "key": jnp.sin(positions)}

    def of_keys(self, prepared):
        return {"key": prepared["key"]}

    def score(self, logits_BHTS, tile):
        of_queries, of_keys = tile.q_tokens.prepared["query"], tile.k_tokens.prepared["key"]
        return logits_BHTS + of_queries[:, None, :, None] * of_keys[:, None, None]


@pytest.mark.parametrize("name", ["own", "soft_cap", "kv_shift"])
@pytest.mark.parametrize("kind", [OtherGates, OfTwoKinds])
def test_a_scheme_of_ones_own_with_a_cache(name, kind, monkeypatch):
    monkeypatch.setitem(posenc_jax.REGISTRY, "own", f"{__name__}:{kind.__name__}")
    sizes = dict(num_heads=common.HEADS, model_dim=common.WIDTH, rngs=nnx.Rngs(0))
    sizes |= {} if name == "own" else dict(over="own")
    sizes |= dict(num_kv_heads=common.HEADS) if name == "kv_shift" else {}
    encoding = posenc_jax.make(name, num_layers=common.LAYERS, **sizes)
    model = common.build_model(common.moved(encoding, 0))
    expected = common.forward(model, TOKEN_IDS, text(T))
    close(in_pieces(model, Cache.empty(model, B, SIZE)), expected)


def test_what_cannot_resume_is_not_resumed():
    for encoding in (common.build("rope"), common.build("kv_shift", over="fox")):
        tokens = posenc_jax.Tokens.of(encoding, text(T))
        message = f"{type(encoding).__name__} cannot resume: its start is None"
        with pytest.raises(ValueError, match=message):
            tokens.resume(encoding, jnp.ones((B, T, common.WIDTH)), encoding.start(B))


OF_PATTERN: dict[str, dict] = {
    "irope": dict(interval=2, floor_scale=4),
    "rnope_swa": dict(interval=2, window=3),
    "dual_base": dict(interval=2, window=3),
    "global_nope": dict(interval=2, window=3, num_layers=4, from_end=True),
    "global_yarn": dict(interval=2, window=3, train_length=4),
    "beam": dict(interval=2, window=3, num_layers=4, scale=4.0),
    "flint": dict(window=3, num_layers=4),
}


@pytest.mark.parametrize("scan", [False, True])
@pytest.mark.parametrize("name", PATTERNS)
def test_patterns_with_windows(name, scan):
    layers = posenc_jax.make(name, head_dim=common.HEAD_DIM, **OF_PATTERN[name])
    model = common.build_model(layers, num_layers=4, num_kv_heads=2, scan=scan, remat=scan)
    expected = common.forward(model, TOKEN_IDS, text(T))
    close(in_pieces(model, Cache.empty(model, B, SIZE), text(T)), expected)


@pytest.mark.slow
@pytest.mark.parametrize("scan", [False, True])
def test_pattern_of_layers_that_read_and_layers_that_do_not(scan):
    gates = common.build("fox", num_layers=2)
    pattern = [gates, common.build("alibi")]
    model = common.build_model(pattern, num_layers=4, scan=scan)
    cache = Cache.empty(model, B, SIZE)
    resumes = [True, False] * (1 if scan else 2)
    assert [kept.state is not None for kept in cache.layers] == resumes
    segmented = Cache.empty(model, B, SIZE, segments=True)
    assert [kept.x is not None for kept in segmented.layers] == resumes
    close(in_pieces(model, cache, text(T)), common.forward(model, TOKEN_IDS, text(T)))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dynamic_ntk", "fox", "path", "selective_rope", "cope"])
def test_packed_documents(name):
    """The second document starts within a piece; each document has a length of its own."""
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
            expected = common.forward(model, alone, text(end - start))
            close(steps[row, end - 1], expected[0, -1])


def test_several_axes_and_fractions_of_positions():
    model = common.build_model(common.build("rope", axes=(0, 1, 1, 0)))
    positions = np.random.default_rng(0).uniform(-9, 9, (B, T, 2)).astype(np.float32)
    cache = Cache.empty(model, B, SIZE, axes=2, dtype="float32")
    close(in_pieces(model, cache, positions), common.forward(model, TOKEN_IDS, positions))


def test_under_another_encoding():
    model = common.build_model("rope").under(common.build("fox", num_layers=common.LAYERS))
    expected = common.forward(model, TOKEN_IDS, text(T))
    close(in_pieces(model, Cache.empty(model, B, SIZE)), expected)


def test_text_whose_positions_are_left_out_knows_its_distances():
    """Slots that are not filled repeat a position, and are not consecutive."""
    model = common.build_model("t5")
    expected = common.forward(model, TOKEN_IDS, text(T))
    close(in_pieces(model, Cache.empty(model, B, SIZE)), expected)
    given = in_pieces(model, Cache.empty(model, B, SIZE), text(T))
    close(given, expected)


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit])
@pytest.mark.parametrize("name", ["rope", "fox", "path"])
def test_on_a_mesh(name, kind):
    """Sequences lie over one axis, and kv heads over the other where XLA may move them there."""
    model = common.build_model(name, scan=True)
    expected = common.forward(model, TOKEN_IDS, text(T))
    mesh = jax.make_mesh((2, 4), ("data", "model"), axis_types=(kind,) * 2)
    heads = "model" if kind is AxisType.Auto else None

    def place(tree, *spec):
        return jax.device_put(tree, NamedSharding(mesh, PartitionSpec(*spec)))

    def place_layer(kept):
        k, v = place((kept.k, kept.v), None, "data", heads)
        return Kept(k, v, *place((kept.x, kept.read, kept.state), None, "data"))

    with jax.set_mesh(mesh):
        model, cache = place(model), Cache.empty(model, B, SIZE)
        layers = tuple(map(place_layer, cache.layers))
        shared = place((cache.prepared, cache.positions), "data")
        cache = Cache(layers, *shared, None, place(cache.count), None, cache.encodings)
        steps, start = [], 0
        for count in (8, 1, 1, 1, 1):
            now = slice(start, start + count)
            ids, places = place(TOKEN_IDS[:, now], "data"), text(T)[:, now]
            output, cache = extend(model, ids, cache, places)
            kept = cache.layers[0].k
            assert kept.sharding.is_equivalent_to(layers[0].k.sharding, kept.ndim)
            steps.append(output)
            start += count
    close(np.concatenate(jax.device_get(steps), axis=1), expected)


def test_a_donated_cache_is_written_in_place():
    model = common.build_model("rope")
    cache = Cache.empty(model, B, SIZE)
    before = cache.layers[0].k.unsafe_buffer_pointer()
    _, after = extend(model, TOKEN_IDS, cache)
    assert cache.layers[0].k.is_deleted()
    assert after.layers[0].k.unsafe_buffer_pointer() == before


def test_full():
    model = common.build_model("rope")
    cache = Cache.empty(model, B, T)
    _, cache = extend(model, TOKEN_IDS[:, :-1], cache)
    with pytest.raises(ValueError, match=r"size=12 with 11 tokens has no room for 2 more.*size=13"):
        model.extend(TOKEN_IDS[:, :2], cache)
    with pytest.raises(ValueError, match="no room for 13 more"):
        extend(model, np.zeros((B, 13), np.int32), cache)
    output, _ = extend(model, TOKEN_IDS[:, :2], cache)
    assert np.isnan(output).all(), "where the count is not known, no number"


def test_what_the_cache_was_not_made_for():
    model = common.build_model("rope")
    cache = Cache.empty(model, B, T)
    for positions in (text(T).astype(np.float32), np.zeros((B, T, 2), np.int32)):
        with pytest.raises(ValueError, match=r"made for int32 with 2; pass axes= and dtype="):
            model.extend(TOKEN_IDS, cache, positions)
    with pytest.raises(ValueError, match=r"segment_ids are given.*segments=False"):
        model.extend(TOKEN_IDS, cache, text(T), TOKEN_IDS)
    segmented = Cache.empty(model, B, T, segments=True)
    with pytest.raises(ValueError, match=r"segment_ids are not given.*segments=True"):
        model.extend(TOKEN_IDS, segmented, text(T))
    with pytest.raises(ValueError, match=r"positions=None continues text.*pass positions"):
        model.extend(TOKEN_IDS, segmented)
    other = model.under(common.build("fox", num_layers=2))
    with pytest.raises(ValueError, match=r"under other encodings.*Cache.empty of the same model"):
        other.extend(TOKEN_IDS, cache)
    for places in (text(1), text(T + 1), text(T).repeat(B + 1, axis=0)):
        with pytest.raises(ValueError, match=r"12 new tokens in a batch of 2: give \[2, 12\] or"):
            model.extend(TOKEN_IDS, cache, places)
    for segment_ids in (np.ones((B, 1), int), np.ones((B + 1, T), int), np.ones((B, T))):
        with pytest.raises(ValueError, match=r"segment_ids must be whole .* \[2, 12\]"):
            model.extend(TOKEN_IDS, segmented, text(T), segment_ids)
    for ids in (TOKEN_IDS[:1], np.zeros((B + 1, T), np.int32)):
        with pytest.raises(ValueError, match=r"inputs are . sequences, but .* batch=2; pass the"):
            model.extend(ids, cache)
    for sizes in ((0, T), (B, 0)):
        with pytest.raises(ValueError, match="=0 must be at least 1"):
            Cache.empty(model, *sizes)
    for sizes in (dict(size=2.5), dict(size=T, length=20.0)):
        with pytest.raises(ValueError, match=r"=2.* must be at least 1, and a whole number"):
            Cache.empty(model, B, **sizes)
    assert Cache.empty(model, B, np.int64(T), length=jnp.int32(20)).length == 20


# Generating

NEW = 6


def talker(encoding, **keywords):
    """Makes a model that repeats no last token, as a tied embedding of large numbers does."""
    model = common.build_model(encoding, seed=2, **keywords)
    model.embedding[...] = model.embedding[...] / 50
    return model


def greedy(model, prompt_T, count=NEW, **options):
    """Takes the likeliest token, again and again, by whole forward passes of one padded shape."""
    tokens = list(prompt_T)
    for _ in range(count):
        padded = np.pad(tokens, (0, T + NEW - len(tokens)))[None]
        logits = common.forward(model, padded, text(T + NEW), **options)
        tokens.append(int(logits[0, len(tokens) - 1].argmax()))
    return tokens[len(prompt_T) :]


KEY = jax.random.key(0)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["rope", "dynamic_ntk", "alibi", "path", "transformer_xl"])
def test_greedy(name):
    """Prompts of different lengths go on as each does alone."""
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


@pytest.mark.slow
def test_greedy_under_a_window_and_another_encoding():
    other = posenc_jax.make("rnope_swa", head_dim=common.HEAD_DIM, interval=2, window=3)
    model = talker("nope").under(other)
    actual = generate(model, TOKEN_IDS, KEY, max_new_tokens=NEW, lengths=[T, 5])
    expected = [greedy(model, row[:n]) for row, n in zip(TOKEN_IDS, (T, 5), strict=True)]
    assert actual.tolist() == expected


class Traced(posenc_jax.Encoding):
    """Counts how often attention is traced."""

    def __init__(self, found):
        self.found = found

    def score(self, logits_BHTS, tile):
        self.found.append(tile.q.shape)
        return logits_BHTS


@pytest.mark.parametrize(
    "name, slots", [("rope", 1), ("yarn", 1), ("videorope", 1), ("dynamic_ntk", 64)]
)
def test_a_step_turns_the_new_key_alone_where_no_turned_key_changes(name, slots):
    """A scheme that adapts to the length turns the keys of all slots at every step."""
    model = common.build_model(name)
    cache = Cache.empty(model, 1, 64)
    program = str(jax.make_jaxpr(model.extend)(TOKEN_IDS[:1, :1], cache))
    turned = re.findall(r":f32\[1,(\d+),[\d,]*\] = cos ", program)
    assert turned and max(map(int, turned)) == slots


def test_seqpe_encodes_the_positions_of_a_chunk_once(monkeypatch):
    encoded, encode = [], DigitEncoder.__call__

    def recorded(self, positions, *args):
        encoded.append(positions.shape)
        return encode(self, positions, *args)

    model = common.build_model("seqpe")
    cache = Cache.empty(model, 1, 64)
    monkeypatch.setattr(DigitEncoder, "__call__", recorded)
    jax.eval_shape(model.extend, TOKEN_IDS[:1, :4], cache)
    assert encoded == [(1, 4)]


def test_a_second_text_finds_the_programs_of_the_first():
    found = []
    model = common.build_model(Traced(found))
    prompt_BT = np.arange(6, dtype=np.int32)[None]
    first = generate(model, prompt_BT, jax.random.key(0), max_new_tokens=4)
    traced = len(found)
    assert traced
    second = generate(model, prompt_BT[:, ::-1], jax.random.key(1), max_new_tokens=4)
    assert len(found) == traced, "traced again"
    assert first.shape == second.shape


@pytest.mark.slow
@pytest.mark.parametrize("name", common.one_of_each_program())
def test_a_second_text_compiles_nothing(name):
    """Neither do the checks of the arguments, which run outside of the compiled programs."""
    model = common.build_model(name)

    def run():
        return generate(model, TOKEN_IDS, KEY, max_new_tokens=2)

    assert common.compilations(run) > 0
    assert common.compilations(run) == 0


@pytest.mark.slow
def test_a_ragged_row_adapts_to_its_own_length():
    """A model of one layer is exact when it adapts to the length of each step."""
    model = talker(common.build("dynamic_ntk", train_length=4), num_layers=1)
    actual = generate(model, TOKEN_IDS, KEY, max_new_tokens=NEW, lengths=[T, 5])
    for row, n, new in zip(TOKEN_IDS, (T, 5), actual, strict=True):
        tokens = [*row[:n], *new.tolist()]
        for t in range(n, n + NEW):
            padded = np.pad(tokens[:t], (0, T + NEW - t))[None]
            logits = common.forward(model, padded, text(T + NEW), length=t)
            assert int(logits[0, t - 1].argmax()) == tokens[t]


@pytest.mark.slow
def test_a_ragged_row_has_chunks_of_its_own():
    layers = Layers([common.build("rope")], [posenc_jax.Chunks(4)])
    model = common.build_model(layers)
    prompts = TOKEN_IDS[:, :7]
    lengths = np.array([7, 5])
    together = generate(model, prompts, KEY, max_new_tokens=6, lengths=lengths)
    alone = generate(model, prompts[1:, :5], KEY, max_new_tokens=6)
    np.testing.assert_array_equal(together[1:], alone)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["learned", "learned_2d"])
def test_a_table_that_is_squeezed_for_one_length_is_the_same_in_chunks(name):
    model = common.build_model(common.build(name, out_of_range="interpolate", train_length=9))
    chunks = [
        generate(model, TOKEN_IDS, KEY, max_new_tokens=4, length=40, prefill_chunk=size)
        for size in (3, 512)
    ]
    np.testing.assert_array_equal(*chunks)
    pieces = in_pieces(model, Cache.empty(model, B, SIZE, length=40))
    close(pieces, common.forward(model, TOKEN_IDS, text(T), None, 40))
    assert np.abs(pieces - common.forward(model, TOKEN_IDS, text(T), None, 80)).max() > 1e-3


@pytest.mark.slow
def test_text_goes_on_where_the_builders_say():
    """The place after an image may be a fraction, and each axis may have its own."""
    mrope, parts = common.build("mrope"), [Text(3), Vision(1, 2, 2), Text(1)]
    model, placed = common.build_model(mrope), circle_rope(parts)
    ids, own = TOKEN_IDS[:1, : placed.positions.shape[1]], dict(positions=placed.positions)
    found = generate(model, ids, KEY, max_new_tokens=3, next_positions=[placed.next], **own)
    by_axis = np.full((1, 3), placed.next)
    each = generate(model, ids, KEY, max_new_tokens=3, next_positions=by_axis, **own)
    np.testing.assert_array_equal(found, each)
    other = by_axis + [[0.0, 30.0, 60.0]]
    after = np.concatenate([placed.positions, other[None] + np.arange(2)[None, :, None]], axis=1)
    answer = generate(model, ids, KEY, max_new_tokens=3, next_positions=other, **own)
    logits = common.forward(model, np.concatenate([ids, answer[:, :2]], axis=1), after)
    np.testing.assert_array_equal(np.argmax(logits[:, -3:], axis=-1), answer)


@pytest.mark.parametrize("name", ["learned", "randomized"])
def test_a_scheme_is_asked_for_positions_on_its_own_axes_alone(name):
    """A time that goes far is no row of a table that other axes read."""
    sizes = dict(train_length=9, out_of_range="error") if name == "learned" else dict(max_length=9)
    table = common.build(name, **sizes)
    model = talker([OnAxes(table, axes=(1,)), OnAxes(common.build("rope"), axes=(0,))])
    row = np.arange(6)

    def generated(start, count):
        positions, next_positions = np.stack([start + row, row], axis=-1)[None], [[start + 6, 6]]
        own = dict(positions=positions, next_positions=next_positions)
        return generate(model, TOKEN_IDS[:1, :6], KEY, max_new_tokens=count, **own)

    # RoPE reads the time, of which only distances matter.
    np.testing.assert_array_equal(generated(100, 3), generated(0, 3))
    with pytest.raises(ValueError, match=r"position 9 is not a row|10 positions cannot be drawn"):
        generated(100, 5)


@pytest.mark.parametrize("name", ["learned", "randomized"])
def test_a_position_that_a_scheme_does_not_know_is_refused(name):
    """Under jit it is NaN, and the likeliest of logits that are NaN would be token 0."""
    model = talker(common.build(name, **({"out_of_range": "error"} if name == "learned" else {})))
    for first in (-3, 0.5):
        positions = first + np.arange(T, dtype=type(first))[None]
        with pytest.raises(ValueError, match=f"position {first} is not"):
            generate(model, TOKEN_IDS, KEY, max_new_tokens=2, positions=positions)


def test_text_that_would_go_on_past_32_bits_is_refused():
    own = dict(max_new_tokens=4, next_positions=np.full(B, 2**31 - 2))
    with pytest.raises(ValueError, match="2147483648 does not fit into int32"):
        generate(talker("nope"), TOKEN_IDS, KEY, **own)


@pytest.mark.parametrize("temperature", [1e-30, 1.2e-38, 1e-38, 1e-44, 1e-300])
@pytest.mark.parametrize("top_p", [1.0, 0.9])
def test_a_temperature_near_0_is_greedy(temperature, top_p):
    """Also where it is no number of float32, which has none between 0 and 1.2e-38."""
    logits_BV = jnp.array([[1.0, 3.0, 2.0], [0.1, 0.0, 0.2]])
    assert sample(logits_BV, KEY, temperature, top_p).tolist() == [1, 2]


@pytest.mark.slow
def test_settings_may_be_numbers_of_any_library():
    model = common.build_model("nope")
    own = dict(max_new_tokens=2, temperature=jnp.float32(0), top_p=jnp.float32(0.5))
    own |= dict(stop_token=np.int64(3))
    assert generate(model, TOKEN_IDS, KEY, **own).shape == (B, 2)
    own = dict(max_new_tokens=jnp.int32(2), prefill_chunk=np.uint8(5), stop_token=jnp.int32(3))
    own |= dict(length=jnp.int32(40))
    lengths = jnp.array([T, 5])
    assert generate(model, jnp.asarray(TOKEN_IDS), KEY, lengths=lengths, **own).shape == (B, 2)


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
        ({"lengths": [T, 0]}, r"lengths=\[12, 0\] must be 2 whole numbers within 1\.\.12"),
        ({"lengths": [T]}, r"lengths=\[12\] must be 2 whole numbers"),
        ({"lengths": [9.0, 4.7]}, r"lengths=\[9\.0, 4\.7\] must be 2 whole numbers"),
        ({"stop_token": 5.7}, "stop_token=5.7 must be one token id, a whole number, or None"),
        ({"stop_token": [1, 2]}, r"stop_token=\[1, 2\] must be one token id, a whole number"),
        ({"max_new_tokens": 2.0}, "max_new_tokens=2.0 must be at least 1, and a whole number"),
        ({"prefill_chunk": 4.5}, "prefill_chunk=4.5 must be at least 1, and a whole number"),
        ({"prompt_BT": TOKEN_IDS + 0.6}, "prompt_BT must be token ids, whole numbers, not float64"),
        ({"max_new_tokens": 22}, "position 32 is not a row of the learned table"),
    ],
)
def test_bad_arguments(arguments, sentence):
    model = talker(common.build("learned", out_of_range="error"))
    arguments = {"prompt_BT": TOKEN_IDS, "max_new_tokens": 1} | arguments
    with pytest.raises(ValueError, match=sentence):
        generate(model, arguments.pop("prompt_BT"), KEY, **arguments)
