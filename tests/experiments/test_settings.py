"""Tests the door of all studies: configs, bounds of numbers, forms of tuples."""

import dataclasses
import importlib
import math

import common
import pytest

from configs.extrapolation import get_config
from experiments.settings import bounded, check_config, filled


@dataclasses.dataclass(frozen=True)
class Sizes:
    count: int = 3
    share: float = bounded(0.5, above=0, most=1)
    steps: int = bounded(0, least=0)
    lengths: tuple[int, ...] = bounded((1, 2), ascends=True, first=1)
    pairs: tuple[tuple[int, int], ...] = ((8, 2), (1, 1))
    pace: tuple[float, float] = (0.5, 2.0)
    names: tuple[str, ...] = ("any",)


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("count", (0, -1)),
        ("share", (0.0, 1.5, math.nan)),
        ("steps", (-1,)),
        ("lengths", ((2, 4), (1, 4, 2), (1, 1), (1, 1.5), (1, 0))),
        ("pairs", ((1, 2), ((1, 2, 3),), ((0, 1),), ((8, 2), (8, 2)))),
        ("names", (("a", "a"), "a")),
        ("pace", ((0.5,), (0.5, math.inf))),
    ],
)
def test_what_a_field_cannot_be_is_refused_by_its_name(field, values):
    for value in values:
        config = {field: value}
        common.refuses(rf"eval\.{field}=", lambda config=config: filled(Sizes, "eval", config))


def test_what_a_field_can_be_is_taken():
    config = {"share": 1.0, "steps": 0, "lengths": (1, 5), "pairs": (), "pace": (2, 0.5)}
    config["names"] = ("a", "b")
    assert dataclasses.asdict(filled(Sizes, "eval", config)) == {"count": 3} | config


@pytest.mark.parametrize(
    ("field", "value"), [("model.param_dtype", "float64"), ("extend.yarn.of", "alibi")]
)
def test_a_field_without_a_meaning_is_refused_by_its_name(field, value):
    config = get_config("tiny")
    changed = common.changed(config, **{field.replace(".", "__"): value})
    common.refuses(field, lambda: check_config(changed))


def test_every_preset_passes():
    for path in (common.ROOT / "configs").glob("[!_]*.py"):
        module = importlib.import_module(f"configs.{path.stem}")
        for preset in getattr(module, "PRESETS", ("tiny", "small")):
            config = module.get_config(preset)
            for study in config.get("studies", {"": config}).values():
                check_config(study)
