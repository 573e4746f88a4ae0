"""Mistakes in tokens and in calls of attention are refused by the name of the argument."""

import functools

import chex
import common
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from calls import X_BTD, B, H, T, attend, seen, sides
from common import refuses
from flax import nnx

import posenc_jax
from posenc_jax.encodings.wrappers.on_axes import OnAxes
from posenc_jax.positions import text

# Tokens


def of(positions, encoding="nope", **options):
    return functools.partial(common.build(encoding).at, positions, **options)


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
    "one position axis": [lambda: attend("alibi", here=seen(common.build("alibi"), TWO_AXES))],
}


@pytest.mark.parametrize("name", TOKENS)
def test_tokens(name):
    for call in TOKENS[name]:
        refuses(name, call)


# Attention

NOPE = common.build("nope")


def shard(heads, name="alibi"):
    qkv = sides(num_heads=2)
    return lambda: posenc_jax.attend(common.build(name).at(text(T)).of_heads(heads, H), *qkv)


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
    "positions have shape": [lambda: attend("rope", *sides(keys=T + 2))],
    "encoding.at": [
        lambda: attend("nope", here=text(T)),
        lambda: posenc_jax.attend(NOPE, *sides()),
        lambda: posenc_jax.attend(posenc_jax.Layers([NOPE]), *sides()),
    ],
    "(segment_ids|index) have shape .* batch of 2": [
        lambda key=key: attend("nope", here=NOPE.at(text(T), **{key: np.zeros((3, T), int)}))
        for key in ("segment_ids", "index")
    ],
    "order": [
        lambda: posenc_jax.attend(
            seen(NOPE), sides()[0], seen(NOPE, text(T + 2)).keys(*sides(keys=T + 2)[1:])
        )
    ],
    "causal": wrong("causal", None, "bidirectional"),
    "window": [*wrong("window", 2.5, 0, (3, 3))],
    "scale": wrong("scale", jnp.ones(H), "0.5"),
    "sinks": wrong("sinks", "head", jnp.zeros(3)),
    "mask": wrong("mask", np.ones((T, T)), np.ones((B, T), bool)),
    "dropout": wrong("dropout", 0.1, (0.1, 0), (0.1, nnx.Rngs(0))),
    "implementation": wrong("implementation", "flash"),
    "made by another": [
        lambda: posenc_jax.attend(
            seen(common.build("rope")),
            sides()[0],
            seen(common.build("rope", base=500.0)).keys(*sides()[1:]),
        )
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


def test_what_depends_on_the_input_must_read_it():
    for encoding in (common.build("fox"), common.build("short_conv", over="fox")):
        here = encoding.at(text(T))
        refuses("input", lambda here=here: attend(here=here))
        for shape in ((B, T, common.WIDTH + 2), (B, 1, common.WIDTH), (B, common.WIDTH)):
            refuses(r"\bx\b|model_dim", lambda here=here, shape=shape: here.see(jnp.ones(shape)))
        refuses("already", lambda here=here: here.see(X_BTD)[0].part(0, T).see(X_BTD))


def test_a_score_returns_a_logit_for_each_pair():
    """Also a class that forgets to return anything, and one whose logits would be broadcast."""

    class Summed(posenc_jax.Encoding):
        def score(self, logits_BHTS, pairs):
            return logits_BHTS.sum(1, keepdims=True)

    class Forgets(posenc_jax.Encoding):
        def score(self, logits_BHTS, pairs):
            pass

    for scheme in (Summed(), Forgets()):
        refuses(f"score of {type(scheme).__name__}", functools.partial(attend, scheme))


def test_embeddings_are_one_vector_for_each_token():
    """Else one token would be copied to the places of all, or one sequence to all rows."""
    here = common.build("learned").at(text(T))
    for shape in ((B, 1, common.WIDTH), (B, T, 1), (T, common.WIDTH), (B, T, common.WIDTH + 2)):
        refuses("x has shape", lambda shape=shape: here.embed(jnp.ones(shape)))


def test_keys_last_or_say_that_they_do_not():
    _, k, v = sides(num_kv_heads=2)
    rope, dynamic = common.build("rope"), common.build("dynamic_ntk")
    refuses("positions", lambda: rope.at(text(T + 2)).keys(k, v))
    refuses("input", lambda: common.build("fox").at(text(T)).keys(k, v))
    keys = seen(rope).keys(k, v)
    refuses("leave|left out", lambda: posenc_jax.attend(seen(rope), sides()[0], keys, v))
    refuses("two encodings", lambda: keys.append(seen(NOPE).keys(k, v)))
    refuses("size=2", lambda: keys.padded(2))
    shift, offset = (common.build(name, num_kv_heads=2) for name in ("kv_shift", "key_offset"))
    for encoding in (dynamic, OnAxes(dynamic, axes=(0,)), shift, offset):
        again = seen(encoding).keys(k, v)
        refuses("rotates all keys again", lambda again=again: again.append(again))
    fixed = seen(dynamic, length=T).keys(k, v)
    assert fixed.append(fixed).count == 2 * T


@pytest.mark.parametrize("of", [np.uint8, np.int64, jnp.uint8])
def test_numbers_may_be_of_any_type(of):
    """Also of types whose negatives wrap around, as large as int32 holds, and known in a trace.

    The difference of unsigned numbers is never below 0, which would hide no later token.
    """
    segment_ids = np.array([[0, 0, 1, 1, 1, 1]])
    known = {number: of(number) for number in (0, 1, 2, 3, 100, 127)}

    def run(of_array, of):
        here = NOPE.at(text(T), of_array(segment_ids), index=of_array(text(T)))
        to_both_sides = functools.partial(attend, "nope", causal=np.bool_(False))
        return [
            here.part(of(2), 1).tokens.index,
            attend(here=here, window=of(2), scale=of(3)),
            attend("nope", window=(of(2), of(0))),
            to_both_sides(window=(of(2), of(1))),
            to_both_sides(window=(of(127), of(1))),
            to_both_sides(window=(2**31 - 1, of(1))),
            attend(posenc_jax.make("soft_cap", over=NOPE, cap=of(3))),
            attend(common.build("rope", base=of(100))),
        ]

    expected = jax.jit(lambda: run(np.int32, int))()
    chex.assert_trees_all_close(jax.jit(lambda: run(of, known.get))(), expected, rtol=1e-4)
    np.testing.assert_array_equal(*expected[4:6])


def test_keys_of_an_equal_encoding_are_its_own():
    """Also of one of one layer, and for other numbers."""
    q, k, v = sides()
    encoding, other = common.build("fox", seed=1), common.build("fox")
    posenc_jax.attend(seen(encoding), q, seen(other).keys(k, v))
    stacked = common.build("fox", num_layers=2).at(text(T))
    first, second = (stacked.of_layer(i).see(X_BTD)[0] for i in range(2))
    posenc_jax.attend(first, q, second.keys(k, v))
