"""Tests the configs of all studies: every preset is a study, and a bad value is refused at once."""

import common
import pytest
import tiny_runs as runs

from experiments.running.pool import run_points

# The pieces of a config that make a study small enough, or free of data that is not installed.
HERE = {
    "images": {"task__test_images": 20, "eval__images": 16},
    "video": {"task__test_digits": 10, "task__background": "noise"},
    "pointing": {"task__data": "dejavu"},
    "longrope": {"model__num_layers": 1, "search__population": 5},
}


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    return common.images_of_four(tmp_path_factory.mktemp("data"), count=40, side=28)


@pytest.fixture
def study(digits, corpus, tmp_path):
    """Returns a function that makes the study of a config, with changes."""

    def make(name, preset="tiny", **changes):
        here = HERE.get(name, {})
        if name in ("images", "video"):
            here = here | {"task__data": digits}
        if name in ("extrapolation", "extension", "longrope"):
            here = here | {"corpus": corpus}
        return runs.study(name, tmp_path, preset, **(here | changes))

    return make


PRESETS = {
    "images": ("tiny", 6, "small", 30),
    "video": ("tiny", 4, "small", 27),
    "pointing": ("tiny", 3, "small", 30),
    "story": ("tiny", 4, "small", 12),
    "tasks": ("tiny", 2, "small", 24),
    "learned": ("tiny", 9),
}


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_studies_of_as_many_points(study, name):
    presets = PRESETS[name]
    for preset, count in zip(presets[::2], presets[1::2], strict=True):
        parts = study(name, preset).parts.values()
        assert sum(len(part.points) for part in parts) == count


BAD = {
    "extrapolation": [
        ({"schemes": "rope,alibbi"}, "alibbi"),
        ({"schemes": "yarn"}, "add rope"),
        ({"train__batch_size": 12}, "train.batch_size"),
        ({"train__length": 5000, "eval__last_tokens": 16}, "5001 tokens"),
        ({"mesh__data": 3}, "mesh"),
    ],
    "images": [
        ({"variants__dinov3": {"positions": "gird"}}, "variants.dinov3.positions"),
        ({"task__data": "npz:nowhere"}, "'npz:nowhere'"),
    ],
    "video": [({"eval__gaps": (1, 8)}, "gaps")],
    "story": [({"task__view": 0.3}, "view")],
    "tasks": [({"task__length": 20}, "length")],
    "learned.copy": [({"task__shortest": 30}, "shortest")],
    "extension": [
        ({"target": 8}, "target"),
        ({"tuning__beta2": 2.0}, r"tuning\.beta2"),
        ({"checkpoint": "a/folder", "seeds": 3}, "checkpoint"),
    ],
    "longrope": [
        ({"factor": 200}, "no document"),
        ({"stages": "longrope,short"}, "stage short"),
    ],
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_value_is_refused_by_its_name_before_anything_is_trained(study, tmp_path, name):
    for changes, argument in BAD[name]:
        with pytest.raises((ValueError, TypeError, OSError), match=argument):
            study(name, **changes)
    assert not (tmp_path / "runs").exists()


# One variant of each study, and titles of tables in its report.
REPORTS = {
    "images": ("axial_rope", ("rescaled: accuracy", "pasted: accuracy", "0.250")),
    "video": ("videorope", ("length: accuracy", "gap, 8 frames: accuracy", "0.250")),
    "pointing": ("i_mrope_ruler", ("1 left: accuracy", "place: accuracy", "8 x 16")),
    "story": ("time_rope_adaln", ("pace: error", "bullet time: spread")),
}


@pytest.mark.parametrize(
    "name",
    ["images", *(pytest.param(n, marks=pytest.mark.slow) for n in ("video", "pointing", "story"))],
)
def test_a_tiny_run_has_a_report(study, name):
    scheme, words = REPORTS[name]
    one = study(name, schemes=scheme, train__steps=2)
    assert run_points(one) == []
    page = one.write_report("the command").read_text()
    assert page.count("data:image/svg+xml;base64,") == 1
    for word in (scheme, *words):
        assert word in page
