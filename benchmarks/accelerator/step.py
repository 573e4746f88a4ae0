"""Times the training step of the 125M model of ``configs/extrapolation.py:paper``."""

from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from benchmarks.accelerator.attention import one_device, timed
from benchmarks.ours import start
from configs.extrapolation import get_config
from experiments.training.cost import peak_flops, step_flops
from experiments.training.parameters import parameter_count
from experiments.training.recipe import Recipe
from experiments.training.text import Text, spec_of

_VOCAB = 50304  # GPT-2's, filled up to a multiple of 128


def training_step(name: str, tiny: bool) -> Iterator[dict[str, Any]]:
    """Yields the record of a step: time, tokens a second, share of the device's peak (MFU)."""
    config = get_config("tiny" if tiny else "paper")
    model = config.model.to_dict() | {"vocab_size": 256 if tiny else _VOCAB}
    encoding = {"name": name} | config.encodings[name].to_dict()
    spec, recipe = spec_of(encoding, model), Recipe(**config.train)
    task = Text(recipe, None, spec)
    state, function = start(task)
    holder, function = {"state": state}, jax.jit(function, donate_argnames="state")
    parameters = parameter_count(state.model)
    shape = recipe.batch_size, recipe.length + 1
    tokens = np.random.default_rng(0).integers(0, model["vocab_size"], shape).astype(np.int32)

    def step():
        holder["state"], numbers = function(holder["state"], tokens, jax.random.key(1))
        return numbers

    with one_device():
        seconds = timed(step)
    per_second = recipe.batch_size * recipe.length / seconds
    flops = step_flops(task, tokens) / seconds
    peak = peak_flops(jax.devices()[0].device_kind)
    yield {
        "kind": "step",
        "scheme": name,
        "parameters": parameters,
        "batch": recipe.batch_size,
        "length": recipe.length,
        "ms": round(1e3 * seconds, 2),
        "tokens_per_second": round(per_second),
        "teraflops": round(flops / 1e12, 3),
        "mfu": round(flops / peak, 4) if peak else None,
    }
