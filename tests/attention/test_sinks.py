"""Compares sinks under every implementation of attention with one key more for each query."""

import dataclasses
import functools

import common
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from attention_cases import by, close, sides, tokens_of

import posenc_jax
from posenc_jax.attention.blockwise import blockwise
from posenc_jax.positions import text

T, LATE = 32, 2
DOCUMENTS = np.repeat([[0, 1], [1, 0]], (11, T - 11), axis=1)


def plain(encoding, q, k, v, tokens, _, *, sinks):
    """Attends to the keys and, in the last column, to the sink, whose value is nothing."""
    logits = posenc_jax.logits(encoding, q, k, tokens)
    shown = np.tri(T, k=-LATE, dtype=bool) & (DOCUMENTS[:, None] == DOCUMENTS[..., None])
    logits = jnp.where(shown[:, None], logits, -jnp.inf)
    sinks_BTH = jnp.broadcast_to(sinks, q.shape[:3])
    logits = jnp.concatenate([logits, sinks_BTH.swapaxes(1, 2)[..., None]], axis=-1)
    weights = jax.nn.softmax(logits)[..., :-1]
    return jnp.einsum("bhts,bshc->bthc", weights, jnp.repeat(v, 2, axis=2))


@functools.partial(jax.jit, static_argnums=0)
def value_and_gradients(attend, encoding, q, k, v, *sinks):
    """Returns attention under a sink a head, and a sink a query, and the gradients by all."""

    def loss(encoding, q, k, v, *sinks):
        keys = tokens_of(encoding, text(T), DOCUMENTS)
        index = jnp.arange(T, dtype=jnp.int32)[None] - LATE  # the first queries see no key
        queries = dataclasses.replace(keys, index=index)
        outputs = [attend(encoding, q, k, v, queries, keys, sinks=one) for one in sinks]
        return sum((out**2).sum() for out in outputs), jnp.stack(outputs)

    arguments = encoding, q, k, v, *sinks
    return jax.value_and_grad(loss, argnums=range(6), has_aux=True)(*arguments)


def operands():
    """Returns an encoding, queries, keys and values, and sinks; one head's sink takes nothing."""
    sinks_H = jnp.asarray(common.normal(8, common.HEADS)).at[1].set(-30.0)
    sinks_BTH = jnp.asarray(common.normal(9, 2, T, common.HEADS))
    return common.build("alibi"), *sides(2, T, T), sinks_H, sinks_BTH


IMPLEMENTATIONS = {
    "dense": "dense",
    "blockwise": functools.partial(blockwise, block=12),
    "ring": "ring",
    "pallas": "pallas",
}


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS.values(), ids=IMPLEMENTATIONS)
def test_values_and_gradients(implementation):
    with jax.set_mesh(common.mesh_of(context=4)):
        actual = value_and_gradients(by(implementation), *operands())
    assert (np.asarray(actual[0][1])[:, :, :LATE] == 0).all()
    close(actual, value_and_gradients(plain, *operands()))
