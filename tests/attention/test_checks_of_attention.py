"""Mistakes in tokens and in calls of attention are refused by the name of the argument."""

import functools

import common
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from calls import INF, NAN, X_BTD, B, H, T, attend, read, sides
from common import refuses
from flax import nnx

import posenc_jax
from posenc_jax import HeadShard, Tokens
from posenc_jax.encodings.wrappers.on_axes import OnAxes
from posenc_jax.positions import Text, packed, qwen2_vl, segments_of, text, videorope

# Tokens


def of(positions, encoding="nope", **options):
    return functools.partial(common.build(encoding).tokens, positions, **options)


TWO_AXES = np.zeros((1, T, 2), np.int32)
ONE_AXIS = ["rope", "xpos", "fope", "pope", "rerope", "dual_chunk", "transformer_xl", "sandwich"]
TOKENS = {
    "positions": [
        of(text(0)),
        of(text(T)[0]),
        of([[0, 1], [0]]),
        of(TWO_AXES, "i_mrope"),
        *(of(TWO_AXES, name) for name in ONE_AXIS),
    ],
    "position": [of([[0.0, NAN]]), of([[0, 2**31]]), of(np.float64([[2.0**30 + 0.3]]))],
    "segment_ids": [
        of(text(T), segment_ids=bad)
        for bad in (np.zeros(T, int), np.zeros((1, T + 1), int), np.zeros((1, T)), [[0, 2**32] * 3])
    ],
    "index": [
        of(text(T), index=bad)
        for bad in (np.zeros(T, int), np.zeros((1, T)), [[-(2**31), 0, 1, 2, 3, 2**31 - 1]])
    ],
    "length": [of(text(T), "dynamic_ntk", length=n) for n in (0, True, -3.0, NAN, 2**31, "9", [9])]
    + [of(np.tile(text(T), (2, 1)), "dynamic_ntk", length=np.full(5, 40))],
    "key": [of(text(T), "randomized", key=key) for key in (0, nnx.Rngs(0), jnp.zeros(2))],
    "start|count": [
        lambda start=start, count=count: of(text(T))().part(start, count)
        for start, count in ((1.0, 2), (None, 2), (-1, 2), (5, 2), (1, 0), (1, 1.5))
    ],
    "encoding": [
        lambda bad=bad: posenc_jax.attention_fn(bad, text(T))
        for bad in ("rope", None, posenc_jax.Encoding, posenc_jax.Layers([posenc_jax.Encoding()]))
    ],
    "one position axis": [
        lambda name=name: attend(name, tokens=read(common.build(name), TWO_AXES))
        for name in ("alibi", "t5", "kerple_log", "fire", "shaw", "deberta", "dape")
    ],
    "start and length|length and start|start=|length=": [lambda: text("3"), lambda: text(-3)],
    "segment_ids have": [lambda: packed(np.zeros(3, int))],
    "segments": [lambda: qwen2_vl(Text(3))],
    "image_token": [lambda: segments_of([7], image_token="7", video_token=8)],
    "merge": [lambda: segments_of([7], image_token=7, video_token=8, merge=0)],
    "ids": [lambda: segments_of([[1, 2]], image_token=7, video_token=8)],
    "delta": [lambda: videorope([Text(3)], delta="a")],
    "axes": [lambda: OnAxes(common.build("rope"), axes=(0.5, 1))],
}


@pytest.mark.parametrize("name", TOKENS)
def test_tokens(name):
    for call in TOKENS[name]:
        refuses(name, call)


@pytest.mark.parametrize("dtype", ["uint8", "uint32", "int8", "int64"])
def test_numbers_of_tokens_may_be_of_any_type(dtype):
    """The difference of unsigned numbers is never below 0, which would hide no later token."""
    segment_ids = np.array([[0, 0, 1, 1, 1, 1]])
    usual, other = (
        common.build("rope").tokens(text(T), segment_ids.astype(t), index=text(T).astype(t))
        for t in ("int32", dtype)
    )
    for window in (None, 2):
        outputs = (attend("rope", tokens=each, window=window) for each in (usual, other))
        np.testing.assert_array_equal(*outputs)


# Attention

OTHER_HEADS = ["alibi", "t5", "kerple_log", "sandwich", "fire", "dape", "fox", "ssmax"]
NOPE, POPE = common.build("nope"), common.build("pope")


def shard(heads, *, num_heads=H, given=2, num_kv_heads=None, name="alibi"):
    tokens = common.build(name).tokens(text(T))
    qkv = sides(num_heads=given, num_kv_heads=num_kv_heads)
    return lambda: posenc_jax.attend(HeadShard(common.build(name), heads, num_heads), *qkv, tokens)


def made_for(name, other):
    """Attends with the tokens of another encoding."""
    return lambda: attend(
        name, tokens=read(common.build(other) if isinstance(other, str) else other)
    )


ATTENTION = {
    "q .*k .*v": [
        lambda cut=cut: attend("rope", *cut(*sides()))
        for cut in (
            lambda q, k, v: (q, k[..., :4], v),
            lambda q, k, v: (q, k[:1], v),
            lambda q, k, v: (q, k, v[:, :3]),
            lambda q, k, v: (q, k[:, :, :3], v[:, :, :3]),
            lambda q, k, v: (q[0], k[0], v[0]),
            lambda q, k, v: (q[:, :0], k, v),
        )
    ],
    "floating-point": [lambda: attend("rope", *(x.astype(int) for x in sides()))],
    "array": [lambda: attend("rope", sides()[0].tolist(), *sides()[1:])],
    "num_heads": [lambda name=name: attend(name, *sides(num_heads=2)) for name in OTHER_HEADS],
    "num_kv_heads": [
        lambda name=name: attend(name, *sides(num_heads=2))
        for name in ("fope", "pope", "selective_rope")
    ],
    "head_dim|channels": [
        lambda name=name: attend(name, *sides(channels=6))
        for name in ("shaw", "cope", "deberta", "transformer_xl", "path", "rope", "xpos", "rerope")
    ],
    "k_tokens": [
        lambda: attend("rope", *sides(keys=T + 2)),
        lambda: posenc_jax.attend(NOPE, *sides(), read(NOPE), text(T)),
    ],
    "q_tokens": [
        lambda: attend("nope", tokens=text(T)),
        lambda: attend("nope", tokens=read(NOPE, np.tile(text(T), (3, 1)))),
        lambda: attend("nope", tokens=read(NOPE, segment_ids=np.zeros((3, T), int))),
        lambda: attend("rope", tokens=Tokens(jnp.asarray(text(T)))),
        lambda: attend("nope", tokens=Tokens(jnp.arange(T, dtype=jnp.uint8)[None])),
    ],
    "order": [
        lambda: posenc_jax.attend(NOPE, *sides(keys=T + 2), read(NOPE), read(NOPE, text(T + 2)))
    ],
    "segment_ids": [
        lambda: posenc_jax.attend(
            NOPE, *sides(), read(NOPE), read(NOPE, segment_ids=np.zeros((1, T), int))
        )
    ],
    "window": [
        lambda bad=bad: attend("nope", window=bad)
        for bad in (2.5, True, 0, -1, "4", 2**40, jnp.arange(1, T + 1), jnp.asarray(2.0))
    ],
    "scale": [
        lambda bad=bad: attend("nope", scale=bad)
        for bad in (jnp.ones(H), [0.5], "0.5", True, 1j, INF, 10**400)
    ],
    "causal": [lambda bad=bad: attend("nope", causal=bad) for bad in (None, "no", 0)],
    "sinks": [lambda bad=bad: attend("nope", sinks=bad) for bad in ("head", ["a"], jnp.zeros(3))],
    "implementation": [
        lambda bad=bad: attend("nope", implementation=bad) for bad in ("flash", ["dense"])
    ],
    "encoding": [
        lambda: posenc_jax.attend("rope", *sides(), read(NOPE)),
        lambda: posenc_jax.attention_fn("rope", text(T)),
    ],
    "made for another": [
        made_for("rope", "yarn"),
        made_for("rope", common.build("rope", base=500.0)),
        made_for("xpos", "rope"),
        made_for("sandwich", "rope"),
        made_for("logn", "yarn"),
        made_for("fox", "path"),
    ],
    "rotated keys": [
        lambda: posenc_jax.attend(POPE, *sides(), read(POPE), read(POPE).rotated()),
    ],
    "heads": [
        *(shard(jnp.array(heads)) for heads in ([3], [[2, 3]], [2, 4], [-1, 0], [2, 2])),
        shard([2, 3]),
        shard(jnp.arange(2.0)),
        shard(np.array([1, 2]), num_kv_heads=1),
        shard(np.array([0, 1]), num_heads=5, num_kv_heads=1),
        shard(jnp.array([2, 3]), name="dape"),
    ],
    "Chunks|size": [lambda: posenc_jax.Chunks(0), lambda: posenc_jax.Chunks(2**31)],
    "length|devices": [lambda: posenc_jax.zigzag("8", 2), lambda: posenc_jax.zigzag(8, 0)],
}


@pytest.mark.parametrize("name", ATTENTION)
def test_attention(name):
    for call in ATTENTION[name]:
        refuses(name, call)


READS = [n for n in common.SCHEMES if "observe" in common.outline(n).hooks()]


@pytest.mark.parametrize("name", READS)
def test_what_depends_on_the_input_must_read_it(name):
    encoding = common.build(name)
    tokens = encoding.tokens(text(T))
    refuses("input", lambda: attend(encoding, tokens=tokens))
    # The others look for the token before, and not at what it contains.
    if "model_dim" in posenc_jax.signature(name).parameters:
        wider = jnp.ones((B, T, common.WIDTH + 2))
        refuses("model_dim", lambda: tokens.observed(encoding, wider))
    refuses("floating-point", lambda: tokens.observed(encoding, X_BTD.astype(int)))
    refuses("already", lambda: read(encoding).observed(encoding, X_BTD))


@pytest.mark.parametrize("name", [n for n in common.SCHEMES if common.outline(n).per_layer])
def test_the_parameters_of_all_layers_are_no_layers(name):
    encoding = jax.eval_shape(lambda: common.build(name, num_layers=3, trained=False))
    refuses("3 layers", lambda: posenc_jax.attend(encoding, *sides(), read(NOPE)))


ADDS = [n for n in common.SCHEMES if "embed" in common.outline(n).hooks()]


@pytest.mark.parametrize("name", ADDS)
def test_embeddings_are_one_vector_for_each_token(name):
    """Else one token would be copied to the places of all, or one sequence to all rows."""
    encoding = common.build(name)
    tokens = encoding.tokens(text(T))
    for shape in ((B, 1, common.WIDTH), (B, T, 1), (T, common.WIDTH), (B, T, common.WIDTH + 2)):
        refuses("x has shape", lambda shape=shape: encoding.embed(jnp.ones(shape), tokens))
    refuses("floating-point", lambda: encoding.embed(X_BTD.astype(jnp.int32), tokens))
    refuses("tokens", lambda: encoding.embed(X_BTD, text(T)))
    assert encoding.embed(X_BTD, tokens).shape == X_BTD.shape


def test_keys_are_rotated_ahead_once_and_by_their_own_tokens():
    (_, k, v), tokens = sides(num_kv_heads=2), read(common.build("rope"))
    turn = functools.partial(posenc_jax.rotate_keys, common.build("rope"), num_heads=H)
    *turned, turned_tokens = turn(k, v, tokens)
    refuses("rotated already", lambda: turn(*turned, turned_tokens))
    refuses("tokens", lambda: turn(k, v, common.build("rope").tokens(text(T + 2))))
    refuses("tokens", lambda: turn(k, v, text(T)))
    refuses("k .*v", lambda: turn(k, v[:, :3], tokens))
    for bad in (0, 3, 4.0, True):
        refuses("num_heads=", lambda bad=bad: turn(k, v, tokens, num_heads=bad))
    for name in ("dynamic_ntk", "kv_shift"):
        encoding = common.build(name, num_kv_heads=2)
        run = functools.partial(posenc_jax.rotate_keys, encoding, k, v, num_heads=H)
        refuses("rotates all keys again", lambda run=run, e=encoding: run(read(e)))


def test_windows_and_scales_may_be_numbers_of_any_library():
    expected = attend("nope", window=3, scale=2)
    for number in (np.int64, np.uint8, jnp.int32):
        np.testing.assert_allclose(attend("nope", window=number(3), scale=2.0), expected, rtol=1e-4)
    for number in (np.float32, jnp.asarray, nnx.Param):
        np.testing.assert_allclose(attend("nope", window=3, scale=number(2)), expected, rtol=1e-4)
    traced = jax.jit(lambda window, scale: attend("nope", window=window, scale=scale))
    np.testing.assert_allclose(traced(3, 2.0), expected, rtol=1e-4)


def test_tokens_made_for_an_equal_encoding_are_its_own():
    """Also for one of one layer, and for other numbers."""
    for name in ("rope", "transformer_xl", "fox"):
        encoding = common.build(name, seed=1)
        tokens = jax.jit(lambda e: e.tokens(text(T)))(common.build(name))
        attend(encoding, tokens=tokens.observed(encoding, X_BTD))
    stacked = common.build("fox", num_layers=2)
    attend(stacked.of_layer(1), tokens=stacked.tokens(text(T)).observed(stacked.of_layer(1), X_BTD))
