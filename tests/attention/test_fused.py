"""Compares XLA's and Splash attention with ours, and lowers cuDNN's where we would ask for it."""

import functools
import itertools
import re

import attention_cases
import common
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from attention_cases import Case, H
from jax._src.cudnn import fused_attention_stablehlo as cudnn
from jax.sharding import AxisType

from posenc_jax import Chunks, Encoding, attend
from posenc_jax.attention.dense import dense
from posenc_jax.attention.fused import by_library, cudnn_takes, fused, is_fusable
from posenc_jax.attention.splash import splash, splash_takes
from posenc_jax.positions import text

CASES = {
    "grouped_window_both_ways": ("rope", Case(kv_heads=1, scale=0.3, causal=False, window=5)),
    "some_tokens": ("rope", Case(T=23, S=37, written=False, kv_heads=1, window=5, segments=2)),
    "bfloat16": ("rope", Case(dtype="bfloat16", segments=3)),
    "wider_window": ("transformer_xl", Case(segments=2, window=5)),
    "wrapped": ("value_rope", Case(segments=2)),
}


def build(name, **keywords):
    return common.build(name, num_heads=H, **keywords)


@pytest.mark.parametrize(("name", "case"), CASES.values(), ids=CASES)
def test_equals_dense(name, case):
    attention_cases.assert_equals_dense(fused, build(name), case)


@pytest.mark.parametrize("name", common.one_of_each_kind())
def test_a_scheme_may_be_fused_if_it_leaves_logits_and_output_alone(name):
    """The program that a scheme's hooks trace to says what they do to logits and output."""
    encoding, case = build(name), Case(T=4, S=4)

    def attention(encoding, pairs, v, rule):
        logits, out = jnp.zeros((2, H, 4, 4)), jnp.zeros((2, 4, H, v.shape[-1]))

        def leaves_alone(hook, x):
            program = jax.make_jaxpr(lambda x: hook(x, pairs))(x).jaxpr
            return program.outvars == program.invars

        mix = functools.partial(encoding.mix, weights_BHTS=logits)
        alone = leaves_alone(encoding.score, logits)
        alone &= leaves_alone(lambda out, pairs: mix(out, pairs=pairs), out)
        assert is_fusable(encoding, can_cap=False) == alone
        return v

    jax.eval_shape(functools.partial(case.run, attention), encoding, *case.operands())


def test_a_scheme_that_changes_logits_is_refused_beneath_another():
    encoding, case = build("logn", over="alibi"), Case()
    common.refuses("LogN", lambda: case.run(fused, encoding, *case.operands()))


LOWERED = {
    "written": Case(dtype="bfloat16", kv_heads=1, window=5, segments=2),
    "some_tokens": Case(dtype="bfloat16", T=24, S=38, written=False),
}


@pytest.mark.parametrize("case", LOWERED.values(), ids=LOWERED)
def test_cudnn_lowers(case, monkeypatch):
    """Gradients lower too, on a host without a GPU, where JAX finds no cuDNN to ask its version."""
    monkeypatch.setattr(cudnn, "check_cudnn_version", lambda: 91000)
    encoding = build("rope")

    def attention(encoding, tile, v, rule):
        assert cudnn_takes(tile, v, rule)
        return by_library("cudnn", tile, v, rule)

    trace = attention_cases.values_and_gradients.trace
    program = trace(attention, case, encoding, *case.operands())
    text = program.lower(lowering_platforms=("cuda",)).as_text()
    names = re.findall(r"@__cudnn\$fmha(\w+)", text)
    assert [name.removeprefix("ScaleBias") for name in names] == ["Softmax", "SoftmaxBackward"]


@pytest.mark.parametrize(("here", "there"), [("cpu", "gpu"), ("gpu", "tpu")])
def test_the_mesh_says_which_kernel_there_is(here, there, monkeypatch):
    """A program is made for the devices of its mesh, on whatever machine it is traced."""
    monkeypatch.setattr(cudnn, "check_cudnn_version", lambda: 91000)
    monkeypatch.setattr(jax, "default_backend", lambda: here)
    case, encoding = Case(dtype="bfloat16"), build("rope")
    with attention_cases.traced_for(there, "NVIDIA H100"):
        for attention in (None, "fused"):
            run = functools.partial(case.run, attention, encoding)
            text = str(jax.make_jaxpr(run)(*case.operands()))
            assert ("dot_product_attention_fwd" in text) == (there == "gpu")
            assert ("splash_mha" in text) == (there == "tpu")


def interpreted(encoding, tile, v, rule):
    assert splash_takes(tile, v, rule)
    return splash(tile, v, rule, encoding.soft_cap, interpret=True)


ON_TPU = {
    "padded_grouped_window": Case(T=200, S=200, kv_heads=1, window=70, segments=3, scale=0.3),
    "window_both_ways": Case(T=256, S=256, causal=False, window=70, segments=2),
    "bfloat16": Case(T=128, S=128, dtype="bfloat16"),
    "chunks": Case(T=640, S=640, window=Chunks(200)),  # of five blocks of 128 tokens
    "capped": Case(T=256, S=256, kv_heads=1, segments=2, sinks=True),
}


@pytest.mark.parametrize(("name", "case"), ON_TPU.items(), ids=ON_TPU)
def test_splash_equals_dense(name, case):
    encoding = build("soft_cap", cap=2.0) if name == "capped" else build("rope")
    with attention_cases.traced_for("cpu", "cpu"):
        attention_cases.assert_equals_dense(interpreted, encoding, case)


def test_caps_that_kernels_apply():
    capped = build("soft_cap", cap=2.0)
    assert is_fusable(capped, can_cap=True) and not is_fusable(capped, can_cap=False)
    assert not is_fusable(build("soft_cap", over="alibi"), can_cap=True)


@pytest.mark.parametrize(
    "rule", [dict(before=9), dict(after=3), dict(before=2, after=0), dict(chunk=12)]
)
def test_a_mask_of_splash_is_that_of_its_pairs(rule):
    """It answers for blocks of which it did not compare the pairs."""
    from posenc_jax.attention.splash_mask import _Mask

    mask = _Mask(48, 32, **dict(before=None, after=None, chunk=None) | rule)
    pairs = mask.mask_function(np.arange(48)[:, None], np.arange(32))
    for q, k in itertools.product(range(0, 48, 8), range(0, 32, 8)):
        block = slice(q, q + 8), slice(k, k + 8)
        np.testing.assert_array_equal(np.broadcast_to(mask[block], (8, 8)), pairs[block])


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit])
def test_splash_on_several_devices(kind):
    case, encoding = Case(T=128, S=128, segments=2, sinks=True), build("rope")
    x_BSD, *sides = operands = case.operands()
    expected = attention_cases.values_and_gradients(dense, case, encoding, *operands)
    with jax.set_mesh(mesh := common.mesh_of(kind, data=2, model=2)):
        sides = [common.placed(x, mesh, "data", None, "model") for x in sides]
        on_mesh = common.placed(encoding, mesh), common.placed(x_BSD, mesh, "data"), *sides
        actual = attention_cases.values_and_gradients(interpreted, case, *on_mesh)
        assert actual[0].sharding.shard_shape(actual[0].shape) == (1, 128, 1, case.head_dim)
    for a, b in zip(*map(jax.tree.leaves, (actual, expected)), strict=True):
        common.close(a, b, rtol=1e-4, atol=1e-5)


# Whether cuDNN and Splash take a case; rows that devices do not divide are on four of them.
TAKEN = {
    "float32": (Case(T=128, S=128), False, True),
    "odd_length": (Case(dtype="bfloat16", T=39, written=False), False, False),
    "few_tokens_both_ways": (Case(causal=False), False, False),
    "written_elsewhere": (Case(dtype="bfloat16", T=38, written=False), True, False),
    "float16": (Case(dtype="float16"), True, False),
    "traced_window": (Case(window=jnp.int32(5)), False, False),
    "rows_do_not_divide": (Case(T=128, S=128), False, False),
}


@pytest.mark.parametrize("name", TAKEN)
def test_what_kernels_take(name):
    case, by_cudnn, by_splash = TAKEN[name]

    def attention(encoding, tile, v, rule):
        assert cudnn_takes(tile, v, rule) == by_cudnn
        assert splash_takes(tile, v, rule) == by_splash
        return v[:, : case.T]

    with jax.set_mesh(common.mesh_of(data=4 if name == "rows_do_not_divide" else 1)):
        jax.eval_shape(functools.partial(case.run, attention, build("rope")), *case.operands())


def test_splash_does_not_take_keys_of_other_segments():
    """A query that sees no key would not be 0."""
    ids, here = jnp.zeros((1, 128), jnp.int32), functools.partial(Encoding().at, text(128))
    x = jnp.ones((1, 128, 2, 8))
    for keys_ids in (ids, ids + 1):
        queries = here(ids)
        keys = (queries if keys_ids is ids else here(keys_ids)).keys(x, x)

        def attention(encoding, tile, v, rule, is_one=keys_ids is ids):
            assert splash_takes(tile, v, rule) == is_one
            return v

        with attention_cases.traced_for("cpu", "cpu"):
            attend(queries, x, keys, implementation=attention)
