"""Tests the console script."""

import os
from pathlib import Path

import pytest

from posenc_jax import REGISTRY, cli

ROOT = Path(__file__).parents[1]


@pytest.fixture
def executed(monkeypatch):
    """Returns a list that holds the arguments and the environment of the program that runs."""
    calls = []
    monkeypatch.setattr(os, "execve", lambda *call: calls.append(call[1:]))
    return calls


@pytest.mark.parametrize("name", cli.IN_CHECKOUT)
def test_every_command_runs_a_file_of_the_checkout(executed, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # so that the checkout is the one that is installed
    cli.main([name, "--workdir=mine"])
    (((_, flag, *command, last), environment),) = executed
    assert flag == "-P", "a file of the current folder could take the place of a package"
    path = command[1].replace(".", "/") + ".py" if command[0] == "-m" else command[0]
    assert (ROOT / path).is_file() and last == "--workdir=mine"
    assert str(ROOT) in environment["PYTHONPATH"].split(os.pathsep)


def test_schemes_are_listed_and_described(capsys):
    assert cli.main(["schemes"]) == 0
    listed = capsys.readouterr().out
    names = [line.split()[0] for line in listed.splitlines()]
    assert names == [*REGISTRY]
    assert cli.main(["describe", "yarn"]) == 0
    assert "factor" in capsys.readouterr().out
    assert cli.main(["describe", "yarm"]) == 2
    assert "yarn" in capsys.readouterr().err


def test_weights_are_converted_without_a_checkout(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(cli, "_checkout", lambda: None)
    assert cli.main(["convert", f"--model={tmp_path}", f"--out={tmp_path}/out"]) == 2
    assert "model.safetensors" in capsys.readouterr().err
