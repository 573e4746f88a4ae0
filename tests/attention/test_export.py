"""Attention can be exported for a batch of any size, and then run with several."""

import common
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

import posenc_jax
from posenc_jax.positions import text

T, H, C = 12, common.HEADS, common.HEAD_DIM
(B,) = export.symbolic_shape("b")


def exported(name, implementation):
    """Returns attention under a scheme as a function of q, k, v, x and a mask, and its export."""
    encoding = common.build(name)

    def attend(q, k, v, x, mask):
        here, options = encoding.at(text(T)), dict(implementation=implementation)
        return posenc_jax.attend(here, q, k, v, x=x, mask=mask, **options)

    heads, width, mask = (B, T, H, C), (B, T, common.WIDTH), (B, 1, 1, T)
    arrays = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in (heads, heads, heads, width)]
    arrays.append(jax.ShapeDtypeStruct(mask, jnp.bool_))
    return attend, export.export(jax.jit(attend))(*arrays)


@pytest.mark.parametrize(
    ("name", "implementation"),
    [(name, None) for name in common.one_of_each_kind()[::5]] + [("t5", "blockwise")],
)
def test_every_kind_of_scheme_takes_a_symbolic_batch(name, implementation):
    attend, program = exported(name, implementation)
    for batch in (1, 3):
        numbers = [common.normal(i, batch, T, H, C) for i in range(3)]
        numbers += [common.normal(3, batch, T, common.WIDTH), np.ones((batch, 1, 1, T), bool)]
        common.close(program.call(*numbers), jax.jit(attend)(*numbers))


def test_text_of_a_symbolic_length():
    encoding, (count,) = common.build("alibi"), export.symbolic_shape("t")

    def attend(q, k, v):
        return posenc_jax.attend(encoding.at(text(q.shape[1], start=2)), q, k, v)

    heads = jax.ShapeDtypeStruct((2, count, H, C), jnp.float32)
    program = export.export(jax.jit(attend))(heads, heads, heads)
    qkv = [common.normal(i, 2, T, H, C) for i in range(3)]
    common.close(program.call(*qkv), jax.jit(attend)(*qkv), atol=1e-5)


@pytest.mark.parametrize(
    ("name", "sizes"), [("rope", "b, t"), ("t5", "b, t"), ("cope", "b, t"), ("cope", "2, t")]
)
def test_the_number_of_tokens_may_be_a_symbol(name, sizes):
    encoding = common.build(name)
    batch, count = export.symbolic_shape(sizes)

    def attend(q, k, v, positions, segment_ids):
        return posenc_jax.attend(encoding.at(positions, segment_ids), q, k, v)

    heads = jax.ShapeDtypeStruct((batch, count, H, C), jnp.float32)
    numbers = jax.ShapeDtypeStruct((batch, count), jnp.int32)
    program = export.export(jax.jit(attend))(heads, heads, heads, numbers, numbers)
    q, k, v = (common.normal(i, 2, T, H, C) for i in range(3))
    positions = np.concatenate([text(T), text(T, 3)])
    arguments = q, k, v, positions, np.int32(positions > 4)
    common.close(program.call(*arguments), jax.jit(attend)(*arguments), atol=1e-5)
