"""Makes the numbers that claims predict."""

from collections.abc import Callable
from typing import Any

import pandas as pd

from experiments.results.ledger import Answers, Effect

# Two schemes count as equal below this difference in bits per byte, and a scheme as flat below this
# share of its loss.
EQUAL = 0.02
# The rung of the ladder on which claims about text are decided: it is trained longest, each scheme
# at its best learning rate.
RUNG = "ladder/c_l256_t20"
# The study whose models of all seeds are looked into.
PROBED = "probed"


def minus(one: pd.Series, other: pd.Series) -> pd.Series:
    """Returns the difference of the seeds that both have."""
    one, other = one.align(other, join="inner")
    return one - other


def growth(one: pd.Series, other: pd.Series) -> pd.Series:
    """Returns by which share ``one`` is above ``other``, for the seeds that both have."""
    return minus(one, other) / other.reindex(one.index).dropna()


def difference(
    says: str, number: Callable[..., pd.Series], one: tuple, other: tuple, **range_: float
) -> Effect:
    """Returns the effect of ``number(answers, *one) - number(answers, *other)``.

    It is below 0 unless another range is given.
    """
    return Effect(
        says, lambda a: minus(number(a, *one), number(a, *other)), **(range_ or {"high": 0.0})
    )


def less(
    one: str, other: str, multiple: int, of: str = RUNG, than: str = "", **range_: float
) -> Effect:
    """Says that ``one`` in the study ``of`` has a lower loss than ``other`` in ``than``."""
    than = than or of
    says = f"bits per byte at {multiple}x, {one} minus {other}, in {of}"
    says += f" and {than}" * (than != of)
    return difference(says, Answers.bits, (of, one, multiple), (than, other, multiple), **range_)


def change(scheme: str, multiple: int, study: str = RUNG, **range_: float) -> Effect:
    """Says in which range the loss lies, relative to the loss with only the most recent tokens."""
    return Effect(
        f"loss of {scheme} at {multiple}x over that of the most recent 1x tokens alone, minus 1, "
        f"in {study}",
        lambda a: growth(a.bits(study, scheme, multiple), a.recent_bits(study, scheme)),
        **range_,
    )


def rise(scheme: str, multiple: int, study: str = RUNG, **range_: float) -> Effect:
    """Says in which range the loss lies, relative to that at the trained length."""
    return Effect(
        f"loss of {scheme} at {multiple}x over that at 1x, minus 1, in {study}",
        lambda a: growth(a.bits(study, scheme, multiple), a.bits(study, scheme, 1)),
        **range_,
    )


def grows_less(one: str, other: str, multiple: int, study: str = RUNG, **range_) -> Effect:
    """Says that the loss of ``one`` grows less from the trained length than that of ``other``.

    What one scheme is ahead at the trained length says nothing about longer texts.
    """

    def grown(answers: Answers, scheme: str) -> pd.Series:
        return minus(answers.bits(study, scheme, multiple), answers.bits(study, scheme, 1))

    says = f"growth of bits per byte from 1x to {multiple}x, {one} minus {other}, in {study}"
    return difference(says, grown, (one,), (other,), **range_)


def more_right(study: str, one: str, other: str, condition: str, x: Any) -> Effect:
    """Says that a scheme is right more often than another, in a study of drawn examples."""

    def value(answers: Answers, scheme: str) -> pd.Series:
        where = dict(scheme=scheme, metric="accuracy", condition=condition, x=x)
        return answers.read(study, "value", **where)

    says = f"accuracy, {condition} {x}, {one} minus {other}, in {study}"
    return difference(says, value, (one,), (other,), low=0.0)
