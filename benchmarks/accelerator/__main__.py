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

The program needs ``pip install -e '.[experiments]'``. PyTorch is measured if it is installed. The
folder of ``--out`` gets ``results.jsonl``, with a line for each figure, and ``report.md``, with
tables.
"""

import argparse
import dataclasses
import functools
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

# PyTorch needs memory on the same device.
os.environ.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.6")

import jax

from benchmarks.accelerator.agreement import check
from benchmarks.accelerator.attention import Shape, ours
from benchmarks.accelerator.report import tables
from benchmarks.accelerator.rivals import rivals
from benchmarks.accelerator.step import training_step
from posenc_jax import REGISTRY
from posenc_jax.registry import PATTERNS


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
)
TINY = Scale(("alibi",), ("rope",), (Shape(64, 32, heads=2, batch=1),), 32, ())

# A name, and a function that yields the records of that measurement for ``results.jsonl``.
Item = tuple[str, Callable[[], Iterator[dict[str, Any]]]]


def plan(scale: Scale) -> Iterator[Item]:
    """Yields all measurements, the most important first."""
    first, *rest = scale.shapes
    yield from _checks(scale.timed, scale)
    yield from _times(first, scale)
    for name in scale.steps:
        yield f"step {name}", functools.partial(training_step, name, scale is TINY)
    for shape in rest:
        yield from _times(shape, scale)
    yield from _checks(scale.others, scale)


def _checks(names, scale) -> Iterator[Item]:
    for name in names:
        yield f"check {name}", functools.partial(check, name, tokens=scale.checked_tokens)


def _times(shape, scale) -> Iterator[Item]:
    for name in scale.timed:
        about = f"{name} {shape.length} x {shape.head_dim}"
        yield about, functools.partial(ours, name, shape)
        yield f"others {about}", functools.partial(rivals, name, shape)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=9.0, help="no item begins after this")
    parser.add_argument("--out", type=Path, default=Path("accelerator"), metavar="FOLDER")
    parser.add_argument("--tiny", action="store_true", help="miniature shapes, to see it run")
    args = parser.parse_args(arguments)
    start = time.monotonic()
    args.out.mkdir(parents=True, exist_ok=True)
    device = jax.devices()[0]
    about = {"device": device.device_kind, "platform": device.platform, "jax": jax.__version__}
    records: list[dict[str, Any]] = [{"kind": "about"} | about]
    items = list(plan(TINY if args.tiny else FULL))
    with (args.out / "results.jsonl").open("w", buffering=1) as file:
        file.write(json.dumps(records[0]) + "\n")
        for number, (name, measure) in enumerate(items, 1):
            if time.monotonic() - start > 60 * args.minutes:
                print(f"time is up: {len(items) - number + 1} of {len(items)} items not begun")
                break
            print(f"[{number}/{len(items)}] {time.monotonic() - start:4.0f} s  {name}", flush=True)
            for record in _guarded(name, measure):
                file.write(json.dumps(record) + "\n")
                records.append(record)
                print("   ", _line(record), flush=True)
            # Rewritten after every item, so that a run that is killed leaves its tables too.
            (args.out / "report.md").write_text(tables(records))
    print(tables(records))
    failed = [r for r in records if r["kind"] == "check" and r["is_ok"] is False]
    failed += [r for r in records if r["kind"] == "error"]
    return 1 if failed else 0


def _guarded(name, measure) -> Iterator[dict[str, Any]]:
    """Yields the records of one item; an exception becomes a record and ends only that item."""
    try:
        yield from measure()
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0][:300]
        yield {"kind": "error", "item": name, "reason": reason}
    jax.clear_caches()  # compiled programs occupy memory of the device


def _line(record) -> str:
    return "  ".join(f"{key}={value}" for key, value in record.items() if key != "kind")


if __name__ == "__main__":
    raise SystemExit(main())
