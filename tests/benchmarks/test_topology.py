"""Tests what is said of programs that are compiled for chips which are not here."""

import importlib.util
import io

import common
import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P
from rich.console import Console

from benchmarks import topology, tpu_programs
from benchmarks.collectives import Collective, collectives
from benchmarks.dry_run import print_dry_run
from benchmarks.topology import needs, too_much
from configs.extrapolation import get_config
from experiments.studies.text import Comparison
from experiments.training.mesh import make_mesh

needs_libtpu = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None,
    reason="XLA's compiler for TPUs is not installed: pip install -e '.[tpu_check]'",
)


def test_without_libtpu_the_extra_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    common.refuses("libtpu", lambda: topology.devices("v5e:2x2"))


def test_what_the_compiler_found_too_much():
    old = "Ran out of memory in memory space hbm. Used 20.50G of 15.75G hbm. Exceeded"
    new = "total memory required for HLO temporaries (1.50T) exceeds available HBM (15.75G)"
    assert too_much(old) == 20.5 * 2**30 and too_much(new) == 1.5 * 2**40
    assert too_much("INTERNAL: something else") is None


# Two chips along data, four along model: chips 0 to 3 are in the first row.
PROGRAM = """
%add (x: f32[], y: f32[]) -> f32[] {
  ROOT %sum = f32[] add(%x, %y)
}

%body (state: (s32[], f32[8,16])) -> (s32[], f32[8,16]) {
  %sums = f32[8,16] all-reduce(%x), channel_id=1, replica_groups=[2,4]<=[8]
  %next = (bf16[4], bf16[4], u32[]) collective-permute-start(%z), source_target_pairs={{0,4},{4,0}}
  %two = s32[] constant(2)
  %after = s32[] add(%i, %two)
  ROOT %out = (s32[], /*index=1*/f32[8,16]) tuple(%after, /*index=1*/%sums)
}

%piece (y: f32[2]) -> f32[16] {
  ROOT %a = f32[16] all-gather(%y), channel_id=3, replica_groups={{0,1,2,3},{4,5,6,7}}
}

%condition (state: (s32[], f32[8,16])) -> pred[] {
  %i = s32[] get-tuple-element(%state), index=0
  %end = s32[]{:T(128)} constant(5)
  ROOT %less = pred[] compare(%i, %end), direction=LT
}

ENTRY %main (p: f32[8,16]) -> f32[8,16] {
  %loop = (s32[], f32[8,16]) while(%start), condition=%condition, body=%body
  %first = f32[16] fusion(%p), kind=kCustom, calls=%piece
  %second = f32[16] all-gather(%p), channel_id=3, replica_groups=[2,4]<=[8]
  %part = f32[10] reduce-scatter(%p), channel_id=4, replica_groups=[4,2]<=[2,4]T(1,0)
  %begun = (f32[10], f32[40]) all-gather-start(%p), replica_groups=mesh['a'=2,'b'=4] {'a','b':(2)2}
  ROOT %done = f32[8,16] get-tuple-element(%loop), index=1
}
"""


def test_collectives_of_a_text():
    mesh = make_mesh(data=2, model=4)
    assert collectives(PROGRAM, mesh) == [
        Collective("all-reduce", ("model",), 3, 3 * 2 * 512 * 3 // 4),
        Collective("all-gather", ("data", "model"), 1, 160 * 3 // 4),
        Collective("all-gather", ("model",), 1, 64 * 3 // 4),
        Collective("reduce-scatter", ("data",), 1, 80 // 2),
        Collective("collective-permute", ("data",), 3, 3 * 8),
    ]
    groups = "mesh['a'=4,'b'=2], device_ids=([2,4]T(1,0)) {'a'}"
    permuted = PROGRAM.replace("[4,2]<=[2,4]T(1,0)", groups)
    assert Collective("reduce-scatter", ("model",), 1, 3 * 160 // 4) in collectives(permuted, mesh)
    common.refuses("somebody", lambda: collectives(PROGRAM.replace("[2,4]<=[8]", "somebody"), mesh))


def test_collectives_of_a_program():
    """A sum of partial products over four devices, in each of five repeats of a loop."""
    mesh = make_mesh(data=2, model=4)

    def loop(x, w):
        return jax.lax.scan(lambda x, _: (jnp.sin(x @ w @ w.T), None), x, length=5)[0]

    arguments = [
        jax.ShapeDtypeStruct(shape, "float32", sharding=NamedSharding(mesh, spec))
        for shape, spec in (((8, 16), P("data")), ((16, 64), P(None, "model")))
    ]
    (collectives,) = needs(jax.jit(loop).lower(*arguments), mesh).collectives
    # Four rows of 16 numbers, of four bytes.
    assert collectives == Collective("all-reduce", ("model",), 5, 5 * 2 * 256 * 3 // 4)


@needs_libtpu
def test_one_scheme_of_each_kind_compiles():
    mesh = jax.make_mesh((4,), ("context",), (AxisType.Auto,), devices=topology.devices("v5e:2x2"))
    for name in tpu_programs.one_of_each_kind():
        lowered, flops = tpu_programs.attention(name, "ring", True, 256, mesh)
        needed = needs(lowered, mesh)
        assert needed.fits and needed.collectives and flops > 0, name


@needs_libtpu
@pytest.mark.parametrize("backward", [False, True])
def test_splash_attention_compiles(backward):
    """Heads and rows lie on different chips, which send nothing but the gradients of parameters."""
    kinds, chips = (AxisType.Auto,) * 2, topology.devices("v5e:2x2")
    mesh = jax.make_mesh((2, 2), ("data", "model"), kinds, devices=chips)
    lowered, _ = tpu_programs.attention("rope", "fused", backward, 256, mesh)
    assert lowered.as_text().count("@tpu_custom_call(") == (3 if backward else 1)
    needed = needs(lowered, mesh)
    assert needed.fits and sum(each.bytes for each in needed.collectives) < 2**12


@needs_libtpu
def test_dry_run_for_a_topology(corpus, tmp_path):
    config, console = get_config("tiny"), Console(file=io.StringIO(), width=120)
    config.update(corpus=corpus, schemes="rope", seeds=1)
    config.mesh.update(fsdp=4)
    experiment = Comparison(config, tmp_path / "work", console)
    experiment.place_on(make_mesh(topology.devices("v5e:2x2"), **config.mesh))
    print_dry_run(experiment, 0.4, console)
    text = " ".join(console.file.getvalue().split())
    assert "4 of TPU v5 lite" in text and "over fsdp" in text
    assert "it fits into the 15.8 GiB of a TPU v5 lite" in text
