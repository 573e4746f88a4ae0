"""Trains a small decoder in Flax Linen under any encoding.

    python examples/linen_decoder.py alibi

Each layer makes its encoding, so that schemes with parameters have them in each layer, under the
layer's name. Absolute schemes add to the embedding: the model has one encoding for them.
"""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

import posenc_jax

LAYERS, HEADS, WIDTH, LENGTH = 2, 4, 64, 64
SIZES = dict(num_heads=HEADS, head_dim=WIDTH // HEADS, model_dim=WIDTH, train_length=LENGTH)


class Block(nn.Module):
    scheme: str

    @nn.compact
    def __call__(self, x_BTD, positions):
        input_BTD = nn.RMSNorm()(x_BTD)
        q, k, v = (nn.DenseGeneral((HEADS, WIDTH // HEADS))(input_BTD) for _ in range(3))
        encoding = posenc_jax.linen.Encoding(self.scheme, **SIZES)
        out_BTHC = posenc_jax.attend(encoding.at(positions), q, k, v, x=input_BTD)
        x_BTD = x_BTD + nn.DenseGeneral(WIDTH, axis=(-2, -1))(out_BTHC)
        hidden = nn.gelu(nn.Dense(4 * WIDTH)(nn.RMSNorm()(x_BTD)))
        return x_BTD + nn.Dense(WIDTH)(hidden)


class Decoder(nn.Module):
    scheme: str

    @nn.compact
    def __call__(self, ids_BT):
        positions = jnp.arange(ids_BT.shape[1])[None]
        encoding = posenc_jax.linen.Encoding(self.scheme, **SIZES)
        embedding = nn.Embed(256, WIDTH)
        x_BTD = encoding.at(positions).embed(embedding(ids_BT))
        for _ in range(LAYERS):
            x_BTD = Block(self.scheme)(x_BTD, positions)
        return embedding.attend(x_BTD)


def batches(count: int, batch: int = 16):
    """Yields rows of this file's own bytes."""
    text = jnp.frombuffer(Path(__file__).read_bytes(), jnp.uint8)
    for key in jax.random.split(jax.random.key(0), count):
        starts = jax.random.randint(key, (batch, 1), 0, len(text) - LENGTH - 1)
        yield text[starts + jnp.arange(LENGTH + 1)].astype(jnp.int32)


def main(name: str = "rope", steps: int = 60) -> None:
    model, optimizer = Decoder(name), optax.adam(3e-3)

    def loss_of(params, rows_BT):
        logits_BTV = model.apply(params, rows_BT[:, :-1])
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
