"""Compares attention with tokens on several devices with the same on one."""

import functools

import common
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from attention_cases import close, sides

import posenc_jax
from posenc_jax.attention.ring import zigzag

T = 32


def value_and_gradients(implementation, encoding, q, k, v, order, segment_ids=None):
    """Returns the attention of tokens laid out in ``order``, and its gradients."""
    positions = jnp.asarray(np.random.default_rng(0).integers(0, 30, (2, T)))
    x_BTD = 0.5 * jnp.asarray(common.normal(3, 2, T, common.WIDTH))

    def loss(encoding, q, k, v):
        segments = None if segment_ids is None else jnp.asarray(segment_ids)[:, order]
        tokens = encoding.tokens(positions[:, order], segments, index=order[None])
        tokens = tokens.observed(encoding, x_BTD[:, order])
        output = posenc_jax.attend(
            encoding, q[:, order], k[:, order], v[:, order], tokens, implementation=implementation
        )
        return (output**2).sum(), output

    return jax.value_and_grad(loss, argnums=(0, 1, 2, 3), has_aux=True)(encoding, q, k, v)


@pytest.mark.parametrize(
    ("name", "shape"),
    [("alibi", {"context": 8})] + [(name, {"data": 2, "context": 4}) for name in ("shaw", "cope")],
)
def test_meshes(name, shape):
    """Tokens are in written order; where the batch is sharded too, each device has its own part."""
    encoding, (q, k, v) = common.build(name, num_kv_heads=2), sides(2, T, T)
    written = np.arange(T, dtype=np.int32)
    expected = jax.jit(functools.partial(value_and_gradients, "dense"))(encoding, q, k, v, written)
    by_token = "data" if "data" in shape else None, "context"
    with jax.set_mesh(mesh := common.mesh_of(**shape)):
        arguments = encoding, *common.placed((q, k, v), mesh, *by_token), written
        actual = jax.jit(functools.partial(value_and_gradients, "ring"))(*arguments)
    close(actual, expected)
    output = actual[0][1]
    assert output.sharding.shard_shape(output.shape)[:2] == (
        2 // shape.get("data", 1),
        T // shape["context"],
    )


def test_a_training_step_gathers_no_tokens():
    """Keys go round from device to device; all else that belongs to a token stays where it is."""
    order = zigzag(T, 4)

    def loss(model, ids, targets, places, index):
        x_BTD = model.hidden(ids, places, index=index)
        return posenc_jax.cross_entropy(x_BTD, model.embedding[...], targets).mean()

    with jax.set_mesh(mesh := common.mesh_of(context=4)):
        tokens = np.zeros((2, 2, T), np.int32)
        ids, targets, order = common.placed([*tokens, order[None]], mesh, None, "context")
        step = jax.jit(jax.grad(loss))
        program = step.lower(common.build_model("t5"), ids, targets, order, order).compile()
    text = program.as_text()
    assert "collective-permute(" in text
    assert "all-gather(" not in text


def test_zigzag():
    """Each device has the same number of pairs to compute."""
    order = zigzag(24, 3)
    assert sorted(order) == list(range(24))
    assert {int((piece + 1).sum()) for piece in order.reshape(3, -1)} == {100}
    common.refuses("length=20 must be a multiple of 6", lambda: zigzag(20, 3))
