"""Asks models questions whose answers depend on the order of tokens, beyond the trained length."""

from experiments.studies.tasks.algorithmic import Addition, Copy, Parity, Reverse, Sort
from experiments.studies.tasks.recall import Induction, Needles, Passkey, Recall, VariableTracking
from experiments.studies.tasks.state import Counting, FlipFlop
from experiments.studies.tasks.task import VOCAB_SIZE, Rows, Task

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

__all__ = ["TASKS", "VOCAB_SIZE", "Rows", "Task"]
