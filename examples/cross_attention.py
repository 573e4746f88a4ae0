"""Cross-attention between two sequences that have positions of their own.

Words of a caption attend to the frames of a video. Both lie on one axis, the time in seconds, so
that a word is near the frames that were shown when it was spoken. Queries and keys each have their
own tokens; nothing says which of them came first, hence ``causal=False``.

    python examples/cross_attention.py
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import posenc_jax

HEADS, HEAD_DIM, WIDTH, FRAMES, WORDS = 4, 16, 64, 30, 8


class CrossAttention(nnx.Module):
    """Adds to each word what it finds in the frames."""

    def __init__(self, encoding, rngs):
        heads = dict(use_bias=False, rngs=rngs)
        self.encoding = encoding
        self.query = nnx.LinearGeneral(WIDTH, (HEADS, HEAD_DIM), **heads)
        self.key_value = nnx.LinearGeneral(WIDTH, (2, HEADS, HEAD_DIM), **heads)
        self.out = nnx.LinearGeneral((HEADS, HEAD_DIM), WIDTH, axis=(-2, -1), rngs=rngs)

    def __call__(self, words_BTD, word_seconds, frames_BSD, frame_seconds, is_frame_BS):
        # One encoding at the tokens of two sequences.
        words, frames = self.encoding.at(word_seconds), self.encoding.at(frame_seconds)
        k, v = jnp.moveaxis(self.key_value(frames_BSD), 2, 0)
        found_BTHC = posenc_jax.attend(
            words,
            self.query(words_BTD),
            frames.keys(k, v),
            causal=False,
            mask=is_frame_BS[:, None, None],  # a shorter video ends in frames that are none
        )
        return words_BTD + self.out(found_BTHC)


def main():
    """Shows that only the time between a word and a frame counts, and no padded frame."""
    layer = CrossAttention(posenc_jax.make("rope", head_dim=HEAD_DIM, base=100.0), nnx.Rngs(0))
    keys = jax.random.split(jax.random.key(1))
    words = jax.random.normal(keys[0], (2, WORDS, WIDTH))
    frames = jax.random.normal(keys[1], (2, FRAMES, WIDTH))
    is_frame = jnp.arange(FRAMES) < jnp.array([[FRAMES], [20]])
    word_seconds = np.linspace(0.5, 14.0, WORDS, dtype=np.float32)[None]
    frame_seconds = np.arange(FRAMES, dtype=np.float32)[None] / 2
    run = jax.jit(lambda layer, *inputs: layer(*inputs))
    out_BTD = run(layer, words, word_seconds, frames, frame_seconds, is_frame)

    an_hour_later = run(layer, words, word_seconds + 3600, frames, frame_seconds + 3600, is_frame)
    out_of_step = run(layer, words, word_seconds + 3, frames, frame_seconds, is_frame)
    padding = run(layer, words, word_seconds, frames.at[1, 25].add(9.0), frame_seconds, is_frame)
    others = an_hour_later, out_of_step, padding
    together, apart, padded = (float(abs(other - out_BTD).max()) for other in others)
    print(f"changed by an hour for both {together:.0e}, by 3 s for words {apart:.0e}")
    print(f"changed by padding {padded:.0e}")
    assert together < 1e-2 < apart and padded == 0
    return out_BTD


if __name__ == "__main__":
    main()
