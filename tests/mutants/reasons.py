"""Says of errors that no test notices why that is right."""

from tests.mutants.changes import Change

# Part of the path, and of the expression before the error, with the reason.
REASONS: list[tuple[str, str, str]] = [
    (
        "frequencies/hope.py",
        "turns_in(self.train_length, inv_freq) > self.cut_cycles",
        "no pair makes exactly that many turns, since 2 pi is irrational",
    ),
]


def reason_of(change: Change) -> str:
    """Returns why an error goes unnoticed, as far as somebody has found out."""
    for path, before, reason in REASONS:
        if path in change.path and before in change.before:
            return reason
    return "no reason is known: a test is missing"
