"""Compares our search with LongRoPE's released code, as far as two runs on a made-up loss say."""

import common
import numpy as np
import pytest

from experiments.studies.longrope.search import Budget, ReleasedSpace, evolve

ARRAYS, PARAMS = common.golden("longrope_search_synthetic_d64_s8")
SIZES = PARAMS["hyper_params"]
BUDGET = Budget(
    population=SIZES["population_size"],
    generations=SIZES["max_time_budget"],
    parents=SIZES["parents_size"],
    mutations=SIZES["mutation_numbers"],
    crossovers=SIZES["crossover_size"],
    step=SIZES["list_step"],
)


def loss(factors) -> float:
    distance = np.log(factors) - np.log(ARRAYS["target"])
    return float(np.exp(1 + np.mean(ARRAYS["weights"] * distance**2)))


@pytest.mark.slow
def test_the_released_search_is_as_good_as_the_golden_runs():
    # The loss is that of the golden runs.
    np.testing.assert_allclose(loss(ARRAYS["init"]), ARRAYS["ppl_of_init"])
    curves = []
    for seed in range(6):
        space = ReleasedSpace({"yarn": ARRAYS["init"]}, 1.0 + PARAMS["scale"], BUDGET)
        generations = list(
            evolve(space, BUDGET, lambda brood: [loss(one.factors) for one in brood], seed)
        )
        assert sum(map(len, generations)) == BUDGET.candidates == 704
        for candidate in (one for generation in generations for one in generation):
            assert space.is_valid(candidate.genome) and candidate.genome.start_tokens == 0
        best = [min(one.loss for one in generation) for generation in generations]
        curves.append(np.minimum.accumulate(best))
    golden = np.stack([ARRAYS["best_ppl_curve_seed1"], ARRAYS["best_ppl_curve_seed2"]])
    # What is above the smallest loss there is, e: within a factor of two of the golden mean at the
    # start, in the middle and at the end. A mutation that moves less ends six times above it.
    actual, expected = (np.mean(one, axis=0) - np.e for one in (curves, golden))
    np.testing.assert_array_less(actual[[0, 10, 20]], 2 * expected[[0, 10, 20]])
    np.testing.assert_array_less(expected[[0, 10, 20]], 2 * actual[[0, 10, 20]])
