"""Searches by evolution for the factors by which LongRoPE slows down each channel pair.

https://arxiv.org/abs/2402.13753, https://arxiv.org/abs/2502.20082

A search knows genomes and their losses, but no models. It is a function of its space, its
budget, its seed and the losses it is told: the same losses give the same search.
"""

import dataclasses
import itertools
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping

import numpy as np

from experiments.results.record import Stored
from experiments.settings import bounded

# How many times a space is asked for a genome that was not tried yet.
_TRIES = 1000
_CROSSOVER_TRIES = 20


@dataclasses.dataclass(frozen=True)
class Genome:
    """Holds the genes of one candidate.

    Attributes:
      factors: how many times slower each channel pair is rotated, the fastest first.
      start_tokens: how many tokens at the start are rotated as in RoPE (n-hat in the paper).
      critical_pair: the first pair whose factor is searched for; lower pairs follow from it.
    """

    factors: tuple[float, ...]
    start_tokens: int = 0
    critical_pair: int = 0


@dataclasses.dataclass(frozen=True)
class Candidate:
    """Holds a genome that was tried, its loss, which may be infinite, and how it was made."""

    genome: Genome
    loss: float
    origin: str


@dataclasses.dataclass(frozen=True)
class Budget:
    """Says how much is searched; the defaults are the paper's.

    Attributes:
      population: candidates of the first generation.
      generations: how many generations follow the first.
      parents: how many of the best candidates so far the next generation is made from.
      mutations: new candidates of a generation that are a parent with some genes redrawn.
      crossovers: new candidates of a generation that mix the genes of two parents.
      probability: the probability that a mutation redraws a gene.
      step: the distance between neighbours on the grid of factors.
    """

    population: int = 64
    generations: int = bounded(40, least=0)
    parents: int = bounded(32, least=2)
    mutations: int = bounded(16, least=0)
    crossovers: int = bounded(16, least=0)
    probability: float = bounded(0.3, above=0, most=1)
    step: float = bounded(0.01, above=0)

    @property
    def candidates(self) -> int:
        """Returns the number of candidates of a whole search."""
        return self.population + self.generations * (self.mutations + self.crossovers)

    def halved(self) -> "Budget":
        """Returns half of every size but the generations, as in the paper past 512k tokens."""
        sizes = ("population", "parents", "mutations", "crossovers")
        now = {size: getattr(self, size) for size in sizes}
        return dataclasses.replace(
            self, **{size: min(n, max(n // 2, 2)) for size, n in now.items()}
        )


class Space:
    """Makes the genomes of LongRoPE: a factor for each pair and the number of start tokens.

    A factor is never smaller than that of the faster pair before it. The paper does not say how a
    mutation keeps this order; here, as in the released code, a gene is drawn between its
    neighbours. Crossover takes each gene from either parent at random, as the paper does not say
    how.

    Args:
      seeds: the factors of known methods by name, such as PI, NTK and YaRN.
      largest: the largest factor that a gene may have.
      budget: its ``probability`` and ``step`` are used here.
      most_start_tokens: larger numbers of start tokens in ``starts`` are not tried.
    """

    starts: tuple[int, ...] = (0, 1, 2, 4, 8, 12, 16, 20, 24, 28, 32, 64, 128, 256)
    smallest = 1.0

    def __init__(
        self,
        seeds: Mapping[str, Iterable[float]],
        largest: float,
        budget: Budget,
        start_tokens: int = 0,
        most_start_tokens: int = 256,
    ):
        self.starts = tuple(start for start in self.starts if start <= most_start_tokens)
        self.largest = largest
        self.budget = budget
        self.seeds = {
            name: Genome(tuple(map(float, factors)), start_tokens)
            for name, factors in seeds.items()
        }

    def is_valid(self, genome: Genome) -> bool:
        """Returns whether the searched factors ascend within the bounds."""
        searched = genome.factors[genome.critical_pair :]
        is_within = self.smallest <= searched[0] and searched[-1] <= self.largest
        return is_within and all(low <= high for low, high in itertools.pairwise(searched))

    def another(self, rng: np.random.Generator) -> Genome:
        """Returns a further member of the first generation: a seed with some genes redrawn."""
        seeds = list(self.seeds.values())
        return self.mutated(seeds[rng.integers(len(seeds))], rng)

    def mutated(self, genome: Genome, rng: np.random.Generator) -> Genome:
        """Returns ``genome`` with each gene redrawn with the budget's probability."""
        factors, first, last = list(genome.factors), genome.critical_pair, len(genome.factors) - 1
        for pair in range(first, last + 1):
            if rng.random() < self.budget.probability:
                low = factors[pair - 1] if pair > first else self.smallest
                high = factors[pair + 1] if pair < last else self.largest
                factors[pair] = self.drawn(low, high, rng, factors[pair])
        start = genome.start_tokens
        if rng.random() < self.budget.probability:
            start = int(rng.choice(self.starts))
        return dataclasses.replace(genome, factors=tuple(factors), start_tokens=start)

    def drawn(self, low: float, high: float, rng: np.random.Generator, current: float) -> float:
        """Returns a number of the grid from ``low`` to ``high``, or else ``current``."""
        step = self.budget.step
        # A millionth of a step, because a bound that is on the grid may be rounded off it.
        first, last = math.ceil(low / step - 1e-6), math.floor(high / step + 1e-6)
        if first > last:
            return current
        number = round(float(rng.integers(first, last + 1)) * step, 6)
        return min(max(number, low), high)

    def crossings(self, better: Genome, worse: Genome, rng) -> Iterator[Genome]:
        """Yields the valid children among 20 crossings of two parents."""
        for _ in range(_CROSSOVER_TRIES):
            factors = list(better.factors)
            for pair in range(better.critical_pair, len(factors)):
                if rng.random() < 0.5:
                    factors[pair] = worse.factors[pair]
            start = (better if rng.random() < 0.5 else worse).start_tokens
            child = dataclasses.replace(better, factors=tuple(factors), start_tokens=start)
            if self.is_valid(child):
                yield child


class ReleasedSpace(Space):
    """Makes genomes as the released code does where it differs from the paper (microsoft/LongRoPE).

    The search has one seed, YaRN, no start tokens and a smaller bound. A gene is drawn from a range
    that begins at its faster neighbour and ends up to a step above its slower one; a mutant is then
    mutated again until its factors ascend, so it moves far more than in the paper. Crossover stops
    at the first change that makes a valid child, which mostly is a single gene of the worse parent.
    """

    starts = (0,)

    def mutated(self, genome, rng):
        genome = super().mutated(genome, rng)
        while not self.is_valid(genome):
            genome = super().mutated(genome, rng)
        return genome

    def drawn(self, low, high, rng, current):
        step = self.budget.step
        numbers = np.arange(low, high + step, step)
        return round(float(rng.choice(numbers)), 6) if numbers.size else current

    def crossings(self, better, worse, rng):
        factors = list(better.factors)
        for _, pair in itertools.product(range(_CROSSOVER_TRIES), range(len(factors))):
            if rng.random() < 0.3:
                if rng.random() < 0.5:
                    factors[pair] = worse.factors[pair]
                child = dataclasses.replace(better, factors=tuple(factors))
                if self.is_valid(child):
                    yield child


class LongRoPE2Space(Space):
    """Makes the genomes of LongRoPE2: the critical pair, and a factor for each pair from there on.

    Factors lie between ``factor``, the target length over the train length, and twice that. Lower
    pairs have NTK's factors, with the base that joins them to the critical pair's. The critical
    pair of a candidate, from the first to the last of ``critical``, is drawn in the first
    generation, and its children keep it; a crossover keeps the better parent's.
    """

    starts = (0,)

    def __init__(self, pairs: int, critical: tuple[int, int], factor: float, budget: Budget):
        super().__init__({}, 2 * factor, budget)
        self.smallest = factor
        self.pairs = pairs
        self.critical = critical
        first, last = critical
        self.seeds = {
            f"critical pair {pair}": self._uniform(pair, factor)
            for pair in range(last, first - 1, -1)
        }

    def another(self, rng):
        first, last = self.critical
        critical_pair = int(rng.integers(first, last + 1))
        scale = self.drawn(self.smallest, self.largest, rng, self.smallest)
        return self._uniform(critical_pair, scale)

    def mutated(self, genome, rng):
        return _joined(super().mutated(genome, rng))

    def crossings(self, better, worse, rng):
        return map(_joined, super().crossings(better, worse, rng))

    def _uniform(self, critical_pair, scale):
        return _joined(Genome((scale,) * self.pairs, critical_pair=critical_pair))


def _joined(genome: Genome) -> Genome:
    """Returns ``genome`` with NTK's factors below its critical pair."""
    critical, factors = genome.critical_pair, genome.factors
    head = tuple(factors[critical] ** (pair / critical) for pair in range(critical))
    return dataclasses.replace(genome, factors=head + factors[critical:])


def evolve(
    space: Space, budget: Budget, fitness: Callable[[Genome], float], seed: int
) -> Iterator[list[Candidate]]:
    """Yields the candidates of each generation with their losses, the first generation first.

    No genome is tried twice. Parents are the best of all generations so far; of equals, the older.
    ``fitness`` returns the loss of a genome, less being better; one that is not finite counts as
    infinite. Raises a ValueError if no candidate of the first generation has a finite
    loss, or the space has no further candidates.
    """
    rng = np.random.Generator(np.random.Philox(seed))
    best: list[Candidate] = []
    # The seeds, and drawn genomes that fill up the population.
    brood = [(genome, name) for name, genome in space.seeds.items()][: budget.population]
    tried = {genome for genome, _ in brood}
    while len(brood) < budget.population:
        brood.append((_untried(lambda _: space.another(rng), None, tried), "drawn"))
    for generation in range(budget.generations + 1):
        if generation:
            brood = _next(space, budget, rng, [parent.genome for parent in best], tried)
        losses = [fitness(genome) for genome, _ in brood]
        scored = [
            Candidate(genome, loss if math.isfinite(loss) else math.inf, origin)
            for (genome, origin), loss in zip(brood, losses, strict=True)
        ]
        best = sorted([*best, *scored], key=lambda one: one.loss)[: budget.parents]
        if best[0].loss == math.inf:
            raise ValueError(
                f"none of the {len(scored)} candidates of the first generation has a finite loss: "
                "the model gives no numbers on these documents"
            )
        yield scored


def _next(space, budget, rng, parents, tried) -> list[tuple[Genome, str]]:
    """Returns the children of a generation, each with its origin, and adds them to ``tried``."""

    def mutant(genome):
        return _untried(lambda genome: space.mutated(genome, rng), genome, tried), "mutation"

    brood = [mutant(parents[rng.integers(len(parents))]) for _ in range(budget.mutations)]
    for _ in range(budget.crossovers):
        better, worse = sorted(rng.choice(len(parents), 2, replace=False))
        children = space.crossings(parents[better], parents[worse], rng)
        child = next((child for child in children if child not in tried), None)
        if child is None:
            brood.append(mutant(parents[better]))
        else:
            tried.add(child)
            brood.append((child, "crossover"))
    return brood


def _untried(change: Callable, genome: Genome | None, tried: set[Genome]) -> Genome:
    """Changes a genome again and again until it is one that was not tried; adds it to ``tried``."""
    for _ in range(_TRIES):
        genome = change(genome)
        if genome not in tried:
            tried.add(genome)
            return genome
    raise ValueError(
        f"the search found no further candidate in {_TRIES} mutations, after {len(tried)}: "
        "give a smaller search.step, population or number of generations"
    )


def remembered(
    fitness: Callable[[Genome], float], stored: Stored, advance: Callable[[str], None]
) -> Callable[[Genome], float]:
    """Returns ``fitness`` with each loss written to ``stored`` as soon as it is known.

    A search is a function of its seed and of the losses that it is told, so only the losses must be
    kept: a search that is started again takes the same steps, and computes no loss twice.
    ``advance`` is called after each loss with a note of the best so far.
    """
    best = float("inf")

    def loss_of(genome):
        nonlocal best
        loss = stored.get(json.dumps(dataclasses.asdict(genome)), lambda: fitness(genome))
        best = loss if loss < best else best
        advance(f"best {best:.4f}")
        return loss

    return loss_of
