"""Tests what lm-evaluation-harness is told of a model, by the logits of whole texts."""

import types

import common
import jax
import numpy as np
import pytest
from rich.console import Console

from experiments.evaluation.harness import Coder, Harness
from experiments.training.mesh import make_mesh
from posenc_jax import generate

LENGTH = 40


def harness_of(model, length, batch_tokens=128):
    settings = dict(length=length, batch_tokens=batch_tokens, mesh=make_mesh())
    return Harness(model, Coder(), **settings, console=Console(quiet=True))


@pytest.fixture(scope="module")
def harness():
    return harness_of(common.build_model("rope", vocab_size=256, scan=True), LENGTH)


def requests(*args):
    return [types.SimpleNamespace(args=one) for one in args]


def log_probabilities(harness, tokens):
    """Returns the log-probability of each token but the first, and whether it is the likeliest."""
    tokens = np.asarray(tokens)
    logits = common.forward(harness.model, tokens[None, :-1], np.arange(len(tokens) - 1)[None])[0]
    actual = np.asarray(jax.nn.log_softmax(logits))
    one = actual[np.arange(len(actual)), tokens[1:]]
    return one, actual.argmax(-1) == tokens[1:]


def test_continuations(harness):
    """The end of a request that is too long counts; an empty context is the start of a line."""
    pairs = ("one two", " three"), ("", "four"), ("x" * 60, " five"), ("ends in a space ", "six")
    actual = harness.loglikelihood(requests(*pairs))
    for (context, continuation), (total, is_greedy) in zip(pairs, actual, strict=True):
        tokens = [*((context or "\n") + continuation).encode()][-LENGTH - 1 :]
        one, hits = log_probabilities(harness, tokens)
        count = len(continuation) + context.endswith(" ")
        assert total == pytest.approx(one[-count:].sum(), rel=1e-4)
        assert is_greedy == hits[-count:].all()


@pytest.mark.parametrize("name", ["dynamic_ntk", "randomized"])
def test_a_scheme_that_adapts_sees_the_length_of_each_row(harness, name):
    other = harness_of(harness.model.under(common.build(name)), 80)
    texts = "y" * 70, "z" * 75
    actual = other.loglikelihood(requests(*((text, "zz") for text in texts)))
    for text, (total, _) in zip(texts, actual, strict=True):
        one, _ = log_probabilities(other, [*(text + "zz").encode()])
        assert total == pytest.approx(one[-2:].sum(), rel=1e-4)


def test_every_token_of_a_long_text_counts_once(harness):
    text = "".join(chr(97 + number % 26) for number in range(100))
    tokens = [ord("\n"), *text.encode()]
    (actual,) = harness.loglikelihood_rolling(requests((text,)))
    expected = log_probabilities(harness, tokens[: LENGTH + 1])[0].sum()
    expected += log_probabilities(harness, tokens[LENGTH : 2 * LENGTH + 1])[0].sum()
    # The last 20 tokens have the 20 before them in front.
    expected += log_probabilities(harness, tokens[-LENGTH - 1 :])[0][-20:].sum()
    assert actual == pytest.approx(expected, rel=1e-4)


def test_an_answer_ends_where_it_is_told_to_and_with_the_text(harness, monkeypatch):
    def answer(*until):
        ask = {"max_gen_toks": 8, "until": [*until]}
        return harness.generate_until(requests(("one two", ask)))[0]

    whole = answer()
    end = whole[3]
    assert answer(end) == whole.split(end)[0]
    monkeypatch.setattr(harness.coder, "end", ord(end))
    assert answer() == whole.split(end)[0]


@pytest.mark.parametrize("name", ["dynamic_ntk", "randomized"])
def test_an_answer_does_not_depend_on_other_requests(harness, name):
    model = harness.model.under(common.build(name, num_layers=common.LAYERS))
    single = harness_of(model, 80, batch_tokens=80)
    counts = (30, 20, 30)  # one batch of two has padding, and the other is short
    texts = ("".join(chr(97 + place * count % 26) for place in range(count)) for count in counts)
    every = requests(*((text, {"max_gen_toks": 3, "until": []}) for text in texts))
    prompts = (np.array([single.coder.encode(request.args[0])]) for request in every)
    tokens = (generate(model, one, jax.random.key(0), max_new_tokens=3) for one in prompts)
    alone = [single.coder.decode(np.asarray(one)[0].tolist()) for one in tokens]
    assert single.generate_until(every) == alone
    assert len(set(alone)) > 1, "this test can tell"
