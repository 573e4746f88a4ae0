"""Tests LongRoPE on small models: candidates as inputs of one program, tuning, the experiment."""

import functools
import json

import common
import jax
import numpy as np
import pytest
from tiny_runs import comparison

from configs.longrope import get_config
from experiments.evaluation.lengths import Scorer
from experiments.pretrained.trained import in_place_of_rope, rope_of
from experiments.running.pool import run_points
from experiments.running.status import status
from experiments.studies.longrope.encoding import Searched, factors_of
from experiments.studies.longrope.search import Budget, Genome, Space
from experiments.studies.longrope.stages import (
    NEEDLE,
    MixedWindows,
    needle_loss,
    text_loss,
    with_needles,
)
from experiments.studies.longrope.study import LongRoPESearch
from experiments.training.data import load_corpus
from experiments.training.mesh import make_mesh, state_shardings
from experiments.training.recipe import Recipe
from experiments.training.text import token_losses
from experiments.training.windows import window_index
from posenc_jax import make
from posenc_jax.encodings.rotary.frequencies.ntk import NTKFrequencies
from posenc_jax.encodings.rotary.frequencies.pi import PositionInterpolationFrequencies
from posenc_jax.encodings.rotary.frequencies.yarn import YaRNFrequencies

L, TARGET = 16, 48
GENOMES = [
    Genome((1.0, 1.5, 2.25, 3.01), start_tokens=4),
    Genome((1.0, 1.0, 1.0, 1.0)),
    Genome((3.0, 3.0, 3.0, 3.75), start_tokens=1),
]
DOCUMENTS = np.random.default_rng(0).integers(0, common.VOCAB, (4, TARGET + 1)).astype(np.int32)


@pytest.fixture(scope="module")
def mesh():
    return make_mesh()


def placed(model, mesh):
    return jax.device_put(model, state_shardings(model, mesh))


@pytest.fixture(scope="module")
def model(mesh):
    return placed(common.build_model("rope"), mesh)


def score_of(model, mesh, genome):
    encoding = Searched.of(rope_of(model, "it"), genome, 1.25)
    return functools.partial(Scorer(model, mesh, 10**5), encoding=in_place_of_rope(model, encoding))


def longrope(genome, **keywords):
    given = dict(train_length=L, head_dim=common.HEAD_DIM, factor=4.0, attention_factor=1.25)
    of_genome = dict(long_factor=genome.factors, start_tokens=genome.start_tokens)
    return make("longrope", **given, **of_genome, **keywords)


@jax.jit
def losses_under(model, encoding, tokens_BL=DOCUMENTS):
    return token_losses(model.under(encoding), tokens_BL)


def test_a_candidate_has_the_loss_of_longrope_with_its_factors(model, mesh):
    actual = [text_loss(score_of(model, mesh, genome), DOCUMENTS) for genome in GENOMES]
    expected = [losses_under(model, longrope(genome)).mean() for genome in GENOMES]
    np.testing.assert_allclose(actual, expected, rtol=2e-6)
    assert np.ptp(actual) > 0.01, "the factors make no difference"


@pytest.mark.parametrize(
    "keywords", [{"layout": "interleaved", "base": 500.0}, {"rotary_dim": 4}], ids=str
)
def test_a_candidate_is_longrope_whatever_the_rope(keywords):
    rope = make("rope", head_dim=common.HEAD_DIM, **keywords)
    pairs = rope.rotary_dim // 2
    genome = Genome(tuple(np.linspace(1.1, 3, pairs)), start_tokens=3)
    x, positions = common.normal(0, 1, 40, 4, 8), np.arange(40)[None]

    @jax.jit
    def rotated(encoding):
        here = encoding.at(positions)
        return encoding.rotate(x, here.tokens, common.posenc_jax.Side(None, 4, is_query=True))

    expected = rotated(longrope(genome, **keywords))
    actual = rotated(Searched.of(rope, genome, 1.25))
    np.testing.assert_allclose(actual, expected, atol=1e-5)


def test_needles_stand_at_the_start_and_are_asked_for_at_the_end(model, mesh):
    tokens = with_needles(DOCUMENTS)
    assert tokens.shape == DOCUMENTS.shape
    np.testing.assert_array_equal(tokens[:, :NEEDLE], tokens[:, -NEEDLE:])
    np.testing.assert_array_equal(tokens[:, NEEDLE:-NEEDLE], DOCUMENTS[:, : -2 * NEEDLE])
    assert (tokens[0, :NEEDLE] != tokens[1, :NEEDLE]).any()
    losses = losses_under(model, longrope(GENOMES[0]), tokens)
    expected = losses[:, -NEEDLE // 2 :].mean()
    actual = needle_loss(score_of(model, mesh, GENOMES[0]), DOCUMENTS)
    np.testing.assert_allclose(actual, expected, rtol=2e-6)


@pytest.mark.parametrize("factor", [2.0, 7.3])
def test_factors_of_known_methods_are_seeds_that_a_search_takes(factor):
    rope = make("rope", head_dim=96, base=70000.0)
    rules = {
        "pi": PositionInterpolationFrequencies(factor),
        "ntk": NTKFrequencies(factor),
        "yarn": YaRNFrequencies(512, factor),
    }
    seeds = {name: factors_of(rope, rule) for name, rule in rules.items()}
    assert set(seeds["pi"]) == {factor} and seeds["ntk"][0] == seeds["yarn"][0] == 1.0
    space = Space(seeds, 1.25 * factor, Budget())
    assert all(space.is_valid(genome) for genome in space.seeds.values())


def test_mixed_windows_read_short_ones_under_rope_and_long_ones_under_the_factors(corpus, model):
    recipe = Recipe(length=2 * L, batch_size=8, steps=1)
    corpus = load_corpus(corpus)
    encoding = longrope(GENOMES[0], short_attention_factor=1.0)
    windows = (window_index(corpus, length) for length in (2 * L, L))
    long, short = windows
    task = MixedWindows(recipe, long, model.under(encoding), short)
    batch = task.batch(0, 1, 0, 1)
    shapes = {name: rows.shape for name, rows in batch.items()}
    assert shapes == {"long": (8, 2 * L + 1), "short": (16, L + 1)}
    halves = [task.batch(0, 1, process, 2)["short"] for process in (0, 1)]
    np.testing.assert_array_equal(np.sort(np.concatenate(halves), 0), np.sort(batch["short"], 0))
    batch = jax.tree.map(lambda rows: rows % common.VOCAB, batch)
    long = losses_under(model, longrope(GENOMES[0]), batch["long"]).mean()
    short = losses_under(model, rope_of(model, "it"), batch["short"]).mean()
    actual = jax.jit(task.loss)(task.init(None), batch, None)
    np.testing.assert_allclose(actual, (long + short) / 2, rtol=1e-5)


def config(files, **changes):
    config = get_config("tiny")
    config.corpus = files
    config.model.num_layers = 1
    config.search.update(population=5, generations=1, parents=4, mutations=1, crossovers=1)
    return common.changed(config, **changes)


experiment = functools.partial(comparison, kind=LongRoPESearch)


@pytest.mark.slow
def test_a_finished_run_is_searched_without_training(corpus, tmp_path):
    finished, workdir = tmp_path / "finished", tmp_path / "searched"
    one, _ = experiment(config(corpus), finished)
    assert run_points(one) == []
    checkpoint = f"{finished}/runs/rope/seed{{seed}}"
    given = config(corpus, checkpoint=checkpoint, stages="released")
    given.train.length = None  # as in the preset smollm2
    one, _ = experiment(given, workdir)
    assert run_points(one) == []
    assert status(one, one.points[0])["steps"] == 0
    path = "runs/rope/seed0/evaluation.json"
    searches = (json.loads((folder / path).read_text()) for folder in (finished, workdir))
    first, second = (one["searches"] for one in searches)
    assert second == [item for item in first if item["search"] == "released"]
    assert "yarn (start)" in one.write_report("command").read_text()
    frame = one.frame()
    assert set(frame["split"]) == {"near", "short"} and set(frame["x"]) == {64, 32}
    assert {"released", "yarn (start)", "rope"} < set(frame["scheme"])
    run = json.loads((workdir / "runs/rope/seed0/run.json").read_text())
    assert len(run["config"]["checkpoint"]) == 16 and "train" not in run["config"]
