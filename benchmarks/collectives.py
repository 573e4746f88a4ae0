"""Finds what devices send to each other, and along which axes, in the text of a compiled program.

XLA prints a program as computations that call each other. A collective in the body of a loop counts
once for each iteration if XLA prints their number, as for CPUs and GPUs, or if the loop's condition
compares with a constant, as that of ``scan`` does; it counts once otherwise. XLA may split a
collective into pieces that overlap with other work; the pieces have the same channel, and count as
one.
"""

import collections
import dataclasses
import math
import re

import numpy as np
from jax.sharding import Mesh

_KINDS = "all-gather|all-reduce|reduce-scatter|all-to-all|collective-permute|collective-broadcast"
_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.-]+) \(.*\{$")
_COLLECTIVE = re.compile(rf" = (.*?) ({_KINDS})(-start)?\(")
_CALLED = re.compile(r"\b(calls|to_apply|body|condition|branch_computations)=(\{[^}]*\}|%?[\w.-]+)")
# An operation that starts a collective also returns two scalars of type u32, which are not sent.
_CONTEXT = re.compile(r", u32\[\](\{[^}]*\})?")
_ARRAY = re.compile(r"\b(pred|[a-z]+(\d+)\w*)\[([\d,]*)\]")
_CONSTANT = re.compile(r"constant\((\d+)\)")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"')


@dataclasses.dataclass(frozen=True)
class Collective:
    """Describes the collectives of one kind along the same axes of the mesh.

    Attributes:
      kind: XLA's name of the operation.
      axes: the mesh axes whose devices take part; empty if the mesh has one device along each.
      count: how often a device takes part in one run of the program.
      bytes: the bytes that a device sends in all of them, if each is passed around a ring.
    """

    kind: str
    axes: tuple[str, ...]
    count: int
    bytes: int


def collectives(text: str, mesh: Mesh) -> list[Collective]:
    """Returns the collectives of a program compiled for a mesh, the largest sender first.

    The text is that of ``jax.stages.Compiled.as_text()``. Raises a ValueError if it lists devices
    in an unknown form.
    """
    computations, entry = _computations(text)
    repeats = _repeats(computations, entry)
    largest: dict[tuple, tuple[int, int]] = {}  # by channel
    for name, lines in computations.items():
        for number, line in enumerate(lines):
            if not (match := _COLLECTIVE.search(line)) or not repeats[name]:
                continue
            shapes, kind, is_start = match.groups()
            ids = _first_group(line)
            channel = re.search(r"channel_id=(\d+)", line)
            key = kind, _axes(ids, mesh), channel[1] if channel else (name, number)
            size = repeats[name] * _sent(kind, bool(is_start), _arrays(shapes), len(ids))
            largest[key] = max(largest.get(key, (0, 0)), (repeats[name], size))
    sums: dict[tuple, list[int]] = collections.defaultdict(lambda: [0, 0])
    for (kind, axes, _), (count, size) in largest.items():
        sums[kind, axes][0] += count
        sums[kind, axes][1] += size
    every = [Collective(*key, *numbers) for key, numbers in sums.items()]
    return sorted(every, key=lambda one: -one.bytes)


def _computations(text: str) -> tuple[dict[str, list[str]], str]:
    """Returns the lines of each computation, and the name of the entry computation."""
    computations: dict[str, list[str]] = {}
    entry = ""
    lines: list[str] = []
    for line in text.splitlines():
        if match := _COMPUTATION.match(line):
            lines = computations[match[2]] = []
            entry = match[2] if match[1] else entry
        else:
            lines.append(line)
    return computations, entry


def _repeats(computations, entry: str) -> dict[str, int]:
    """Returns how often each computation runs in one run of the program."""
    calls = {name: _calls(lines, computations) for name, lines in computations.items()}
    repeats = dict.fromkeys(computations, 0)

    def run(name, times):
        repeats[name] += times
        for called, times_inside in calls[name]:
            run(called, times * times_inside)

    run(entry, 1)
    return repeats


def _calls(lines, computations) -> list[tuple[str, int]]:
    """Returns the computations that one computation calls, and how often in each of its runs."""
    pairs = []
    for line in lines:
        called = {kind: re.findall(r"[\w.-]+", names) for kind, names in _CALLED.findall(line)}
        times = 1
        if "condition" in called:
            condition, body = (computations[called[kind][0]] for kind in ("condition", "body"))
            trips = _TRIPS.search(line)
            times = int(trips[1]) if trips else _bound(condition, body)
        for names in called.values():
            pairs += [(name, times) for name in names if name in computations]
    return pairs


def _bound(condition: list[str], body: list[str]) -> int:
    """Returns the iterations of a loop that counts from 0, or 1 if its condition has no bound."""
    root = next(line for line in condition if "ROOT" in line)
    bounds = [int(digits) for line in condition for digits in _CONSTANT.findall(line)]
    if len(bounds) != 1 or not bounds[0] or "direction=LT" not in root:
        return 1
    counter = re.search(r"get-tuple-element\(.*index=(\d+)", "\n".join(condition))
    return -(-bounds[0] // _step(body, int(counter[1]))) if counter else bounds[0]


def _step(body: list[str], counter: int) -> int:
    """Returns what each iteration adds to a loop's counter, above 1 if XLA unrolled the loop."""
    values = dict(
        line.strip().removeprefix("ROOT ").split(" = ", 1) for line in body if " = " in line
    )
    root = next(line for line in body if "ROOT" in line)
    results = re.search(r" tuple\((.*?)\)", re.sub(r"/\*.*?\*/", "", root))
    raised = values.get(results[1].split(", ")[counter], "") if results else ""
    added = re.search(r" add\((.*?), (.*?)\)", raised)
    constants = [
        _CONSTANT.search(values.get(name, "")) for name in (added.groups() if added else ())
    ]
    return next((int(match[1]) for match in constants if match), 1)


def _arrays(shapes: str) -> list[int]:
    """Returns the bytes of each array in XLA's notation for the type of a result."""
    return [
        math.prod(int(n) for n in sizes.split(",") if n) * max(int(bits or 8) // 8, 1)
        for _, bits, sizes in _ARRAY.findall(_CONTEXT.sub("", shapes))
    ]


def _sent(kind: str, is_start: bool, arrays: list[int], devices: int) -> int:
    """Returns the bytes that one device sends, from those of an operation's result."""
    size = sum(arrays)
    if kind in ("collective-permute", "collective-broadcast"):
        return size // 2 if is_start else size  # operands stand beside results
    if kind == "all-gather" and is_start:
        size = size * devices // (devices + 1)  # the operand stands beside the result
    if kind == "reduce-scatter":
        size *= devices
    return size * (devices - 1) // devices * (2 if kind == "all-reduce" else 1)


def _first_group(line: str) -> np.ndarray:
    """Returns the first group of devices of a collective, as indices into the flattened mesh."""
    if sent := re.search(r"source_target_pairs=\{((?:\{\d+,\d+\},?)+)\}", line):
        pairs = [(int(a), int(b)) for a, b in re.findall(r"(\d+),(\d+)", sent[1])]
        return np.array(next((pair for pair in pairs if pair[0] != pair[1]), pairs[0]))
    if listed := re.search(r"replica_groups=\{\{([\d,]+)\}", line):
        return np.array([int(n) for n in listed[1].split(",")])
    if counted := re.search(
        r"replica_groups=\[(\d+),(\d+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", line
    ):
        ids = _ids(counted[3], counted[4])
        return ids.reshape(int(counted[1]), int(counted[2]))[0]
    if named := re.search(
        r"replica_groups=mesh\[([^\]]*)\](?:, device_ids=\(\[([\d,]+)\](?:T\(([\d,]+)\))?\))? ?"
        r"\{((?:'[\w':(),]*)*)\}",
        line,
    ):
        # 'x':(2)4 takes a part of an axis: x is split into 2, 4 and the rest, and the 4 is taken.
        taken = re.findall(r"'(\w+)'(?::\((\d+)\)(\d+))?", named[4])
        parts = {axis: (int(before or 1), int(n or 0)) for axis, before, n in taken}
        shape: list[int] = []
        for axis, length in re.findall(r"'(\w+)'=(\d+)", named[1]):
            before, n = parts.get(axis, (1, 1))
            shape += before, n or int(length), int(length) // (before * (n or int(length)))
        ids = _ids(named[2] or str(math.prod(shape)), named[3]).reshape(shape)
        return ids[(0, slice(None), 0) * (len(shape) // 3)].reshape(-1)
    raise ValueError(f"the devices of a collective are in an unknown form: {line.strip()}")


def _ids(sizes: str, order: str | None) -> np.ndarray:
    """Returns the numbers of all devices, counted in axes of these sizes that are then permuted."""
    shape = [int(n) for n in sizes.split(",")]
    ids = np.arange(math.prod(shape)).reshape(shape)
    return ids.transpose([int(n) for n in order.split(",")]) if order else ids


def _axes(ids: np.ndarray, mesh: Mesh) -> tuple[str, ...]:
    """Returns the axes along which devices differ."""
    coordinates = np.unravel_index(ids, tuple(mesh.shape.values()))
    return tuple(
        axis
        for axis, coordinate in zip(mesh.axis_names, coordinates, strict=True)
        if len({*coordinate}) > 1
    )
