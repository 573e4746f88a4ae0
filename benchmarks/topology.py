"""Compiles for TPU chips that this machine lacks, because libtpu's compiler needs no chips.

The devices of a topology make a mesh like any other. Programs can be lowered and compiled for the
mesh, but not run.
"""

import dataclasses
import os
import re
from typing import Any

import jax
from jax.experimental.topologies import get_topology_desc
from jax.sharding import Mesh, SingleDeviceSharding

from benchmarks.collectives import Collective, collectives
from experiments import folder_of

# GiB that libtpu 0.0.52 lets a program use of a chip's memory, by the device's name. TPU v4 is not
# here: the devices of its topologies are cores, two to a chip.
HBM = {"TPU v5 lite": 15.75, "TPU v5": 95.73, "TPU v6 lite": 31.24}
_KINDS = ("v5e", "v5p", "v6e")

# Without the first three, libtpu would ask a server of Google's.
_SETTINGS = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-256",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # no chip is held, so several processes may load libtpu
}
_TOO_MUCH = re.compile(
    r"\(([\d.]+)([KMGTP])\) exceeds available HBM|Used ([\d.]+)([KMGTP]) of [\d.]+\w hbm"
)


def devices(name: str) -> list[Any]:
    """Returns the chips of a topology such as "v5e:16x16", which libtpu must know."""
    if not re.fullmatch(rf"({'|'.join(_KINDS)}):\d+(x\d+)+", name):
        raise ValueError(
            f"topology={name!r} must be one of {', '.join(_KINDS)} and how many chips stand along "
            "each of its axes, such as v5e:16x16 or v5p:4x4x4"
        )
    library = str(folder_of("libtpu", "tpu_check", f"topology={name!r}") / "libtpu.so")
    for variable, value in (_SETTINGS | {"TPU_LIBRARY_PATH": library}).items():
        os.environ.setdefault(variable, value)
    try:
        chips = get_topology_desc(platform="tpu", topology_name=name).devices
    except jax.errors.JaxRuntimeError as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"topology={name!r} is none that libtpu knows: {reason}") from None
    _hide_flags(chips[0])
    return list(chips)


def _hide_flags(device) -> None:
    """Compiles a first program for a chip while XLA_FLAGS, which JAX has already read, are unset.

    libtpu reads XLA_FLAGS with its first program, and ends the process if it does not know one of
    them, such as a flag for CPUs or GPUs.
    """
    jax.devices()
    if (flags := os.environ.pop("XLA_FLAGS", None)) is not None:
        one = jax.ShapeDtypeStruct((), "int32", sharding=SingleDeviceSharding(device))
        jax.jit(lambda x: x + 1).lower(one).compile()
        os.environ["XLA_FLAGS"] = flags


@dataclasses.dataclass(frozen=True)
class Needs:
    """Describes the memory and communication that a compiled program needs on each device.

    Attributes:
      memory: bytes in all: arguments, results that do not take the place of arguments, temporaries
        and the program. If the compiler gave up: the bytes that it says temporaries alone need.
      arguments: bytes of the arguments; None if the compiler gave up.
      temporaries: bytes that are held while the program runs; None if the compiler gave up.
      available: bytes that the device has, or None if that is not known.
      collectives: what devices send to each other; empty if the compiler gave up, and None where
        this jaxlib cannot read the program that a newer libtpu has written.
    """

    memory: int
    arguments: int | None
    temporaries: int | None
    available: int | None
    collectives: list[Collective] | None

    @property
    def fits(self) -> bool | None:
        """Returns whether the memory is sufficient, or None if that is not known."""
        return None if self.available is None else self.memory <= self.available


def needs(lowered: jax.stages.Lowered, mesh: Mesh) -> Needs | None:
    """Compiles a program, and returns what it needs, or None if the backend does not say."""
    device = mesh.devices.flat[0]
    size = HBM.get(device.device_kind)
    available = None if size is None else int(size * 2**30)
    # On a CPU this halves the time of compiling, and decides on instructions but not on memory.
    options = {"xla_backend_optimization_level": 0} if device.platform == "cpu" else None
    try:
        compiled = lowered.compile(options)
    except jax.errors.JaxRuntimeError as error:
        wanted = too_much(str(error))
        if wanted is None:
            raise
        return Needs(wanted, None, None, available, [])
    analysis = compiled.memory_analysis()
    if analysis is None:
        return None
    new = analysis.output_size_in_bytes - analysis.alias_size_in_bytes
    held = analysis.argument_size_in_bytes, new, analysis.temp_size_in_bytes
    return Needs(
        sum(held) + analysis.generated_code_size_in_bytes,
        analysis.argument_size_in_bytes,
        analysis.temp_size_in_bytes,
        available,
        _sent(compiled, mesh),
    )


def _sent(compiled, mesh) -> list[Collective] | None:
    """Returns the collectives of a program, or None where this jaxlib cannot read it."""
    if mesh.size == 1:
        return []
    try:
        program = compiled.as_text()
    except jax.errors.JaxRuntimeError:
        return None
    return collectives(program, mesh) if program else []


def too_much(message: str) -> int | None:
    """Returns the bytes that a program needs, if an error of XLA:TPU says that, or None."""
    if not (match := _TOO_MUCH.search(message)):
        return None
    number, unit = [part for part in match.groups() if part]
    return int(float(number) * 1024 ** (1 + "KMGTP".index(unit)))
