"""Trains a small decoder in Flax NNX under any encoding, and decodes from it with a cache.

    python examples/nnx_decoder.py fox

The encoding is used in five places, marked below. Change the name, and nothing else.
"""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import optax
from flax import nnx

import posenc_jax
from posenc_jax import attend

LAYERS, HEADS, WIDTH, LENGTH = 2, 4, 64, 64


class Block(nnx.Module):
    def __init__(self, rngs: nnx.Rngs):
        self.norms = nnx.List([nnx.RMSNorm(WIDTH, rngs=rngs) for _ in range(2)])
        self.qkv = nnx.LinearGeneral(WIDTH, (3, HEADS, WIDTH // HEADS), rngs=rngs)
        self.out = nnx.LinearGeneral((HEADS, WIDTH // HEADS), WIDTH, axis=(-2, -1), rngs=rngs)
        self.up = nnx.Linear(WIDTH, 4 * WIDTH, rngs=rngs)
        self.down = nnx.Linear(4 * WIDTH, WIDTH, rngs=rngs)

    def __call__(self, x_BTD, here, cache, start):
        input_BTD = self.norms[0](x_BTD)
        q, k, v = jnp.moveaxis(self.qkv(input_BTD), 2, 0)
        if cache is None:
            out = attend(here, q, k, v, x=input_BTD)  # 4: attention in each layer
        else:  # the cache holds keys, values and the layer's input of all tokens
            cache = tuple(
                jax.lax.dynamic_update_slice_in_dim(stored, new, start, axis=1)
                for stored, new in zip(cache, (k, v, input_BTD), strict=True)
            )
            here, _ = here.see(cache[2])  # 5: some schemes read the input
            out = attend(here.part(start, q.shape[1]), q, here.keys(*cache[:2]))
        x_BTD = x_BTD + self.out(out)
        return x_BTD + self.down(jax.nn.gelu(self.up(self.norms[1](x_BTD)))), cache


class Decoder(nnx.Module):
    def __init__(self, name: str, rngs: nnx.Rngs):
        self.embedding = nnx.Embed(256, WIDTH, rngs=rngs)
        self.blocks = nnx.List([Block(rngs) for _ in range(LAYERS)])
        self.encoding = posenc_jax.make(  # 1: one object, with the parameters of every layer
            name,
            num_heads=HEADS,
            head_dim=WIDTH // HEADS,
            model_dim=WIDTH,
            train_length=LENGTH,
            num_layers=LAYERS,
            rngs=rngs,
        )

    def __call__(self, ids_BT, cache=None, start=0):
        length = ids_BT.shape[1] if cache is None else cache[0][0].shape[1]
        here = self.encoding.at(jnp.arange(length)[None])  # 2: at the positions of all keys
        new = here.part(start, ids_BT.shape[1])
        x_BTD = new.embed(self.embedding(ids_BT))  # 3: absolute schemes add here
        caches = [None] * LAYERS if cache is None else list(cache)
        for i, block in enumerate(self.blocks):
            x_BTD, caches[i] = block(x_BTD, here.of_layer(i), caches[i], start)
        return self.embedding.attend(x_BTD), caches

    def empty_cache(self, batch: int, length: int):
        keys = jnp.zeros((batch, length, HEADS, WIDTH // HEADS))
        return [(keys, keys, jnp.zeros((batch, length, WIDTH))) for _ in range(LAYERS)]


def batches(count: int, batch: int = 16):
    """Yields rows of this file's own bytes."""
    text = jnp.frombuffer(Path(__file__).read_bytes(), jnp.uint8)
    for key in jax.random.split(jax.random.key(0), count):
        starts = jax.random.randint(key, (batch, 1), 0, len(text) - LENGTH - 1)
        yield text[starts + jnp.arange(LENGTH + 1)].astype(jnp.int32)


def loss_of(model, rows_BT):
    logits_BTV, _ = model(rows_BT[:, :-1])
    return optax.softmax_cross_entropy_with_integer_labels(logits_BTV, rows_BT[:, 1:]).mean()


@nnx.jit
def step(model, optimizer, rows_BT):
    loss, grads = nnx.value_and_grad(loss_of)(model, rows_BT)
    optimizer.update(model, grads)
    return loss


@nnx.jit
def decode(model, cache, ids_B1, start):
    logits_BTV, cache = model(ids_B1, cache, start)
    return logits_BTV, cache


def main(name: str = "rope", steps: int = 60) -> None:
    model = Decoder(name, nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, optax.adam(3e-3), wrt=nnx.Param)
    losses = [float(step(model, optimizer, rows_BT)) for rows_BT in batches(steps)]
    print(f"{name}: loss {losses[0]:.2f} before training, {losses[-1]:.2f} after {steps} steps")

    # One token at a time, the cache gives the logits of the whole row.
    (row_1T,) = batches(1, batch=1)
    cache, by_token = model.empty_cache(1, row_1T.shape[1]), []
    for start in range(row_1T.shape[1]):
        logits_11V, cache = decode(model, cache, row_1T[:, start : start + 1], start)
        by_token.append(logits_11V)
    difference = abs(jnp.concatenate(by_token, axis=1) - model(row_1T)[0]).max()
    print(f"{name}: the logits of the cache differ by at most {difference:.1e}")
    assert losses[-1] < losses[0] and difference < 1e-3


if __name__ == "__main__":
    main(*sys.argv[1:])
