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

from posenc_jax import Chunks, attend
from posenc_jax.attention.dense import dense
from posenc_jax.attention.fused import by_library, cudnn_takes, fused, is_fusable
from posenc_jax.attention.splash import splash, splash_takes
from posenc_jax.positions import text

CASES = {
    "grouped": Case(kv_heads=1, scale=0.3),
    "window_both_ways": Case(causal=False, window=5),
    "some_tokens": Case(T=23, S=37, written=False, kv_heads=1),
    "some_tokens_in_window": Case(T=23, S=37, written=False, window=5, segments=2),
    "bfloat16": Case(dtype="bfloat16", segments=3),
}


def build(name, **keywords):
    return common.build(name, num_heads=H, **keywords)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_equals_dense(case):
    attention_cases.assert_equals_dense(fused, build("rope"), case)


@pytest.mark.parametrize("name", ["transformer_xl", "pope", "value_rope"])
def test_wider_and_wrapped(name):
    attention_cases.assert_equals_dense(fused, build(name), Case(segments=2))


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
    "grouped_window": Case(dtype="bfloat16", kv_heads=1, window=5),
    "segments": Case(dtype="bfloat16", segments=2),
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


@pytest.mark.parametrize(
    "case", [Case(), Case(dtype="bfloat16", T=39, S=40, written=False)], ids=["float32", "odd"]
)
def test_cudnn_does_not_take(case):
    def attention(encoding, tile, v, rule):
        assert not cudnn_takes(tile, v, rule)
        return v[:, : case.T]

    encoding = build("rope")
    case.run(attention, encoding, *case.operands())


def interpreted(encoding, tile, v, rule):
    assert splash_takes(tile, v, rule)
    return splash(tile, v, rule, encoding.soft_cap, interpret=True)


ON_TPU = {
    "all": Case(T=128, S=128, causal=False),
    "padded_grouped_window": Case(T=200, S=200, kv_heads=1, window=70, segments=3, scale=0.3),
    "window_both_ways": Case(T=256, S=256, causal=False, window=70, segments=2),
    "bfloat16": Case(T=256, S=256, dtype="bfloat16"),
    "sinks": Case(T=256, S=256, segments=2, sinks=True),
    "chunks": Case(T=640, S=640, window=Chunks(200)),  # of five blocks of 128 tokens
}


@pytest.mark.parametrize("case", ON_TPU.values(), ids=ON_TPU)
def test_splash_equals_dense(case):
    with attention_cases.traced_for("cpu", "cpu"):
        attention_cases.assert_equals_dense(interpreted, build("rope"), case)


def test_splash_caps_logits():
    capped = build("soft_cap", cap=2.0)
    assert is_fusable(capped, can_cap=True) and not is_fusable(capped, can_cap=False)
    assert not is_fusable(build("soft_cap", over="alibi"), can_cap=True)
    case = Case(T=256, S=256, kv_heads=1, segments=2, sinks=True)
    with attention_cases.traced_for("cpu", "cpu"):
        attention_cases.assert_equals_dense(interpreted, capped, case)


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


NOT_ON_TPU = {
    "written_elsewhere": Case(T=128, S=128, written=False),
    "odd_length": Case(causal=False),
    "float16": Case(dtype="float16"),
    "traced_window": Case(window=jnp.int32(5)),
    "rows_do_not_divide": Case(),
}


@pytest.mark.parametrize(("name", "case"), NOT_ON_TPU.items())
def test_splash_does_not_take(name, case):
    def attention(encoding, tile, v, rule):
        assert not splash_takes(tile, v, rule)
        return v[:, : case.T]

    with jax.set_mesh(common.mesh_of(data=4 if name == "rows_do_not_divide" else 1)):
        case.run(attention, build("rope"), *case.operands())


@pytest.mark.parametrize("are_others", [False, True])
def test_splash_does_not_take_keys_of_other_segments(are_others):
    """A query that sees no key would not be 0."""
    encoding, ids = build("rope"), jnp.zeros((1, 128), jnp.int32)
    q_here = encoding.at(text(128), ids)
    k_here = encoding.at(text(128), ids + 1) if are_others else q_here

    def attention(encoding, tile, v, rule):
        assert splash_takes(tile, v, rule) != are_others
        return v

    q = k = v = jnp.ones((1, 128, 2, encoding.head_dim))
    with attention_cases.traced_for("cpu", "cpu"):
        attend(q_here, q, k_here.keys(k, v), implementation=attention)
