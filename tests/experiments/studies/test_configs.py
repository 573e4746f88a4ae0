"""Tests the configs of all studies: a bad value is refused at once, and a tiny run has a report."""

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


BAD = {
    "extrapolation": [
        ({"schemes": "yarn"}, "add rope"),
        ({"train__batch_size": 12}, "train.batch_size"),
        ({"train__length": 5000, "eval__last_tokens": 16}, "5001 tokens"),
    ],
    "images": [({"variants__dinov3": {"positions": "gird"}}, "variants.dinov3.positions")],
    "video": [({"eval__gaps": (1, 8)}, "gaps")],
    "extension": [
        ({"target": 8}, "target"),
        ({"checkpoint": "a/folder", "seeds": 3}, "checkpoint"),
    ],
    "longrope": [({"factor": 200}, "no document")],
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_value_is_refused_by_its_name_before_anything_is_trained(study, tmp_path, name):
    for changes, argument in BAD[name]:
        with pytest.raises((ValueError, TypeError, OSError), match=argument):
            study(name, **changes)
    assert not (tmp_path / "runs").exists()


# A variant of each study, and a measure of it.
TINY = {
    "video": ("videorope", "gap, 8 frames"),
    "pointing": ("i_mrope_ruler", "1 left"),
    "story": ("time_rope_adaln", "bullet time"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", TINY)
def test_a_tiny_run_has_a_report(study, name):
    scheme, measure = TINY[name]
    one = study(name, schemes=scheme, train__steps=2)
    assert run_points(one) == []
    page = one.write_report("the command").read_text()
    assert page.count("data:image/svg+xml;base64,") == 1
    assert scheme in page and measure in page
