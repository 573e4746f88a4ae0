"""Tests which positions are exact, which are refused, and in which order tokens were written."""

import functools

import chex
import common
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from attention_cases import sides

import posenc_jax
from posenc_jax.positions import text

B, T = 2, 12


SIDES = sides(common.HEADS, T, T)


# Types of positions


@pytest.mark.parametrize("dtype", ["int8", "uint16", "uint64"])
def test_whole_numbers_of_any_type_are_exact(dtype):
    positions = np.array([[0, 3, 1, 127, 31, 30]])
    given = [positions.astype(dtype), positions.tolist()]
    if "64" not in dtype:
        given.append(jnp.asarray(positions, dtype))
    for numbers in given:
        actual = posenc_jax.Encoding().at(numbers).tokens.positions
        chex.assert_trees_all_equal(actual, jnp.asarray(positions, jnp.int32))


@pytest.mark.parametrize("dtype", ["bool", "float16", "bfloat16", "complex64"])
def test_types_that_cannot_count_are_refused(dtype):
    def place(positions):
        return posenc_jax.Encoding().at(positions).tokens.positions

    for run in (place, jax.jit(place)):
        common.refuses(f"positions.*{dtype}", lambda run=run: run(jnp.ones((1, T), dtype)))


# Order


def test_the_last_query_of_a_cache_sees_every_key():
    """Without an order the query would count as the first, and see the first value alone."""
    encoding, (q, k, v) = common.build("rope"), SIDES
    here = encoding.at(text(T))
    alone = encoding.at(text(1, start=T - 1))
    for rule in ({}, {"window": 3}, {"window": 3, "causal": False}):
        attend = functools.partial(posenc_jax.attend, alone, q[:, -1:], here.keys(k, v))
        common.refuses("here.part", functools.partial(attend, **rule))
        expected = posenc_jax.attend(here, q, k, v, **rule)[:, -1:]
        last = posenc_jax.attend(here.part(T - 1, 1), q[:, -1:], here.keys(k, v), **rule)
        common.close(last, expected, atol=1e-6)
    both_ways = functools.partial(posenc_jax.attend, causal=False)
    expected = both_ways(here, q, k, v)[:, -1:]
    last = both_ways(alone, q[:, -1:], here.keys(k, v))
    np.testing.assert_allclose(last, expected, rtol=1e-5)


@pytest.mark.parametrize("name", ["rope", "alibi"])
def test_keys_in_a_ring_of_slots_are_those_of_a_window(name):
    """A slot's index says which token it holds, wherever it lies."""
    encoding, window = common.build(name), 4
    q, k, v = (jnp.asarray(x) for x in SIDES)
    here = encoding.at(text(T))
    expected = posenc_jax.attend(here, q, k, v, window=window)
    whole = here.keys(k, v)
    ring = whole.part(0, window)
    for n in range(window, T):
        now, place = slice(n, n + 1), np.array([[n]])
        new = encoding.at(place, index=place)
        ring = ring.write(n % window, new.keys(k[:, now], v[:, now]))
        for keys in (ring, whole.part(n + 1 - window, window)):
            out = posenc_jax.attend(new, q[:, now], keys)
            common.close(out, expected[:, now], atol=1e-5)


def test_chunks_are_counted_from_the_first_token_of_a_segment():
    """A packed document, or a prompt behind padding, is what it is alone."""
    encoding, (q, k, v) = common.build("rope"), SIDES
    cut, chunks = 5, posenc_jax.Chunks(4)
    segment_ids = np.repeat([[0, 1]], (cut, T - cut), axis=1)
    packed = np.concatenate([np.arange(cut), np.arange(T - cut)])[None]
    for implementation in ("dense", "blockwise"):
        attend = functools.partial(posenc_jax.attend, window=chunks, implementation=implementation)
        here = encoding.at(packed, segment_ids)
        together = attend(here, q, k, v)
        alone = attend(encoding.at(text(T - cut)), *(x[:, cut:] for x in (q, k, v)))
        common.close(together[:, cut:], alone)
        step = attend(here.part(T - 1, 1), q[:, -1:], here.keys(k, v))
        common.close(step, together[:, -1:])
