"""Tests that no value of a field of a config ends in a traceback, or is pondered for long."""

import importlib
import io
import time

import common
import pytest
from rich.console import Console

from experiments.checks import fields_of
from experiments.registry import make_experiment

# What people write by mistake: too little, too much, another name, and nothing at all.
BAD = {
    bool: (),
    int: (0, -1, 10**9, 10**20),
    float: (0.0, -1.0, 1e30, float("nan")),
    str: ("", "nonsense", "rope,,rope"),
    tuple: ((), (0,), ("a", "a"), (-1, 10**9)),
}
SECONDS = 20
NAMES = ("extrapolation", "tasks", "images", "pointing", "video", "story")
NAMES += ("longrope", "extension")


def bad_lines(config):
    """Yields the name of each field of a config, with each bad value of its type."""
    for name, value in fields_of(config):
        # Keywords of schemes are the library's, and are checked where a scheme is made.
        if not name.startswith(("encodings.", "variants.", "extend.")):
            for bad in BAD.get(type(value), ()):
                yield name, bad


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_bad_value_is_a_sentence_in_seconds(name, corpus, tmp_path):
    module = importlib.import_module(f"configs.{name}")

    def of(**changes):
        config = module.get_config("tiny")
        given = {"corpus": corpus} if "corpus" in config else {}
        given |= {"methods": "rope,pi"} if "methods" in config else {"schemes": "rope"}
        return common.changed(config, **given, **changes)

    wrong = []
    for field, bad in bad_lines(of().to_dict()):
        begun = time.monotonic()
        try:
            make_experiment(of(**{field: bad}), tmp_path, Console(file=io.StringIO()))
        except (ValueError, TypeError, OSError) as error:
            if not str(error):
                wrong.append((field, bad, "no sentence"))
        except Exception as error:
            wrong.append((field, bad, repr(error)))
        if time.monotonic() - begun > SECONDS:
            wrong.append((field, bad, f"{time.monotonic() - begun:.0f} s"))
    assert not wrong, "\n".join(map(str, wrong))
