"""Tests the generation of text."""

import functools

import common
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from pieces import TOKEN_IDS, B, T

import posenc_jax
from posenc_jax import Layers, generate
from posenc_jax.model import decode
from posenc_jax.model.decode import sample
from posenc_jax.positions import Text, Vision, circle_rope, text

# Generating

NEW = 6


def talker(encoding, **keywords):
    """Makes a model that repeats no last token, as a tied embedding of large numbers does."""
    model = common.build_model(encoding, seed=2, scan=True, **keywords)
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


@pytest.mark.parametrize("name", ["dynamic_ntk", "alibi", "path"])
def test_greedy(name):
    """Prompts of different lengths go on as each does alone."""
    model = talker(name)
    options = {"length": 40} if name == "dynamic_ntk" else {}
    lengths = [T, 5]
    given = dict(max_new_tokens=NEW, lengths=lengths, prefill_chunk=4) | options
    actual = generate(model, TOKEN_IDS, KEY, **given)
    rows = zip(TOKEN_IDS, lengths, strict=True)
    expected = [greedy(model, row[:n], **options) for row, n in rows]
    assert actual.tolist() == expected
    assert all(len({*row}) > 1 for row in expected)


def test_a_second_text_compiles_nothing():
    """Neither do the checks of the arguments, which run outside of the compiled programs."""
    model = common.build_model("fox", scan=True)

    def run():
        return generate(model, TOKEN_IDS, KEY, max_new_tokens=2)

    assert common.compilations(run) > 0
    assert common.compilations(run) == 0


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


def test_a_ragged_row_has_chunks_of_its_own():
    layers = Layers([common.build("rope")], [posenc_jax.Chunks(4)])
    model = common.build_model(layers, scan=True)
    prompts = TOKEN_IDS[:, :7]
    lengths = np.array([7, 5])
    together = generate(model, prompts, KEY, max_new_tokens=6, lengths=lengths)
    alone = generate(model, prompts[1:, :5], KEY, max_new_tokens=6)
    np.testing.assert_array_equal(together[1:], alone)


def test_texts_that_are_read_one_by_one_go_on_as_their_batch(monkeypatch):
    model = talker("fox")
    expected = generate(model, TOKEN_IDS, max_new_tokens=NEW, prefill_chunk=4)
    monkeypatch.setattr(decode, "_LONG", 4)
    actual = generate(model, TOKEN_IDS, max_new_tokens=NEW, prefill_chunk=4)
    assert actual.tolist() == expected.tolist()


def test_text_goes_on_where_the_builders_say():
    """The place after an image may be a fraction, and each axis may have its own."""
    mrope, parts = common.build("mrope"), [Text(3), Vision(1, 2, 2), Text(1)]
    model, placed = common.build_model(mrope, scan=True), circle_rope(parts)
    ids, given = TOKEN_IDS[:1, : placed.positions.shape[1]], dict(positions=placed.positions)
    given |= dict(max_new_tokens=3)
    text_after = generate(model, ids, KEY, next_positions=[placed.next], **given)
    by_axis = np.full((1, 3), placed.next)
    same = generate(model, ids, KEY, next_positions=by_axis, **given)
    np.testing.assert_array_equal(text_after, same)
    other = by_axis + [[0.0, 30.0, 60.0]]
    after = np.concatenate([placed.positions, other[None] + np.arange(2)[None, :, None]], axis=1)
    answer = generate(model, ids, KEY, next_positions=other, **given)
    logits = common.forward(model, np.concatenate([ids, answer[:, :2]], axis=1), after)
    np.testing.assert_array_equal(np.argmax(logits[:, -3:], axis=-1), answer)


def test_a_position_that_a_scheme_does_not_know_is_refused():
    """Under jit it is NaN, and the likeliest of logits that are NaN would be token 0."""
    run = functools.partial(generate, prompt_BT=TOKEN_IDS, key=KEY, max_new_tokens=22)
    learned = talker(common.build("learned", out_of_range="error"))
    common.refuses("position 32", lambda: run(learned))
    common.refuses("position -3", lambda: run(learned, positions=np.arange(T)[None] - 3))
    past_32_bits = dict(next_positions=np.full(B, 2**31 - 2))
    common.refuses("int32", lambda: run(talker("nope"), **past_32_bits))


def test_a_temperature_near_0_is_greedy():
    """It is no number of float32, which has none between 0 and 1.2e-38."""
    logits_BV = jnp.array([[1.0, 3.0, 2.0], [0.1, 0.0, 0.2]])
    assert sample(logits_BV, KEY, 1e-44, 0.9).tolist() == [1, 2]


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
    keys = map(jax.random.key, (0, 0, 1))
    one, same, other = (generate(model, TOKEN_IDS, key, **options) for key in keys)
    assert one.tolist() == same.tolist() != other.tolist()
    assert (one != generate(model, TOKEN_IDS, max_new_tokens=NEW)).any()
    for key in (None, 0, nnx.Rngs(0)):
        common.refuses("key=", lambda key=key: generate(model, TOKEN_IDS, key, **options))


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (2.0, 0.7), (0.5, 0.95)])
def test_frequencies_of_drawn_tokens(temperature, top_p):
    logits_V, draws = np.array([1.0, 3.0, -1.0, 2.5, 0.0], np.float32), 20_000
    shares = np.exp(logits_V / temperature)
    shares /= shares.sum()
    likely, total = [], 0.0
    for token in np.argsort(-shares):
        if total < top_p:
            likely.append(token)
            total += shares[token]
    expected = np.where(np.isin(np.arange(5), likely), shares, 0)
    expected /= expected.sum()
    tokens = sample(jnp.tile(logits_V[None], (draws, 1)), KEY, temperature, top_p)
    counts = np.bincount(tokens, minlength=5)
    assert (counts[expected == 0] == 0).all()
    # Five standard deviations of a count.
    deviation = np.sqrt(draws * expected * (1 - expected))
    assert (abs(counts - draws * expected) <= 5 * deviation + 1e-9).all()


def test_bad_arguments():
    usual = {"prompt_BT": TOKEN_IDS, "lengths": np.full(B, T), "max_new_tokens": 1, "key": KEY}
    bad = {"temperature": -1.0, "max_new_tokens": 0, "lengths": [T], "prompt_BT": TOKEN_IDS + 0.6}
    run = functools.partial(generate, talker("nope"))
    for name, value in bad.items():
        common.refuses(name, lambda name=name, value=value: run(**usual | {name: value}))
