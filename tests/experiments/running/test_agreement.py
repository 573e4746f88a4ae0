"""Tests that processes of one job that differ are told so before anything is trained."""

import pytest
from runs import by_hand, ended, start

from configs import extrapolation
from experiments.running import agreement


def test_the_first_difference_is_named():
    config = extrapolation.get_config("tiny")
    other = extrapolation.get_config("tiny")
    other.train.learning_rate = 1e-3
    both = [agreement.facts_of(one, {"workdir": "runs"}) for one in (config, other)]
    sentence = agreement.difference(both)
    assert "--config.train.learning_rate is 0.003 in process 0 and 0.001 in process 1" in sentence
    path = "the file experiments/training/step.py"
    sentence = agreement.difference([both[0], both[0], both[0] | {path: "SHA-256 0"}])
    assert path in sentence and "in process 2" in sentence
    missing = {name: fact for name, fact in both[0].items() if name != path}
    assert "missing in process 1" in agreement.difference([both[0], missing])


@pytest.mark.slow
def test_two_commands_that_differ_end_in_seconds(corpus, tmp_path):
    def how(count):
        first, (flags, variables) = by_hand(count)
        return first, ([*flags, "--config.train.learning_rate=0.001"], variables)

    processes = start(2, tmp_path, corpus, how=how)
    errors = [printed[1] for printed in ended(processes, timeout=120)]
    for process, error in zip(processes, errors, strict=True):
        assert process.returncode == 2, errors
        assert "--config.train.learning_rate is 0.003 in process 0 and 0.001" in error
    assert not list(tmp_path.glob("runs/**/checkpoints"))
