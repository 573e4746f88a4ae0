"""Checks and times attention and a training step on JAX's device, within a time limit.

    python -m benchmarks.accelerator --minutes=9 --out=accelerator
    python -m benchmarks.accelerator --tiny --minutes=2 --out=runs/accelerator

The most important figures come first, and each is written to disk at once, so a run that is cut
short keeps them:

1. checks of the timed schemes: every implementation against dense attention, values and gradients;
2. times of attention at 4,096 tokens, beside JAX's own attention and PyTorch's;
3. the training step of the 125M model of ``configs/extrapolation.py:paper``;
4. times at 16,384, 1,024 and 32,768 tokens, with heads of 64 and of 128 channels;
5. checks of all other schemes.

PyTorch is measured if it is installed. The folder of ``--out`` gets ``results.jsonl``, with a line
for each figure, and ``report.md``, with tables.
"""

import argparse
import dataclasses
import functools
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

# PyTorch needs memory on the same device.
os.environ.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.6")

import jax
import numpy as np
import pandas as pd

from benchmarks.agreement import OVER_CONTEXT, check
from benchmarks.attention import Shape, build, gradient, one_device, operands, run
from benchmarks.common import start, table, timed
from benchmarks.rivals import rivals
from configs.extrapolation import get_config
from experiments.training.cost import peak_flops, step_flops
from experiments.training.parameters import parameter_count
from experiments.training.recipe import Recipe
from experiments.training.text import Text, spec_of
from posenc_jax import REGISTRY
from posenc_jax.attention import IMPLEMENTATIONS
from posenc_jax.registry import PATTERNS

# Dense attention holds all logits in float32, several times over.
_MOST_DENSE_LOGITS = 2**31
_VOCAB = 50304  # GPT-2's, filled up to a multiple of 128

Records = Iterator[dict[str, Any]]


@dataclasses.dataclass(frozen=True)
class Scale:
    """Says how much is measured.

    Schemes that are ``timed`` are checked first, and the ``others`` at the end; ``steps`` are the
    schemes whose training step is timed. The first of the ``shapes`` is the most important.
    """

    timed: tuple[str, ...]
    steps: tuple[str, ...]
    shapes: tuple[Shape, ...]
    checked_tokens: int
    others: tuple[str, ...]
    preset: str
    vocab: int


TIMED = ("nope", "rope", "alibi", "t5", "kerple_log", "inkling", "fire", "fox", "deberta")
FULL = Scale(
    timed=TIMED,
    steps=("rope", "alibi", "t5", "nope"),
    # Every shape has 1,024 channels, and a batch of 16,384 tokens unless one row is longer.
    shapes=tuple(
        Shape(length, head_dim, heads=1024 // head_dim, batch=max(1, 16384 // length))
        for head_dim in (64, 128)
        for length in (4096, 16384, 1024, 32768)
    ),
    checked_tokens=256,
    others=tuple(name for name in REGISTRY if name not in (*PATTERNS, *TIMED)),
    preset="paper",
    vocab=_VOCAB,
)
TINY = Scale(("alibi",), ("rope",), (Shape(64, 32, heads=2, batch=1),), 32, (), "tiny", 256)


def plan(scale: Scale) -> Iterator[tuple[str, Callable[[], Records]]]:
    """Yields the names of all measurements and what measures them, the most important first."""
    first, *rest = scale.shapes
    checks = functools.partial(check, tokens=scale.checked_tokens)
    for name in scale.timed:
        yield f"check {name}", functools.partial(checks, name)
    yield from _times(first, scale)
    for name in scale.steps:
        yield f"step {name}", functools.partial(training_step, name, scale)
    for shape in rest:
        yield from _times(shape, scale)
    for name in scale.others:
        yield f"check {name}", functools.partial(checks, name)


def _times(shape, scale):
    for name in scale.timed:
        about = f"{name} {shape.length} x {shape.head_dim}"
        yield about, functools.partial(ours, name, shape)
        yield f"others {about}", functools.partial(rivals, name, shape)


def ours(name: str, shape: Shape) -> Records:
    """Yields the times of a scheme under each implementation, forward and with all gradients."""
    arguments = build(name, shape), *operands(shape)
    for implementation in IMPLEMENTATIONS:
        if implementation in OVER_CONTEXT:  # on one device the same as blockwise
            continue
        if implementation == "dense" and shape.logits > _MOST_DENSE_LOGITS:
            continue
        for with_gradient in (False, True):
            call = functools.partial(run, implementation=implementation)
            function = jax.jit(gradient(call) if with_gradient else call)
            try:
                with one_device():
                    seconds = timed(functools.partial(function, *arguments))
            except ValueError:  # a scheme that this implementation cannot run
                break
            yield shape.record(name, implementation, seconds, with_gradient)


def training_step(name: str, scale: Scale) -> Records:
    """Yields the record of a step: time, tokens a second, share of the device's peak (MFU)."""
    config = get_config(scale.preset)
    model = config.model.to_dict() | {"vocab_size": scale.vocab}
    spec = spec_of({"name": name} | config.encodings[name].to_dict(), model)
    recipe = Recipe(**config.train)
    task = Text(recipe, None, spec)
    state, function = start(task)
    holder, parameters = {"state": state}, parameter_count(state.model)
    shape = recipe.batch_size, recipe.length + 1
    tokens = np.random.default_rng(0).integers(0, scale.vocab, shape).astype(np.int32)

    def step():
        holder["state"], numbers = function(holder["state"], tokens, jax.random.key(1))
        return numbers

    with one_device():
        seconds = timed(step)
    peak = peak_flops(jax.devices()[0].device_kind)
    yield {
        "kind": "step",
        "scheme": name,
        "parameters": parameters,
        "batch": recipe.batch_size,
        "length": recipe.length,
        "ms": round(1e3 * seconds, 2),
        "tokens_per_second": round(recipe.batch_size * recipe.length / seconds),
        "mfu": round(step_flops(task, tokens) / seconds / peak, 4) if peak else None,
    }


def report(records: list[dict[str, Any]]) -> str:
    """Returns all records as tables in Markdown."""
    about, *rest = records
    parts = [f"# {about['device']} ({about['platform']}), jax {about['jax']}"]
    for kind in dict.fromkeys(record["kind"] for record in rest):
        frame = pd.DataFrame([record for record in rest if record["kind"] == kind])
        if kind == "attention":
            for (shape, which), some in frame.groupby(["shape", "pass"], sort=False):
                title = f"## Attention, {shape}, {which}: ms (teraflops a second)\n\n"
                parts.append(title + _by_scheme(some, "figure"))
        elif kind == "check":
            title = "## Largest distance from exact attention, values and gradients\n\n"
            parts.append(title + _by_scheme(frame, "verdict"))
        else:
            lines = frame.drop(columns="kind").itertuples(index=False)
            parts.append(f"## {kind.capitalize()}\n\n{table([*frame.columns[1:]], lines)}")
    return "\n\n".join(parts) + "\n"


def _by_scheme(frame: pd.DataFrame, cell: str) -> str:
    cells = frame.pivot(index="scheme", columns="who", values=cell).fillna("")
    cells = cells.loc[frame["scheme"].unique(), frame["who"].unique()]
    return table(["scheme", *cells], cells.itertuples())


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=9.0, help="no item begins after this")
    parser.add_argument("--out", type=Path, default=Path("accelerator"), metavar="FOLDER")
    parser.add_argument("--tiny", action="store_true", help="miniature shapes, to see it run")
    args = parser.parse_args(arguments)
    began = time.monotonic()
    args.out.mkdir(parents=True, exist_ok=True)
    device, items = jax.devices()[0], list(plan(TINY if args.tiny else FULL))
    about = {"device": device.device_kind, "platform": device.platform, "jax": jax.__version__}
    records: list[dict[str, Any]] = [{"kind": "about"} | about]
    for number, (name, measure) in enumerate(items):
        if time.monotonic() - began > 60 * args.minutes:
            print(f"time is up: {len(items) - number} of {len(items)} items not begun")
            break
        print(f"{time.monotonic() - began:4.0f} s  {name}", flush=True)
        records += _guarded(name, measure)
        # Written after every item, so that a run that is killed leaves its figures too.
        lines = (json.dumps(record) + "\n" for record in records)
        (args.out / "results.jsonl").write_text("".join(lines))
        (args.out / "report.md").write_text(report(records))
    print(report(records))
    return int(any(r["kind"] == "error" or r.get("is_ok") is False for r in records))


def _guarded(name: str, measure: Callable[[], Records]) -> Records:
    """Yields the records of one item; an exception becomes a record and ends only that item."""
    try:
        yield from measure()
    except Exception as error:
        yield {"kind": "error", "item": name, "reason": f"{type(error).__name__}: {error}"[:300]}
    jax.clear_caches()  # compiled programs occupy memory of the device


if __name__ == "__main__":
    sys.exit(main())
