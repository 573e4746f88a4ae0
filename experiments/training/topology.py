"""Compiles for TPU chips that this machine lacks, because libtpu's compiler needs no chips.

The devices of a topology make a mesh like any other. Programs can be lowered and compiled for the
mesh, but not run.
"""

import os
import re
from typing import Any, NamedTuple

import jax
from jax.experimental.topologies import get_topology_desc
from jax.sharding import SingleDeviceSharding

from experiments import folder_of

# Bytes that libtpu 0.0.52 lets a program use of a chip's memory, by the device's name. TPU v4 is
# not here: the devices of its topologies are cores, two to a chip.
HBM = {"TPU v5 lite": 15.75 * 2**30, "TPU v5": 95.73 * 2**30, "TPU v6 lite": 31.24 * 2**30}
_KINDS = ("v5e", "v5p", "v6e")

# Without the first three, libtpu would ask a server of Google's.
_SETTINGS = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-256",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # no chip is held, so several processes may load libtpu
}


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


def compiled(lowered: jax.stages.Lowered, device: Any) -> jax.stages.Compiled:
    """Compiles a program for a device, to see what it needs.

    Raises a MemoryError if the compiler gives up because the device has too little memory.
    """
    # On a CPU this halves the time of compiling, and decides on instructions but not on memory.
    fast: dict[str, Any] = {"xla_backend_optimization_level": 0}
    try:
        return lowered.compile(fast if device.platform == "cpu" else None)
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise MemoryError(str(error).strip().splitlines()[0]) from None


class Memory(NamedTuple):
    """Holds the bytes that a program needs on each device.

    The total is that of arguments, temporaries, results that do not take the place of arguments,
    and the program itself.
    """

    total: int
    arguments: int
    temporaries: int


def memory(program: jax.stages.Compiled) -> Memory:
    """Returns the memory that a compiled program needs."""
    needs: Any = program.memory_analysis()
    arguments, temporaries = needs.argument_size_in_bytes, needs.temp_size_in_bytes
    new = needs.output_size_in_bytes - needs.alias_size_in_bytes
    total = arguments + new + temporaries + needs.generated_code_size_in_bytes
    return Memory(total, arguments, temporaries)
