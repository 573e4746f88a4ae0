"""Tests the search for LongRoPE's factors, on losses made up for it and for the released code."""

import itertools

import common
import numpy as np
import pytest

from experiments.results.record import Stored
from experiments.studies.longrope.search import (
    Budget,
    LongRoPE2Space,
    ReleasedSpace,
    Space,
    evolve,
    remembered,
)

FACTOR, PAIRS = 4.0, 8
BUDGET = Budget(population=16, generations=6, parents=8, mutations=6, crossovers=6)
TARGET = np.geomspace(1.05, 4.7, PAIRS)
SEEDS = {
    "pi": [FACTOR] * PAIRS,
    "ntk": list(FACTOR ** (np.arange(PAIRS) / (PAIRS - 1))),
    "yarn": list(np.interp(np.arange(PAIRS), [2, 5], [1.0, FACTOR])),
}
SPACES = {
    "paper": lambda: Space(SEEDS, 1.25 * FACTOR, BUDGET),
    "released": lambda: ReleasedSpace({"yarn": SEEDS["yarn"]}, 1 + FACTOR, BUDGET),
    "longrope2": lambda: LongRoPE2Space(PAIRS, (2, 5), FACTOR, BUDGET),
}


def loss(genome):
    return float(np.mean(np.log(genome.factors / TARGET) ** 2)) + abs(genome.start_tokens - 4) / 100


def search(space, seed=0, fitness=loss, budget=BUDGET):
    return list(evolve(space, budget, fitness, seed))


@pytest.mark.parametrize("name", SPACES)
def test_every_candidate_is_new_valid_and_one_of_the_budget(name):
    space = SPACES[name]()
    generations = search(space)
    genomes = [item.genome for generation in generations for item in generation]
    assert len(set(genomes)) == len(genomes) == BUDGET.candidates
    assert [len(generation) for generation in generations] == [16] + 6 * [12]
    assert all(space.is_valid(genome) for genome in genomes)
    first = [item.origin for item in generations[0]]
    assert first[: len(space.seeds)] == list(space.seeds)
    assert {item.origin for item in generations[1]} == {"mutation", "crossover"}


def test_a_search_finds_what_its_loss_prefers():
    budget = Budget(generations=20)
    for name, share in (("paper", 0.1), ("released", 0.5)):
        space = SPACES[name]()
        candidates = list(itertools.chain(*search(space, budget=budget)))
        seeds = [item.loss for item in candidates if item.origin in space.seeds]
        best = min(candidates, key=lambda item: item.loss)
        assert best.loss < share * min(seeds)
        # The released search knows no start tokens, which cost it 0.04.
        assert best.genome.start_tokens == (4 if name == "paper" else 0)


def test_the_paper_searches_the_grid_within_its_bounds_and_the_start_tokens():
    candidates = list(itertools.chain(*search(SPACES["paper"](), budget=Budget(generations=8))))
    factors = np.array([item.genome.factors for item in candidates])
    assert factors.min() == 1.0 and 4.0 < factors.max() <= 1.25 * FACTOR
    assert (np.diff(factors) >= 0).all()
    drawn = factors[~np.isin(factors, np.concatenate(list(SEEDS.values())))]
    np.testing.assert_allclose(drawn * 100, np.round(drawn * 100), atol=1e-6)
    starts = {item.genome.start_tokens for item in candidates}
    assert len(starts) > 5 and starts <= set(Space.starts)


def test_longrope2_searches_from_the_critical_pair_on_and_joins_ntk_below():
    candidates = list(itertools.chain(*search(SPACES["longrope2"]())))
    assert {item.genome.critical_pair for item in candidates} <= {2, 3, 4, 5}
    for item in candidates:
        critical, factors = item.genome.critical_pair, np.array(item.genome.factors)
        assert factors[critical] >= FACTOR and factors[-1] <= 2 * FACTOR
        head = factors[critical] ** (np.arange(critical) / critical)
        np.testing.assert_allclose(factors[:critical], head, rtol=1e-12)
    assert candidates[0].genome.factors[5:] == (FACTOR,) * 3


def test_a_search_that_was_killed_goes_on_and_ends_the_same(tmp_path):
    """The search is killed after every ten losses, until it comes to its end."""
    path = tmp_path / "losses.jsonl"
    expected = search(SPACES["paper"]())
    computed = []

    def killed(genome):
        if len(computed) >= 10 * (kills + 1):
            raise KeyboardInterrupt
        computed.append(genome)
        return loss(genome)

    kills = 0
    while True:
        stored = Stored(path, {"seed": 0})
        try:
            actual = search(SPACES["paper"](), fitness=remembered(killed, stored, print))
            break
        except KeyboardInterrupt:
            kills += 1
        finally:
            stored.close()
        path.write_text(path.read_text()[:-7])  # what was being written
    assert actual == expected and kills >= 4
    # Nothing was computed twice but the loss that was being written at each kill.
    assert len(computed) == BUDGET.candidates + kills
    assert path.read_text().count("\n") == 1 + BUDGET.candidates


# The released code


@pytest.mark.slow
def test_the_released_search_is_as_good_as_the_golden_runs():
    arrays, params = common.golden("longrope_search_synthetic_d64_s8")
    names = dict(population="population_size", generations="max_time_budget", step="list_step")
    names |= dict(mutations="mutation_numbers", crossovers="crossover_size", parents="parents_size")
    budget = Budget(**{name: params["hyper_params"][key] for name, key in names.items()})

    def loss(factors):
        distance = np.log(factors / arrays["target"])
        return float(np.exp(1 + np.mean(arrays["weights"] * distance**2)))

    np.testing.assert_allclose(loss(arrays["init"]), arrays["ppl_of_init"])
    curves = []
    for seed in range(6):
        space = ReleasedSpace({"yarn": arrays["init"]}, 1.0 + params["scale"], budget)
        generations = search(space, seed, lambda one: loss(one.factors), budget)
        assert sum(map(len, generations)) == budget.candidates == 704
        for candidate in itertools.chain(*generations):
            assert space.is_valid(candidate.genome) and candidate.genome.start_tokens == 0
        best = [min(one.loss for one in generation) for generation in generations]
        curves.append(np.minimum.accumulate(best))
    golden = np.stack([arrays["best_ppl_curve_seed1"], arrays["best_ppl_curve_seed2"]])
    # What is above the smallest loss there is, e: within a factor of two of the golden mean at the
    # start, in the middle and at the end. A mutation that moves less ends six times above it.
    actual, expected = (np.mean(one, axis=0)[[0, 10, 20]] - np.e for one in (curves, golden))
    np.testing.assert_array_less(actual, 2 * expected)
    np.testing.assert_array_less(expected, 2 * actual)
