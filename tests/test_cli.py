"""Tests the console script."""

import os
from pathlib import Path

import pytest

from posenc_jax import cli

ROOT = Path(__file__).parents[1]


@pytest.fixture
def executed(monkeypatch):
    """Returns a list that holds the arguments and the environment of the program that runs."""
    calls = []
    monkeypatch.setattr(os, "execve", lambda *call: calls.append(call[1:]))
    return calls


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_runs_a_file_of_the_checkout(executed, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # so that the checkout is the one that is installed
    cli.main([name, "--workdir=mine"])
    (((_, *command, last), environment),) = executed
    path = command[1].replace(".", "/") + ".py" if command[0] == "-m" else command[0]
    assert (ROOT / path).is_file() and last == "--workdir=mine"
    assert str(ROOT) in environment["PYTHONPATH"].split(os.pathsep)


@pytest.mark.parametrize("arguments", [["compair"], ["--help"]])
def test_an_unknown_command_and_help_list_the_commands(executed, capsys, arguments):
    assert cli.main(arguments) == (2 if arguments == ["compair"] else 0) and not executed
    printed = "".join(capsys.readouterr())
    assert all(name in printed for name in cli.COMMANDS)
