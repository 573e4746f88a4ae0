"""Asks models questions whose answers depend on the order of tokens, beyond the trained length."""

from experiments.studies.tasks import addition, algorithmic, recall, state
from experiments.studies.tasks.task import RowTask


def _by_name(*kinds: type[RowTask]) -> dict[str, RowTask]:
    return {kind.name: kind() for kind in kinds}


# The tasks that one model learns together.
TASKS = _by_name(
    recall.Passkey,
    recall.Needles,
    recall.Recall,
    recall.Induction,
    recall.VariableTracking,
    state.FlipFlop,
    state.Counting,
    algorithmic.Copy,
    algorithmic.Reverse,
    algorithmic.Addition,
    algorithmic.Sort,
    algorithmic.Parity,
)

# The tasks that a model can learn alone. Variants of a task share its number, and so its marker.
ALONE = TASKS | _by_name(
    recall.Pairs,
    recall.Passkeys,
    state.FlipFlops,
    state.SparseFlipFlops,
    addition.ShiftedAddition,
    addition.HintedAddition,
    addition.CoupledAddition,
)
