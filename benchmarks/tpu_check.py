"""Compiles attention and whole steps for TPU pods, on a machine that has no TPU.

    python -m benchmarks.tpu_check --schemes=all
    python -m benchmarks.tpu_check --only=steps --chips=v5e
    python -m benchmarks.tpu_check --schemes=fox,cable --known=docs/data/tpu_check.csv.gz

The program needs ``pip install -e '.[experiments,tpu_check]'``. Parts, for --only:

    attention  every scheme x implementation, forward and backward, 8 heads of 128, 2,048 tokens
    lengths    temporaries of attention under one scheme of each kind, 1k to 128k tokens
    steps      training, evaluation and decoding of the ``paper`` presets and of a 7B decoder, on
               1, 16 and 256 chips under several meshes

The whole takes hours. A program is not compiled again if its result is in the workdir, or in a
table that ``--known`` names, which must be of the same versions of jax and libtpu. In the workdir
``tpu_check.csv`` has a line for each program and ``tpu_check.md`` has tables. Outcomes:

    compiled   the column ``fits`` says whether the program fits into a chip's memory
    too large  the compiler gave up; ``memory_gib`` is what it says that temporaries need, or
               ``reason`` says that a kernel's operands do not fit into VMEM
    refused    posenc_jax raised a ValueError, which is the ``reason``
    FAILED     a defect, of posenc_jax or of the compiler
"""

import argparse
import collections
import csv
import dataclasses
import functools
import importlib.metadata
import itertools
import math
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
from jax.sharding import AxisType
from rich.console import Console

from benchmarks import topology, tpu_report
from benchmarks import tpu_programs as programs
from configs import atlas, extrapolation
from experiments.command import exit_status, some_of
from experiments.evaluation.batches import rows_of_pass
from experiments.progress import stage
from experiments.registry import make_experiment
from experiments.results.record import Stored, write_files
from experiments.results.statistics import csv_of
from experiments.training.mesh import make_mesh, row_shards

PARTS = ("attention", "lengths", "steps")
# Topologies by the number of their chips.
CHIPS = {
    "v5e": {1: "v5e:1x1", 4: "v5e:2x2", 16: "v5e:4x4", 256: "v5e:16x16"},
    "v5p": {1: "v5p:1x1x1", 4: "v5p:2x2x1", 16: "v5p:2x2x4", 256: "v5p:4x8x8"},
}
# Implementations of attention, and the mesh that each runs on.
IMPLEMENTATIONS: tuple[tuple[str, dict[str, int]], ...] = (
    ("dense", {"context": 1}),
    ("blockwise", {"context": 1}),
    ("ring", {"context": 4}),
    ("ring", {"context": 16}),
    ("pallas", {"context": 1}),
    ("fused", {"context": 1}),
    ("fused", {"data": 2, "model": 2}),
)
TOKENS, LENGTHS = 2048, tuple(1024 * 2**n for n in range(8))
# Meshes by the number of chips. A batch of the presets has 64 rows to spread over them.
PRESETS: dict[int, tuple[dict[str, int], ...]] = {
    1: ({},),
    16: ({"data": 16}, {"fsdp": 4, "model": 4}, {"data": 4, "context": 4}),
    256: ({"fsdp": 64, "model": 4}, {"data": 64, "context": 4}),
}
SEVEN_B: dict[int, tuple[dict[str, int], ...]] = {
    1: ({},),
    16: ({"fsdp": 16}, {"fsdp": 4, "model": 4}, {"fsdp": 4, "context": 4}),
    256: ({"fsdp": 256}, {"data": 4, "fsdp": 8, "model": 8}, {"fsdp": 64, "context": 4}),
}
SEVEN_B_TOKENS = 4096


@dataclasses.dataclass(frozen=True)
class Item:
    """Describes one program of a scheme or a model, on so many chips of a kind.

    Attributes:
      mesh: sizes of the mesh's axes that are not 1; ``data`` takes the chips that are left.
      lower: returns the lowered program, its operations and its mesh, given the devices.
    """

    part: str
    what: str
    program: str
    chip: str
    chips: int
    mesh: dict[str, int]
    lower: Callable[..., programs.Program] = dataclasses.field(repr=False)

    @property
    def name(self) -> str:
        """Returns the name of the item on the terminal and in files."""
        axes = " ".join(f"{axis}={size}" for axis, size in self.mesh.items())
        words = self.part, self.what, self.program, f"{self.chips} x {self.chip}", axes
        return ", ".join(word for word in words if word)


def of_attention(chip: str, schemes: list[str]) -> Iterator[Item]:
    """Yields attention under every scheme and implementation."""
    every = itertools.product(schemes, IMPLEMENTATIONS, (False, True))
    for scheme, (implementation, axes), backward in every:
        yield _attention("attention", scheme, implementation, backward, TOKENS, chip, axes)


def of_lengths(chip: str, schemes: list[str]) -> Iterator[Item]:
    """Yields attention and its gradients at growing lengths."""
    every = itertools.product(schemes, ("dense", "blockwise", "pallas"), LENGTHS)
    for scheme, implementation, length in every:
        yield _attention("lengths", scheme, implementation, True, length, chip, {"context": 1})


def _attention(part, scheme, implementation, backward, length, chip, axes) -> Item:
    def lower(devices):
        kinds = (AxisType.Auto,) * len(axes)
        mesh = jax.make_mesh(tuple(axes.values()), tuple(axes), kinds, devices=devices)
        program = programs.attention(scheme, implementation, backward, length, mesh)
        return *program, mesh

    which = "backward" if backward else "forward"
    program = f"{implementation} {which} {length}"
    return Item(part, scheme, program, chip, math.prod(axes.values()), axes, lower)


def of_steps(chip: str) -> Iterator[Item]:
    """Yields training, evaluation and decoding on every number of chips and mesh."""
    models = [("7B", SEVEN_B, _seven_b)]
    models += [
        (f"{name}:paper", PRESETS, functools.partial(_preset, name))
        for name in ("extrapolation", "atlas")
    ]
    for what, of_model, lower in models:
        for chips, meshes in of_model.items():
            for mesh, program in itertools.product(meshes, ("training", "evaluation", "decoding")):
                of_program = functools.partial(lower, program, mesh)
                yield Item("steps", what, program, chip, chips, mesh, of_program)


def _seven_b(program, axes, devices):
    mesh = make_mesh(devices, **axes)
    task, recipe = programs.seven_b("rope", row_shards(mesh), SEVEN_B_TOKENS)
    return *_step(program, task, recipe, mesh, SEVEN_B_TOKENS, row_shards(mesh)), mesh


def _preset(name, program, axes, devices):
    experiment, mesh = _experiment(name), make_mesh(devices, **axes)
    experiment.place_on(mesh)
    recipe = experiment.recipe
    task = experiment.task(experiment.points[0])
    length = experiment.protocols.multiples[-1] * recipe.length
    rows = rows_of_pass(experiment.protocols.batch_tokens, length, mesh)
    return *_step(program, task, recipe, mesh, length, rows), mesh


@functools.lru_cache(maxsize=1)
def _experiment(name):
    """Returns the experiment on text of a preset, as ``launch.py`` makes it."""
    module = {"extrapolation": extrapolation, "atlas": atlas}[name]
    config = module.get_config("paper")
    config.schemes = "rope"
    config = config.studies.language if name == "atlas" else config
    return make_experiment(config, Path("nowhere"), Console(quiet=True))


def _step(program, task, recipe, mesh, length, rows) -> programs.Program:
    if program == "training":
        return programs.training(task, recipe, mesh)
    if program == "evaluation":
        return programs.evaluation(task, recipe, mesh, rows=rows, length=length)
    return programs.decoding(task, recipe, mesh, slots=length)


def outcome(item: Item) -> dict[str, Any]:
    """Compiles an item and returns its outcome and figures, as values of JSON."""
    start = time.monotonic()
    try:
        try:
            lowered, flops, mesh = item.lower(topology.devices(CHIPS[item.chip][item.chips]))
        except ValueError as error:
            return {"outcome": "refused", "reason": str(error)}
        needs = topology.needs(lowered, mesh)
    except Exception as error:  # this program is there to find them
        if "memory space vmem" in str(error):
            return {"outcome": "too large", "reason": "a kernel's operands do not fit into VMEM"}
        return {"outcome": "FAILED", "reason": f"{type(error).__name__}: {str(error)[:500]}"}
    numbers = dataclasses.asdict(needs)
    if needs.collectives is None:
        numbers["reason"] = "this jaxlib cannot read what chips send"
    return numbers | {
        "outcome": "too large" if needs.arguments is None else "compiled",
        "fits": needs.fits,
        "flops": flops // item.chips,
        "seconds": round(time.monotonic() - start, 1),
    }


def _stored_outcome(item: Item, stored: Stored) -> dict[str, Any]:
    """Returns the outcome of an item, and keeps it unless it failed, so that it is tried again."""
    if item.name in stored:
        return stored.get(item.name, dict)
    new = outcome(item)
    return new if new["outcome"] == "FAILED" else stored.get(item.name, lambda: new)


_COLUMNS = ("part", "what", "program", "chip", "chips", "mesh", "outcome", "fits", "memory_gib")
_COLUMNS += ("arguments_gib", "temporaries_gib", "gigaflops_a_chip", "sent_mib_a_chip", "reason")


def row(item: Item, figures: dict[str, Any]) -> dict[str, Any]:
    """Returns a line of the table."""
    about = {key: getattr(item, key) for key in ("part", "what", "program", "chip", "chips")}
    about["mesh"] = " ".join(f"{axis}={size}" for axis, size in item.mesh.items() if size > 1)
    about |= {key: figures.get(key) for key in ("outcome", "fits", "reason")}
    for name in ("memory", "arguments", "temporaries"):
        size = figures.get(name)
        about[f"{name}_gib"] = None if size is None else round(size / 2**30, 4)
    about["gigaflops_a_chip"] = round(figures["flops"] / 1e9, 1) if "flops" in figures else None
    sent = collections.Counter()
    for one in figures.get("collectives") or ():
        sent[one["kind"], "+".join(one["axes"]) or "-"] += one["bytes"]
    about["sent_mib_a_chip"] = "; ".join(
        f"{kind} {axes} {size / 2**20:.1f}" for (kind, axes), size in sent.items() if size >= 2**17
    )
    return about


def read_known(paths: Iterable[Path]) -> dict[tuple[str, ...], dict[str, Any]]:
    """Returns lines of earlier tables by program, without failures; the last table counts."""
    known = {}
    for path in paths:
        lines = tpu_report.read(path)
        if not lines or not {*_COLUMNS[:7]} <= lines[0].keys():
            raise ValueError(
                f"--known={path} is no tpu_check.csv, which has {', '.join(_COLUMNS[:7])}"
            )
        known |= {_about(line): line for line in lines if line["outcome"] != "FAILED"}
    return known


def _about(line: dict[str, Any]) -> tuple[str, ...]:
    """Returns the fields that say which program a line of the table is about."""
    return tuple(str(line[key]) for key in ("part", "what", "program", "chip", "chips", "mesh"))


def _in_order(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Sorts lines as in the whole matrix, with those of schemes that no longer exist at the end."""
    every = [row(item, {}) for item in items_of(PARTS, list(CHIPS), list(programs.SCHEMES))]
    number = {_about(line): n for n, line in enumerate(every)}
    return sorted(lines, key=lambda line: number.get(_about(line), len(number)))


def _choose(args) -> list[Item]:
    kinds = programs.one_of_each_kind()
    named = {"all": list(programs.SCHEMES), "kinds": kinds}
    schemes = named.get(args.schemes) or args.schemes.split(",")
    if unknown := {*schemes} - {*programs.SCHEMES}:
        raise ValueError(
            f"--schemes must be all, kinds or names of the registry, not {', '.join(unknown)}"
        )
    items = items_of(args.only, args.chips, schemes)
    return [item for item in items if args.match in item.name]


def items_of(parts: Sequence[str], chips: Sequence[str], schemes: list[str]) -> list[Item]:
    """Returns the items of some parts; given all schemes, ``lengths`` has one of each kind."""
    items: list[Item] = []
    kinds = programs.one_of_each_kind() if schemes == [*programs.SCHEMES] else schemes
    for chip in chips:
        every = {
            "attention": of_attention(chip, schemes),
            "lengths": of_lengths(chip, kinds),
            "steps": of_steps(chip),
        }
        items += [item for part in parts for item in every[part]]
    return items


@exit_status
def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", type=some_of(PARTS), default=",".join(PARTS))
    parser.add_argument("--chips", type=some_of(CHIPS), default=",".join(CHIPS))
    parser.add_argument("--schemes", default="all", help="all, kinds (one of each), or names")
    parser.add_argument("--match", default="", help="only items whose name has this in it")
    parser.add_argument("--known", default="", help="tables of known results, with commas")
    parser.add_argument("--workdir", type=Path, default=Path("runs/tpu_check"))
    args = parser.parse_args()
    known = read_known(map(Path, filter(None, args.known.split(","))))
    console = Console(highlight=False)
    items = [item for item in _choose(args) if _about(row(item, {})) not in known]
    topology.devices("v5e:1x1")  # raises an error without libtpu
    versions = {name: importlib.metadata.version(name) for name in ("jax", "libtpu")}
    stored, rows = Stored(args.workdir / "programs.jsonl", versions), []
    with stage("tpu-check", len(items), console) as advance:
        for item in items:
            rows.append(row(item, _stored_outcome(item, stored)))
            advance(item.name)
            if rows[-1]["outcome"] == "FAILED":
                console.print(f"FAILED {item.name}: {rows[-1]['reason']}", markup=False)
    stored.close()
    table = csv_of(_in_order([*known.values(), *rows]), _COLUMNS)
    read_back = list(csv.DictReader(table.splitlines()))
    files = {"tpu_check.csv": table, "tpu_check.md": tpu_report.tables(read_back)}
    write_files(args.workdir, files)
    counts = collections.Counter((line["part"], line["outcome"]) for line in rows)
    for (part, result), count in sorted(counts.items()):
        console.print(f"{part}: {count} {result}")
    console.print(f"tables: {args.workdir / 'tpu_check.md'}")
    raise SystemExit(1 if any(line["outcome"] == "FAILED" for line in rows) else 0)


if __name__ == "__main__":
    sys.exit(main())
