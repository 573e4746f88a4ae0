"""Makes a decoder with patches among its tokens, and a small ViT, both of the same blocks."""

import jax.numpy as jnp
import numpy as np
from flax import nnx

from posenc_jax import Transformer


class Decoder(Transformer):
    """Decodes tokens and patches mixed in one sequence.

    The ``inputs`` are a dict: ``tokens`` int ``[B, T]``, ``patches`` float ``[B, T, patch_dim]``
    (patches of images, or frames) and ``is_patch`` bool ``[B, T]``, which says what each place is.
    """

    def __init__(self, encoding, *, patch_dim: int, rngs: nnx.Rngs, **sizes):
        super().__init__(encoding, rngs=rngs, **sizes)
        self.from_patch = _linear(patch_dim, sizes["model_dim"], sizes.get("dtype"), rngs)

    def embed(self, inputs):
        of_tokens = super().embed(inputs["tokens"])
        of_patches = self.from_patch(inputs["patches"])
        return jnp.where(inputs["is_patch"][..., None], of_patches, of_tokens)


class ViT(Transformer):
    """Encodes patches, ``[B, T, patch_dim]``, and classifies the image.

    https://arxiv.org/abs/2010.11929, but classes are read from the largest value of each channel
    over the patches: a class token would need a position, and the mean over a small object on a
    large canvas is mostly canvas.
    """

    def __init__(self, encoding, *, patch_dim: int, num_classes: int, rngs: nnx.Rngs, **sizes):
        # The output layer that a decoder ties to its embeddings is the readout.
        super().__init__(encoding, vocab_size=num_classes, causal=False, rngs=rngs, **sizes)
        self.from_patch = _linear(patch_dim, sizes["model_dim"], sizes.get("dtype"), rngs)

    def embed(self, inputs):
        return self.from_patch(inputs)

    def __call__(self, inputs, positions=None, segment_ids=None, **options):
        """Returns float32 logits ``[B, num_classes]``; see ``hidden`` for the arguments."""
        x_BTD = self.hidden(inputs, positions, segment_ids, **options)
        return self.unembed(x_BTD.max(axis=1, keepdims=True))[:, 0]


def patches(images, patch: int):
    """Cuts images ``[B, height, width(, channels)]`` into ``[B, rows * columns, patch_dim]``."""
    B, height, width = images.shape[:3]
    if height % patch or width % patch or not height or not width:
        raise ValueError(
            f"images of {height} x {width} pixels cannot be cut by task.patch={patch}: both sides "
            "must be multiples of it"
        )
    rows, columns = height // patch, width // patch
    cut = images.reshape(B, rows, patch, columns, -1).swapaxes(2, 3)
    return cut.reshape(B, rows * columns, -1)


def grid(rows: int, columns: int) -> np.ndarray:
    """Returns the row and the column of each patch of an image: int32 ``[1, T, 2]``."""
    return np.moveaxis(np.indices((rows, columns), np.int32), 0, -1).reshape(1, -1, 2)


def _linear(d_in, d_out, dtype, rngs):
    init = nnx.initializers.normal(0.02)
    return nnx.Linear(d_in, d_out, use_bias=False, kernel_init=init, dtype=dtype, rngs=rngs)
