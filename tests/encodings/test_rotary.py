"""Tests the rotary family's three dials on their own, the angles under them, and the layouts."""

import common
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import schemes
from golden_checks import ONE_HEAD

import posenc_jax
from posenc_jax import Side
from posenc_jax.encodings.rotary.angles import cos_sin
from posenc_jax.encodings.rotary.axes import STILL, chunked, interleaved
from posenc_jax.encodings.rotary.frequencies import DynamicPI, HoPE, Resonance, YaRN, geometric
from posenc_jax.encodings.rotary.layouts import to_half, to_interleaved
from posenc_jax.encodings.rotary.rope import RoPE
from posenc_jax.positions import centred_grid, packed, text

FREQUENCIES = geometric(32, 10000.0)
QUERIES = Side(None, common.HEADS, common.HEADS, is_query=True)


def check_angles(cos, sin, positions, frequencies, atol):
    angles = positions.astype(np.longdouble) * np.asarray(frequencies, np.longdouble)
    np.testing.assert_allclose(cos, np.cos(angles), rtol=0, atol=atol)
    np.testing.assert_allclose(sin, np.sin(angles), rtol=0, atol=atol)


def test_angles_of_negative_and_fractional_positions():
    """Angles are exact to 5e-7 for every int32 position, and as float32 too."""
    rng = np.random.default_rng(0)
    whole = [
        rng.integers(-(2**bits), 2**bits, size=(500, 1)).astype(np.int32) for bits in range(20, 32)
    ]
    ends = np.array([[-(2**31)], [2**31 - 1], [2**22 - 1], [2**22], [-(2**22) - 1]], np.int32)
    near = rng.uniform(-3000, 3000, size=(500, 1)).astype(np.float32)
    for positions in (*whole, ends, near):
        for given in (positions, positions.astype(np.float32)):
            cos, sin = jax.jit(lambda p: cos_sin(p, FREQUENCIES))(given)
            check_angles(cos, sin, given, FREQUENCIES, atol=5e-7)


@pytest.mark.slow
@pytest.mark.parametrize(("bits", "atol"), [(22, 5e-7), (24, 5e-7), (31, 2e-5)])
def test_angles_of_a_traced_frequency(bits, atol):
    positions = np.random.default_rng(0).integers(-(2**bits), 2**bits, size=(500, 1))
    positions = np.append(positions, [[0], [5], [4097], [2**bits - 1]], axis=0).astype(np.int32)
    frequencies = jnp.asarray(FREQUENCIES, jnp.float32)
    check_angles(*jax.jit(cos_sin)(positions, frequencies), positions, frequencies, atol)

    def of_base(positions, base):
        return cos_sin(positions, geometric(32, base))

    check_angles(*jax.jit(of_base)(positions, jnp.float32(1e4)), positions, FREQUENCIES, atol)


def test_derivative_by_the_position_is_the_frequency():
    positions = jnp.array([[-2.25], [0.5], [3000.75]])

    def angle_sum(positions):
        cos, sin = cos_sin(positions, FREQUENCIES)
        return cos, sin

    (cos, sin), (d_cos, d_sin) = jax.jvp(angle_sum, (positions,), (jnp.ones_like(positions),))
    np.testing.assert_allclose(d_cos, -sin * FREQUENCIES[None], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(d_sin, cos * FREQUENCIES[None], rtol=1e-5, atol=1e-6)


FIXED = [
    "ntk_critical",
    "ntk_by_parts",
    "llama3",
    "clipped_rope",
    "resonance",
    "longrope",
    "longrope2",
]


@pytest.mark.parametrize("name", FIXED)
@pytest.mark.parametrize("as_array", [False, True])
def test_fixed_frequencies_to_two_million(name, as_array):
    """The angle between two tokens, too, is that of their distance."""
    scheme, train_length, head_dim = schemes.ALL[name], 32, 16
    own = scheme.settings[0]
    encoding = common.build(name, head_dim=head_dim, train_length=train_length, **own)
    equations = scheme.equations
    rate, temperature = equations.frequencies(head_dim, 1e4, own, None)
    attention = np.sqrt(temperature)
    if hasattr(equations, "factors"):
        slower, attention = equations.factors(head_dim, 1e4, own)[1]
        rate = rate / np.array(slower)

    starts = np.array([0, 1, 4097, 131_072, 1_000_003, 2_097_051])
    positions = (starts[:, None] + np.array([[0, 1, 7, 100]])).astype(np.int32)
    assert positions.max() == 2_097_151
    length = jnp.full((len(starts), 1), 2**21) if as_array else 2**21
    if as_array:
        tables = jax.jit(lambda p, n: encoding.tokens(p, length=n).made)(positions, length)
    else:
        tables = jax.jit(lambda p, n: encoding.tokens(p, length=n).made, static_argnums=1)(
            positions, length
        )
    cos, sin = (np.asarray(table[:, :, 0], np.float64) / attention for table in tables)
    angles = positions[..., None].astype(np.float64) * rate
    np.testing.assert_allclose(cos, np.cos(angles), rtol=0, atol=5e-7)
    np.testing.assert_allclose(sin, np.sin(angles), rtol=0, atol=5e-7)

    turned = cos + 1j * sin
    between = np.angle(turned * turned[:, :1].conj() * np.exp(-1j * (angles - angles[:, :1])))
    np.testing.assert_allclose(between, 0, atol=1e-6)


@pytest.mark.parametrize("name", ["dynamic_pi", "dynamic_ntk", "dynamic_yarn", "longrope"])
def test_lengths_of_any_kind(name):
    """A Python int, a scalar, and an array for each row or token say the same."""
    encoding = common.build(name)
    positions = np.array([[5, 60], [3, 70]], np.int32)
    lengths = np.array([[20, 20], [100, 40]])
    together = jax.jit(lambda p, n: encoding.tokens(p, length=n).made)(positions, lengths)
    for row, token in ((0, 0), (1, 1)):
        one = positions[row : row + 1, token : token + 1]
        length = int(lengths[row, token])
        for given in (length, jnp.int32(length), np.int64(length), jnp.full((1, 1), length)):
            alone = encoding.tokens(one, length=given).made
            for table, tables in zip(alone, together, strict=True):
                np.testing.assert_allclose(table[0, 0], tables[row, token], atol=1e-5)


def test_start_tokens_turn_as_in_rope():
    plain, encoding = common.build("rope"), common.build("longrope", start_tokens=3)
    expected, actual = (each.tokens(text(6), length=100).made for each in (plain, encoding))
    for one, other in zip(actual, expected, strict=True):
        np.testing.assert_array_equal(one[:, :3], other[:, :3])
        assert (np.abs(one[:, 3:] - other[:, 3:]) > 1e-3).any(axis=(0, 2, 3)).all()


def test_resonance_repeats_after_whole_tokens():
    rate = Resonance()(64, 10000.0, 1)[0]
    wavelengths = 2 * np.pi / rate
    np.testing.assert_allclose(wavelengths, np.round(wavelengths), rtol=1e-12)
    assert (wavelengths[0], wavelengths[-1]) == (6, round(2 * np.pi * 10000 ** (62 / 64)))


def test_resonance_rounds_what_other_frequencies_give():
    yarn = YaRN(512, 4.0)
    rate, attention_factor = Resonance(yarn)(64, 10000.0, 1)
    expected, temperature = yarn(64, 10000.0, 1)
    assert attention_factor == temperature > 1
    np.testing.assert_allclose(2 * np.pi / rate, np.round(2 * np.pi / expected), rtol=1e-12)
    # Pairs that do not turn stay as they are, whatever kind of length there is.
    still = Resonance(HoPE(32))(16, 10000.0, 1)[0]
    assert (still == 0).any() and np.isfinite(still).all()
    for length in (40, 400):
        fixed, _ = Resonance(DynamicPI(100))(16, 100.0, length)
        traced, _ = Resonance(DynamicPI(100))(16, 100.0, jnp.full((1, 1), length))
        np.testing.assert_allclose(traced.high[0, 0], fixed, rtol=1e-6)


# Layouts


def test_layouts_written_out():
    x = np.array([10, 20, 30, 11, 21, 31, 7, 8])
    np.testing.assert_array_equal(to_interleaved(x, rotary_dim=6), [10, 11, 20, 21, 30, 31, 7, 8])
    np.testing.assert_array_equal(to_interleaved(x), [10, 21, 20, 31, 30, 7, 11, 8])
    np.testing.assert_array_equal(to_half(np.arange(6)), [0, 2, 4, 1, 3, 5])


@pytest.mark.parametrize("rotary_dim", [None, 4])
@pytest.mark.parametrize("kind", [np.asarray, jnp.asarray])
def test_layouts_there_and_back(kind, rotary_dim):
    x = kind(common.normal(0, 3, common.HEAD_DIM, 5))
    for one, other in ((to_half, to_interleaved), (to_interleaved, to_half)):
        there = one(x, rotary_dim=rotary_dim, axis=1)
        assert type(there) is type(x) and not np.array_equal(there, x)
        np.testing.assert_array_equal(other(there, rotary_dim=rotary_dim, axis=1), x)


@pytest.mark.parametrize("rotary_dim", [common.HEAD_DIM, 4])
@pytest.mark.parametrize(
    ("layout", "convert"), [("half", to_half), ("interleaved", to_interleaved)]
)
def test_a_model_in_the_other_layout(rotary_dim, layout, convert):
    """Converted projections of queries and keys, or converted activations, give the same model."""
    other = {"half": "interleaved", "interleaved": "half"}[layout]
    new, old = (
        common.build("rope", layout=each, rotary_dim=rotary_dim) for each in (layout, other)
    )
    x_BTD = 0.5 * common.normal(0, 2, 9, common.WIDTH)
    q, k, v = common.projections()
    converted = [*(convert(w, rotary_dim=rotary_dim) for w in (q, k)), v]
    expected = common.attention(old, x_BTD, text(9), weights=[q, k, v])
    actual = common.attention(new, x_BTD, text(9), weights=converted)
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)
    unconverted = common.attention(new, x_BTD, text(9), weights=[q, k, v])
    assert np.abs(unconverted - expected).max() > 1e-3

    x_BTHC = common.normal(1, 2, 9, common.HEADS, common.HEAD_DIM)
    by_old = old.rotate(x_BTHC, old.tokens(text(9)), QUERIES)
    by_new = new.rotate(convert(x_BTHC, rotary_dim=rotary_dim), new.tokens(text(9)), QUERIES)
    np.testing.assert_allclose(by_new, convert(by_old, rotary_dim=rotary_dim), atol=1e-6)


@pytest.mark.parametrize("layout", ["half", "interleaved"])
def test_a_bfloat16_rotation_is_rounded_once(layout):
    encoding = common.build("rope", layout=layout)
    tokens = encoding.tokens(text(300))
    x_BTHC = jnp.asarray(common.normal(0, 1, 300, 2, common.HEAD_DIM), jnp.bfloat16)
    rounded = encoding.rotate(x_BTHC, tokens, QUERIES)
    exact = encoding.rotate(x_BTHC.astype(jnp.float32), tokens, QUERIES)
    np.testing.assert_array_equal(rounded, exact.astype(jnp.bfloat16))


def test_axes_of_equal_positions_are_text():
    plain = common.build("rope")
    positions = np.array([[3, 1, 4, 1, 5]], np.int32)
    stacked = jnp.asarray(np.stack([positions] * 3, axis=-1))
    for axes in (chunked((2, 1, 1)), interleaved((2, 1, 1))):
        several = common.build("rope", axes=axes)
        for one, other in zip(
            plain.tokens(jnp.asarray(positions), length=6).made,
            several.tokens(stacked, length=6).made,
            strict=True,
        ):
            np.testing.assert_array_equal(one, other)


def test_heads_with_axes_of_their_own():
    """A query turns by the axes of its kv head, wherever heads are cut."""
    encoding = posenc_jax.make("rope", head_dim=8, axes=((0,) * 4, (1,) * 4))
    rng = np.random.default_rng(0)
    tokens = encoding.tokens(rng.integers(0, 50, (1, 5, 2)).astype(np.int32))
    q = jnp.asarray(common.normal(0, 1, 5, 4, 8))
    turned = encoding.rotate(q, tokens, Side(None, 4, 2, is_query=True))
    for head in range(4):
        own = Side(jnp.array([head]), 4, 2, is_query=True)
        one = encoding.rotate(q[:, :, head : head + 1], tokens, own)
        np.testing.assert_array_equal(one[:, :, 0], turned[:, :, head])
        alone = posenc_jax.make("rope", head_dim=8)
        of_axis = alone.tokens(tokens.positions[..., head // 2])
        np.testing.assert_allclose(
            turned[:, :, head], alone.rotate(q, of_axis, QUERIES)[:, :, head], atol=1e-6
        )


def test_allocations():
    assert chunked((2, 3, 1)) == (0, 0, 1, 1, 1, 2)
    assert interleaved((4, 2, 2)) == (0, 1, 2, 0, 1, 2, 0, 0)
    for sections in ((24, 20, 20), (11, 11, 10), (6, 5, 5)):
        assert tuple(np.bincount(interleaved(sections))) == sections
    with pytest.raises(ValueError, match="give axis 0 a larger section"):
        interleaved((1, 3, 4))


def test_positions_of_text():
    np.testing.assert_array_equal(text(4), [[0, 1, 2, 3]])
    np.testing.assert_array_equal(text(3, start=-2), [[-2, -1, 0]])
    assert text(2).dtype == jnp.int32


def test_positions_of_packed_documents():
    segment_ids = jnp.array([[1, 1, 1, 2, 2, 1], [4, 0, 0, 0, 9, 9]])
    # An id that comes again is another document.
    np.testing.assert_array_equal(packed(segment_ids), [[0, 1, 2, 0, 1, 0], [0, 0, 1, 2, 0, 1]])


def test_a_matrix_whose_rows_name_one_axis_is_an_allocation():
    axes = (0, 1, 1, STILL)
    rows = {0: (1.0, 0.0), 1: (0.0, 1.0), STILL: (0.0, 0.0)}
    x_BTHC = jnp.asarray(common.normal(0, 2, 5, 1, 8))
    positions = np.random.default_rng(0).integers(-9, 9, (2, 5, 2)).astype(np.int32)
    for places in (positions, positions[..., 0]):
        turned = []
        for each in (axes, tuple(rows[axis] for axis in axes)):
            encoding = RoPE(head_dim=8, axes=each)
            tokens = encoding.tokens(places)
            turned.append(encoding.rotate(x_BTHC, tokens, ONE_HEAD))
        np.testing.assert_allclose(*turned, atol=1e-6)


def test_bad_matrices_of_axes():
    message = r"axes is a matrix of shape .*rotary_dim=8 has 4 pairs"
    for matrix in (((1.0, 0.0),) * 3, ((((1.0,),) * 4,),)):
        with pytest.raises(ValueError, match=message):
            RoPE(head_dim=8, axes=matrix)
    encoding = RoPE(head_dim=8, axes=((1.0, 0.0),) * 4)
    with pytest.raises(ValueError, match=r"\(1, 3, 3\), but this encoding has 2 position axes"):
        encoding.tokens(np.zeros((1, 3, 3), np.int32))
    for own, message in (
        ({"slowest": 3.0, "fastest": 2.0}, r"slowest=3.0 must be .*not above fastest=2.0"),
        ({"num_axes": 1}, "num_axes=1 must be at least 2"),
    ):
        with pytest.raises(ValueError, match=message):
            common.build("golden_gate", **own)


def test_values_do_not_grow_by_an_attention_factor():
    encoding = common.build("value_rope", frequencies=YaRN(32, 4.0))
    with pytest.raises(ValueError, match=r"attention factor of 1.13.*attention_factor=1.0"):
        encoding.tokens(text(3))


def test_rates_that_all_layers_share_are_not_stacked():
    message = r"LeRoPE, beneath it, has one set for all layers.*build that first"
    with pytest.raises(ValueError, match=message):
        common.build("log_scale", over="lerope", num_layers=2)
    with pytest.raises(ValueError, match="LogScale has parameters for each layer"):
        common.build_model(common.build("log_scale", over="lerope"))


def test_queries_that_are_multiplied_before_attention_are_those_of_a_log_scale():
    scaled = common.build("log_scale", over="lerope")
    q, k = (jnp.asarray(common.normal(n, 2, 9, common.HEADS, common.HEAD_DIM)) for n in (1, 2))
    logs = np.log(np.arange(9) + 1)[None, :, None]
    factors = np.asarray(scaled.s[...]) * logs + np.asarray(scaled.b[...])
    expected, found = (
        posenc_jax.logits(encoding, queries, k, encoding.tokens(text(9)))
        for encoding, queries in ((scaled, q), (scaled.inner, q * factors[..., None]))
    )
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_bad_grids():
    with pytest.raises(ValueError, match=r"columns=0 must be a whole number, 1 or more"):
        centred_grid(3, 0)
