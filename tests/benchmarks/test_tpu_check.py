"""Compiles for TPU chips that are not here; `make tpu-test` runs it with the compiler for TPUs."""

import importlib.util
import re

import common
import jax
import pandas as pd
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from benchmarks import tpu_check
from experiments.training import topology
from experiments.training.mesh import make_mesh
from posenc_jax import Chunks, attend
from posenc_jax.positions import text

needs_libtpu = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None,
    reason="XLA's compiler for TPUs is not installed: pip install -e '.[tpu_check]'",
)

_COLLECTIVES = "all-gather|all-reduce|reduce-scatter|all-to-all|collective-permute"


def test_the_page_has_the_numbers_of_the_table():
    folder = common.ROOT / "docs/data"
    page = (folder / "tpu_check.md").read_text()
    table = pd.read_csv(folder / "tpu_check.csv", keep_default_na=False)
    programs = [(program.name, program.mesh) for program in tpu_check.programs()]
    assert [*zip(table["program"], table["mesh"], strict=True)] == programs
    steps = table[~table["program"].str.contains("attention")]
    cells = [
        (row.program, row.chips, row.mesh or "-", f"{float(row.memory_gib):.2f}")
        for row in steps.itertuples()
    ]
    told = re.findall(r"^\| (\d+[BM] .*) \|$", page, re.M)
    assert told and {*told} <= {" | ".join(row) for row in cells}
    for how in ("gather", "ring", "ulysses"):
        rows = table[table["program"].str.contains(f"rope, {how}") & table["sent_mib"].ne("")]
        rows = rows[~rows["program"].str.contains("2048 ")]
        sent, temporaries = rows["sent_mib"].astype(float), rows["temporaries_gib"].astype(float)
        figures = " | ".join(f"{value:,.1f}" for value in (*sent, *(1024 * temporaries)))
        assert f"| `{how}` | {figures} |" in page


@needs_libtpu
def test_one_scheme_of_each_kind_compiles():
    mesh = make_mesh(topology.devices("v5e:2x2"), context=4)
    for name in tpu_check.SCHEMES:
        lowered = tpu_check.attention(name, "ring", 256, mesh)
        needed = topology.memory(topology.compiled(lowered, mesh.devices.flat[0]))
        assert needed.total < topology.HBM["TPU v5 lite"], name


@needs_libtpu
@pytest.mark.parametrize("chips", ["v5e:2x2", "v5p:2x2x1"])
@pytest.mark.parametrize(
    ("implementation", "axes", "collectives"),
    [
        ("gather", {"data": 2, "context": 2}, {"all-gather", "reduce-scatter"}),
        ("ulysses", {"context": 2, "model": 2}, {"all-gather", "all-to-all"}),  # of tokens' index
        ("ring", {"context": 2, "model": 2}, {"collective-permute"}),
    ],
)
def test_tokens_on_several_chips(implementation, axes, collectives, chips):
    """Chips send to those that have the same rows and heads, and as much as the guide says."""
    mesh = make_mesh(topology.devices(chips), **{"data": 1} | axes)
    lowered = tpu_check.attention("rope", implementation, 256, mesh)
    text = topology.compiled(lowered, mesh.devices.flat[0]).as_text()
    assert {*re.findall(rf" ({_COLLECTIVES})(?:-start)?\(", text)} == collectives
    sent = rf" (?:{_COLLECTIVES})(?:-start)?\(.*(?:replica_groups|source_target_pairs)=(\S+?\}}\}})"
    assert {*re.findall(sent, text)} <= {"{{0,1},{2,3}}", "{{0,1},{1,0},{2,3},{3,2}}"}
    heads, positions = tpu_check.HEADS // mesh.shape["model"], 4 * 128  # of a chip, in bytes
    keys_and_values, rows = 2 * 2 * 128 * heads * tpu_check.HEAD_DIM, 4 * 128 * heads
    expected = {
        "gather": 3 * keys_and_values + positions,
        "ring": 2 * (4 * keys_and_values + 2 * positions),
        "ulysses": 1 / 2 * (4 * keys_and_values + 3 * rows) + positions,
    }
    assert tpu_check.sent(text, 2) == expected[implementation]


@needs_libtpu
def test_splash_attention_compiles():
    """Heads and rows lie on different chips, which send nothing but the gradients of parameters."""
    mesh = make_mesh(topology.devices("v5e:2x2"), data=2, model=2)
    lowered = tpu_check.attention("rope", "fused", 256, mesh)
    assert lowered.as_text().count("@tpu_custom_call(") == 3
    text = topology.compiled(lowered, mesh.devices.flat[0]).as_text()
    assert not re.search(rf" ({_COLLECTIVES})(-start)?\(", text)


@needs_libtpu
def test_splash_attention_of_a_long_text_with_sinks_and_a_cap_compiles():
    """So do chunks; every pair of its tokens would take minutes to visit."""
    mesh = make_mesh(topology.devices("v5e:1x1"))
    encoding = common.build("soft_cap", head_dim=128)

    def loss(q, k, v, sinks):
        here, window = encoding.at(text(2**17)), Chunks(8192)
        out = attend(here, q, k, v, window=window, sinks=sinks, implementation="fused")
        return out.astype("float32").sum()

    on_chip = NamedSharding(mesh, PartitionSpec())
    q = jax.ShapeDtypeStruct((1, 2**17, 2, 128), "bfloat16", sharding=on_chip)
    sinks = jax.ShapeDtypeStruct((2,), "float32", sharding=on_chip)
    with jax.set_mesh(mesh):
        lowered = jax.jit(jax.grad(loss, argnums=(0, 1, 2, 3))).lower(q, q, q, sinks)
    assert lowered.as_text().count("@tpu_custom_call(") == 3
    needed = topology.memory(topology.compiled(lowered, mesh.devices.flat[0]))
    assert needed.total < topology.HBM["TPU v5 lite"]
