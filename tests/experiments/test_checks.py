"""Tests that configs which no run could follow are refused before anything is built."""

import importlib

import common
import pytest

from experiments.checks import check_config


@pytest.mark.parametrize(
    ("config", "field", "value"),
    [
        ("extrapolation", "seeds", 10**9),
        ("extrapolation", "train.steps", 10**20),
        ("extrapolation", "model.model_dim", 10**8),
        ("extrapolation", "model.num_layers", 10**5),
        ("extrapolation", "model.num_heads", 0),
        ("extrapolation", "model.param_dtype", "float64"),
        ("extrapolation", "eval.documents", 10**8),
        ("extrapolation", "eval.splits", ("test", "test")),
        ("extrapolation", "extend.yarn.of", "alibi"),
        ("extension", "loading.dtype", "int8"),
        ("extension", "methods", ""),
        ("tasks", "task.tasks", "copy,copy"),
        ("story", "task.view", 0.0),
        ("atlas", "studies", {}),
    ],
)
def test_a_field_without_a_meaning_is_refused_by_its_name(config, field, value):
    preset = "smollm2" if field.startswith("loading") else "tiny"
    config = importlib.import_module(f"configs.{config}").get_config(preset)
    check_config(config)
    changed = common.changed(config, **{field.replace(".", "__"): value})
    with pytest.raises(ValueError, match=field):
        check_config(changed)


def test_every_preset_passes():
    for path in (common.ROOT / "configs").glob("[!_]*.py"):
        module = importlib.import_module(f"configs.{path.stem}")
        for preset in getattr(module, "PRESETS", ("tiny", "small")):
            config = module.get_config(preset)
            for study in config.get("studies", {"": config}).values():
                check_config(study)
