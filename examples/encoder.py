"""An encoder that sees both ways: padded rows, windows to both sides, T5's two-sided bias.

Three things differ from a decoder: ``causal=False``, a scheme that tells before from after, and
padding, which is a segment of its own, so that no token sees it.

    python examples/encoder.py
"""

import jax
import jax.numpy as jnp
from flax import nnx

import posenc_jax
from posenc_jax.positions import text

HEADS, HEAD_DIM, WIDTH, LAYERS, VOCAB = 4, 16, 64, 2, 100


class Block(nnx.Module):
    """Adds attention and a feed-forward network to the residual."""

    def __init__(self, window, rngs):
        self.window = window
        self.norm, self.mlp_norm = (nnx.LayerNorm(WIDTH, rngs=rngs) for _ in range(2))
        self.qkv = nnx.LinearGeneral(WIDTH, (3, HEADS, HEAD_DIM), use_bias=False, rngs=rngs)
        self.out = nnx.LinearGeneral((HEADS, HEAD_DIM), WIDTH, axis=(-2, -1), rngs=rngs)
        self.wide = nnx.Linear(WIDTH, 4 * WIDTH, rngs=rngs)
        self.narrow = nnx.Linear(4 * WIDTH, WIDTH, rngs=rngs)

    def __call__(self, x_BTD, here):
        normed = self.norm(x_BTD)
        q, k, v = jnp.moveaxis(self.qkv(normed), 2, 0)
        options = dict(causal=False, window=self.window)
        x_BTD += self.out(posenc_jax.attend(here, q, k, v, x=normed, **options))
        return x_BTD + self.narrow(jax.nn.gelu(self.wide(self.mlp_norm(x_BTD))))


class Encoder(nnx.Module):
    """Turns token ids into vectors that know their neighbours on both sides."""

    def __init__(self, rngs):
        self.embedding = nnx.Embed(VOCAB, WIDTH, rngs=rngs)
        # All layers share one table of biases, as in T5. A decoder would leave out bidirectional.
        self.encoding = posenc_jax.make(
            "t5", num_heads=HEADS, model_dim=WIDTH, bidirectional=True, rngs=rngs
        )
        # As in ModernBERT, some layers see eight tokens to each side, and others everything.
        windows = [(8, 8), None][:LAYERS]
        self.blocks = nnx.List([Block(window, rngs) for window in windows])

    def __call__(self, ids_BT, is_token_BT):
        segments = is_token_BT.astype(jnp.int32)
        here = self.encoding.at(text(ids_BT.shape[1]), segments)
        x_BTD = here.embed(self.embedding(ids_BT))
        for block in self.blocks:
            x_BTD = block(x_BTD, here)
        return x_BTD


def main():
    """Encodes two sentences of 12 and 7 tokens, and shows what reaches the first token."""
    model = Encoder(nnx.Rngs(0))
    ids_BT = jax.random.randint(jax.random.key(1), (2, 12), 0, VOCAB)
    is_token_BT = jnp.arange(12) < jnp.array([[12], [7]])
    encode = jax.jit(lambda model, ids, is_token: model(ids, is_token)[:, 0])
    first_BD = encode(model, ids_BT, is_token_BT)

    padding = encode(model, ids_BT.at[1, 9].add(1), is_token_BT)
    later = encode(model, ids_BT.at[1, 6].add(1), is_token_BT)
    by_padding, by_later = (abs(changed - first_BD).max() for changed in (padding, later))
    print(f"changed by another padding token: {by_padding:.1e}, by a later word: {by_later:.1e}")
    assert by_padding == 0 and by_later > 1e-3
    return first_BD


if __name__ == "__main__":
    main()
