"""Tests the experiment on pointing, with the icons of a font that is always there."""

import jax
import numpy as np
import pytest
from tiny_runs import study

from experiments.running.points import Point
from experiments.studies.multimodal.pointing import NEIGHBOURS, targets


def experiment(workdir, **changes):
    return study("pointing", workdir, task__data="dejavu", **changes)


def test_answers_are_what_stands_there():
    icons = np.random.default_rng(0).integers(0, 9, (2, 4, 5))
    corner = np.array([3, 6])
    right = targets({"icons": icons, "corner": corner})
    for b in range(2):
        for name, (down, across) in NEIGHBOURS.items():
            assert right[name].shape == (2, 4 - down, 5 - across)
            for row in range(down, 4):
                for column in range(across, 5):
                    actual = right[name][b, row - down, column - across]
                    assert actual == icons[b, row - down, column - across]
        for row in range(4):
            for column in range(5):
                assert right["row"][b, row, column] == corner[b] + row
                assert right["column"][b, row, column] == corner[b] + column


def test_cells_are_read_in_the_order_of_their_positions(tmp_path):
    """Told numbers come first, then each icon's pixels at its row and column, rulers in line."""
    pointing = experiment(tmp_path, eval__screens=((8, 8), (8, 12)))
    icons = np.arange(24, dtype=np.int32).reshape(1, 2, 12) % 16
    screens = {"icons": icons, "corner": np.array([3])}
    inputs, positions = pointing.sequence("i_mrope_ruler", screens)
    assert inputs["tokens"].shape == (1, 37) and positions.shape == (1, 37, 3)
    is_patch = inputs["is_patch"][0]
    np.testing.assert_array_equal(inputs["tokens"][0, ~is_patch], [3, *range(3, 15)])
    pixels = np.asarray(pointing.pixels())[icons.ravel()]
    np.testing.assert_array_equal(inputs["patches"][0, is_patch], pixels)
    time, row, column = np.asarray(positions)[0, 13:].T
    np.testing.assert_array_equal(row, 1 + np.arange(24) // 12)
    np.testing.assert_array_equal(column, 1 + np.arange(24) % 12)
    assert (time == 1).all()
    np.testing.assert_array_equal(positions[0, 1:13, 1:].T, [np.arange(1, 13)] * 2)
    inputs, positions = pointing.sequence("i_mrope", screens)
    assert inputs["tokens"].shape == (1, 25) and positions.shape == (1, 25, 3)


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
        shares = {name: 50.0 * (name != unknown) for name in sizes}
        parts = [shares[name] * jax.nn.one_hot(right[name], size) for name, size in sizes.items()]
        cells = np.concatenate(parts, axis=-1).reshape(8, 64, -1)
        return lambda inputs, positions, key: np.pad(cells, ((0, 0), (9, 0), (0, 0)))

    assert task.loss(knowing(None), batch, None) < 1e-6
    np.testing.assert_allclose(task.loss(knowing("2 up"), batch, None), np.log(5) / 6, rtol=1e-5)
