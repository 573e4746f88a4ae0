"""Holds published claims by subject, and the experiment that tests them.

Every claim is a few numbers and the range in which its paper says that they lie; ``ledger.RULE``
decides, and ``ledger.CORRECTION`` says what follows if the numbers of all claims are one family.
The numbers of papers are in the claims' sentences. docs/experiments.md lists the claims that were
written or changed after results had been seen.
"""

from collections.abc import Iterable

from experiments.results.ledger import Claim
from experiments.studies.claims import attention, extension, multimodal, rotary, tasks, text


def claims_of(schemes: Iterable[str]) -> tuple[Claim, ...]:
    """Returns all claims; ``schemes`` are those whose sense of order is tested."""
    return (
        *text.CLAIMS,
        *rotary.CLAIMS,
        *attention.CLAIMS,
        *extension.CLAIMS,
        *tasks.CLAIMS,
        tasks.order_is_seen(tuple(schemes)),
        *multimodal.CLAIMS,
    )
