"""Tests all protocols, on losses that say which token was scored with what context."""

import itertools

import jax
import numpy as np
import pytest
from toy import preempted

from experiments.evaluation.lengths import Protocols, Scorer, evaluate, in_other_units, work
from experiments.training.mesh import make_mesh
from posenc_jax import Encoding

T = 8
PROTOCOLS = Protocols(
    multiples=(1, 2, 4),
    last_tokens=4,
    documents=3,
    splits=("test",),
    strides=((2, 3), (1, 2)),
    window_stride=2,
    batch_tokens=64,
)
DOCUMENTS = np.arange(3)[:, None] * 1000 + np.arange(PROTOCOLS.document_length(T))[None]


class Recorder:
    """Stands in for a Scorer and keeps its calls; by default a loss is the length of the context.

    Args:
      losses: computes losses from windows.
    """

    def __init__(self, losses=lambda windows: np.arange(1.0, windows.shape[1])):
        self.calls, self._losses = [], losses

    def __call__(self, windows_NL, encoding):
        self.calls.append((windows_NL, encoding))
        return np.broadcast_to(self._losses(windows_NL), windows_NL[:, 1:].shape)


def run(recorder=None, adapts=True):
    recorder = recorder or Recorder()
    records, curve = evaluate(
        recorder, DOCUMENTS, PROTOCOLS, T, lambda multiple: f"x{multiple}", adapts
    )
    return recorder, {(r["protocol"], r["stride"], r["multiple"]): r for r in records}, curve


def tokens_of(recorder):
    return sum(windows[:, 1:].size for windows, _ in recorder.calls)


def test_last_scores_the_same_tokens_at_every_length():
    recorder, records, curve = run()
    assert curve["positions"] == curve["loss"] == list(range(1, 4 * T + 1))
    targets = {}
    for multiple in PROTOCOLS.multiples:
        windows = next(w for w, _ in recorder.calls if w.shape[1] == multiple * T + 1)
        last_piece = windows.reshape(3, -1, multiple * T + 1)[:, -1]
        targets[multiple] = last_piece[:, -PROTOCOLS.last_tokens :]
        record = records["last", None, multiple]
        assert record["tokens"] == 3 * 4
        # Contexts of the last four targets: L - 3 .. L tokens.
        assert record["loss"] == multiple * T - 1.5
    for one, other in itertools.pairwise(targets.values()):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(targets[1], DOCUMENTS[:, -4:])


@pytest.mark.parametrize("stride,documents", PROTOCOLS.strides)
def test_sliding_windows_cover_the_targets_with_full_context(stride, documents):
    _, records, _ = run()
    _, of_targets, _ = run(Recorder(lambda windows: windows[:, 1:]))
    for multiple in PROTOCOLS.multiples:
        record = records["sliding", stride, multiple]
        assert record["tokens"] == documents * PROTOCOLS.last_tokens
        assert record["loss"] == multiple * T - (stride - 1) / 2
        targets = DOCUMENTS[:documents, -4:]
        assert of_targets["sliding", stride, multiple]["loss"] == targets.mean()


def test_windows_that_begin_alike_are_scored_once():
    """A sum of all tokens so far stands for a loss, which depends on all of them."""
    item, expected, expected_curve = run(Recorder(lambda windows: windows[:, :-1].cumsum(axis=1)))
    once, records, curve = run(Recorder(lambda windows: windows[:, :-1].cumsum(axis=1)), False)
    assert (records, curve) == (expected, expected_curve)
    # Of pieces of 8, 16 and 32 tokens, one of two begins a longer one, and needs no pass.
    assert tokens_of(item) - tokens_of(once) == 3 * (2 * 8 + 16)


@pytest.mark.parametrize("adapts", [True, False])
def test_work_counts_the_tokens(adapts):
    recorder, _, _ = run(adapts=adapts)
    assert work(PROTOCOLS, T, adapts) == tokens_of(recorder)


class Uniform(Encoding):
    """Finds all 7 tokens equally likely."""

    output_table = np.zeros((7, 1), np.float32)

    def hidden(self, tokens_BT, positions, segment_ids=None, **options):
        return jax.numpy.zeros((*tokens_BT.shape, 1))


@pytest.mark.parametrize("shape", [{}, {"fsdp": 2, "model": 2, "context": 2}])
def test_scorer_pads_the_last_batch_and_drops_the_padding(shape):
    advanced = []
    score = Scorer(Uniform(), make_mesh(**shape), 20, lambda note, steps: advanced.append(steps))
    losses = score(np.zeros((11, 5), np.int32), None)
    assert losses.shape == (11, 4)
    np.testing.assert_allclose(losses, np.log(7), rtol=1e-6)
    assert sum(advanced) == 44


def test_an_evaluation_hears_that_it_must_stop():
    batches = []
    score = Scorer(Uniform(), make_mesh(), 20, lambda note, steps: batches.append(steps))
    with preempted(2):
        score(np.zeros((24, 5), np.int32), None)
    assert len(batches) == 1


def test_units():
    assert in_other_units(np.log(2), 1.0)["bits_per_byte"] == 1.0
    assert in_other_units(2 * np.log(2), 4.0)["bits_per_byte"] == 0.5
    assert in_other_units(np.log(5), 1.0)["perplexity"] == pytest.approx(5)
    assert in_other_units(1e4, 1.0)["perplexity"] == np.inf
