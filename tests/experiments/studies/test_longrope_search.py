"""Tests the search for LongRoPE's factors, on losses made up for it."""

import itertools
import math

import numpy as np
import pytest

from experiments.results.record import Kept
from experiments.studies.longrope.fitness import remembered
from experiments.studies.longrope.search import (
    Budget,
    Genome,
    LongRoPE2Space,
    ReleasedSpace,
    Space,
    evolve,
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


def losses(brood):
    return [loss(genome) for genome in brood]


def search(space, seed=0, fitness=losses, budget=BUDGET):
    return list(evolve(space, budget, fitness, seed))


@pytest.mark.parametrize("name", SPACES)
def test_every_candidate_is_new_valid_and_one_of_the_budget(name):
    space = SPACES[name]()
    generations = search(space)
    genomes = [each.genome for generation in generations for each in generation]
    assert len(set(genomes)) == len(genomes) == BUDGET.candidates
    assert [len(generation) for generation in generations] == [16] + 6 * [12]
    assert all(space.is_valid(genome) for genome in genomes)
    first = [each.origin for each in generations[0]]
    assert first[: len(space.seeds)] == list(space.seeds)
    assert {each.origin for each in generations[1]} == {"mutation", "crossover"}


@pytest.mark.parametrize("name", SPACES)
def test_a_search_depends_on_its_seed_alone(name):
    one, again, other = (search(SPACES[name](), seed) for seed in (0, 0, 1))
    assert one == again != other


def test_a_search_finds_what_its_loss_prefers():
    budget = Budget(generations=20)
    for name, share in (("paper", 0.1), ("released", 0.5)):
        space = SPACES[name]()
        candidates = list(itertools.chain(*search(space, budget=budget)))
        seeds = [each.loss for each in candidates if each.origin in space.seeds]
        best = min(candidates, key=lambda each: each.loss)
        assert best.loss < share * min(seeds)
        # The released search knows no start tokens, which cost it 0.04.
        assert best.genome.start_tokens == (4 if name == "paper" else 0)


def test_the_paper_searches_the_grid_within_its_bounds_and_the_start_tokens():
    candidates = list(itertools.chain(*search(SPACES["paper"](), budget=Budget(generations=8))))
    factors = np.array([each.genome.factors for each in candidates])
    assert factors.min() == 1.0 and 4.0 < factors.max() <= 1.25 * FACTOR
    assert (np.diff(factors) >= 0).all()
    drawn = factors[~np.isin(factors, np.concatenate(list(SEEDS.values())))]
    np.testing.assert_allclose(drawn * 100, np.round(drawn * 100), atol=1e-6)
    starts = {each.genome.start_tokens for each in candidates}
    assert len(starts) > 5 and starts <= set(Space.starts)


def test_start_tokens_are_bounded():
    space = Space(SEEDS, 5.0, BUDGET, start_tokens=2, most_start_tokens=4)
    candidates = list(itertools.chain(*search(space)))
    assert {each.genome.start_tokens for each in candidates} == {0, 1, 2, 4}
    assert {each.genome.start_tokens for each in candidates[:3]} == {2}


def test_longrope2_searches_from_the_critical_pair_on_and_joins_ntk_below():
    candidates = list(itertools.chain(*search(SPACES["longrope2"]())))
    assert {each.genome.critical_pair for each in candidates} <= {2, 3, 4, 5}
    for each in candidates:
        critical, factors = each.genome.critical_pair, np.array(each.genome.factors)
        assert factors[critical] >= FACTOR and factors[-1] <= 2 * FACTOR
        head = factors[critical] ** (np.arange(critical) / critical)
        np.testing.assert_allclose(factors[:critical], head, rtol=1e-12)
    assert candidates[0].genome.factors[5:] == (FACTOR,) * 3


def test_children_come_from_the_best_of_all_generations():
    """The loss is the number of start tokens; a child of crossover has those of a parent."""

    class Starts(Space):
        starts = tuple(range(1000))

    generations = search(Starts(SEEDS, 5.0, BUDGET), fitness=lambda b: [g.start_tokens for g in b])
    for number in range(1, len(generations)):
        past = sorted(each.loss for generation in generations[:number] for each in generation)
        allowed = past[: BUDGET.parents]
        crossed = [each.loss for each in generations[number] if each.origin == "crossover"]
        assert set(crossed) <= set(allowed)


def test_a_candidate_without_a_loss_is_the_worst():
    def fitness(brood):
        return [math.nan if genome.factors[0] < 2 else loss(genome) for genome in brood]

    generations = search(SPACES["paper"](), fitness=fitness)
    candidates = list(itertools.chain(*generations))
    assert any(each.loss == math.inf for each in candidates)
    assert min(candidates, key=lambda each: each.loss).genome.factors[0] >= 2
    assert all(each.loss < math.inf for each in generations[-1] if each.origin == "crossover")


def test_a_model_that_gives_no_numbers_is_refused():
    with pytest.raises(ValueError, match=r"none of the 16 candidates .* has a finite loss"):
        search(SPACES["paper"](), fitness=lambda brood: [math.nan] * len(brood))


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: Space({"mine": [1, 3, 2]}, 5, BUDGET), "of mine fall from 3 at pair 1 to 2 at"),
        (lambda: Space({"mine": [1, math.nan]}, 5, BUDGET), "of mine fall from 1 at pair 0 to nan"),
        (lambda: Space({"mine": [1, 9]}, 5, BUDGET), "of mine go from 1 to 9, .* allows 1 to 5"),
        (lambda: Space({"mine": [0.5, 2]}, 5, BUDGET), "of mine go from 0.5 to 2"),
        (lambda: Budget(parents=65), "search.parents=65 must be .* at most search.population=64"),
        (lambda: Budget(parents=1), "search.parents=1 must be at least 2"),
        (lambda: Budget(generations=-1), "search.generations=-1 must be at least 0"),
        (lambda: Budget(step=0.0), "search.step=0.0 must be above 0"),
        (lambda: Budget(probability=0.0), "search.probability=0.0"),
    ],
)
def test_bad_input_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_space_without_further_candidates_is_refused():
    class Small(ReleasedSpace):
        def drawn(self, low, high, rng, current):
            return float(rng.integers(1, 3))

    with pytest.raises(ValueError, match="no further candidate in 1000 mutations"):
        search(Small({"pi": [2.0, 2.0]}, 2.0, BUDGET))


@pytest.mark.parametrize("batch", [1, 5])
def test_a_search_that_was_killed_goes_on_and_ends_the_same(tmp_path, batch):
    """The search is killed after every few batches, until it comes to its end."""
    path = tmp_path / "losses.jsonl"
    expected = search(SPACES["paper"]())
    computed = []

    def killed(brood):
        allowed = 2
        for start in range(0, len(brood), batch):
            if not allowed:
                raise KeyboardInterrupt
            allowed -= 1
            computed.extend(brood[start : start + batch])
            yield from losses(brood[start : start + batch])

    kills = 0
    while True:
        kept = Kept(path, {"seed": 0})
        try:
            found = search(SPACES["paper"](), fitness=remembered(killed, kept, print))
            break
        except KeyboardInterrupt:
            kills += 1
        finally:
            kept.close()
        path.write_text(path.read_text()[:-7])  # what was being written
    assert found == expected and kills >= 4
    # Nothing was computed twice but the loss that was being written at each kill.
    assert len(computed) == BUDGET.candidates + kills
    assert path.read_text().count("\n") == 1 + BUDGET.candidates


def test_what_is_remembered_is_not_computed_again_and_the_best_is_told(tmp_path):
    notes = []
    genomes = [Genome((1.0, factor)) for factor in (3.0, 2.0, 4.0)]
    for fitness in (lambda _: iter([3.0, math.nan, 2.0]), lambda _: pytest.fail("again")):
        kept = Kept(tmp_path / "losses.jsonl", {})
        losses = list(remembered(fitness, kept, notes.append)(genomes))
        kept.close()
        np.testing.assert_equal(losses, [3.0, math.nan, 2.0])
    assert notes == 2 * ["best 3.0000", "best 3.0000", "best 2.0000"]
