"""Trains a small decoder in Equinox under any encoding; needs ``pip install equinox``.

    python examples/equinox_decoder.py kerple_log

The parameters of the encoding are an attribute of the model, and ``functional.scheme`` has the
functions that read them. Equinox writes a model for one row, and ``jax.vmap`` runs it on a batch.
"""

import sys
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import optax

from posenc_jax import attend, functional

LAYERS, HEADS, WIDTH, LENGTH = 2, 4, 64, 64
SIZES = dict(num_heads=HEADS, head_dim=WIDTH // HEADS, model_dim=WIDTH, train_length=LENGTH)


class Block(eqx.Module):
    norms: list[eqx.nn.RMSNorm]
    qkv: eqx.nn.Linear
    out: eqx.nn.Linear
    mlp: eqx.nn.MLP
    encoding: functional.Params
    scheme: functional.Scheme = eqx.field(static=True)

    def __init__(self, scheme, key):
        keys = jax.random.split(key, 4)
        self.norms = [eqx.nn.RMSNorm(WIDTH) for _ in range(2)]
        self.qkv = eqx.nn.Linear(WIDTH, 3 * WIDTH, key=keys[0])
        self.out = eqx.nn.Linear(WIDTH, WIDTH, key=keys[1])
        self.mlp = eqx.nn.MLP(WIDTH, WIDTH, 4 * WIDTH, 1, jax.nn.gelu, key=keys[2])
        self.encoding = scheme.init(keys[3])
        self.scheme = scheme

    def __call__(self, x_TD, positions):
        input_TD = jax.vmap(self.norms[0])(x_TD)
        qkv_TD = jax.vmap(self.qkv)(input_TD).reshape(1, len(x_TD), 3, HEADS, -1)
        q, k, v = jnp.moveaxis(qkv_TD, 2, 0)
        here = self.scheme.encoding(self.encoding).at(positions)
        out_BTHC = attend(here, q, k, v, x=input_TD[None])
        x_TD = x_TD + jax.vmap(self.out)(out_BTHC[0].reshape(x_TD.shape))
        return x_TD + jax.vmap(self.mlp)(jax.vmap(self.norms[1])(x_TD))


class Decoder(eqx.Module):
    embedding: eqx.nn.Embedding
    blocks: list[Block]

    def __init__(self, scheme, key):
        keys = jax.random.split(key, LAYERS + 1)
        self.embedding = eqx.nn.Embedding(256, WIDTH, key=keys[0])
        self.blocks = [Block(scheme, key) for key in keys[1:]]

    def __call__(self, ids_T):
        positions = jnp.arange(len(ids_T))[None]
        first = self.blocks[0]
        x_TD = jax.vmap(self.embedding)(ids_T)
        # Absolute schemes add to the embedding; the others leave it as it is.
        x_TD = first.scheme.encoding(first.encoding).at(positions).embed(x_TD[None])[0]
        for block in self.blocks:
            x_TD = block(x_TD, positions)
        return x_TD @ self.embedding.weight.T * WIDTH**-0.5


def batches(count: int, batch: int = 16):
    """Yields rows of this file's own bytes."""
    text = jnp.frombuffer(Path(__file__).read_bytes(), jnp.uint8)
    for key in jax.random.split(jax.random.key(0), count):
        starts = jax.random.randint(key, (batch, 1), 0, len(text) - LENGTH - 1)
        yield text[starts + jnp.arange(LENGTH + 1)].astype(jnp.int32)


def loss_of(model, rows_BT):
    logits_BTV = jax.vmap(model)(rows_BT[:, :-1])
    return optax.softmax_cross_entropy_with_integer_labels(logits_BTV, rows_BT[:, 1:]).mean()


def main(name: str = "rope", steps: int = 60) -> None:
    model = Decoder(functional.scheme(name, **SIZES), jax.random.key(0))
    optimizer = optax.adam(3e-3)
    state, losses = optimizer.init(eqx.filter(model, eqx.is_array)), []

    @eqx.filter_jit
    def step(model, state, rows_BT):
        loss, grads = eqx.filter_value_and_grad(loss_of)(model, rows_BT)
        updates, state = optimizer.update(grads, state)
        return eqx.apply_updates(model, updates), state, loss

    for rows_BT in batches(steps):
        model, state, loss = step(model, state, rows_BT)
        losses.append(float(loss))
    print(f"{name}: loss {losses[0]:.2f} before training, {losses[-1]:.2f} after {steps} steps")
    assert losses[-1] < losses[0]


if __name__ == "__main__":
    main(*sys.argv[1:])
