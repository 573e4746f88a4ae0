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


def test_a_command_runs_in_the_checkout(executed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # so that the checkout is the one that is installed
    cli.main(["compare", "--workdir=mine"])
    (((_, program, config, _, last), environment),) = executed
    assert Path(program) == ROOT / "launch.py" and last == "--workdir=mine"
    assert Path(config.removeprefix("--config=").split(":")[0]).is_file()
    assert str(ROOT) in environment["PYTHONPATH"].split(os.pathsep)


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_runs_a_file_that_exists(executed, name):
    cli.main([name])
    ((command, _),) = executed
    module = command[2] if command[1] == "-m" else "launch"
    assert (ROOT / module.replace(".", "/")).with_suffix(".py").is_file()


def test_without_a_checkout_it_says_what_to_do(executed, monkeypatch, capsys):
    monkeypatch.setattr(cli, "_checkout", lambda: None)
    assert cli.main(["status"]) == 2 and not executed
    assert "needs a checkout" in capsys.readouterr().err


def test_an_unknown_command_lists_those_that_exist(executed, capsys):
    assert cli.main(["compair"]) == 2 and not executed
    assert "compare" in capsys.readouterr().err


def test_help_has_a_line_for_every_command(capsys):
    assert cli.main([]) == 0
    printed = capsys.readouterr().out
    assert all(f"  {name} " in printed for name in cli.COMMANDS)
