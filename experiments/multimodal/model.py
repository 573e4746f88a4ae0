"""The decoder with patches among its tokens, and a small ViT: other embeddings, the same blocks."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from posenc_jax import Tokens, Transformer, logits


class Decoder(Transformer):
    """The decoder, over tokens and patches mixed in one sequence.

    Its ``inputs`` are a dict: ``tokens`` int ``[B, T]``, ``patches`` float ``[B, T, patch_dim]``
    (patches of images, or frames) and ``is_patch`` bool ``[B, T]``, which says what each place is.

    Args:
      patch_dim: numbers in a patch.
      encoding, rngs, **sizes: as in ``Transformer``.
    """

    def __init__(self, encoding, *, patch_dim: int, rngs: nnx.Rngs, **sizes):
        super().__init__(encoding, rngs=rngs, **sizes)
        self.from_patch = _linear(patch_dim, sizes["model_dim"], sizes.get("dtype"), rngs)

    def embed(self, inputs):
        of_tokens = super().embed(inputs["tokens"])
        of_patches = self.from_patch(inputs["patches"])
        return jnp.where(inputs["is_patch"][..., None], of_patches, of_tokens)


class ViT(Transformer):
    """An encoder of patches, ``[B, T, patch_dim]``, and a readout.

    https://arxiv.org/abs/2010.11929, but the readout is of the largest value of each channel over
    the patches: a class token would need a position, and the mean of a small object on a large
    canvas is mostly canvas.

    Args:
      patch_dim: numbers in a patch.
      num_classes: of the readout.
      encoding, rngs, **sizes: as in ``Transformer``.
    """

    def __init__(self, encoding, *, patch_dim: int, num_classes: int, rngs: nnx.Rngs, **sizes):
        # The output layer that a decoder ties to its embeddings is the readout.
        super().__init__(encoding, vocab_size=num_classes, causal=False, rngs=rngs, **sizes)
        self.from_patch = _linear(patch_dim, sizes["model_dim"], sizes.get("dtype"), rngs)

    def embed(self, inputs):
        return self.from_patch(inputs)

    def __call__(self, inputs, positions, segment_ids=None, **options):
        """float32 logits ``[B, num_classes]``; see ``hidden`` for the arguments."""
        x_BTD = self.hidden(inputs, positions, segment_ids, **options)
        return self.unembed(x_BTD.max(axis=1, keepdims=True))[:, 0]


def patches(images, patch: int):
    """Images ``[B, height, width]``, or with channels, as ``[B, rows * columns, patch_dim]``.

    Raises:
      ValueError: a side is no multiple of ``patch``.
    """
    B, height, width = images.shape[:3]
    if height % patch or width % patch or not height or not width:
        raise ValueError(
            f"images of {height} x {width} pixels cannot be cut into patches of {patch} x {patch}: "
            f"both sides must be multiples of {patch}"
        )
    rows, columns = height // patch, width // patch
    cut = images.reshape(B, rows, patch, columns, -1).swapaxes(2, 3)
    return cut.reshape(B, rows * columns, -1)


def grid(rows: int, columns: int) -> np.ndarray:
    """Positions of the patches of an image, row and column: int32 ``[2, 1, T]``."""
    return np.indices((rows, columns), np.int32).reshape(2, 1, -1)


def attention_weights(model, inputs, positions):
    """What every query of every layer reads, for looking at: float32 ``[layers, B, H, T, S]``.

    Of models with one encoding for all layers, and no window.
    """
    (encoding,) = model.layers.distinct
    placed = encoding.place(positions)
    x_BTD = encoding.embed(model.embed(inputs), placed)
    tokens, T = Tokens.of(encoding, placed), x_BTD.shape[1]
    weights = []
    for layer in range(model.num_layers):
        block, own = jax.tree.map(
            lambda p, layer=layer: p[layer],
            (model.blocks, encoding if encoding.per_layer else None),
        )
        own = own or encoding
        normalised = block.normalise(x_BTD, tokens)
        q_BTHC, k_BTKC = (
            project(normalised).reshape(*x_BTD.shape[:2], -1, block.attention.head_dim)
            for project in (block.attention.q, block.attention.k)
        )
        logits_BHTS = logits(own, q_BTHC, k_BTKC, tokens.read(own, normalised))
        seen = np.tri(T, dtype=bool) if model.causal else np.ones((T, T), bool)
        weights.append(jax.nn.softmax(logits_BHTS, where=seen[None, None]))
        x_BTD, _ = block(x_BTD, own, tokens, causal=model.causal)
    return jnp.stack(weights)


def _linear(d_in, d_out, dtype, rngs):
    init = nnx.initializers.normal(0.02)
    return nnx.Linear(d_in, d_out, use_bias=False, kernel_init=init, dtype=dtype, rngs=rngs)
