"""Makes the numbers that claims of several subjects predict.

The numbers of one subject alone are beside its claims.
"""

from collections.abc import Callable
from typing import Any

from experiments.results.ledger import Answers, Effect, Seeds

# Two schemes count as equal below this difference in bits per byte, and a scheme as flat below this
# share of its loss.
EQUAL = 0.02
# The rung of the ladder on which claims about text are decided: it is trained longest, each scheme
# at its best learning rate.
RUNG = "c_l256_t20"
# The study whose models of all seeds are looked into.
PROBED = "probed"


def difference(
    says: str, number: Callable[..., Seeds], one: tuple, other: tuple, **range_: float
) -> Effect:
    """Returns the effect of ``number(answers, *one) - number(answers, *other)``.

    It is below 0 unless another range is given.
    """
    return Effect(says, lambda a: number(a, *one) - number(a, *other), **(range_ or {"high": 0.0}))


def less(
    one: str,
    other: str,
    multiple: int,
    of: str = "language",
    than: str = "language",
    **range_: float,
) -> Effect:
    """Says that ``one`` in the study ``of`` has a lower loss than ``other`` in ``than``."""
    says = f"bits per byte at {multiple}x, {one} minus {other}"
    says += ", trained at 2L" if of == "double" else ""
    return difference(says, Answers.bits, (of, one, multiple), (than, other, multiple), **range_)


def change(scheme: str, multiple: int, *, study: str = "language", **range_: float) -> Effect:
    """Says in which range the loss lies, relative to the loss with only the most recent tokens."""
    return Effect(
        f"loss of {scheme} at {multiple}x over that of the most recent 1x tokens alone, minus 1",
        lambda a: a.bits(study, scheme, multiple) / a.recent_bits(study, scheme) - 1.0,
        **range_,
    )


def rung_less(one: str, other: str, multiple: int, study: str = RUNG, **range_: float) -> Effect:
    """Says that ``one`` has a lower loss than ``other`` on a rung of the ladder."""
    says = f"bits per byte at {multiple}x, {one} minus {other}, in {study}"
    first, second = (study, one, multiple), (study, other, multiple)
    return difference(says, Answers.rung_bits, first, second, **range_)


def rung_change(scheme: str, multiple: int, study: str = RUNG, **range_: float) -> Effect:
    """Says in which range the loss on a rung lies, relative to that at the trained length."""
    return Effect(
        f"loss of {scheme} at {multiple}x over that at 1x, minus 1, in {study}",
        lambda a: a.rung_bits(study, scheme, multiple) / a.rung_bits(study, scheme, 1) - 1.0,
        **range_,
    )


def rung_growth(scheme: str, multiple: int, **range_: float) -> Effect:
    """Says in which range the loss on ``RUNG`` lies, as ``change`` does of other studies."""

    def growth(answers: Answers) -> Seeds:
        protocol = "windowed" if answers.protocol == "last" else answers.protocol
        recent = answers.rung_bits(RUNG, scheme, 1, protocol)
        return answers.rung_bits(RUNG, scheme, multiple) / recent - 1.0

    says = f"loss of {scheme} at {multiple}x over that of the most recent 1x tokens alone, minus 1"
    return Effect(f"{says}, in {RUNG}", growth, **range_)


def differs(
    study: str, one: str, other: str, metric: str, condition: str, x: Any, **range_: float
) -> Effect:
    """Says how two schemes differ in a column of an experiment on images, screens or videos."""

    def value(answers: Answers, scheme: str) -> Seeds:
        where = dict(scheme=scheme, metric=metric, condition=condition, x=x)
        return answers.read(study, "value", **where)

    says = f"{metric}, {condition} {x}, {one} minus {other}, in {study}"
    return difference(says, value, (one,), (other,), **range_)
