"""Trains tiny models on a made-up corpus, for tests of training."""

import contextlib
import itertools
from unittest import mock

import jax
import numpy as np
import pytest
from flax import nnx
from jax.sharding import AxisType
from ml_collections import FrozenConfigDict
from rich.console import Console

from experiments import preemption
from experiments.results.metrics import Metrics
from experiments.results.record import read_lines
from experiments.training.corpus import Corpus
from experiments.training.loop import train
from experiments.training.mesh import AXES, make_mesh
from experiments.training.recipe import Recipe
from experiments.training.text import Text
from experiments.training.windows import window_index

SPEC = FrozenConfigDict(
    {
        "encoding": {"name": "alibi"},
        "model": {"vocab_size": 16, "model_dim": 16, "num_layers": 1, "num_heads": 4},
    }
)
RECIPE = Recipe(length=8, batch_size=8, steps=6, warmup_steps=2, log_every=1, checkpoint_every=2)
TASK = Text(RECIPE, None, SPEC)  # with no windows it draws no batches


def toy_windows(length=RECIPE.length, vocab_size=16):
    """Returns windows of two documents of random tokens."""
    tokens = np.random.default_rng(0).integers(0, vocab_size, 4000).astype(np.uint8)
    offsets, splits = np.array([0, 1500, 4000]), np.zeros(2, np.int8)
    corpus = Corpus("toy", tokens, offsets, splits, vocab_size, 1.0, "digest")
    return window_index(corpus, length)


WINDOWS = toy_windows()


def mesh_of(**shape):
    """Returns a mesh of all devices, or of one where no shape is given."""
    if shape:
        return make_mesh(**shape)
    kinds = (AxisType.Auto,) * len(AXES)
    return jax.make_mesh((1,) * len(AXES), AXES, axis_types=kinds, devices=jax.devices()[:1])


def run(folder, recipe=RECIPE, seed=0, spec=SPEC, task=None, mesh=None, **options):
    """Trains a model on one device, by default an ``alibi`` on the toy windows."""
    folder.mkdir(parents=True, exist_ok=True)
    task, given = task or Text(recipe, WINDOWS, spec), dict(folder=folder, **options)
    return train(task, recipe, mesh or mesh_of(), seed=seed, console=Console(quiet=True), **given)


def lines(folder):
    """Returns what a run has recorded, step by step."""
    return read_lines(folder / "metrics.jsonl")


def losses(folder):
    return [line["loss"] for line in lines(folder)]


class StopError(Exception):
    """Stands in for a kill."""


class Line(nnx.Module):
    """Stands in for a Transformer, as the least model that can be trained."""

    scan = False

    def __init__(self, key):
        self.slope = nnx.Param(jax.random.normal(key, 3))

    def aux_loss(self, key):
        del key
        return 0.0


@contextlib.contextmanager
def killed(kind, method, when):
    """Expects that a method of a class dies as soon as ``when`` is true of its arguments.

    Nothing is cleaned up, as after a kill.
    """
    whole = getattr(kind, method)

    def failing(*arguments, **keywords):
        if when(*arguments, **keywords):
            raise StopError
        whole(*arguments, **keywords)

    with mock.patch.object(kind, method, failing), pytest.raises(StopError):
        yield


def killed_at(step):
    """Expects that training dies while it records ``step``."""
    return killed(Metrics, "write", lambda self, **values: values["step"] == step)


@contextlib.contextmanager
def preempted(time=1):
    """Expects that a program stops when it asks for the ``time``-th time whether it must."""
    times = itertools.count(1)
    asked = mock.patch.object(preemption, "requested", lambda: next(times) == time)
    with asked, pytest.raises(preemption.PreemptedError):
        yield
