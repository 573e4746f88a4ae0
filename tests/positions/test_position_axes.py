"""Tests several position axes, of which text is one case, and builders of positions."""

import functools
import re

import common
import jax
import jax.numpy as jnp
import numpy as np
import pieces
import pytest
from flax import linen as nn
from golden_checks import rotated
from jax.sharding import AxisType

import posenc_jax
from posenc_jax import positions as builders
from posenc_jax.encodings.rotary.axes import by_head, interleaved, shares, temporal_last
from posenc_jax.encodings.rotary.axis_frequencies import ByAxis, Spectra
from posenc_jax.encodings.rotary.frequencies import (
    Default,
    DynamicNTK,
    DynamicYaRN,
    Resonance,
    YaRN,
)
from posenc_jax.encodings.rotary.riflex import riflex
from posenc_jax.encodings.wrappers.on_axes import OnAxes
from posenc_jax.encodings.wrappers.ultravico import UltraViCo
from posenc_jax.model.cache import Cache
from posenc_jax.positions import Film, Text, Vision, text

AXES = ["mrope", "i_mrope", "mhrope", "videorope", "videorope_pp", "hope_hybrid", "time_rope"]
each_scheme = pytest.mark.parametrize("name", AXES)

# An image at the very start: VideoRoPE's first positions are negative.
SEQUENCE = [Vision(2, 3, 2), Text(4), Vision(1, 2, 4), Text(4)]
B, T = 2, sum(segment.tokens for segment in SEQUENCE)
TOKEN_IDS = np.random.default_rng(0).integers(0, common.VOCAB, (B, T)).astype(np.int32)


def placed(dtype=np.float32):
    """Returns negative and fractional positions ``[1, T, 3]``, or whole ones."""
    if dtype == np.float32:
        return builders.videorope(SEQUENCE, delta=0.5).positions
    return builders.qwen2_vl(SEQUENCE).positions


def residual(length=T):
    return 0.5 * common.normal(0, B, length, common.WIDTH)


def close(actual, expected, atol=1e-5):
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=atol)


# Encodings


@each_scheme
def test_text_is_the_same_on_every_axis(name):
    encoding = common.build(name)
    positions = np.array([[3, 0, 7, 1, 12]], np.int32)
    expected = common.attention(encoding, residual(5), positions)
    stacked = np.stack([positions] * 3, axis=-1)
    close(common.attention(encoding, residual(5), stacked), expected)


@each_scheme
def test_text_is_rope(name):
    """Compares the pairs, or the heads, that turn at all."""
    encoding = common.build(name, axis_heads=(1, 1, 1)) if name == "mhrope" else common.build(name)
    rope = common.build("rope", layout=encoding.layout, frequencies=encoding.frequencies)
    x_BTHC = common.normal(0, B, T, common.HEADS, common.HEAD_DIM)
    turned, expected = (np.array(rotated(each, x_BTHC, text(T))) for each in (encoding, rope))
    if name == "mhrope":
        np.testing.assert_array_equal(turned[:, :, -1], x_BTHC[:, :, -1])
        turned, expected = turned[:, :, :-1], expected[:, :, :-1]
    if name == "hope_hybrid":  # Pairs 2 and 3 are those of time.
        still = [2, 3, 6, 7]
        np.testing.assert_array_equal(turned[..., still], x_BTHC[..., still])
        turned, expected = (np.delete(x, still, axis=-1) for x in (turned, expected))
    np.testing.assert_array_equal(turned, expected)


@each_scheme
def test_each_axis_shows_and_only_differences_do(name):
    overrides = {"axis_heads": (1, 1, 1)} if name == "mhrope" else {}
    # Columns hardly show in M-RoPE at larger bases.
    encoding, positions = common.build(name, base=100.0, **overrides), placed()
    output = common.attention(encoding, residual(), positions, length=64)
    for axis in range(3):
        moved = positions.copy()
        moved[..., axis] += 1.5
        close(common.attention(encoding, residual(), moved, length=64), output)
        moved[..., axis] = moved[:, ::-1, axis]
        other = common.attention(encoding, residual(), moved, length=64)
        shows = np.abs(other - output).max() > 1e-3
        assert shows == (axis != 0 or name != "hope_hybrid")


@pytest.mark.parametrize("name", ["mrope", "mhrope"])
@pytest.mark.parametrize("implementation", ["blockwise", "ring", "pallas"])
def test_implementations(name, implementation):
    """Compares values and gradients of several documents, on negative and fractional positions."""
    encoding, segment_ids = common.build(name, num_kv_heads=2), np.arange(T)[None] * 2 // T
    q, k, v = (common.normal(i, B, T, heads, 8) for i, heads in enumerate((4, 2, 2)))

    def loss(implementation, q, k, v, positions):
        tokens = encoding.tokens(positions, np.repeat(segment_ids, B, axis=0))
        out = posenc_jax.attend(encoding, q, k, v, tokens, implementation=implementation)
        return (out**2).sum(), out

    def run(implementation):
        function = jax.value_and_grad(
            functools.partial(loss, implementation), argnums=(0, 1, 2), has_aux=True
        )
        return jax.jit(function)(q, k, v, placed())

    mesh = jax.make_mesh((4,), ("context",), (AxisType.Auto,), devices=jax.devices()[:4])
    expected = run("dense")
    with jax.set_mesh(mesh if implementation == "ring" else jax.sharding.get_mesh()):
        actual = run(implementation)
    for one, other in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)


def test_adapters():
    q, k, v = (common.normal(i, B, T, common.HEADS, common.HEAD_DIM) for i in range(3))
    encoding, positions = common.build("videorope"), placed()
    tokens = encoding.tokens(positions)
    expected = posenc_jax.attend(encoding, q, k, v, tokens)
    close(posenc_jax.attention_fn(encoding, positions)(q, k, v), expected)
    linen = posenc_jax.linen.Encoding("videorope", head_dim=common.HEAD_DIM)
    run = nn.apply(lambda e: e.attend(q, k, v, e.tokens(positions)), linen)
    close(run({}), expected)


@pytest.mark.slow
def test_frequencies_that_adapt_to_the_length():
    """The length of a document is the largest position on any axis, whatever lies beside it."""
    rule = DynamicNTK(8, 2.0)
    encoding = common.build("mhrope", frequencies=rule)
    positions, segment_ids = placed(np.int32), np.repeat([[0, 1]], [16, T - 16], axis=1)
    together = common.attention(encoding, residual(), positions, np.repeat(segment_ids, B, axis=0))
    for part in (slice(16), slice(16, T)):
        length = int(positions[:, part].max()) + 1
        alone = common.attention(encoding, residual()[:, part], positions[:, part], length=length)
        close(together[:, part], alone)


@pytest.mark.parametrize("make", [Spectra, lambda _, rule: ByAxis((0, 1, 2) * 2, (rule,) * 3)])
def test_rules_of_axes_that_adapt_to_the_length(make):
    rule = make((2, 2, 2), DynamicNTK(8, 2.0))
    for length in (5, 40):
        fixed, factor = rule(12, 100.0, length)
        traced, _ = rule(12, 100.0, jnp.full((B, 1), length))
        traced = np.float64(traced.high) + np.float64(traced.low)
        np.testing.assert_allclose(traced, np.tile(fixed, (B, 1, 1)), rtol=1e-6)
        assert factor == 1


@pytest.mark.parametrize("lengths", [[[40]], [[10, 20, 30, 40]]])
def test_rules_of_heads_that_adapt_to_the_length(lengths):
    """Each head has its axis's rule, also where there are as many tokens as heads."""
    axes = by_head((2, 1, 1), 4, 4)
    rules = DynamicNTK(8, 2.0), DynamicNTK(4), Default()
    positions, lengths = jnp.asarray(placed(np.int32)[:, :4]), jnp.array(lengths)
    *plain, by_axis = (
        common.build("rope", axes=axes, frequencies=frequencies)
        .tokens(positions, length=lengths)
        .made
        for frequencies in (*rules, ByAxis(axes, rules))
    )
    for head, axis in enumerate((0, 0, 1, 2)):
        for actual, expected in zip(by_axis, plain[axis], strict=True):
            close(actual[:, :, head], expected[:, :, head])


GRADIENTS = {
    "axial_rope": 2,
    "mrope": 3,
    "mhrope": 3,
    "time_rope": 3,
    "sinusoidal_2d": 2,
    "learned_2d": 2,
    "alibi_2d": 2,
    "sinusoidal": 1,
    "rerope": 1,
    "leaky_rerope": 1,
    "self_extend": 1,
    "dual_chunk": 1,
    "logn": 1,
    "ssmax": 1,
    "soft_cap": 1,
    "prope": 1,
}


@pytest.mark.parametrize("name", GRADIENTS)
def test_gradient_by_positions(name):
    """The gradient, forward and backward, is that of a small step; two tokens are in one place."""
    encoding = common.build(name, **{"out_of_range": "interpolate"} if "learned" in name else {})
    positions = np.random.default_rng(0).uniform(0.05, 4.5, (1, 8, GRADIENTS[name]))
    positions[:, 3] = positions[:, 5]
    positions = np.float32(positions if GRADIENTS[name] > 1 else 3 * positions[..., 0])
    direction = common.normal(1, *positions.shape)
    direction[:, 3] = direction[:, 5]
    weights = common.normal(2, B, 8, common.HEADS, common.HEAD_DIM)

    @jax.jit
    def total(positions):
        tokens = encoding.tokens(positions, length=8)
        x_BTD = encoding.embed(residual(8), tokens)
        q, k, v = (jnp.einsum("btd,dhc->bthc", x_BTD, w) for w in common.projections())
        out = posenc_jax.attend(encoding, q, k, v, tokens, implementation="dense")
        return (out * weights).sum()

    _, slope = jax.jvp(total, (positions,), (direction,))
    step = 1e-2 * direction
    difference = total(positions + step) - total(positions - step)
    np.testing.assert_allclose(slope, difference / 2e-2, rtol=2e-2, atol=2e-2)
    gradient = jax.grad(total)(positions)
    assert np.isfinite(gradient).all()
    np.testing.assert_allclose((gradient * direction).sum(), slope, rtol=1e-4, atol=1e-4)


# Decoding


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_piece_by_piece(dtype):
    model = common.build_model(common.build("mhrope", num_kv_heads=2), num_kv_heads=2)
    ids = pieces.TOKEN_IDS
    positions = placed(dtype)[:, : ids.shape[1]]
    cache = Cache.empty(model, len(ids), pieces.SIZE, axes=3, dtype=dtype.__name__)
    expected = common.forward(model, ids, positions)
    close(pieces.in_pieces(model, cache, positions), expected, atol=1e-4)


@pytest.mark.parametrize("build", [builders.qwen2_vl, builders.videorope])
def test_generating_after_a_video(build):
    """Text goes on after the video, in rows of unequal length, as in one forward pass."""
    model, count = common.build_model("videorope"), 4
    rows = [build([*SEQUENCE[:-1], Text(n)]) for n in (4, 1)]
    lengths = [each.positions.shape[1] for each in rows]
    positions = np.zeros((B, T + count, 3), rows[0].positions.dtype)
    for row, each in enumerate(rows):
        after = each.next + np.arange(count)
        positions[row, : lengths[row]] = each.positions[0]
        positions[row, lengths[row] : lengths[row] + count] = after[:, None]
    output = posenc_jax.generate(
        model,
        TOKEN_IDS,
        jax.random.key(0),
        max_new_tokens=count,
        lengths=lengths,
        positions=positions[:, :T],
    )
    ids = np.pad(TOKEN_IDS, ((0, 0), (0, count)))
    for row, length in enumerate(lengths):
        ids[row, length : length + count] = output[row]
    likeliest = np.asarray(common.forward(model, ids, positions)).argmax(-1)
    for row, length in enumerate(lengths):
        np.testing.assert_array_equal(likeliest[row, length - 1 :][:count], output[row])


def test_generating_right_after_a_video():
    """Only the builder knows where the text goes on, so it must be said."""
    model, count = common.build_model("videorope"), 4
    placed = builders.videorope(SEQUENCE[:-1], delta=2.0)
    positions, ids = placed.positions, TOKEN_IDS[:1, : placed.positions.shape[1]]
    generate = functools.partial(
        posenc_jax.generate, model, ids, jax.random.key(0), max_new_tokens=count
    )
    with pytest.raises(ValueError, match="next_positions=None continues a last token with one"):
        generate(positions=positions)
    output = generate(positions=positions, next_positions=[placed.next])
    after = np.tile(placed.next + np.arange(count)[None, :, None], 3)
    ids = np.concatenate([ids, output], axis=1)
    positions = np.concatenate([positions, after.astype(positions.dtype)], axis=1)
    likeliest = np.asarray(common.forward(model, ids, positions)).argmax(-1)
    np.testing.assert_array_equal(likeliest[0, -count - 1 : -1], output[0])


def test_a_prompt_and_its_positions_must_fit():
    model = common.build_model("mrope")
    generate = functools.partial(
        posenc_jax.generate, model, TOKEN_IDS, jax.random.key(0), max_new_tokens=1
    )
    with pytest.raises(ValueError, match=rf"shape \(1, 5, 3\), but the prompts are 2 x {T}"):
        generate(positions=np.zeros((1, 5, 3), np.int32))
    for wrong, message in (([3], "2 numbers, .* or 2 x 3"), ([1.5, 2], "fit the int32 of")):
        with pytest.raises(ValueError, match=f"next_positions=.* {message}"):
            generate(positions=placed(np.int32), next_positions=wrong)


# Builders


BUILDERS = [
    builders.qwen2_vl,
    functools.partial(builders.qwen25_vl, tokens_per_second=2),
    builders.qwen3_vl,
    builders.spatial_reset,
    builders.videorope,
    builders.spaced_frames,
    builders.vanilla,
    builders.frame_time,
]


@pytest.mark.parametrize("build", BUILDERS)
def test_a_sequence_of_text(build):
    positions, following = build([Text(3), Text(4)])
    np.testing.assert_array_equal(positions, np.tile(np.arange(7)[None, :, None], 3))
    assert following == 7


def test_the_start_of_a_video():
    """Two frames of 3 x 2 patches, in front of everything, are written out."""
    time = [0] * 6 + [0.5] * 6
    row, column = [-1, -1, 0, 0, 1, 1] * 2, [0, 1] * 6
    positions, following = builders.videorope(SEQUENCE[:2], delta=0.5)
    expected = np.stack([time, np.add(time, row), np.add(time, column)], axis=-1)
    np.testing.assert_array_equal(positions[0, :12], expected)
    np.testing.assert_array_equal(positions[0, 12:], np.tile(np.arange(1.5, 5)[:, None], 3))
    assert following == 5.5

    positions, following = builders.spaced_frames(SEQUENCE[:1], delta=0.5)
    expected = np.stack([time, np.add(row, 1), column], axis=-1)
    np.testing.assert_array_equal(positions[0], expected)
    assert following == 3


def test_frames_at_their_seconds():
    """Frames may be of unequal length; their times are rounded down only once they are scaled."""
    video = Vision(4, 1, 1, times=(0.0, 0.4, 0.9, 3.2))
    positions, following = builders.qwen25_vl([Text(2), video], tokens_per_second=2.5)
    np.testing.assert_array_equal(positions[0, :, 0], [0, 1, 2, 3, 4, 10])
    assert following == 11


def test_frames_apart_with_rows_from_zero():
    video = Vision(3, 1, 2)
    positions, following = builders.spatial_reset([Text(5), video, Text(1)], stride=4)
    expected = [[5, 5, 9, 9, 13, 13, 14], [0] * 6 + [14], [0, 1] * 3 + [14]]
    np.testing.assert_array_equal(positions[0, 5:].T, expected)
    assert following == 15


@pytest.mark.parametrize("build", [*BUILDERS[:6], builders.frame_time])
def test_ruler_tokens_are_beside_their_patches(build):
    """Rulers are at every second row and column, and one is past the rows of a wide image."""
    image = Vision(1, 3, 5, ruler=2)
    assert list(image.marks) == [0, 2, 4] and image.tokens == 18
    with_ruler, after = build([Text(4), image, Text(2)])
    without, following = build([Text(4), Vision(1, 3, 5), Text(2)])
    np.testing.assert_array_equal(np.delete(with_ruler, [4, 5, 6], axis=1), without)
    assert after == following
    marks, grid = with_ruler[0, 4:7], without[0, 4:19].reshape(3, 5, 3)
    if build is builders.frame_time:
        np.testing.assert_array_equal(marks, np.full((3, 3), 4))
        return
    np.testing.assert_array_equal(marks[:, 0], grid[0, [0, 2, 4], 0])
    np.testing.assert_array_equal(marks[:2, 1], grid[[0, 2], 0, 1])
    np.testing.assert_array_equal(marks[:, 2], grid[0, [0, 2, 4], 2])


def test_story_time():
    times = [0.5, 0.75, 0.75, -1.25]
    positions = builders.story_time(times, 2, 3, frames_per_second=24.0)
    assert positions.dtype == np.float32
    np.testing.assert_array_equal(positions[0, :, 0], np.repeat([12, 18, 18, -30], 6))
    np.testing.assert_array_equal(positions[0, :, 1], [0, 0, 0, 1, 1, 1] * 4)
    np.testing.assert_array_equal(positions[0, :, 2], [0, 1, 2] * 8)


def test_batches_are_concatenated():
    rows = [builders.qwen2_vl(SEQUENCE), builders.vanilla(SEQUENCE)]
    positions = np.concatenate([each.positions for each in rows])
    assert positions.shape == (2, T, 3)
    for row, each in enumerate(rows):
        np.testing.assert_array_equal(positions[row], each.positions[0])


def test_text_is_known_to_be_consecutive():
    encoding = common.build("rope")
    assert encoding.tokens(text(5, start=-2)).consecutive
    assert text(5).dtype == np.int32 and isinstance(text(5), np.ndarray)
    assert not encoding.tokens(builders.packed(np.array([[0, 0, 1]]))).consecutive


@pytest.mark.parametrize("start", [7.75, np.float32(-0.5), 2**31 - 2])
def test_text_is_neither_cut_to_whole_numbers_nor_wrapped(start):
    """Text after an image on a circle, ``Placed.next``, goes on at a fraction."""
    message = re.escape(f"start={start!r} and length=4 must give whole numbers")
    with pytest.raises(ValueError, match=message):
        builders.text(4, start=start)
    assert builders.text(4, start=7.0).tolist() == [[7, 8, 9, 10]]


def test_large_times_since_an_origin():
    """Unix seconds are one position in float32, and nanoseconds fit no int32."""
    seconds = np.array([[1_700_000_000.25, 1_700_000_010.5]])
    since = builders.since(seconds, 1_700_000_000)
    np.testing.assert_array_equal(since, np.float32([[0.25, 10.5]]))
    assert since.dtype == np.float32
    nanoseconds = np.uint64(2**63) + np.array([[1, 2_000_000_000]], np.uint64)
    since = builders.since(nanoseconds, np.uint64(2**63))
    np.testing.assert_array_equal(since, np.int32([[1, 2_000_000_000]]))
    assert since.dtype == np.int32
    origins = np.array([[0], [1_700_000_000]])
    of_rows = builders.since([[5, 9], [1_700_000_001, 1_700_000_002]], origins)
    np.testing.assert_array_equal(of_rows, [[5, 9], [1, 2]])
    for bad in (seconds, nanoseconds):
        with pytest.raises(ValueError, match=r"posenc_jax\.positions\.since"):
            common.build("rope").tokens(bad)


@pytest.mark.parametrize(
    ("times", "origin", "message"),
    [
        ([2**40], 0, "1099511627776, a time since its origin, does not fit into int32"),
        ([-(2**31) - 1], 0, "does not fit into int32: subtract an origin that is nearer"),
        ([1.7e9 + 0.3], 0.0, r"1700000000.3, .* moved by 0.3 in float32: subtract an origin"),
        ([2], 0.5, "int64 and an origin of type float64 do not go together"),
        ([float("nan")], 0.0, "must be finite"),
        ([[True]], 0, "times of type bool"),
    ],
)
def test_times_that_do_not_fit(times, origin, message):
    with pytest.raises(ValueError, match=message):
        builders.since(times, origin)


def test_times_are_subtracted_outside_of_jit():
    with pytest.raises(ValueError, match=r"call it outside of jax\.jit"):
        jax.jit(builders.since)(np.ones((1, 2), np.float32), 0)


def test_segments_of_ids():
    ids = [9, 5, 7, 7, 6, 8, 8, 8, 8, 8, 8, 9]
    read = functools.partial(builders.segments_of, ids, image_token=7, video_token=8)
    video = dict(image_grids=[(1, 2, 4)], video_grids=[(3, 4, 2)])
    found = read(**video, seconds_per_frame=[0.5])
    assert found == [Text(2), Vision(1, 1, 2), Text(1), Vision(3, 2, 1, (0.0, 0.5, 1.0)), Text(1)]
    assert read(**video, frame_by_frame=True)[3:6] == [Vision(1, 2, 1)] * 3
    assert read(image_grids=[(1, 1, 2)], video_grids=[(6, 1, 1)], merge=1)[1] == Vision(1, 1, 2)


def test_each_video_has_seconds_of_its_own():
    """They come as a list or as an array of any library, as processors give them."""
    read = functools.partial(
        builders.segments_of, [5, 8, 8, 9, 8, 8], image_token=7, video_token=8, merge=1
    )
    grids = dict(video_grids=[(2, 1, 1)] * 2)
    expected = [Text(1), Vision(2, 1, 1, (0.0, 0.5)), Text(1), Vision(2, 1, 1, (0.0, 2.0))]
    for seconds in ([0.5, 2.0], np.array([0.5, 2.0]), jnp.array([0.5, 2.0])):
        assert read(**grids, seconds_per_frame=seconds) == expected
    for seconds in ([0.5], [0.5, 2.0, 1.0]):
        with pytest.raises(ValueError, match="must have a number for each of the 2 video_grids"):
            read(**grids, seconds_per_frame=seconds)


@pytest.mark.parametrize(
    ("grids", "message"),
    [
        (
            dict(image_grids=[(1, 4, 4)], video_grids=[(3, 4, 2)]),
            "image of 1 x 2 x 2 patches, merged, needs 4 tokens, but ids have 2 from index 2 on",
        ),
        (
            dict(image_grids=[(1, 2, 4)], video_grids=[(2, 4, 2)]),
            "more video tokens than video_grids say: the one at index 9",
        ),
        (dict(video_grids=[(3, 4, 2)]), "more image tokens than image_grids say.* index 2"),
        (
            dict(image_grids=[(1, 2, 4)] * 3, video_grids=[(3, 4, 2)]),
            "image_grids have 2 more than ids have images",
        ),
        (dict(image_grids=[(1, 3, 4)]), "1 x 3 x 4 patches does not divide by merge=2"),
    ],
)
def test_ids_and_grids_that_disagree(grids, message):
    ids = [9, 5, 7, 7, 6, 8, 8, 8, 8, 8, 8, 9]
    with pytest.raises(ValueError, match=message):
        builders.segments_of(ids, image_token=7, video_token=8, **grids)


@pytest.mark.slow
def test_layers_that_read_axes_of_their_own():
    """Circle-RoPE has even layers on the circle and odd layers on the grid."""
    parts = [Text(3), Vision(1, 2, 3), Text(2)]
    circle, grid = builders.circle_rope(parts).positions, builders.qwen2_vl(parts).positions
    T = circle.shape[1]
    mrope = common.build("mrope")
    model = common.build_model([OnAxes(mrope, axes=(0, 1, 2)), OnAxes(mrope, axes=(5, 3, 4))])
    both = np.concatenate([circle, grid[..., [1, 2, 0]]], axis=-1)
    logits = common.forward(model, TOKEN_IDS[:, :T], both)

    x_BTD = model.embedding[...][TOKEN_IDS[:, :T]]
    for layer, positions in zip(model.layers, (circle, grid), strict=True):
        x_BTD, _ = layer.block(x_BTD, mrope, mrope.tokens(positions))
    close(logits, model.final_norm(x_BTD) @ model.embedding[...].T, atol=1e-4)

    on_one = common.build_model([OnAxes(common.build("rope"), axes=(1,))] * 2)
    rope = on_one.under(common.build("rope"))
    close(
        common.forward(on_one, TOKEN_IDS[:, :T], both),
        common.forward(rope, TOKEN_IDS[:, :T], circle[..., 1]),
        atol=1e-4,
    )


NAN = float("nan")
LONGER = dict(first_repeat=70, length=60)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Text(0), "tokens=0 of Text must be a whole number, 1 or more"),
        (lambda: Vision(1, 0, 4), "rows=0 of Vision must be a whole number"),
        (lambda: Vision(1, True, 4), "rows=True of Vision must be a whole number"),
        (lambda: Vision(1, 2, 2.5), "columns=2.5 of Vision must be a whole number"),
        (lambda: Vision(1, 2, 2, ruler=0), "ruler=0 of Vision must be a whole number"),
        (lambda: Vision(2, 1, 1, times=(0.0,)), r"times=\(0.0,\) must be 2 finite numbers"),
        (lambda: Vision(2, 1, 1, times=(0.0, NAN)), r"times=\(0.0, nan\) must be 2 finite"),
        (lambda: Vision(3, 1, 1, times=(0.0, 2.0, 1.5)), "decrease, but 1.5 comes after 2.0"),
        (lambda: builders.qwen2_vl([]), r"segments=\[\] must be a list of Text"),
        (lambda: builders.qwen3_vl([Vision(3, 1, 1)]), "a video's 3 frames in blocks of one"),
        (
            lambda: builders.qwen25_vl([Vision(3, 1, 1)], tokens_per_second=2),
            "needs the times of a video's 3 frames",
        ),
        (
            lambda: builders.qwen3_omni([Vision(3, 1, 1)], tokens_per_second=2),
            "needs the times of a video's 3 frames",
        ),
        (
            lambda: builders.qwen25_omni(SEQUENCE, tokens_per_second=0.25),
            "seconds_per_chunk=2.0 must make a chunk of one position",
        ),
        (lambda: Film(Vision(2, 1, 1), 3), "of Film must have times"),
        (lambda: Film(Vision(1, 1, 1, times=(0.0,)), 0), "audio=0 of Film must be a whole number"),
        (
            lambda: builders.qwen2_vl([Film(Vision(1, 1, 1, times=(0.0,)), 3)]),
            "does not accept Film.* give it Text and Vision",
        ),
        (lambda: builders.circle_rope([Vision(2, 3, 3)]), "no place for the time of 2 frames"),
        (lambda: builders.circle_rope(SEQUENCE, radius=0), "radius=0 must be a number above 0"),
        (lambda: builders.circle_rope(SEQUENCE, angle_share=2), "angle_share=2 must be within"),
        (
            lambda: riflex(posenc_jax.make("mhrope", num_heads=3, head_dim=8), **LONGER),
            "riflex cannot change RoPE with these axes",
        ),
        (
            lambda: riflex(posenc_jax.make("hope_hybrid", head_dim=16), **LONGER),
            "axis=0 rotates no pair",
        ),
        (
            lambda: riflex(posenc_jax.make("dynamic_ntk", head_dim=8, train_length=9), **LONGER),
            "adapts to the length, and RIFLEx changes frequencies that do not",
        ),
        (
            lambda: riflex(posenc_jax.make("rope", head_dim=8), **LONGER).tokens(text(3)),
            "length=60 must be above the 63 frames",
        ),
        (
            lambda: OnAxes(common.build("rope"), axes=(-1,)),
            "must be a tuple of numbers of axes",
        ),
        (
            lambda: OnAxes(common.build("rope"), axes=(3,)).tokens(placed()),
            r"axes=\(3,\) are not all among the 3 axes of positions of shape",
        ),
        (lambda: UltraViCo(over=common.build("rope"), window=0), "window=0 must be at least 1"),
        (
            lambda: UltraViCo(over=common.build("rope"), window=8, alpha=2.0),
            "alpha=2.0 must be within 0..1",
        ),
        (lambda: builders.spatial_reset(SEQUENCE, stride=0.5), "stride=0.5 must be a whole number"),
        (lambda: builders.centred_grid(2.5, 2), "rows=2.5 must be a whole number, 1 or more"),
        (lambda: builders.videorope(SEQUENCE, delta=0), "delta=0 must be a number above 0"),
        (lambda: builders.spaced_frames(SEQUENCE, delta=NAN), "delta=nan must be a number above"),
        (lambda: builders.story_time([0.0, NAN], 2, 2), r"times=\[0.0, nan\] must be finite"),
        (
            lambda: builders.story_time([1.7e9, 1.7e9 + 10], 2, 2),
            "1700000010.0, a time since its origin, would be moved by 10 in float32",
        ),
        (lambda: builders.story_time([], 2, 2), r"times=\[\] must be finite numbers"),
        (lambda: builders.story_time([1.0], 2, 0), "columns=0 of Vision must be a whole number"),
        (lambda: shares(2, (1, 2, 2)), "2 channel pairs are too few for 3 axes"),
        (lambda: by_head((2, 2, 2), 5, 4), r"\(2, 2, 2\) are 6 heads, but .* num_kv_heads=5"),
        (lambda: temporal_last((1, 2, 1)), r"sections=\(1, 2, 1\) must be of time, row and col"),
        (lambda: interleaved((2, 1, 1), (0, 1, 1)), r"order=\(0, 1, 1\) must be the axes 0..2"),
        (
            lambda: ByAxis((0, 1), (YaRN(32), Default()))(4, 1e4, 8),
            r"attention factors of the axes differ: \[1.13.*, 1.0\]",
        ),
        (
            lambda: ByAxis((0, 1), (DynamicYaRN(8),) * 2)(4, 1e4, jnp.full((1, 1), 16)),
            "attention factors of the axes differ",
        ),
        (
            lambda: ByAxis((0, 1, 2, 3), (Default(),) * 3),
            r"axes=\(0, 1, 2, 3\) names axis 3, but frequencies has rules for axes 0..2 only",
        ),
        (
            lambda: ByAxis(((0, 1), (2, 1)), (Default(),) * 2),
            "names axis 2, but frequencies has rules for axes 0..1 only",
        ),
    ],
)
def test_what_cannot_be_is_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.parametrize(
    ("name", "bad", "message"),
    [
        ("mrope", {"sections": (1, 1, 1)}, "sections=(1, 1, 1) must be whole numbers of channel"),
        ("mrope", {"head_dim": 4}, "2 channel pairs are too few for 3 axes"),
        ("mrope", {"sections": (2, 3, -1)}, "sections=(2, 3, -1) must be whole numbers"),
        ("i_mrope", {"sections": (1, 1, 2)}, "pair 5 of axis 2 is past the last of 4"),
        ("i_mrope", {"order": (0, 2)}, "order=(0, 2) must be the axes 0..2"),
        ("videorope", {"sections": (1, 2, 1)}, "the last two equal"),
        (
            "videorope",
            {"head_dim": 16, "frequencies": ByAxis((0,) * 8, (Default(),) * 3)},
            "frequencies=ByAxis has axes=(0, 0, 0, 0, 0, 0, 0, 0), but the encoding's are "
            "(1, 2, 1, 2, 1, 2, 0, 0)",
        ),
        (
            "rope",
            {"axes": (0, 1, 0, 1), "frequencies": ByAxis((0, 0, 1, 1), (Default(),) * 2)},
            "frequencies=ByAxis has axes=(0, 0, 1, 1), but the encoding's are (0, 1, 0, 1)",
        ),
        (
            "mrope",
            {"head_dim": 16, "frequencies": Resonance(ByAxis((0,) * 8, (Default(),) * 3))},
            "frequencies=ByAxis has axes=(0, 0, 0, 0, 0, 0, 0, 0), but the encoding's are ",
        ),
        ("videorope_pp", {"factor": 0.5}, "factor=0.5 must be a finite number"),
        ("videorope_pp", {"train_length": 1}, "train_length=1 must be at least 2"),
        ("time_rope", {"sections": (4, 4, 4)}, "4 in all: 8 rotary channels are 4 pairs"),
        ("mhrope", {"axis_heads": None, "num_kv_heads": 2}, "num_kv_heads=2 are too few for three"),
        ("rope", {"axes": (0, 1, -2, 0)}, "axes=(0, 1, -2, 0) must be numbers of position axes"),
        ("rope", {"axes": ((0, 1, 0, 0), (0, 1))}, "axes names 2 channel pairs, but rotary_dim=8"),
    ],
)
def test_a_setting_that_does_not_fit(name, bad, message):
    with pytest.raises(ValueError) as error:
        common.build(name, **bad)
    assert message in str(error.value)


def test_another_number_of_kv_heads():
    encoding = common.build("mhrope", axis_heads=(1, 1, 1))
    tokens = encoding.tokens(text(T))
    q, k, v = (common.normal(0, B, T, heads, 8) for heads in (4, 2, 2))
    with pytest.raises(ValueError, match="made for num_kv_heads=4, but attention has 2 kv heads"):
        posenc_jax.attend(encoding, q, k, v, tokens)
