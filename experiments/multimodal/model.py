"""Makes a decoder with patches among its tokens, and a small ViT, both of the same blocks."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from posenc_jax import Transformer
from posenc_jax.attention.dense import dense, products


class Decoder(Transformer):
    """Decodes tokens and patches mixed in one sequence.

    The ``inputs`` are a dict: ``tokens`` int ``[B, T]``, ``patches`` float ``[B, T, patch_dim]``
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
    """Encodes patches, ``[B, T, patch_dim]``, and reads the result out.

    https://arxiv.org/abs/2010.11929, but the readout is of the largest value of each channel over
    the patches: a class token would need a position, and the mean of a small object on a large
    canvas is mostly canvas.

    Args:
      patch_dim: numbers in a patch.
      num_classes: how many classes the readout tells apart.
      encoding, rngs, **sizes: as in ``Transformer``.
    """

    def __init__(self, encoding, *, patch_dim: int, num_classes: int, rngs: nnx.Rngs, **sizes):
        # The output layer that a decoder ties to its embeddings is the readout.
        super().__init__(encoding, vocab_size=num_classes, causal=False, rngs=rngs, **sizes)
        self.from_patch = _linear(patch_dim, sizes["model_dim"], sizes.get("dtype"), rngs)

    def embed(self, inputs):
        return self.from_patch(inputs)

    def __call__(self, inputs, positions, segment_ids=None, **options):
        """Returns float32 logits ``[B, num_classes]``; see ``hidden`` for the arguments."""
        x_BTD = self.hidden(inputs, positions, segment_ids, **options)
        return self.unembed(x_BTD.max(axis=1, keepdims=True))[:, 0]


def patches(images, patch: int):
    """Cuts images ``[B, height, width(, channels)]`` into ``[B, rows * columns, patch_dim]``.

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
    """Returns the row and the column of each patch of an image: int32 ``[1, T, 2]``."""
    return np.moveaxis(np.indices((rows, columns), np.int32), 0, -1).reshape(1, -1, 2)


def attention_weights(model: Transformer, inputs, positions) -> jax.Array:
    """Returns what every query of every layer reads: float32 ``[layers, B, H, T, S]``."""
    weights: list[jax.Array] = []

    def watched(encoding, tile, v_BSKC, rule):
        logits_BHTS = encoding.score(products(tile.q, tile.k) * tile.scale, tile)
        seen = rule.visible(tile.q_tokens, tile.k_tokens)
        weights.append(jax.nn.softmax(logits_BHTS, where=seen))
        return dense(encoding, tile, v_BSKC, rule)

    plain = _written_out(model)
    plain.implementation = watched
    plain.hidden(inputs, positions)
    return jnp.stack(weights)


def _written_out(model):
    """Returns the model with each layer by itself, neither scanned nor computed twice."""
    turns = model.num_layers // len(model.layers) if model.scan else 1
    model = jax.tree.map(lambda p: p, model)  # a module of its own
    if model.scan:
        model.layers = nnx.List(
            [
                jax.tree.map(lambda p, turn=turn: p[turn], layer)
                for turn in range(turns)
                for layer in model.layers
            ]
        )
    model.scan = model.remat = False
    return model


def _linear(d_in, d_out, dtype, rngs):
    init = nnx.initializers.normal(0.02)
    return nnx.Linear(d_in, d_out, use_bias=False, kernel_init=init, dtype=dtype, rngs=rngs)
