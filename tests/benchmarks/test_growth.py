"""Tests what the benchmark of growth keeps and refuses; what it measures is not tested."""

import csv
import sys

import pytest

from benchmarks import growth


@pytest.fixture
def measured(monkeypatch, tmp_path):
    """Puts made-up figures in the place of measurements; ``run(flags)`` runs the command."""

    def measure(name, **sizes):
        if sizes["batch"] == 8:
            raise KeyboardInterrupt
        return {"step": 0.5, "evaluation": 0.25, "memory": 1.0 * sizes["layers"]}

    monkeypatch.setattr(growth, "measure", measure)

    def run(*flags):
        monkeypatch.setattr(sys, "argv", ["growth", f"--out={tmp_path}", *flags])
        return growth.main()

    return run


def table(folder):
    with (folder / "data/growth.csv").open(newline="") as file:
        return [(row["axis"], row[row["axis"]]) for row in csv.DictReader(file)]


def test_points_measured_before_stay_in_the_table(measured, tmp_path):
    """A run of one axis, or one that is interrupted, leaves the rest as it was."""
    layers = [("layers", str(n)) for n in growth.AXES["layers"]]
    assert measured("--axes=layers") == 0
    assert table(tmp_path) == layers
    with pytest.raises(KeyboardInterrupt):
        measured("--axes=batch")
    assert table(tmp_path) == [("batch", "1"), ("batch", "2"), ("batch", "4"), *layers]
    assert (tmp_path / "growth_layers.svg").exists()


def test_too_few_lengths_are_one_sentence(measured, capsys):
    assert measured("--most=2048") == 2
    assert "--most=2048 must be at least 4096" in capsys.readouterr().err
