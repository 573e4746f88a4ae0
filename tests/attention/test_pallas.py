"""Tests kernels that run every scheme's hooks: interpreted here, lowered for GPU and TPU."""

import functools

import attention_cases
import common
import jax
import jax.numpy as jnp
import pytest
from attention_cases import IN_KERNELS, SMALLER, Case, slow_unless_quick
from common import refuses

from posenc_jax import HeadShard
from posenc_jax.attention.dense import dense
from posenc_jax.attention.pallas import pallas
from posenc_jax.attention.pallas.program import on_matrices

CASES = {
    "grouped": ("kerple_log", Case(T=33, S=33, kv_heads=1, scale=0.3)),
    "odd_width": ("sandwich", Case(head_dim=6)),
    "window_both_ways": ("alibi", Case(causal=False, window=5)),
    "some_tokens_in_window": ("alibi", Case(T=23, S=37, written=False, window=5, segments=2)),
    "bfloat16_reading_keys": ("shaw", Case(dtype="bfloat16", kv_heads=1)),
}


def build(name, **keywords):
    defaults = {"num_heads": attention_cases.H} | SMALLER.get(name, {})
    return common.build(name, **defaults | keywords)


@pytest.mark.parametrize(("name", "case"), CASES.values(), ids=CASES)
def test_equals_dense(name, case):
    attention_cases.assert_equals_dense(pallas, build(name), case)


def test_some_heads_of_the_model():
    shard = HeadShard(build("fox", num_heads=4), jnp.array([3, 1]), 4)
    actual, expected = (
        jax.jit(functools.partial(Case().run, attention))(shard, *Case().operands())
        for attention in (pallas, dense)
    )
    common.close(actual, expected)


@pytest.mark.parametrize(
    ("name", "keywords", "case"),
    [(name, {}, Case()) for name in common.one_of_each_tile() if name not in IN_KERNELS]
    + [("deberta", {"max_distance": 512}, Case()), ("swin_v2", {"hidden": 512}, Case())]
    + [("alibi", {}, Case(window=jnp.int32(5)))],
)
def test_refused(name, keywords, case):
    """Whole rows, all heads in a tile, large tables and networks, and a traced window are."""
    encoding = build(name, **keywords)
    refuses("pallas|mixes heads", lambda: case.run(pallas, encoding, *case.operands()))


def test_types_of_64_bits_are_refused():
    with jax.enable_x64(True):
        refuses("jax_enable_x64", lambda: Case().run(pallas, build("rope"), *Case().operands()))


@pytest.mark.parametrize(
    ("equation", "x_shape", "y_shape"),
    [
        ("tc,cs->ts", (3, 4), (4, 5)),
        ("btc,bsc->bts", (1, 3, 4), (1, 5, 4)),
        ("tc,cs->ts", (1, 4), (4, 5)),
        ("tc,c->t", (3, 4), (4,)),
        ("t,s->ts", (3,), (5,)),
    ],
)
def test_products_of_matrices_equal_those_of_tensors(equation, x_shape, y_shape):
    product = functools.partial(jnp.einsum, equation)
    x, y = common.normal(0, *x_shape), common.normal(1, *y_shape)
    common.close(on_matrices(product, x, y), product(x, y))


# What Triton's half of Pallas does not know of.
NOT_ON_CUDA = {
    "shaw": "a table of an odd number of rows",
    "deberta": "rounding of positions",
    "fire": "a table whose units are taken one after the other",
    "swin_v2": "a table whose units are taken one after the other",
    "dual_chunk": "three rotations side by side, whose width is no power of 2",
    "rerope": "the gradient of rotations side by side, a concatenation",
    "jet_long": "the gradient of rotations side by side, a concatenation",
}
TARGETS = {
    "cuda": ("gpu", "__gpu$xla.gpu.triton", "NVIDIA H100 80GB HBM3"),
    "tpu": ("tpu", "tpu_custom_call", "TPU v5 lite"),
}
LOWERED = [(name, "tpu") for name in IN_KERNELS]
LOWERED += [(name, "cuda") for name in IN_KERNELS if name not in NOT_ON_CUDA]


@pytest.mark.parametrize(("name", "platform"), [slow_unless_quick(*case) for case in LOWERED])
def test_lowers(name, platform, monkeypatch):
    """Three kernels lower, for output and gradients; the vendor's compiler has not seen them."""
    backend, target, kind = TARGETS[platform]
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    encoding = build(name, head_dim=64)
    case = Case(T=256, S=256, head_dim=64, dtype="bfloat16", segments=2, window=200)
    # Not the jitted function, which would remember the other platform's kernels.
    attend = attention_cases.values_and_gradients.__wrapped__
    program = jax.jit(functools.partial(attend, pallas, case))
    checks = [jax.export.DisabledSafetyCheck.custom_call(target)]
    with attention_cases.traced_for(backend, kind):
        export = jax.export.export(program, platforms=(platform,), disabled_checks=checks)
        text = export(encoding, *case.operands()).mlir_module()
    assert text.count(f"@{target}(") == 3
