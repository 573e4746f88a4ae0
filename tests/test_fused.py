"""The library's attention against ours, and that cuDNN's lowers where we would ask for it."""

import functools
import re

import attention_cases
import common
import jax
import jax.numpy as jnp
import pytest
from attention_cases import Case
from jax._src.cudnn import fused_attention_stablehlo as cudnn

from posenc_jax.attention.fused import by_library, cudnn_takes, fused, is_fusable

CHANGES_LOGITS = {
    *("rerope", "leaky_rerope", "self_extend", "dual_chunk", "alibi", "alibi_2d", "t5"),
    *(
        "kerple_log",
        "kerple_power",
        "sandwich",
        "fire",
        "shaw",
        "deberta",
        "dape",
        "cope",
        "fox",
        "path",
    ),
}

CASES = {
    "written": Case(),
    "all": Case(causal=False),
    "grouped": Case(kv_heads=1, scale=0.3),
    "window": Case(window=5),
    "window_both_ways": Case(causal=False, window=5),
    "segments": Case(segments=3),
    "some_tokens": Case(T=23, S=37, written=False, kv_heads=1),
    "some_tokens_in_window": Case(T=23, S=37, written=False, window=5, segments=2),
    "bfloat16": Case(dtype="bfloat16"),
}


def build(name):
    return common.build(name, num_heads=attention_cases.H)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_equals_dense(case):
    out, _ = attention_cases.assert_equals_dense(fused, build("rope"), case)
    sees_nothing = jnp.abs(out).max(axis=(2, 3)) == 0
    assert sees_nothing.any() == (not case.written)


@pytest.mark.parametrize("name", ["transformer_xl", "logn", "pope"])
def test_wider_and_wrapped(name):
    attention_cases.assert_equals_dense(fused, build(name), Case(segments=2))


@pytest.mark.parametrize("name", common.SCHEMES)
def test_which_schemes_may_be_fused(name):
    encoding, case = build(name), Case(T=4, S=4)

    def attention(encoding, tile, v, segments, **options):
        assert is_fusable(encoding, tile, v) == (name not in CHANGES_LOGITS)
        return v

    jax.eval_shape(functools.partial(case.run, attention), encoding, *case.operands())


def test_wrapped_scheme_that_changes_logits():
    encoding = build("logn").__class__(over=build("alibi"), train_length=common.TRAIN_LENGTH)
    case = Case()
    with pytest.raises(ValueError, match="LogN, which changes"):
        case.run(fused, encoding, *case.operands())


LOWERED = {
    "written": Case(dtype="bfloat16"),
    "grouped_window": Case(dtype="bfloat16", kv_heads=1, window=5),
    "segments": Case(dtype="bfloat16", segments=2),
    "some_tokens": Case(dtype="bfloat16", T=24, S=38, written=False),
}


@pytest.mark.parametrize("case", LOWERED.values(), ids=LOWERED)
def test_cudnn_lowers(case, monkeypatch):
    """With gradients, on a host without a GPU, where JAX finds no cuDNN to ask for its version."""
    monkeypatch.setattr(cudnn, "check_cudnn_version", lambda: 91000)
    encoding = build("rope")

    def attention(encoding, tile, v, segments, **options):
        assert cudnn_takes(tile, v)
        return by_library("cudnn", tile, v, segments, **options)

    program = attention_cases.values_and_gradients.trace(
        *(attention, case, encoding), *case.operands()
    )
    text = program.lower(lowering_platforms=("cuda",)).as_text()
    names = re.findall(r"@__cudnn\$fmha(\w+)", text)
    assert [name.removeprefix("ScaleBias") for name in names] == ["Softmax", "SoftmaxBackward"]


@pytest.mark.parametrize(
    "case",
    [
        Case(),
        Case(dtype="bfloat16", T=39, S=39),
        Case(dtype="bfloat16", T=39, S=40, written=False),
    ],
    ids=["float32", "odd", "odd_queries"],
)
def test_cudnn_does_not_take(case):
    def attention(encoding, tile, v, segments, **options):
        assert not cudnn_takes(tile, v)
        return v

    encoding = build("rope")
    case.run(attention, encoding, *case.operands())
