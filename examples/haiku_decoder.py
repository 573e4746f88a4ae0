"""Trains a small decoder in Haiku under any encoding; needs ``pip install dm-haiku``.

    python examples/haiku_decoder.py fox

Haiku keeps parameters by name. The ones of an encoding are drawn once, as a tree, and each leaf is
a parameter of the module that attends.
"""

import sys
from pathlib import Path

import haiku as hk
import jax
import jax.numpy as jnp
import optax

from posenc_jax import attend, functional

LAYERS, HEADS, WIDTH, LENGTH = 2, 4, 64, 64
SIZES = dict(num_heads=HEADS, head_dim=WIDTH // HEADS, model_dim=WIDTH, train_length=LENGTH)


class Encoding(hk.Module):
    """Holds the parameters of a scheme."""

    def __init__(self, scheme: functional.Scheme):
        super().__init__(name="encoding")
        self.scheme = scheme

    def params(self) -> functional.Params:
        initial = self.scheme.init(hk.next_rng_key() if hk.running_init() else jax.random.key(0))
        return jax.tree_util.tree_map_with_path(
            lambda path, value: hk.get_parameter(
                jax.tree_util.keystr(path), value.shape, value.dtype, lambda *_: value
            ),
            initial,
        )


def block(scheme, x_BTD, positions):
    input_BTD = hk.RMSNorm(-1)(x_BTD)
    qkv = hk.Linear(3 * WIDTH)(input_BTD).reshape(*x_BTD.shape[:2], 3, HEADS, -1)
    q, k, v = jnp.moveaxis(qkv, 2, 0)
    here = scheme.encoding(Encoding(scheme).params()).at(positions)
    out_BTHC = attend(here, q, k, v, x=input_BTD)
    x_BTD = x_BTD + hk.Linear(WIDTH)(out_BTHC.reshape(x_BTD.shape))
    return x_BTD + hk.nets.MLP([4 * WIDTH, WIDTH], activation=jax.nn.gelu)(hk.RMSNorm(-1)(x_BTD))


def decoder(name, ids_BT):
    scheme = functional.scheme(name, **SIZES)
    positions = jnp.arange(ids_BT.shape[1])[None]
    embedding = hk.Embed(256, WIDTH)
    # Absolute schemes add to the embedding; the others leave it as it is.
    x_BTD = scheme.encoding(Encoding(scheme).params()).at(positions).embed(embedding(ids_BT))
    for _ in range(LAYERS):
        x_BTD = block(scheme, x_BTD, positions)
    return x_BTD @ embedding.embeddings.T * WIDTH**-0.5


def batches(count: int, batch: int = 16):
    """Yields rows of this file's own bytes."""
    text = jnp.frombuffer(Path(__file__).read_bytes(), jnp.uint8)
    for key in jax.random.split(jax.random.key(0), count):
        starts = jax.random.randint(key, (batch, 1), 0, len(text) - LENGTH - 1)
        yield text[starts + jnp.arange(LENGTH + 1)].astype(jnp.int32)


def main(name: str = "rope", steps: int = 60) -> None:
    model = hk.transform(lambda ids_BT: decoder(name, ids_BT))
    optimizer = optax.adam(3e-3)

    def loss_of(params, rows_BT):
        logits_BTV = model.apply(params, None, rows_BT[:, :-1])
        return optax.softmax_cross_entropy_with_integer_labels(logits_BTV, rows_BT[:, 1:]).mean()

    @jax.jit
    def step(params, state, rows_BT):
        loss, grads = jax.value_and_grad(loss_of)(params, rows_BT)
        updates, state = optimizer.update(grads, state)
        return optax.apply_updates(params, updates), state, loss

    params = model.init(jax.random.key(0), jnp.zeros((1, LENGTH), jnp.int32))
    state, losses = optimizer.init(params), []
    for rows_BT in batches(steps):
        params, state, loss = step(params, state, rows_BT)
        losses.append(float(loss))
    print(f"{name}: loss {losses[0]:.2f} before training, {losses[-1]:.2f} after {steps} steps")
    assert losses[-1] < losses[0]


if __name__ == "__main__":
    main(*sys.argv[1:])
