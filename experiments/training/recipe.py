"""Says how a model is trained: the optimizer, its schedule, and what weight decay acts on."""

import bisect
import dataclasses
import itertools
import math
import re
from collections.abc import Callable
from typing import Any

import jax
import optax

from experiments.settings import bounded, check_fields, one_of
from experiments.training.mesh import path_name
from experiments.training.phases import UNCHANGED, Phase
from experiments.training.precision import PRODUCTS
from posenc_jax import Transformer

# The rules in words, for reports.
RULES = (
    "Under one seed all schemes have the same batches, the same initial values of the decoder and "
    "the same optimizer, which learns the parameters of encodings at the rate of all others. "
    "Weight decay acts on the matrices of the decoder's blocks, which are the projections of "
    "attention and of the feed-forward network, and on nothing else: on no embedding, norm or "
    "bias, and on no parameter of an encoding."
)

_PROJECTIONS = re.compile(r"layers/\d+/block/(attention|mlp)/")


@dataclasses.dataclass(frozen=True)
class Goal:
    """Ends a run before its last step if its model is good enough by then.

    The task counts as learned at the first step whose score is ``enough`` or more. The run goes on
    for as many steps again, because a model that has just learned a task is not reliable yet.

    Attributes:
      measured: a pure function of the model that returns numbers by name. One is the "score", such
        as the share of held-out examples that the model has right; all are written with the step.
        A resumed run computes them again.
      enough: the score at which the task counts as learned.
      every: steps from one score to the next; the last step has one too.
    """

    measured: Callable[[Transformer], dict[str, float]]
    enough: float
    every: int


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Says how a model is trained, under the same ``RULES`` for every scheme.

    Attributes:
      length: tokens of a training sequence.
      batch_size: sequences in a step, over all devices.
      steps: optimizer steps; a run that has a ``Goal`` may end before them.
      optimizer: "adamw", or "muon", which learns the matrices of the blocks by orthogonal steps
        (2502.16982) of the size that AdamW's have, and all else by AdamW with Nesterov's momentum.
      learning_rate: the peak, which is reached after ``warmup_steps`` of linear growth; then the
        rate falls along a cosine to a tenth of the peak.
      warmup_steps: steps until the learning rate is at its peak; a run of no more steps
        than that, such as a trial, has ``steps - 1`` of them.
      weight_decay: the decoupled weight decay, which acts where ``decays`` says.
      beta2: AdamW's second decay.
      clip_norm: largest global norm of the gradient.
      accumulate: micro-batches that a step is computed in, to save memory.
      products: the type of the factors of all products in a training step, "float32" or
        "bfloat16", see ``training/precision.py``. Evaluation multiplies in the model's own type.
      log_every: steps from one line of ``metrics.jsonl`` to the next; the last step has one too.
      checkpoint_every: steps from one checkpoint to the next; the last step has one too.
      tensorboard: also write TensorBoard event files; needs ``posenc_jax[tensorboard]``.
      wandb: also send the numbers to this project of Weights & Biases; needs ``posenc_jax[wandb]``.
      profile_steps: "A:B" writes a trace of steps A + 1 to B to ``profile``, for TensorBoard or
        Perfetto.
      phases: parts of the run in which sequences are longer or the encoding is another one, each a
        :class:`Phase`, or a pair such as ``(0.1, {"length": 1024})``. Empty: ``length`` throughout.
    """

    length: int
    batch_size: int
    steps: int
    optimizer: str = "adamw"
    learning_rate: float = bounded(3e-3, least=0)
    warmup_steps: int = bounded(50, least=0)
    weight_decay: float = bounded(0.1, least=0)
    beta2: float = bounded(0.95, least=0, below=1)
    clip_norm: float = bounded(1.0, above=0)
    accumulate: int = 1
    products: str = "float32"
    log_every: int = 10
    checkpoint_every: int = 1000
    tensorboard: bool = False
    wandb: str = ""
    profile_steps: str = ""
    phases: tuple[Phase, ...] = ()

    def __post_init__(self):
        phases = tuple(Phase.of(phase, number) for number, phase in enumerate(self.phases))
        object.__setattr__(self, "phases", phases)
        check_fields(Recipe, "train", vars(self))
        one_of("train.optimizer", self.optimizer, _OPTIMIZERS)
        one_of("train.products", self.products, PRODUCTS)
        if self.profile_steps and (self.profiled is None or self.profiled[1] > self.steps):
            raise ValueError(
                f"train.profile_steps={self.profile_steps!r} must be FIRST:LAST, such as '10:13', "
                f"with LAST at most train.steps={self.steps}; or empty"
            )
        self._check_phases()

    def _check_phases(self):
        """Raises a ValueError for phases that are not the whole run, or rows that do not fit."""
        shares, tokens = [phase.share for phase in self.parts], self.batch_size * self.length
        if not math.isclose(sum(shares), 1, abs_tol=1e-6):
            raise ValueError(f"train.phases have the shares {shares}, which must add up to 1")
        for number, (phase, steps) in enumerate(zip(self.parts, self.steps_of_parts, strict=True)):
            if not steps:
                raise ValueError(
                    f"train.phases[{number}] has the share {phase.share}, which is no step of "
                    f"train.steps={self.steps}; give more steps or a greater share"
                )
            if phase.length and tokens % phase.length:
                raise ValueError(
                    f"train.phases[{number}].length={phase.length} must divide the {tokens} tokens "
                    "of a step, train.batch_size times train.length"
                )

    @property
    def parts(self) -> tuple[Phase, ...]:
        """Returns the phases; without any, the whole run is one that changes nothing."""
        return self.phases or (UNCHANGED,)

    @property
    def steps_of_parts(self) -> list[int]:
        """Returns the number of steps of each phase."""
        shares = itertools.accumulate(phase.share for phase in self.parts)
        ends = [0, *(round(self.steps * share) for share in shares)]
        return [end - start for start, end in itertools.pairwise(ends)]

    def phase_at(self, step: int) -> int:
        """Returns the number of the phase that makes ``step``, which counts from 1."""
        ends = [*itertools.accumulate(self.steps_of_parts)]
        return bisect.bisect_left(ends, min(step, self.steps))

    def in_phase(self, number: int) -> "Recipe":
        """Returns the recipe of a phase alone, with as many tokens a step as in every phase.

        Its steps and its schedule are those of the whole run.
        """
        length = self.parts[number].length or self.length
        rows = self.batch_size * self.length // length
        return dataclasses.replace(self, length=length, batch_size=rows, phases=())

    @property
    def profiled(self) -> tuple[int, int] | None:
        """Returns after which step the trace begins and after which it ends, if there is one."""
        first, _, last = self.profile_steps.partition(":")
        if not (first.isdigit() and last.isdigit() and int(first) < int(last)):
            return None
        return int(first), int(last)

    def schedule(self) -> optax.Schedule:
        """Returns the learning rate by step."""
        warmup = min(self.warmup_steps, self.steps - 1)
        return optax.warmup_cosine_decay_schedule(
            0.0, self.learning_rate, warmup, self.steps, self.learning_rate / 10
        )

    def transformation(self) -> optax.GradientTransformation:
        """Returns the optimizer, after clipping of the gradient."""
        return optax.chain(
            optax.clip_by_global_norm(self.clip_norm), _OPTIMIZERS[self.optimizer](self)
        )


def _adamw(recipe: Recipe) -> optax.GradientTransformation:
    decay = recipe.weight_decay
    return optax.adamw(recipe.schedule(), b2=recipe.beta2, weight_decay=decay, mask=decays)


def _muon(recipe: Recipe) -> optax.GradientTransformation:
    axes = optax.contrib.MuonDimensionNumbers(reduction_axis=-2, output_axis=-1)
    return optax.contrib.muon(
        recipe.schedule(),
        weight_decay=recipe.weight_decay,
        weight_decay_mask=decays,
        adam_b2=recipe.beta2,
        # Muon learns the matrices that weight decay acts on.
        muon_weight_dimension_numbers=lambda model: jax.tree.map(
            lambda is_matrix: axes if is_matrix else None, decays(model)
        ),
        consistent_rms=0.2,  # the size of AdamW's steps, as measured in the paper
    )


_OPTIMIZERS = {"adamw": _adamw, "muon": _muon}


def decays(model: Transformer) -> Any:
    """Says of each parameter of ``model`` whether weight decay acts on it.

    It acts on the arrays of ``block.attention`` and ``block.mlp`` with two axes, or three where
    ``scan`` stacks layers, and on no parameter of an encoding, wherever that lies and whatever its
    shape. So no scheme's parameters are held near zero while another's are free.
    """
    axes = 3 if model.scan else 2

    def decays_one(path, parameter):
        return bool(_PROJECTIONS.match(path_name(path))) and parameter.ndim == axes

    return jax.tree_util.tree_map_with_path(decays_one, model)
