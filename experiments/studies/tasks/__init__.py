"""Asks models questions whose answers depend on the order of tokens, beyond the trained length."""

from experiments.studies.tasks.addition import CoupledAddition, HintedAddition, ShiftedAddition
from experiments.studies.tasks.algorithmic import Addition, Copy, Parity, Reverse, Sort
from experiments.studies.tasks.recall import (
    Induction,
    Needles,
    Pairs,
    Passkey,
    Passkeys,
    Recall,
    VariableTracking,
)
from experiments.studies.tasks.state import Counting, FlipFlop, FlipFlops, SparseFlipFlops
from experiments.studies.tasks.task import VOCAB_SIZE, Rows, Task

# The tasks that one model learns together.
TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        Passkey(),
        Needles(),
        Recall(),
        Induction(),
        VariableTracking(),
        FlipFlop(),
        Counting(),
        Copy(),
        Reverse(),
        Addition(),
        Sort(),
        Parity(),
    )
}

# The tasks that a model can learn alone. Variants of a task share its number, and so its marker.
ALONE: dict[str, Task] = TASKS | {
    task.name: task
    for task in (
        Pairs(),
        Passkeys(),
        FlipFlops(),
        SparseFlipFlops(),
        ShiftedAddition(),
        HintedAddition(),
        CoupledAddition(),
    )
}

__all__ = ["ALONE", "TASKS", "VOCAB_SIZE", "Rows", "Task"]
