"""Tests the experiment on pointing, with the icons of a font that is always there."""

import importlib.util
import io

import jax
import numpy as np
import pytest
from rich.console import Console

from configs.pointing import get_config
from experiments.config import PRESETS
from experiments.running.points import Point
from experiments.studies.multimodal.pointing import (
    NEIGHBOURS,
    Pointing,
    Setting,
    load_icons,
    targets,
)

SMALL = dict(model_dim=32, num_layers=1, num_heads=4, head_dim=8, mlp_dim=32)


def experiment(workdir, preset="tiny", **changes):
    config = get_config(preset)
    config.task.data = "dejavu"
    for name, value in changes.items():
        *parents, leaf = name.split("__")
        parent = config
        for each in parents:
            parent = parent[each]
        parent[leaf] = value
    return Pointing(config, workdir, Console(file=io.StringIO()))


@pytest.mark.slow
def test_from_a_config_to_the_report(tmp_path):
    one = experiment(
        tmp_path, schemes="i_mrope_ruler", train__steps=2, eval__screens=((8, 8), (8, 9))
    )
    assert one.run() == []
    page = one.write_report("the command").read_text()
    for words in ("i_mrope_ruler", "1 left: accuracy", "place: accuracy", "8 x 9", "Attention"):
        assert words in page
    assert page.count("data:image/png;base64,") >= 2


def test_answers_are_what_stands_there():
    icons = np.random.default_rng(0).integers(0, 9, (2, 4, 5))
    corner = np.array([3, 6])
    right = targets({"icons": icons, "corner": corner})
    for b in range(2):
        for name, (down, across) in NEIGHBOURS.items():
            assert right[name].shape == (2, 4 - down, 5 - across)
            for row in range(down, 4):
                for column in range(across, 5):
                    found = right[name][b, row - down, column - across]
                    assert found == icons[b, row - down, column - across]
        for row in range(4):
            for column in range(5):
                assert right["row"][b, row, column] == corner[b] + row
                assert right["column"][b, row, column] == corner[b] + column


def test_cells_are_read_in_the_order_of_their_positions(tmp_path):
    """Told numbers come first, then each icon's pixels at its row and column, rulers in line."""
    pointing = experiment(tmp_path, eval__screens=((8, 8), (8, 12)))
    screens = {
        "icons": np.arange(24, dtype=np.int32).reshape(1, 2, 12) % 16,
        "corner": np.array([3]),
    }
    inputs, positions = pointing.sequence("i_mrope_ruler", screens)
    assert inputs["tokens"].shape == (1, 37) and positions.shape == (1, 37, 3)
    is_patch = inputs["is_patch"][0]
    np.testing.assert_array_equal(inputs["tokens"][0, ~is_patch], [3, *range(3, 15)])
    np.testing.assert_array_equal(
        inputs["patches"][0, is_patch], np.asarray(pointing.pixels())[np.arange(24) % 16]
    )
    time, row, column = np.asarray(positions)[0, 13:].T
    np.testing.assert_array_equal(row, 1 + np.arange(24) // 12)
    np.testing.assert_array_equal(column, 1 + np.arange(24) % 12)
    assert (time == 1).all()
    np.testing.assert_array_equal(positions[0, 1:13, 1:].T, [np.arange(1, 13)] * 2)
    inputs, positions = pointing.sequence("i_mrope", screens)
    assert inputs["tokens"].shape == (1, 25) and positions.shape == (1, 25, 3)


def test_desktops_hold_their_screens(tmp_path):
    pointing = experiment(tmp_path, eval__screens=((8, 8), (8, 12), (12, 8)))
    drawn = pointing.draw(np.random.default_rng(0), 300, (8, 8))
    assert set(drawn["corner"]) == set(range(5)) and set(drawn["icons"].flat) == set(range(16))
    assert set(pointing.draw(np.random.default_rng(0), 9, (8, 12))["corner"]) == {0}
    first, again = pointing.tests((8, 12)), pointing.tests((8, 12))
    assert (first["icons"] == again["icons"]).all() and first["icons"].shape == (4, 8, 12)


@pytest.mark.slow
def test_logits_and_loss_are_of_the_cells_with_answers(tmp_path):
    """A model that knows all loses nothing; one that knows all but one neighbour loses that."""
    pointing = experiment(tmp_path, task__icons=5)
    task = pointing.task(Point("i_mrope_ruler", 0, ()))
    batch = task.batch(0, 1, 0, 1)
    sizes = pointing.answers()

    def knowing(unknown):
        icons, corner = batch["icons"], batch["corner"][:, None, None]
        row, column = np.indices((8, 8))[:, None]
        right = {"row": corner + row, "column": corner + column}
        for name, (down, across) in NEIGHBOURS.items():
            # Garbage, the last icon, where there is no such neighbour.
            shifted = np.full_like(icons, 4)
            shifted[:, down:, across:] = icons[:, : 8 - down, : 8 - across]
            right[name] = shifted
        parts = [
            50 * jax.nn.one_hot(right[name], size) * (name != unknown)
            for name, size in sizes.items()
        ]
        cells = np.concatenate(parts, axis=-1).reshape(8, 64, -1)
        return lambda inputs, positions, key: np.pad(cells, ((0, 0), (9, 0), (0, 0)))

    assert task.loss(knowing(None), batch, None) < 1e-6
    np.testing.assert_allclose(task.loss(knowing("2 up"), batch, None), np.log(5) / 6, rtol=1e-5)


@pytest.mark.slow
def test_learns_places_from_rulers(tmp_path):
    pointing = experiment(
        tmp_path,
        schemes="i_mrope_ruler",
        model=SMALL,
        task__rows=3,
        task__columns=4,
        eval__screens=((3, 4),),
        eval__count=16,
        train__steps=300,
        train__learning_rate=0.02,
        train__batch_size=16,
    )
    assert pointing.run() == []
    (evaluation,), _, _ = pointing.results()
    at = {(r["condition"], r["x"]): r for r in evaluation["records"]}
    assert at["place", "3 x 4"]["value"] > 0.8
    chances = [at[name, "3 x 4"]["chance"] for name in ("2 up", "row", "column", "place")]
    np.testing.assert_allclose(chances, [1 / 16, 1 / 3, 1 / 4, 1 / 12])
    assert {each["caption"] for each in evaluation["maps"]} == {"3 x 4, layer 1"}


def test_icons_fill_their_place_and_differ():
    setting = Setting(data="dejavu", icons=40, icon=9, cell=13)
    icons = load_icons(setting)
    assert icons.shape == (40, 13, 13) and icons.dtype == np.uint8
    assert len({icon.tobytes() for icon in icons}) == 40
    for icon in icons:
        rows, columns = (np.flatnonzero(icon.any(axis=axis)) for axis in (1, 0))
        height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
        assert max(height, width) == 9 and min(rows[0], columns[0]) >= 2
        assert abs(rows[0] + rows[-1] - 12) <= 2 and abs(columns[0] + columns[-1] - 12) <= 2
    np.testing.assert_array_equal(load_icons(setting), icons)


@pytest.mark.skipif(
    importlib.util.find_spec("fonticon_mdi7") is None, reason="fonticon-materialdesignicons7"
)
def test_material_design_icons():
    icons = load_icons(Setting(icons=200))
    assert icons.shape == (200, 12, 12) and (icons.max(axis=(1, 2)) > 100).all()


def test_missing_icons_say_what_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"fonticon-materialdesignicons7.*\[icons\]"):
        load_icons(Setting())


def test_pictures_box_a_cell_and_its_neighbours(tmp_path):
    pointing = experiment(tmp_path, task__icon=6, task__cell=10)
    assert set(pointing.pictures()) == {f"8 x {n}: a cell, and its neighbours" for n in (8, 16)}
    picture = pointing.picture((8, 8))
    grey = (picture == picture[..., :1]).all(axis=-1)
    cells = {(i // 10, j // 10) for i, j in np.argwhere(~grey)}
    assert picture.shape == (80, 80, 3)
    assert cells == {(4, 4)} | {(4 - down, 4 - across) for down, across in NEIGHBOURS.values()}
    assert (~grey).sum() == 5 * 36


@pytest.mark.parametrize(
    "changes,message",
    [
        ({"task__icon": 13}, "task.icon=13 pixels does not fit into a cell of task.cell=12"),
        ({"task__data": "mdl"}, "task.data='mdl' must be 'mdi' or 'dejavu'"),
        ({"task__icons": 5000}, "task.icons=5000 are more than the 1... different ones"),
        ({"task__rows": 6}, r"eval.screens=.*\(8, 8\).* task.rows=6 and task.columns=8"),
        ({"eval__screens": ((8, 8), (8, 2))}, r"\(8, 2\) of eval.screens .* 3 or more of each"),
        ({"eval__screens": ((8, 8), (8, 8))}, "have none twice"),
        ({"eval__count": 0}, "eval.count=0 must be at least 1"),
        ({"eval__batch": 0}, "eval.batch=0 must be at least 1"),
        ({"variants__mrope__positions": "qwen"}, "positions='qwen' of mrope .* qwen2_vl"),
        ({"variants__i_mrope_ruler__ruler": 0}, "ruler=0 of Vision must be a whole number"),
        ({"variants__mrope__encoding__sections": (2, 2, 2)}, r"sections=\(2, 2, 2\).* 4 in all"),
    ],
)
def test_bad_configs_are_refused(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        experiment(tmp_path, **changes)


def test_grids_and_tokens_that_disagree_are_refused(tmp_path):
    pointing = experiment(tmp_path)
    task = pointing.task(Point("i_mrope", 0, ()))
    inputs, _ = pointing.sequence("i_mrope", pointing.tests((8, 8)))
    _, wider = pointing.sequence("i_mrope", pointing.tests((8, 16)))
    with pytest.raises(ValueError, match="129"):
        jax.eval_shape(lambda key: task.init(key)(inputs, wider), jax.random.key(0))


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_describe_models_that_exist(tmp_path, preset):
    assert len(experiment(tmp_path, preset).points) in (3, 30)
