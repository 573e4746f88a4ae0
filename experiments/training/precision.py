"""Computes the products of a training step in bfloat16, and everything else in float32.

Parameters, the optimizer, sums, norms, angles, biases and logits stay float32. The factors of the
products in the dense layers and in attention, forwards and backwards, are rounded to bfloat16, and
each product is summed in float32. The meaning is the same on every platform. A processor that has
instructions for bfloat16 takes half as long for such a product, or less; one that has none takes
longer than for float32.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental.layout import Layout, with_layout_constraint

from posenc_jax import Transformer
from posenc_jax.attention import IMPLEMENTATIONS, Implementation, choose


def in_bfloat16(model: Transformer) -> Transformer:
    """Returns a model of the same parameters whose products have factors in bfloat16."""
    if not isinstance(model, Transformer) or model.dtype != "float32":
        raise ValueError(
            "train.products='bfloat16' is for a decoder of text with model.dtype='float32'; leave "
            "train.products at 'float32' here"
        )
    other = jax.tree.map(lambda x: x, model)  # a copy of the module, with the same arrays
    for layer in other.layers:
        attention, mlp = layer.block.attention, layer.block.mlp
        dense = (attention.q, attention.k, attention.v, attention.out, mlp.gate, mlp.up, mlp.down)
        for linear in dense:
            linear.dot_general = _dot_general
    other.implementation = attention_in_bfloat16(other.implementation)
    other.final_norm.dtype = jnp.bfloat16  # the output layer computes in the type of its input
    return other


def attention_in_bfloat16(implementation: str | Implementation | None) -> Implementation:
    """Returns an implementation of attention that rounds queries, keys, values and weights."""

    def run(encoding, tile, v_BSKC, rule):
        q, k, v_BSKC = (x.astype(jnp.bfloat16) for x in (tile.q, tile.k, v_BSKC))
        tile = dataclasses.replace(tile, q=q, k=k)
        attend: Any = implementation or choose(encoding, tile, v_BSKC, rule)
        attend = attend if callable(attend) else IMPLEMENTATIONS[attend]
        return attend(encoding, tile, v_BSKC, rule).astype(jnp.float32)

    return run


def _dot_general(x, w_DF, dimensions, precision=None, out_sharding=None) -> jax.Array:
    """Multiplies as ``lax.dot_general`` does for a dense layer, see ``product_in_bfloat16``."""
    return product_in_bfloat16(x, w_DF)


@jax.custom_vjp
def product_in_bfloat16(x, w_DF) -> jax.Array:
    """Returns ``x @ w`` of factors in bfloat16, summed in float32.

    JAX's own rule would multiply a float32 cotangent with a factor in bfloat16, which a CPU does in
    float32.
    """
    return _forward(x, w_DF)[0]


def _forward(x, w_DF):
    factors = x.astype(jnp.bfloat16), w_DF.astype(jnp.bfloat16)
    return _sum_over(*factors, (x.ndim - 1,), (0,)), factors


def _backward(factors, d):
    x, w_DF = factors
    d = d.astype(jnp.bfloat16)
    d_x, tokens = _sum_over(d, w_DF, (d.ndim - 1,), (1,)), tuple(range(x.ndim - 1))
    if len(tokens) > 1:  # they are sharded, see model/block.py, and keep their axes
        return d_x, _sum_over(x, d, tokens, tokens)
    return d_x, _sum_over(_tokens_last(x), d, (1,), (0,))


def _tokens_last(x_ND) -> jax.Array:
    """Returns ``[D, N]``, on a CPU in this memory layout.

    XLA:CPU multiplies factors in bfloat16 only where sums run along rows of the left one, and
    otherwise in float32, which takes twice as long.
    """

    def held(x_ND):
        return with_layout_constraint(x_ND.T, Layout((0, 1)))

    return jax.lax.platform_dependent(x_ND, cpu=held, default=jnp.transpose)


product_in_bfloat16.defvjp(_forward, _backward)


def _sum_over(left, right, of_left, of_right) -> jax.Array:
    dimensions = (of_left, of_right), ((), ())
    return jax.lax.dot_general(left, right, dimensions, preferred_element_type=jnp.float32)


# A model whose training step has its products in a type, by the name of the type.
PRODUCTS = {"float32": lambda model: model, "bfloat16": in_bfloat16}
