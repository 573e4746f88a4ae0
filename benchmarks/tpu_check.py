"""Compiles attention and whole steps for TPU pods, on a machine that has no TPU.

    python -m benchmarks.tpu_check
    python -m benchmarks.tpu_check --match="7B training" --out=runs/tpu_check.csv

The program needs ``pip install -e '.[experiments,tpu_check]'``. It compiles

- attention and its gradients under one scheme of each kind, in every implementation;
- the same over 8k to 128k tokens under RoPE, which shows how temporaries grow, and what a chip
  sends to others that have other tokens;
- a step of training and one of decoding, of a 7B decoder and of the 125M model of
  ``configs/extrapolation.py:paper``, under several meshes.

The table ``--out`` gets a line for each program, at once; programs that it already has are not
compiled again. Outcomes:

    compiled   the column ``fits`` says whether the program fits into a chip's memory
    too large  the compiler gave up for the ``reason``
    refused    posenc_jax raised a ValueError, which is the ``reason``
    FAILED     a defect, of posenc_jax or of the compiler
"""

import argparse
import functools
import itertools
import math
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import pandas as pd
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from benchmarks.attention import Shape, build, gradient, run
from configs import extension, extrapolation
from experiments.command import exit_status
from experiments.training import topology
from experiments.training.loop import abstract_state, lower_step
from experiments.training.mesh import batch_sharding, make_mesh, replicated, row_shards
from experiments.training.recipe import Recipe
from experiments.training.text import Text, spec_of
from posenc_jax import Cache
from posenc_jax.model.transformer import ROWS

# One scheme of each kind: it adds nothing, rotates, rotates by cameras, rotates twice, adds a bias
# that is a slope, a table, a network or a wider product, reads distances of values too, reads
# content, needs whole rows, multiplies reflections, encodes positions, or shifts keys.
SCHEMES = ("nope", "rope", "prope", "rerope", "alibi", "t5", "swin_v2", "sandwich", "shaw")
SCHEMES += ("inkling", "fox", "cope", "path", "seqpe", "kv_shift")
# Implementations of attention, and the mesh that each runs on.
IMPLEMENTATIONS: tuple[tuple[str, dict[str, int]], ...] = (
    ("dense", {}),
    ("blockwise", {}),
    ("ring", {"context": 4}),
    ("fused", {"data": 2, "model": 2}),
)
HEADS, HEAD_DIM = 8, 128
# Topologies by the number of their chips.
CHIPS = {1: "v5e:1x1", 4: "v5e:2x2", 16: "v5e:4x4", 256: "v5e:16x16"}
COLUMNS = ["program", "chips", "mesh", "outcome", "fits", "memory_gib", "temporaries_gib"]
COLUMNS += ["sent_mib", "reason"]
_COLLECTIVE = re.compile(
    r" = \(?(\w+)\[([\d,]*)\].* (all-gather|reduce-scatter|all-to-all|collective-permute)"
    r"(?:-start)?\(.*shard_map(/while)?/"
)
_BYTES = {"bf16": 2, "f32": 4, "s32": 4}


class Decoder(NamedTuple):
    """Describes a model, its training and its decoding, and the meshes that it is compiled for.

    ``rows`` is how many rows a batch has, or None for one on each part of ``data`` and ``fsdp``;
    ``slots`` is how many tokens the cache of a row holds.
    """

    name: str
    sizes: dict[str, Any]
    length: int
    rows: int | None
    slots: int
    meshes: tuple[dict[str, int], ...]


DECODERS = (
    Decoder(
        "7B",  # in the shape of Llama 2 7B (2307.09288)
        {"vocab_size": 32000} | extension.get_config("paper").model.to_dict(),
        length=4096,
        rows=None,
        slots=4096,
        meshes=(
            {"fsdp": 16},
            {"fsdp": 4, "model": 4},
            {"fsdp": 256},
            {"data": 4, "fsdp": 8, "model": 8},
            {"fsdp": 64, "context": 4},
        ),
    ),
    Decoder(
        "125M",
        {"vocab_size": 256} | extrapolation.get_config("paper").model.to_dict(),
        length=512,
        rows=64,
        slots=16384,
        meshes=({}, {"data": 16}, {"fsdp": 4, "model": 4}, {"data": 4, "context": 4}),
    ),
)


class Program(NamedTuple):
    """Describes a program by its name, the axes of its mesh, and what lowers it for a mesh."""

    name: str
    axes: dict[str, int]
    lower: Callable[[Mesh], jax.stages.Lowered]

    @property
    def chips(self) -> str:
        """Returns the topology of the chips, such as "v5e:4x4"."""
        return CHIPS[math.prod(self.axes.values())]

    @property
    def mesh(self) -> str:
        """Returns the axes in words."""
        return " ".join(f"{axis}={size}" for axis, size in self.axes.items())


def programs() -> Iterator[Program]:
    """Yields all programs."""
    cases = [(scheme, *one, 2048) for scheme in SCHEMES for one in IMPLEMENTATIONS]
    lengths = 8192, 32768, 131072
    cases += [("rope", how, {}, length) for how in ("dense", "blockwise") for length in lengths]
    over_context = itertools.product(("gather", "ulysses", "ring"), lengths)
    cases += [("rope", how, {"context": 4}, length) for how, length in over_context]
    for scheme, how, axes, length in cases:
        name = f"{scheme}, {how} attention, {length} tokens"
        yield Program(name, axes, functools.partial(attention, scheme, how, length))
    for decoder, lower in itertools.product(DECODERS, (training, decoding)):
        for axes in decoder.meshes:
            name = f"{decoder.name} {lower.__name__}"
            yield Program(name, axes, functools.partial(lower, decoder))


def attention(scheme: str, implementation: str, length: int, mesh: Mesh) -> jax.stages.Lowered:
    """Lowers attention and its gradients in bfloat16, one row on each part of the axis ``data``.

    Rows lie over ``data``, tokens over ``context`` and heads over ``model``. Raises a ValueError if
    the implementation does not support the scheme.
    """
    shape = Shape(length, HEAD_DIM, HEADS, batch=mesh.shape["data"])
    encoding = jax.eval_shape(lambda: build(scheme, shape))
    encoding = jax.tree.map(lambda x: _placed(x, replicated(mesh)), encoding)
    axes = [P("data", "context", "model")] * 3 + [P("data", "context")]
    given = (
        jax.ShapeDtypeStruct(size, shape.dtype, sharding=NamedSharding(mesh, spec))
        for size, spec in zip(shape.sizes, axes, strict=True)
    )
    call = functools.partial(run, implementation=implementation)
    with jax.set_mesh(mesh):
        return jax.jit(gradient(call)).lower(encoding, *given)


def training(decoder: Decoder, mesh: Mesh) -> jax.stages.Lowered:
    """Lowers a training step."""
    task = _task(decoder, mesh)
    return lower_step(task, task.recipe, mesh)


def decoding(decoder: Decoder, mesh: Mesh) -> jax.stages.Lowered:
    """Lowers a step that reads one token of each row, with one row for each shard of rows.

    Weights are in bfloat16. Rows and heads of the cache are spread like those of activations.
    """
    task, rows = _task(decoder, mesh), row_shards(mesh)
    weights = abstract_state(task.init, task.recipe, mesh).model
    model = jax.tree.map(lambda x: _placed(x, x.sharding, "bfloat16"), weights)
    heads = NamedSharding(mesh, P(None, ROWS, "model"))
    cache = jax.tree.map(
        lambda x: _placed(x, heads if x.ndim == 5 else replicated(mesh)),
        jax.eval_shape(lambda: Cache.empty(model, rows, decoder.slots)),
    )
    token = jax.ShapeDtypeStruct((rows, 1), "int32", sharding=batch_sharding(mesh))

    @functools.partial(jax.jit, donate_argnames="cache")
    def read(model, token, cache):
        x_BTD, cache = model.extend(token, cache)
        return model.unembed(x_BTD), cache

    with jax.set_mesh(mesh):
        return read.lower(model, token, cache)


class _Blank(Text):
    """Trains on batches of zeros: lowering needs only their shape, and no corpus."""

    def batch(self, seed, step, part, parts):
        del seed, step, part
        return np.zeros((self.recipe.batch_size // parts, self.recipe.length + 1), np.int32)


def _task(decoder: Decoder, mesh: Mesh) -> Text:
    rows, windows = decoder.rows or row_shards(mesh), None
    recipe = Recipe(length=decoder.length, batch_size=rows, steps=1000)
    return _Blank(recipe, windows, spec_of({"name": "rope"}, decoder.sizes))


def _placed(array, sharding, dtype=None) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(array.shape, dtype or array.dtype, sharding=sharding)


def sent(text: str, devices: int) -> float:
    """Returns the bytes that a chip sends others of its axis for attention, by a compiled text.

    ``devices`` is the size of the axis. A loop that sends is the ring's, and goes around it once.
    """
    total = 0.0
    for kind, sizes, collective, in_loop in _COLLECTIVE.findall(text):
        result = _BYTES[kind] * math.prod(map(int, filter(None, sizes.split(","))))
        share = {"reduce-scatter": devices - 1, "collective-permute": 1}
        total += result * share.get(collective, 1 - 1 / devices) * (devices if in_loop else 1)
    return total


def outcome(program: Program) -> dict[str, Any]:
    """Compiles a program and returns its line of the table."""
    line: dict[str, Any] = {"program": program.name, "chips": program.chips, "mesh": program.mesh}
    chips = topology.devices(program.chips)
    try:
        lowered = program.lower(make_mesh(chips, **program.axes))
        compiled = topology.compiled(lowered, chips[0])
        memory = topology.memory(compiled)
    except ValueError as error:
        return line | {"outcome": "refused", "reason": str(error)}
    except MemoryError as error:
        return line | {"outcome": "too large", "reason": str(error)}
    except Exception as error:  # this program is there to find them
        return line | {"outcome": "FAILED", "reason": f"{type(error).__name__}: {error}"[:500]}
    line |= {
        "outcome": "compiled",
        "fits": memory.total <= topology.HBM[chips[0].device_kind],
        "memory_gib": round(memory.total / 2**30, 4),
        "temporaries_gib": round(memory.temporaries / 2**30, 4),
    }
    if "attention" in program.name and "context" in program.axes:
        line["sent_mib"] = round(sent(compiled.as_text(), program.axes["context"]) / 2**20, 4)
    return line


@exit_status
def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--match", default="", help="only programs whose name has this in it")
    parser.add_argument("--out", type=Path, default=Path("runs/tpu_check.csv"))
    args = parser.parse_args()
    known = pd.read_csv(args.out, keep_default_na=False) if args.out.exists() else pd.DataFrame()
    lines = [line for line in known.to_dict("records") if line["outcome"] != "FAILED"]
    done = {(line["program"], line["mesh"]) for line in lines}
    args.out.parent.mkdir(parents=True, exist_ok=True)
    for program in programs():
        if args.match in program.name and (program.name, program.mesh) not in done:
            lines.append(outcome(program))
            print(", ".join(str(value) for value in lines[-1].values() if value), flush=True)
            pd.DataFrame(lines, columns=COLUMNS).to_csv(args.out, index=False)
    failed = [line["program"] for line in lines if line["outcome"] == "FAILED"]
    if failed:
        raise SystemExit(f"{len(failed)} programs failed: {'; '.join(failed)}")


if __name__ == "__main__":
    sys.exit(main())
