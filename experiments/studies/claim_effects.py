"""Makes the numbers that published claims predict; see ``claims.py``."""

import math

from experiments.results.ledger import Answers, Effect, Seeds, least, mean
from experiments.studies.order_sensitivity import BLIND

ALGORITHMS = ("copy", "reverse", "addition", "sort", "parity")
# Two schemes count as equal below this difference in bits per byte, and a scheme as flat below this
# share of its loss.
EQUAL = 0.02


def grows_less(one: str, other: str, multiple: int, **range_) -> Effect:
    """Says that the loss of ``one`` grows less from the trained length than that of ``other``.

    What one scheme is ahead at the trained length says nothing about longer texts.
    """

    def growth(answers: Answers, scheme: str) -> Seeds:
        return answers.bits("language", scheme, multiple) - answers.bits("language", scheme, 1)

    return Effect(
        f"growth of bits per byte from 1x to {multiple}x, {one} minus {other}",
        lambda a: growth(a, one) - growth(a, other),
        **({"high": 0.0} | range_),
    )


def less(
    one: str, other: str, multiple: int, of: str = "language", than: str = "language", **range_
) -> Effect:
    """Says that ``one`` in the study ``of`` has a lower loss than ``other`` in ``than``."""
    return Effect(
        f"bits per byte at {multiple}x, {one} minus {other}" + ", trained at 2L" * (of == "double"),
        lambda a: a.bits(of, one, multiple) - a.bits(than, other, multiple),
        **({"high": 0.0} | range_),
    )


def change(scheme: str, multiple: int, *, study: str = "language", **range_):
    """Says in which range the loss lies, relative to the loss with only the most recent tokens."""
    return Effect(
        f"loss of {scheme} at {multiple}x over that of the most recent 1x tokens alone, minus 1",
        lambda a: a.bits(study, scheme, multiple) / a.recent_bits(study, scheme) - 1.0,
        **range_,
    )


def more(one: str, other: str, tasks: tuple[str, ...], multiple: int) -> Effect:
    """Says that ``one`` has more answers right than ``other``, on average over ``tasks``."""

    def share(answers: Answers, scheme: str):
        return mean(*(answers.hits("tasks", scheme, task, multiple) for task in tasks))

    return Effect(
        f"share of answers right at {multiple}x in {', '.join(tasks)}, {one} minus {other}",
        lambda a: share(a, one) - share(a, other),
        low=0.0,
    )


def learned(schemes: tuple[str, ...], tasks: tuple[str, ...]) -> Effect:
    """Says that schemes have learned tasks at the trained length, which other effects require."""
    return Effect(
        f"least share of answers right at 1x in {', '.join(tasks)}, {' and '.join(schemes)}",
        lambda a: least(*(a.hits("tasks", one, task, 1) for one in schemes for task in tasks)),
        low=0.5,
    )


def errors(scheme: str, multiple: int, **range_: float) -> Effect:
    return Effect(
        f"share of rows of flip_flop wrong at {multiple}x, {scheme}",
        lambda a: (a.hits("tasks", scheme, "flip_flop", multiple) - 1.0) / -1.0,
        **range_,
    )


def tuned(one: str, steps: int, other: str, other_steps: int) -> Effect:
    def loss(answers: Answers, scheme: str, steps: int):
        where = dict(scheme=scheme, protocol="last", multiple=8, steps=steps)
        return answers.read("extension", "bits_per_byte", **where)

    return Effect(
        f"bits per byte at 8x, {one} after {steps} steps minus {other} after {other_steps}",
        lambda a: loss(a, one, steps) - loss(a, other, other_steps),
        high=0.0,
    )


def keeps(scheme: str, steps: int) -> Effect:
    def accuracy(answers: Answers, scheme: str, steps: int):
        where = dict(scheme=scheme, protocol="short", steps=steps)
        return answers.read("extension", "accuracy", **where)

    return Effect(
        f"share of the accuracy at short context that {scheme} keeps after {steps} steps",
        lambda a: accuracy(a, scheme, steps) / accuracy(a, "rope", 0),
        low=0.95,
    )


def searched(one: str, other: str, group: str = "near") -> Effect:
    multiple = {"near": "8x", "far": "64x, tuned at 8x"}[group]

    def loss(answers: Answers, scheme: str):
        return answers.read("longrope", "last_loss", group=group, scheme=scheme)

    return Effect(
        f"nats per token at {multiple}, {one} minus {other}, on documents that no search read",
        lambda a: loss(a, one) - loss(a, other),
        high=0.0,
    )


def sees_order(scheme: str, pair: str) -> Effect:
    """Says that the outputs differ, under the seed with the least difference.

    The models are not trained, so seeds are no sample of results: one number stands for all of
    them. It is a power of 10, as distances range over many magnitudes.
    """

    def power(answers: Answers) -> Seeds:
        distances = answers.read("order", "distance", scheme=scheme, pair=pair)
        # The rounding of float32, about 1e-7, stands for a distance of 0.
        exponent = math.ceil(math.log10(min(distances.values()) or 1e-7))
        return Seeds(dict.fromkeys(distances, exponent))

    says = f"how far the outputs of {pair} are apart as sets, as the next power of 10, {scheme}"
    return Effect(says, power, low=math.log10(BLIND))


def at_stride_1(answers: Answers, multiple: int):
    where = dict(scheme="alibi", split="test", protocol="sliding", stride=1, multiple=multiple)
    return answers.read("far", "bits_per_byte", **where)
