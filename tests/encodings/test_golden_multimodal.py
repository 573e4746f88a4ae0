"""Compares rotation by several position axes, and builders, with other people's code."""

import dataclasses

import common
import jax.numpy as jnp
import numpy as np
import pytest
from golden_checks import assert_frequencies, by_token, close, rotated

import posenc_jax
from posenc_jax import positions as builders
from posenc_jax.encodings.lib.axes import chunked
from posenc_jax.encodings.rotary.frequencies.base import Default, Frequencies
from posenc_jax.encodings.rotary.frequencies.by_axis import ByAxis
from posenc_jax.encodings.rotary.frequencies.ntk import NTKFrequencies
from posenc_jax.encodings.rotary.frequencies.pi import PositionInterpolationFrequencies
from posenc_jax.encodings.rotary.frequencies.yarn import YaRNFrequencies
from posenc_jax.encodings.rotary.riflex import riflex
from posenc_jax.encodings.wrappers.ultravico import UltraViCo
from posenc_jax.positions import Film, Text, Vision


def axes_last(positions_ABT):
    """Returns ``[B, T, A]``."""
    return np.moveaxis(positions_ABT, 0, -1)


# Encodings


MROPE = [(name, "mrope") for name in ("mrope_chunked_small", "mrope_chunked_128")]
MROPE += [(n, "i_mrope") for n in ("mrope_interleaved_small", "mrope_interleaved_128")]
MROPE += [(n, "i_mrope") for n in ("mrope_interleaved_partial", "mrope_interleaved_yarn")]


@pytest.mark.parametrize(("name", "scheme"), MROPE)
def test_mrope(name, scheme):
    """Sections are given, or the default, which is in the same proportions."""
    arrays, params = common.golden(name)
    settings = dict(head_dim=params["head_dim"], base=params["rope_theta"])
    if "partial_rotary_factor" in params:
        settings["rotary_dim"] = int(params["partial_rotary_factor"] * params["head_dim"])
    if "factor" in params:
        train_length = params["original_max_position_embeddings"]
        settings["frequencies"] = YaRNFrequencies(train_length, params["factor"])
    positions = axes_last(arrays["position_ids"]).astype(np.int32)
    for sections in (tuple(params["mrope_section"]), None):
        encoding = posenc_jax.make(scheme, sections=sections, **settings)
        assert_rotated(encoding, arrays, positions, atol=3e-4)


def assert_rotated(encoding, arrays, positions, before="{}", after="{}_rot", **tolerance):
    """Compares rotated queries and keys, and returns the keys."""
    for key in ("q", "k"):
        actual = rotated(encoding, by_token(arrays[before.format(key)]), positions)
        close(actual, by_token(arrays[after.format(key)]), **tolerance)
    return actual


def test_mhrope():
    arrays, params = common.golden("mhrope")
    sizes = {key: params[key] for key in ("head_dim", "num_kv_heads")}
    positions = axes_last(arrays["position_ids"]).astype(np.int32)
    for axis_heads in (tuple(params["heads_thw"]), None):
        encoding = posenc_jax.make("mhrope", axis_heads=axis_heads, **sizes)
        tables = encoding.at(positions).tokens.made
        for table, key in zip(tables, ("cos", "sin"), strict=True):
            expected = by_token(arrays[key])[..., : params["head_dim"] // 2]
            close(table, expected, atol=2e-4)
        keys = assert_rotated(encoding, arrays, positions, atol=2e-4)
        # The last kv head has no axis left, and its query heads none either.
        np.testing.assert_array_equal(keys[:, :, -1], by_token(arrays["k"])[:, :, -1])


@pytest.mark.parametrize("size", ["small", "full"])
@pytest.mark.parametrize("scheme", ["videorope", "mrope"])
def test_videorope_applied(size, scheme):
    """Positions are fractional."""
    arrays, every = common.golden("videorope_apply")
    params = every[size]
    sections = tuple(params["mrope_section"])
    positions = axes_last(arrays[f"{size}/position_ids"])
    assert (positions % 1 != 0).any()
    for given in (sections, None):
        sizes = dict(head_dim=params["head_dim"], base=params["rope_theta"])
        encoding = posenc_jax.make(scheme, **sizes, sections=given)
        names = f"{size}/{{}}", f"{size}/{scheme}_{{}}"
        assert_rotated(encoding, arrays, positions, *names, atol=5e-4)


@dataclasses.dataclass(frozen=True)
class Between(Frequencies):
    """Takes the mean of PI and NTK, as M-RoPE++ does for rows."""

    factor: float
    scale: float

    def __call__(self, channels, base, length):
        rules = PositionInterpolationFrequencies(self.factor), NTKFrequencies(self.scale)
        return sum(rule(channels, base, length)[0] for rule in rules) / 2, 1.0


@pytest.mark.parametrize("case", ["c0", "c1"])
def test_yarn_v_and_its_baselines(case):
    arrays, every = common.golden("videorope_yarnv_invfreq")
    params = every[case]
    train_length, factor = params["original_max_position"], params["factor"]
    rope = dict(head_dim=params["head_dim"], base=params["base"])
    scale = (train_length * factor - 1) / (train_length - 1)
    sections = tuple(params["mrope_section"])
    mrope_pp = ByAxis(chunked(sections), (Default(), Between(factor, scale), NTKFrequencies(scale)))
    stretch = dict(train_length=train_length, factor=factor)
    for key, scheme, settings in (
        ("default", "videorope", {}),
        ("ntk", "ntk", {"factor": factor}),
        ("yarn", "yarn", {"attention_factor": 1.0, **stretch}),
        ("videoropepp_v1", "videorope_pp", stretch),
        ("mropepp", "mrope", {"frequencies": mrope_pp}),
    ):
        encoding = posenc_jax.make(scheme, **rope, **settings)
        assert_frequencies(encoding, arrays[f"{case}/{key}"])


@pytest.mark.parametrize("golden", ["riflex_cogvideox", "riflex_hunyuan"])
def test_riflex(golden):
    """One axis, and time's own pairs where it is one of three."""
    arrays, params = common.golden(golden)
    longer = dict(first_repeat=params["first_repeat"], length=params["length"])
    D, base = params["head_dim"], params["base"]
    encoding = posenc_jax.make("rope", head_dim=D, base=base, layout="interleaved")
    assert_frequencies(riflex(encoding, **longer), arrays["inv_freq"])
    pairs = D // 2
    three = posenc_jax.make("time_rope", head_dim=4 * D, base=base)
    unchanged, _ = three.frequencies(4 * D, base, 1)
    slowed, _ = riflex(three, **longer).frequencies(4 * D, base, 1)
    close(slowed[:pairs], arrays["inv_freq"])
    np.testing.assert_array_equal(slowed[pairs:], unchanged[pairs:])
    # Where axes share a spectrum, a pair of another axis may be nearer and is let be.
    shared = posenc_jax.make("i_mrope", head_dim=32)
    changed = riflex(shared, first_repeat=35, length=128).frequencies(32, 1e4, 1)[0]
    (pair,) = np.flatnonzero(changed != shared.frequencies(32, 1e4, 1)[0])
    assert shared.axes[pair] == 0 and changed[pair] == 0.9 * 2 * np.pi / 128


def test_ultravico():
    arrays, params = common.golden("ultravico")
    q, k, v = (jnp.asarray(arrays[key], jnp.float32) for key in ("q", "k", "v"))
    settings = dict(window=params["window"], alpha=params["alpha"])
    encoding = UltraViCo(over=posenc_jax.Encoding(), **settings)
    # Tokens are apart by their index, whatever their positions.
    here = encoding.at(jnp.zeros((1, q.shape[1], 3)))
    close(posenc_jax.logits(here, q, k), arrays["logits"], atol=1e-5)
    for implementation in ("dense", "blockwise"):
        out = posenc_jax.attend(here, q, k, v, causal=False, implementation=implementation)
        close(out, arrays["out"], atol=1e-5)
    two = encoding.at(jnp.zeros((1, 2, 3)))  # which do not say their index among the others
    with pytest.raises(ValueError, match="UltraViCo must know"):
        posenc_jax.attend(two, q[:, :2], here.keys(k, v), causal=False)


STORIES = ["uniform", "slow", "pause", "reverse", "warp", "shifted"]


@pytest.mark.parametrize("story", STORIES)
def test_time_rope(story):
    arrays, params = common.golden("time_rope")
    split = tuple(channels // 2 for channels in params["split_thw"])
    q, k = by_token(arrays["q"]), by_token(arrays["k"])
    positions = builders.story_time(arrays[f"{story}/tau"], *params["grid"])
    for sections in (split, None):
        encoding = posenc_jax.make(
            "time_rope", head_dim=params["head_dim"], base=params["theta"], sections=sections
        )
        cos, sin = encoding.at(positions).tokens.made
        close(cos[0, :, 0], arrays[f"{story}/cos"][:, ::2], atol=3e-4)
        close(sin[0, :, 0], arrays[f"{story}/sin"][:, ::2], atol=3e-4)
        after = (rotated(encoding, x, positions) for x in (q, k))
        logits = jnp.einsum("bthc,bshc->bhts", *after)
        scale = arrays[f"{story}/logits"][0, 0, 0, 0] / float(logits[0, 0, 0, 0])
        np.testing.assert_allclose(scale, 1 / np.sqrt(params["head_dim"]), rtol=1e-4)
        close(logits * scale, arrays[f"{story}/logits"], rtol=1e-4, atol=3e-4)


# Positions


def segments_of(arrays, params, case, row=0, **options):
    """Returns the segments of one row, its padding left out."""
    ids = arrays[f"{case}/input_ids"]
    tokens = {kind: params[f"{kind}_token_id"] for kind in ("image", "video")}
    grids = {kind: arrays[f"{case}/{kind}_grid_thw"] for kind in tokens}
    if len(ids) > 1:  # Here each row has one picture, the only one of its kind.
        grids = {kind: grids[kind][: int(token in ids[row])] for kind, token in tokens.items()}
        if options.get("seconds_per_frame") is not None:
            options["seconds_per_frame"] = options["seconds_per_frame"][: len(grids["video"])]
    ids = ids[row][arrays[f"{case}/attention_mask"][row].astype(bool)]
    options |= {f"{kind}_token": token for kind, token in tokens.items()}
    options |= {f"{kind}_grids": item for kind, item in grids.items()}
    merge = params["spatial_merge_size"]
    return builders.segments_of(ids, merge=merge, **options)


def assert_placed(arrays, case, row, placed, key="position_ids", delta=None):
    mask = arrays[f"{case}/attention_mask"][row].astype(bool)
    expected = arrays[f"{case}/{key}"][:, row][:, mask]
    np.testing.assert_array_equal(placed.positions[0], expected.T)
    assert placed.positions.dtype == (np.float32 if expected.dtype == np.float32 else np.int32)
    if delta is not None:
        assert placed.next - len(mask) == arrays[f"{case}/{delta}"][row, 0]


CASES = ["text", "image", "two_images", "video_long", "batch_leftpad", "image_video"]


def rows_of(arrays, case):
    return range(len(arrays[f"{case}/input_ids"]))


def q25(segments, params):
    return builders.qwen25_vl(segments, tokens_per_second=params["tokens_per_second"])


Q25_CASES = [*CASES[:3], *(f"{case}_s{i}" for case in CASES[3:] for i in range(3))]
QWEN = [("mm_positions_q2", lambda segments, _: builders.qwen2_vl(segments), c) for c in CASES]
QWEN += [("mm_positions_q3", lambda segments, _: builders.qwen3_vl(segments), c) for c in CASES]
QWEN += [("mm_positions_q25", q25, case) for case in Q25_CASES]


@pytest.mark.parametrize(("name", "build", "case"), QWEN)
def test_positions_of_qwen(name, build, case):
    arrays, params = common.golden(name)
    options = {"frame_by_frame": True} if name == "mm_positions_q3" else {}
    if name == "mm_positions_q25":
        options = {"seconds_per_frame": arrays.get(f"{case}/second_per_grid")}
    for row in rows_of(arrays, case):
        placed = build(segments_of(arrays, params, case, row, **options), params)
        assert_placed(arrays, case, row, placed, delta="rope_deltas")


@pytest.mark.parametrize("case", ["image", "two", "video", "late_image"])
@pytest.mark.parametrize("reset", [False, True])
def test_positions_of_mrope_i(case, reset):
    arrays, params = common.golden("mrope_i_positions")
    case = f"{case}_reset{int(reset)}"
    segments = segments_of(arrays, params, case, frame_by_frame=True)
    if reset:
        placed = builders.spatial_reset(segments, stride=params["temporal_stride"])
    else:
        placed = builders.qwen3_vl(segments)
    assert_placed(arrays, case, 0, placed, delta="rope_deltas")


@pytest.mark.parametrize("case", ["text_image", "video", "video_even_grid", "batch", "two_videos"])
def test_positions_of_videorope_and_its_baselines(case):
    arrays, params = common.golden("videorope_positions")
    for row in rows_of(arrays, case):
        segments = segments_of(arrays, params, case, row)
        for delta in params["scale_factors"]:
            placed, key = builders.videorope(segments, delta=delta), f"videorope_d{delta}"
            assert_placed(arrays, case, row, placed, key, delta=f"{key}_delta")
        default = builders.videorope(segments)
        key = f"videorope_d{params['default_scale_factor']}"
        assert_placed(arrays, case, row, default, key)
        for key, build in (
            ("m_rope", builders.qwen2_vl),
            ("vanilla", builders.vanilla),
            ("time", builders.frame_time),
            ("tad_rope", builders.tad_rope),
        ):
            assert_placed(arrays, case, row, build(segments), key)


def segments_as_listed(params):
    """Returns the segments of a TMRoPE case, with the marks of borders as text."""
    merge, audio_tokens = params["spatial_merge_size"], iter(params["audio_tokens"])
    for kind, size, *_ in params["segments"]:
        if kind in ("text", "audio"):
            yield Text(size if kind == "text" else next(audio_tokens) + 2)
            continue
        frames, rows, columns = (1, *size) if kind == "image" else size[:3]
        times = None if kind == "image" else tuple(size[3] * t for t in range(frames))
        vision = Vision(frames, rows // merge, columns // merge, times)
        if kind == "av":
            yield Film(vision, next(audio_tokens))
        else:
            yield from (Text(1), vision, Text(1))


@pytest.mark.parametrize(
    ("golden", "build"),
    [
        ("tmrope_q25_mixed", builders.qwen25_omni),
        ("tmrope_q25_audio_in_video", builders.qwen25_omni),
        ("tmrope_q3_audio_in_video", builders.qwen3_omni),
    ],
)
def test_positions_of_tmrope(golden, build):
    arrays, params = common.golden(golden)
    segments = list(segments_as_listed(params))
    placed = build(segments, tokens_per_second=params["position_id_per_seconds"])
    np.testing.assert_array_equal(placed.positions[0].T, arrays["positions"])
    count = sum(segment.tokens for segment in segments)
    assert placed.next - count == arrays["rope_delta"]


@pytest.mark.parametrize("golden", ["circle_rope", "circle_rope_auto"])
def test_positions_of_circle_rope(golden):
    arrays, params = common.golden(golden)
    image = Vision(1, *params["grid_hw"])
    settings = dict(angle_share=params["alpha"], grid_share=params.get("dff_rate", 0))
    is_auto = params["radius"] == "auto-2"
    settings |= {"radius_scale": 2} if is_auto else {"radius": params["radius"]}
    placed = builders.circle_rope([Text(7), image, Text(2)], **settings)
    patches = placed.positions[0, 7:-2]
    close(patches.T - 7, arrays["positions"], atol=1e-5)
    following = 7 + arrays["positions"].max() + 1
    close(placed.positions[0, -2], np.full(3, following), rtol=1e-6)
    assert placed.next == pytest.approx(following + 2)
