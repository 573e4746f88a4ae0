"""Mistakes in tokens and in calls of attention are refused by the name of the argument."""

import functools

import common
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from calls import X_BTD, B, H, T, attend, read, sides
from common import refuses
from flax import nnx

import posenc_jax
from posenc_jax import HeadShard
from posenc_jax.encodings.wrappers.on_axes import OnAxes
from posenc_jax.positions import text

# Tokens


def of(positions, encoding="nope", **options):
    return functools.partial(common.build(encoding).tokens, positions, **options)


TWO_AXES = np.zeros((1, T, 2), np.int32)
LARGE = 10**12 + text(T).astype(np.int64)
TOKENS = {
    "positions": [of(text(0)), of(text(T)[0]), of(TWO_AXES, "i_mrope"), of(TWO_AXES, "rope")]
    + [of([[0, 1], [0]])],
    "finite": [of([[0.0, np.nan]])],
    "position": [of([[0, 2**31]]), of(np.float64([[2.0**30 + 0.3]]))],
    "segment_ids": [of(text(T), segment_ids=np.zeros((1, T + 1), int))],
    "np.unique.*, once for all": [of(text(T), segment_ids=LARGE)],
    "index: .* subtract the first": [of(text(T), index=LARGE)],
    "length": [of(text(T), "dynamic_ntk", length=n) for n in (0, "9", np.ones(T - 1))]
    + [of(text(T), "rope", length=n) for n in (1.5, 2**30)],
    "key=0": [of(text(T), "randomized", key=0)],
    "one position axis": [lambda: attend("alibi", tokens=read(common.build("alibi"), TWO_AXES))],
}


@pytest.mark.parametrize("name", TOKENS)
def test_tokens(name):
    for call in TOKENS[name]:
        refuses(name, call)


@pytest.mark.parametrize("dtype", ["uint8", "int64"])
def test_numbers_of_tokens_may_be_of_any_type(dtype):
    """The difference of unsigned numbers is never below 0, which would hide no later token."""
    segment_ids = np.array([[0, 0, 1, 1, 1, 1]])
    usual, other = (
        common.build("rope").tokens(text(T), segment_ids.astype(t), index=text(T).astype(t))
        for t in ("int32", dtype)
    )
    np.testing.assert_array_equal(*(attend(tokens=t, window=2) for t in (usual, other)))


# Attention

NOPE = common.build("nope")


def shard(heads, name="alibi"):
    tokens = common.build(name).tokens(text(T))
    qkv = sides(num_heads=2)
    return lambda: posenc_jax.attend(HeadShard(common.build(name), heads, H), *qkv, tokens)


def made_for(name, other):
    """Attends with the tokens of another encoding."""
    other = common.build(other) if isinstance(other, str) else other
    return lambda: attend(name, tokens=read(other))


def wrong(name, *values):
    """Returns calls with wrong values of one argument."""
    return [lambda value=value: attend("nope", **{name: value}) for value in values]


ATTENTION = {
    "q .*k .*v": [
        lambda cut=cut: attend("rope", *cut(*sides()))
        for cut in (
            lambda q, k, v: (q, k[..., :4], v),
            lambda q, k, v: (q, k, v[:, :3]),
            lambda q, k, v: (q, k[:, :, :3], v[:, :, :3]),
        )
    ],
    "num_heads": [lambda: attend("t5", *sides(num_heads=2))],
    "num_kv_heads=2: pass that to make": [
        lambda name=name: attend(name, *sides(num_kv_heads=2)) for name in ("path", "repo")
    ],
    "head_dim|channels": [lambda: attend("rope", *sides(channels=6))],
    "k_tokens": [lambda: attend("rope", *sides(keys=T + 2))],
    "q_tokens": [lambda: attend("nope", tokens=text(T))],
    "q_tokens has (segment_ids|index) of shape .* batch of 2": [
        lambda key=key: attend("nope", tokens=NOPE.tokens(text(T), **{key: np.zeros((3, T), int)}))
        for key in ("segment_ids", "index")
    ],
    "order": [
        lambda: posenc_jax.attend(NOPE, *sides(keys=T + 2), read(NOPE), read(NOPE, text(T + 2)))
    ],
    "causal": wrong("causal", None, "bidirectional"),
    "window": [*wrong("window", 2.5, 0, (3, 3))],
    "scale": wrong("scale", jnp.ones(H), "0.5"),
    "sinks": wrong("sinks", "head", jnp.zeros(3)),
    "mask": wrong("mask", np.ones((T, T)), np.ones((B, T), bool)),
    "dropout": wrong("dropout", 0.1, (0.1, 0), (0.1, nnx.Rngs(0))),
    "implementation": wrong("implementation", "flash"),
    "encoding": [lambda: posenc_jax.attend("rope", *sides(), read(NOPE))],
    "encoding must be an Encoding, .* not Layers; ": [
        lambda: posenc_jax.attend(posenc_jax.Layers([NOPE]), *sides(), read(NOPE)),
        lambda: posenc_jax.describe(posenc_jax.Layers([NOPE]), num_heads=H, head_dim=8, length=8),
    ],
    "made for another": [
        made_for("rope", "yarn"),
        made_for("rope", common.build("rope", base=500.0)),
        made_for("fox", "path"),
    ],
    "values have 6 channels, .* values=False": [
        lambda: attend("shaw", *sides()[:2], sides(channels=6)[2])
    ],
    "heads": [shard(jnp.array([2, 4])), shard(jnp.array([2, 3]), name="dape")],
}


@pytest.mark.parametrize("name", ATTENTION)
def test_attention(name):
    for call in ATTENTION[name]:
        refuses(name, call)


@pytest.mark.parametrize("name", ["fox", "kv_shift"])
def test_what_depends_on_the_input_must_read_it(name):
    encoding = common.build(name)
    tokens = encoding.tokens(text(T))
    refuses("input", lambda: attend(encoding, tokens=tokens))
    few = [side[:1] for side in sides()]
    refuses("as many rows", lambda: attend(encoding, *few, tokens=tokens, x=X_BTD))
    for shape in ((B, T, common.WIDTH + 2), (B, 1, common.WIDTH), (B, common.WIDTH)):
        refuses(r"\bx\b|model_dim", lambda shape=shape: tokens.observed(encoding, jnp.ones(shape)))
    observed = tokens.observed(encoding, X_BTD)
    refuses("already", lambda: observed.part(0, T).observed(encoding, X_BTD))


@pytest.mark.parametrize("implementation", ["dense", "blockwise"])
def test_a_score_returns_a_logit_for_each_pair(implementation):
    """Also a class that forgets to return anything, and one whose logits would be broadcast."""

    class Summed(posenc_jax.Encoding):
        def score(self, logits_BHTS, tile):
            return logits_BHTS.sum(1, keepdims=True)

    class Forgets(posenc_jax.Encoding):
        def score(self, logits_BHTS, tile):
            pass

    for scheme in (Summed(), Forgets()):
        call = functools.partial(attend, scheme, implementation=implementation)
        refuses(f"score of {type(scheme).__name__}", call)


@pytest.mark.parametrize("name", ["sinusoidal", "learned"])
def test_embeddings_are_one_vector_for_each_token(name):
    """Else one token would be copied to the places of all, or one sequence to all rows."""
    encoding = common.build(name)
    tokens = encoding.tokens(text(T))
    for shape in ((B, 1, common.WIDTH), (B, T, 1), (T, common.WIDTH), (B, T, common.WIDTH + 2)):
        refuses("x has shape", lambda shape=shape: encoding.embed(jnp.ones(shape), tokens))
    refuses("tokens", lambda: encoding.embed(X_BTD, text(T)))


def test_keys_are_rotated_ahead_once_and_by_their_own_tokens():
    (_, k, v), tokens = sides(num_kv_heads=2), read(common.build("rope"))
    rotate = functools.partial(posenc_jax.rotate_keys, common.build("rope"), num_heads=H)
    *rotated, rotated_tokens = rotate(k, v, tokens)
    refuses("rotated already", lambda: rotate(*rotated, rotated_tokens))
    refuses("tokens", lambda: rotate(k, v, common.build("rope").tokens(text(T + 2))))
    refuses("num_heads=", lambda: rotate(k, v, tokens, num_heads=3))
    dynamic = common.build("dynamic_ntk")
    for encoding, who in (
        (dynamic, "RoPE with DynamicNTK"),
        (OnAxes(dynamic, axes=(0,)), "RoPE with DynamicNTK"),
        (common.build("kv_shift", num_kv_heads=2), "KVShift"),
    ):
        run = functools.partial(posenc_jax.rotate_keys, encoding, k, v, num_heads=H)
        refuses(f"{who} rotates all keys again", lambda run=run, e=encoding: run(read(e)))


def test_windows_and_scales_may_be_numbers_of_any_library():
    """And causal may be a bool of NumPy."""
    expected = attend("nope", window=3, scale=2)
    for window, scale in ((np.uint8(3), np.float32(2)), (jnp.int32(3), nnx.Param(2.0))):
        np.testing.assert_allclose(attend("nope", window=window, scale=scale), expected, rtol=1e-4)
    traced = jax.jit(lambda window, scale: attend("nope", window=window, scale=scale))
    np.testing.assert_allclose(traced(3, 2.0), expected, rtol=1e-4)
    for causal in (True, False):
        np.testing.assert_array_equal(
            *(attend("nope", causal=of(causal)) for of in (np.bool_, bool))
        )


KEY = jax.random.key(0)


@pytest.mark.parametrize(
    "run",
    [
        lambda number: read(NOPE).part(number(2), 1).index,
        lambda number: attend("nope", window=(2, number(0))),
        lambda number: attend("nope", dropout=(number(0.5), KEY)),
        lambda number: attend(posenc_jax.make("soft_cap", over=NOPE, cap=number(3.0))),
        lambda number: attend(common.build("rope", base=number(100.0))),
    ],
    ids=["start", "window", "rate", "cap", "base"],
)
def test_numbers_that_are_known_may_be_arrays_in_a_trace(run):
    arrays = {number: jnp.asarray(number) for number in (0, 2, 0.5, 3.0, 100.0)}
    expected = run(lambda number: number)
    np.testing.assert_allclose(jax.jit(lambda: run(arrays.get))(), expected, rtol=1e-4)


def test_windows_to_both_sides_may_be_numbers_of_any_type():
    """Also of types whose negatives wrap around, and as large as int32 holds."""
    run = functools.partial(attend, "nope", causal=False)
    expected, past = run(window=(2, 1)), run(window=(127, 1))
    for of_type in (np.uint8, jnp.uint8):
        actual = run(window=(of_type(2), of_type(1)))
        np.testing.assert_allclose(actual, expected, rtol=1e-4, err_msg=f"{of_type}")
    for left in (np.int8(127), 2**31 - 1):
        np.testing.assert_allclose(run(window=(left, 1)), past, rtol=1e-4)


def test_tokens_made_for_an_equal_encoding_are_its_own():
    """Also for one of one layer, and for other numbers."""
    encoding = common.build("fox", seed=1)
    tokens = jax.jit(lambda e: e.tokens(text(T)))(common.build("fox"))
    attend(encoding, tokens=tokens.observed(encoding, X_BTD))
    stacked = common.build("fox", num_layers=2)
    attend(stacked.of_layer(1), tokens=stacked.tokens(text(T)).observed(stacked.of_layer(1), X_BTD))
