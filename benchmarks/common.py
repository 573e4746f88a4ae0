"""Defines what benchmarks share: our training step, interleaved timing, and tables."""

import argparse
import functools
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
import pandas as pd

from experiments.command import count
from experiments.config import own_defaults
from experiments.training.parameters import parameter_count
from experiments.training.precision import PRODUCTS
from experiments.training.recipe import Recipe
from experiments.training.step import State, initial_state, train_step
from experiments.training.text import Text, spec_of

VOCAB = 256

# PyTorch's threads go on spinning for some milliseconds after a call, and would slow the next one.
_PAUSE = 0.02  # seconds


def factor_of(name: str) -> dict[str, float]:
    """Returns the keyword ``factor`` of a scheme that has one, as configs give it."""
    return {key: value for key, value in own_defaults(name).items() if key == "factor"}


def shape_parser(doc: str, *, batch: int, length: int) -> argparse.ArgumentParser:
    """Returns a parser of the shape of a training step, with these defaults."""
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("--batch", type=count, default=batch)
    parser.add_argument("--length", type=count, default=length)
    parser.add_argument("--dim", type=count, default=256)
    parser.add_argument("--layers", type=count, default=4)
    parser.add_argument("--heads", type=count, default=4)
    parser.add_argument("--rounds", type=count, default=40)
    parser.add_argument("--precision", choices=PRODUCTS, default="float32", help="of the products")
    return parser


def model_sizes(args: argparse.Namespace, **more: Any) -> dict[str, Any]:
    """Returns the keywords of ``Transformer`` for the shape on the command line, and ``more``."""
    sizes = dict(model_dim=args.dim, num_layers=args.layers, num_heads=args.heads)
    return {"vocab_size": VOCAB} | sizes | more


def random_tokens(args: argparse.Namespace) -> np.ndarray:
    """Returns a batch of random tokens, int32 ``[batch, length + 1]``."""
    rng = np.random.default_rng(0)
    return rng.integers(0, VOCAB, (args.batch, args.length + 1)).astype(np.int32)


def start(task: Text) -> tuple[State, Callable]:
    """Returns the state that training starts from, and the step, which is not compiled yet."""
    init = functools.partial(initial_state, init=task.init, recipe=task.recipe)
    step = functools.partial(train_step, loss=task.loss, recipe=task.recipe)
    return jax.jit(init)(jax.random.key(0)), jax.jit(step, donate_argnames="state")


def training_step(args: argparse.Namespace, name: str) -> tuple[Callable[[], float], int]:
    """Returns a function that runs one training step under ``name``, and the model's size."""
    sizes = dict(length=args.length, batch_size=args.batch, steps=10_000)
    spec = spec_of({"name": name}, model_sizes(args))
    state, function = start(Text(Recipe(**sizes, products=args.precision), None, spec))
    holder, tokens, key = {"state": state}, random_tokens(args), jax.random.key(1)

    def step():
        holder["state"], numbers = function(holder["state"], tokens, key)
        jax.block_until_ready(holder["state"])
        return float(numbers["loss"])

    return step, parameter_count(state.model)


def seconds_of(call: Callable[[], Any]) -> float:
    """Returns how long a call takes, until its result is there."""
    time.sleep(_PAUSE)
    start = time.perf_counter()
    jax.block_until_ready(call())
    return time.perf_counter() - start


def timed(call: Callable[[], Any], wait: Callable[[Any], Any] = jax.block_until_ready) -> float:
    """Returns the seconds of one call: the median of rounds that wait for their last call only."""
    wait(call())
    start = time.perf_counter()
    wait(call())
    once = time.perf_counter() - start
    repeats = max(1, min(20, round(0.1 / max(once, 1e-6))))
    rounds = []
    for _ in range(5 if once < 0.5 else 1):
        start = time.perf_counter()
        for _ in range(repeats - 1):
            call()
        wait(call())
        rounds.append((time.perf_counter() - start) / repeats)
    return statistics.median(rounds)


def interleaved(
    calls: Mapping[Any, Callable[[], Any]], rounds: int, warm_up: int = 3
) -> pd.DataFrame:
    """Returns the seconds of each call, a column, in each round, a row.

    A round times one call after the other, so that a busy machine slows all of them. Each is first
    called ``warm_up`` times, which compiles it.
    """
    for name, call in calls.items():
        for _ in range(warm_up):
            jax.block_until_ready(call())
        print(f"compiled {name}", file=sys.stderr, flush=True)
    return pd.DataFrame(
        [{name: seconds_of(call) for name, call in calls.items()} for _ in range(rounds)]
    )


def ratios(times: pd.DataFrame, base: Any) -> pd.Series:
    """Returns the median over rounds of each call's time over that of ``base``."""
    return times.div(times[base], axis=0).median()


def about(args: argparse.Namespace) -> str:
    """Returns what is measured and where: the arguments, the device and the version of JAX."""
    said = ", ".join(f"{name} {value}" for name, value in vars(args).items())
    return f"{said} ({jax.devices()[0].device_kind}, jax {jax.__version__})"


def table(heads: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Returns a table in Markdown."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)
