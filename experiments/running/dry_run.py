"""Estimates the cost of an experiment before anything is trained: ``launch.py --dry_run``."""

import math
import re
from typing import Any

import jax
import yaml
from rich.console import Console
from rich.table import Table

from experiments.results.record import as_json
from experiments.running.points import Point
from experiments.running.study import Study
from experiments.training import topology
from experiments.training.cost import PEAK, mean_flops, peak_flops
from experiments.training.loop import abstract_state, lower_step
from experiments.training.mesh import path_name
from experiments.training.parameters import parameter_count
from experiments.training.step import in_phases
from experiments.training.traffic import traffic

_HOUR = 3600
# Parts of configs that have a part for each scheme.
_OF_SCHEMES = ("encodings", "extend", "variants")


def print_dry_run(experiment: Study, mfu: float, console: Console) -> None:
    """Prints the config, the mesh, the cost of each scheme, and how its arrays are sharded.

    The training step of the scheme with the largest state is compiled, because only the compiler
    knows the memory that it needs besides the state. ``mfu`` is the share of the devices' peak to
    expect.
    """
    schemes = {name for point in experiment.points for name in point.schemes}
    console.print(_config(experiment.config, schemes))
    mesh = experiment.mesh
    shape = " x ".join(f"{axis} {size}" for axis, size in mesh.shape.items())
    device = mesh.devices.flat[0].device_kind
    console.print(f"mesh: {shape}, {mesh.size} of {device}")

    trained = [point for point in experiment.points if experiment.recipe_of(point) is not None]
    first = {point.group: point for point in reversed(trained)}  # the first seed of each
    rows = {name: _takes(experiment, point) for name, point in sorted(first.items())}
    console.print(_schemes(rows))
    tokens = sum(rows[point.group]["tokens"] for point in trained)
    console.print(
        f"{len(experiment.points)} points, {len(trained)} of them trained, on {tokens:.3g} tokens"
    )
    if not trained:
        return
    flops = sum(rows[point.group]["flops"] * experiment.recipe_of(point).steps for point in trained)
    console.print(_times(flops, mesh.size, device, mfu))
    largest = max(rows, key=lambda name: rows[name]["state"])
    console.print(_shardings(rows[largest]["arrays"], largest))
    if mesh.shape["context"] > 1:
        console.print(_sent(experiment, first[largest], largest))
    console.print(_compiled(experiment, first[largest], largest))


def _config(config: dict[str, Any], schemes: set[str]) -> str:
    """Returns a config as YAML, without what it says of schemes that do not run."""
    shown = config | {
        part: {name: fields for name, fields in config[part].items() if name in schemes}
        for part in _OF_SCHEMES
        if part in config
    }
    return yaml.safe_dump(as_json(shown), sort_keys=False, default_flow_style=None, width=math.inf)


def _takes(study: Study, point: Point) -> dict[str, Any]:
    """Returns the cost of one point; ``state`` is bytes a device, ``flops`` are of a mean step."""
    task, recipe = study.task(point), study.recipe_of(point)
    state = abstract_state(task.init, recipe, study.mesh)
    arrays = jax.tree_util.tree_flatten_with_path(state)[0]
    return {
        "parameters": parameter_count(state.model),
        "state": sum(_bytes(array) for _, array in arrays),
        "flops": mean_flops(in_phases(task, recipe), recipe),
        "tokens": recipe.steps * recipe.batch_size * recipe.length,
        "arrays": arrays,
    }


def _bytes(array) -> int:
    """Returns the bytes of an array's part on one device."""
    return math.prod(array.sharding.shard_shape(array.shape)) * array.dtype.itemsize


def _schemes(rows) -> Table:
    names = "scheme", "parameters", "state a device", "flops a step", "tokens a seed"
    table = Table(*names, box=None, header_style="bold")
    for name, row in rows.items():
        numbers = f"{row['flops']:.3g}", f"{row['tokens']:.3g}"
        table.add_row(name, f"{row['parameters']:,}", _size(row["state"]), *numbers)
    return table


def _times(flops: float, count: int, device: str, mfu: float) -> str:
    """Returns a sentence about the time of all training, on these devices or on known ones."""
    here = peak_flops(device)
    peaks = {device: here} if here else {name: 1e12 * peak for name, peak in PEAK.items()}
    hours = {name: flops / (mfu * peak * count * _HOUR) for name, peak in peaks.items()}
    times = ", ".join(f"{spent:.3g} h on {count} x {name}" for name, spent in hours.items())
    why = "" if here else f" ({device} has no peak in experiments/training/cost.py)"
    return f"{flops:.3g} flops of training: at {100 * mfu:g} % MFU {times}{why}"


def _shardings(arrays, scheme: str) -> Table:
    """Returns a table of the arrays' shardings; moments are in the line of their parameter."""
    lines: dict[tuple[str, ...], list[int]] = {}
    for path, array in arrays:
        name = re.sub(r"^(model|opt_state/.*/(mu|nu))/", "", path_name(path))
        name = re.sub(r"/\d+/", "/*/", name)  # the same array of several layers
        axes = [str(axis or "-") for axis in array.sharding.spec]
        spread = ", ".join(axes) if set(axes) - {"-"} else "every device"
        shape = ",".join(str(size) for size in array.shape)
        lines.setdefault((name, f"{array.dtype}[{shape}]", spread), []).append(_bytes(array))
    table = Table(box=None, header_style="bold")
    for title in (f"state of {scheme}", "array", "axes over"):
        table.add_column(title, overflow="fold")
    for title in ("arrays", "a device"):
        table.add_column(title, no_wrap=True)
    for key, sizes in sorted(lines.items(), key=lambda line: -sum(line[1])):
        table.add_row(*key, str(len(sizes)), _size(sum(sizes)))
    return table


def _sent(study: Study, point: Point, scheme: str) -> str:
    """Returns a sentence about what devices send for attention, computed from shapes."""
    recipe = study.recipe_of(point)
    sent, chosen, why = traffic(in_phases(study.task(point), recipe)[-1], recipe, study.mesh)
    sizes = ", ".join(f"{_size(count)} by {by}" for by, count in sorted(sent.items()))
    given = study.config["mesh"]["context_by"]
    asked = f"mesh.context_by={given} takes its place" if given else "mesh.context_by takes another"
    return (
        f"attention of {scheme} over context: a device sends {sizes} in a step; the default is "
        f"{chosen}, because {why}; {asked}"
    )


def _compiled(study: Study, point: Point, scheme: str) -> str:
    """Returns a sentence about the memory of the compiled step."""
    device = study.mesh.devices.flat[0]
    context_by = study.config["mesh"]["context_by"]
    lowered = lower_step(study.task(point), study.recipe_of(point), study.mesh, context_by)
    try:
        needed = topology.memory(topology.compiled(lowered, device))
    except MemoryError as error:
        return f"step of {scheme} does NOT fit into a {device.device_kind}: {error}"
    room = ""
    if (available := topology.HBM.get(device.device_kind)) is not None:
        fits = "fits into" if needed.total <= available else "does NOT fit into"
        room = f"; it {fits} the {_size(available)} of a {device.device_kind}"
    return (
        f"step of {scheme}, compiled: {_size(needed.total)} a device, {_size(needed.arguments)} of "
        f"state and batch and {_size(needed.temporaries)} of temporaries{room}"
    )


def _size(count: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:,.0f} B" if unit == "B" else f"{count:,.1f} {unit}"
        count /= 1024
    return f"{count:,.1f} GiB"
