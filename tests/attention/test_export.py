"""Attention can be exported for batches and lengths of any size, and then run with several."""

import common
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

import posenc_jax
from posenc_jax.positions import text

T, H, C = 12, common.HEADS, common.HEAD_DIM


@pytest.mark.parametrize(
    ("name", "implementation", "sizes"),
    [(name, None, "b, 12") for name in ("randomized", "rope_mixed", "fox", "kv_shift")]
    + [("t5", "blockwise", "b, 12"), ("rope", None, "b, t"), ("t5", None, "b, t")]
    + [("cope", None, "b, t"), ("cope", None, "2, t")],
)
def test_the_sizes_may_be_symbols(name, implementation, sizes):
    encoding = common.build(name)
    batch, count = export.symbolic_shape(sizes)

    def attend(q, k, v, x, positions, segment_ids, mask):
        positions = text(T) if count == T else positions
        here, options = encoding.at(positions, segment_ids), dict(implementation=implementation)
        return posenc_jax.attend(here, q, k, v, x=x, mask=mask, **options)

    heads, numbers = ((batch, count, H, C), jnp.float32), ((batch, count), jnp.int32)
    kinds = [heads, heads, heads, ((batch, count, common.WIDTH), jnp.float32), numbers, numbers]
    kinds.append(((batch, 1, 1, count), jnp.bool_))
    program = export.export(jax.jit(attend))(*(jax.ShapeDtypeStruct(*kind) for kind in kinds))
    for B in (1, 3) if sizes[0] == "b" else (2,):
        positions = np.tile(text(T, 3), (B, 1))
        arrays = [common.normal(i, B, T, H, C) for i in range(3)]
        arrays += [common.normal(3, B, T, common.WIDTH), positions, np.int32(positions > 4)]
        arrays.append(np.ones((B, 1, 1, T), bool))
        common.close(program.call(*arrays), jax.jit(attend)(*arrays), atol=1e-5)


def test_text_of_a_symbolic_length():
    encoding, (count,) = common.build("alibi"), export.symbolic_shape("t")

    def attend(q, k, v):
        return posenc_jax.attend(encoding.at(text(q.shape[1], start=2)), q, k, v)

    heads = jax.ShapeDtypeStruct((2, count, H, C), jnp.float32)
    program = export.export(jax.jit(attend))(heads, heads, heads)
    qkv = [common.normal(i, 2, T, H, C) for i in range(3)]
    common.close(program.call(*qkv), jax.jit(attend)(*qkv), atol=1e-5)
