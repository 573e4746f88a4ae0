r"""SeqPE, sequential position encoding, reads positions digit by digit.

https://arxiv.org/abs/2506.13277

$$ z_{mn} = \frac{q_m \cdot k_n + s\, (W_q e(m)) \cdot (W_k e(n))}{\sqrt d} $$

A small Transformer makes a vector e(p) of the decimal digits of a position p, once for all
layers, and two linear maps make one vector of it for queries and one for keys. The logit is the
ordinary product of ``[q ; s W_q e]`` and ``[k ; W_k e]``. ``SeqPE`` overrides ``prepare`` and
``rotate``. ``SeqPEInputAdd``, which adds e(p) to the token embeddings, overrides ``prepare`` and
``embed``. Both override ``moved`` and ``aux_loss``.
"""

from typing import TypedDict, Unpack

import jax
import jax.numpy as jnp
from flax import nnx

from posenc_jax.checks import check_choice, check_divides, check_sizes, count_of
from posenc_jax.encoding import Encoding
from posenc_jax.encodings.absolute.seqpe_encoder import DigitEncoder, linear
from posenc_jax.encodings.absolute.seqpe_losses import (
    contrastive_loss,
    draw_candidates,
    draw_cells,
    nearest,
    transfer_loss,
)
from posenc_jax.encodings.lib.added import Added
from posenc_jax.tokens import Tokens


class Digits(TypedDict, total=False):
    """Lists the keywords of ``DigitEncoding`` with a default, which ``SeqPE`` takes too."""

    num_axes: int
    max_position: int
    encoder_layers: int
    encoder_heads: int | None
    bidirectional: bool
    mask_padding: bool
    temperature: float
    shift_probability: float
    contrastive_weight: float
    transfer_weight: float
    num_pivots: int
    num_candidates: int
    num_offsets: int


class DigitEncoding(Encoding):
    """Makes the vectors ``pe`` of positions by a small Transformer over their digits.

    The two regularisers are in ``aux_loss`` and the random shift of the training positions is in
    ``moved``; both need a key, so evaluation has neither.

    It deviates from the released code: the encoder has no dropout (0.1 there); a shift can start
    at any position, not only at 320 positions drawn once; the second regulariser is also applied in
    steps whose positions are shifted; its windows start outside the training block (in the released
    code, windows of text may overlap it by three quarters). ``draw_candidates`` lists further
    deviations. Published runs had no weight decay and clipped the encoder's gradient separately.

    Args:
      model_dim: width of the residual stream and of the encoder.
      train_length: number of tokens in one training sequence. With several axes the training block
        is the largest square or cube of no more tokens.
      num_axes: number of position axes, whose digits make one string. Positions are ``[B, T,
        num_axes]``, or ``[B, T]``, which are the same on every axis.
      max_position: bound below which shifted training positions, and positions in regularisers,
        stay on every axis; 100 in published image models. The encoder reads as many digits as
        ``max_position - 1`` has. A position of more digits, or a negative or fractional one, raises
        ValueError; under ``jax.jit``, where values are not known, its vector is NaN.
      encoder_layers: number of layers in the encoder.
      encoder_heads: number of heads in one layer of the encoder; by default one per 64 channels.
      bidirectional: whether digits attend to later digits. Published models are causal.
      mask_padding: whether to hide leading zeros, which pad all numbers to the same length.
        Published models read them.
      temperature: number that ``pe`` is divided by.
      shift_probability: how often a training step moves its positions by a random amount, the
        same for all tokens of a row of positions.
      contrastive_weight: weight of the first regulariser, see ``aux_loss``. 0 skips it.
      transfer_weight: weight of the second regulariser. 0 skips it.
      num_pivots: number of pivots, and of windows; 16 to 32 in published models.
      num_candidates: number of candidates for each pivot; 32 in text models, 64 in image models.
      num_offsets: number of positions in a window; 32 in text models, 64 in image models.
      rngs: source of the initial values, N(0, 0.02) and zero biases at the published width of 768.
        A narrower encoder starts with larger weights, by the square root of the ratio of widths.
        Otherwise its vectors would start so alike that the regularisers may fail to separate them
        (in one run of three at a width of 32).
    """

    def __init__(
        self,
        *,
        model_dim: int,
        train_length: int,
        rngs: nnx.Rngs,
        num_axes: int = 1,
        max_position: int = 20_000,
        encoder_layers: int = 2,
        encoder_heads: int | None = None,
        bidirectional: bool = False,
        mask_padding: bool = False,
        temperature: float = 1.0,
        shift_probability: float = 0.1,
        contrastive_weight: float = 0.1,
        transfer_weight: float = 0.1,
        num_pivots: int = 16,
        num_candidates: int = 32,
        num_offsets: int = 32,
    ):
        encoder_heads = max(1, model_dim // 64) if encoder_heads is None else encoder_heads
        check_sizes(num_axes=num_axes, encoder_layers=encoder_layers)
        check_divides(encoder_heads=encoder_heads, model_dim=model_dim)
        # The side of the largest cube within train_length; a float cube root of 125 is below 5.
        self.block_side = int(train_length ** (1 / num_axes) + 1e-9)
        # The training block must fit in twice for the transfer loss.
        count_of("max_position", max_position, 2 * self.block_side, 10**8)
        self.num_axes = num_axes
        self.max_position = max_position
        self.shift_probability = shift_probability
        self.contrastive_weight = contrastive_weight
        self.transfer_weight = transfer_weight
        self.num_pivots = num_pivots
        self.num_candidates = num_candidates
        self.num_offsets = num_offsets
        self.encoder_heads = encoder_heads
        self.encoder = DigitEncoder(
            width=model_dim,
            num_heads=encoder_heads,
            num_layers=encoder_layers,
            max_digits=len(str(max_position - 1)),
            num_axes=num_axes,
            bidirectional=bidirectional,
            mask_padding=mask_padding,
            temperature=temperature,
            rngs=rngs,
        )

    def shifted(self, positions, key) -> jax.Array:
        """Shifts each row and axis of positions by a random amount, in some training steps."""
        last = positions.max(axis=1, keepdims=True)
        start_key, when_key = jax.random.split(key)
        room = jnp.maximum(self.max_position - last, 1).astype(jnp.int32)
        start = jax.random.randint(start_key, last.shape, 0, room)
        is_shifted = jax.random.bernoulli(when_key, self.shift_probability)
        return positions + jnp.where(is_shifted, start, 0).astype(positions.dtype)

    def moved(self, tokens: Tokens, length, key):
        """Shifts training positions."""
        if key is None:
            return tokens, length
        return tokens.moved_to(self.shifted(tokens.positions, key)), length

    def aux_loss(self, key):
        """Returns the weighted sum of the two regularisers.

        The contrastive loss (L_delta) is the cross-entropy of choosing the candidate nearest to a
        pivot by inner products of ``pe``. The transfer loss (L_OOD) is how far attention within a
        block of positions that are never trained on differs from attention within the training
        block. The transfer loss is near 0 at first, when all vectors are alike, and grows as they
        diverge. As a mean over all pairs, it is about a hundredth of the contrastive loss at equal
        weights.
        """
        contrastive_key, transfer_key = jax.random.split(key)
        loss = jnp.zeros(())
        if self.contrastive_weight:
            loss += self.contrastive_weight * self._contrastive(contrastive_key)
        if self.transfer_weight:
            loss += self.transfer_weight * self._transfer(transfer_key)
        return loss

    def _contrastive(self, key):
        pivot_key, candidate_key = jax.random.split(key)
        shape = self.num_axes, self.num_pivots
        pivots = jax.random.randint(pivot_key, shape, 0, self.max_position)
        candidates = draw_candidates(candidate_key, pivots, self.num_candidates, self.max_position)
        all_APN = jnp.concatenate([pivots[:, :, None], candidates], axis=2)
        pe_PNE = self._encode(all_APN)
        return contrastive_loss(pe_PNE[:, 0], pe_PNE[:, 1:], nearest(pivots, candidates))

    def _transfer(self, key):
        cell_key, start_key, axis_key, outside_key = jax.random.split(key, 4)
        count = min(self.num_offsets, self.block_side**self.num_axes)
        offsets = draw_cells(cell_key, self.num_pivots, count, self.block_side, self.num_axes)
        # A window starts anywhere, but past the training block on at least one axis.
        shape, end = (self.num_axes, self.num_pivots), self.max_position - self.block_side + 1
        start = jax.random.randint(start_key, shape, 0, end)
        outside = jax.random.randint(outside_key, shape, self.block_side, end)
        axis = jax.random.randint(axis_key, (1, self.num_pivots), 0, self.num_axes)
        is_outside = axis == jnp.arange(self.num_axes)[:, None]
        start = jnp.where(is_outside, outside, start)
        teacher, student = (self._encode(o) for o in (offsets, offsets + start[:, :, None]))
        return transfer_loss(teacher, student, self.encoder_heads)

    def _encode(self, positions_APN):
        return self.encoder(
            positions_APN[0] if self.num_axes == 1 else jnp.moveaxis(positions_APN, 0, -1)
        )


class SeqPE(DigitEncoding):
    """Encodes each position by a small Transformer over its digits, and compares by the vectors.

    The defaults follow the published text model. The published image model has
    ``hook="attn_mul"`` and its own projection in every layer ("multi"), which is not offered: here
    layers either share all parameters of a scheme, or each has all of them, the encoder included.

    Args:
      num_kv_heads: number of kv heads in one layer, each with a ``pe_k`` of its own; by default
        ``num_heads``, as in the paper.
      hook: what ``pe`` does. "attn_scalar" is the equation above; "attn_mul" multiplies queries
        and keys by it, "attn_add" adds it to them. ``SeqPEInputAdd`` adds it to token embeddings.
      pe_qk: where ``pe_q`` and ``pe_k`` come from. "single" is one linear map for all layers;
        "none" takes ``pe`` for both, which needs ``num_heads * head_dim == model_dim``.
      scalar_scale: s in the equation, for "attn_scalar".
      digits: see ``DigitEncoding``.
    """

    def __init__(
        self,
        *,
        num_heads: int,
        head_dim: int,
        model_dim: int,
        train_length: int,
        rngs: nnx.Rngs,
        num_kv_heads: int | None = None,
        hook: str = "attn_scalar",
        pe_qk: str = "single",
        scalar_scale: float = 1.0,
        **digits: Unpack[Digits],
    ):
        num_kv_heads = num_heads if num_kv_heads is None else num_kv_heads
        check_choice(("attn_scalar", "attn_mul", "attn_add"), hook=hook)
        check_choice(("single", "none"), pe_qk=pe_qk)
        if pe_qk == "none" and not num_heads * head_dim == num_kv_heads * head_dim == model_dim:
            raise ValueError(
                f"pe_qk='none' cuts model_dim={model_dim} channels into heads, but queries have "
                f"{num_heads} of {head_dim} and keys {num_kv_heads}; use pe_qk='single'"
            )
        super().__init__(model_dim=model_dim, train_length=train_length, rngs=rngs, **digits)
        self.hook = hook
        self.heads, self.head_dim = (num_heads, num_kv_heads), head_dim
        self.scalar_scale = scalar_scale
        width = sum(self.heads) * head_dim
        self.pe_qk = linear(model_dim, width, model_dim, rngs) if pe_qk == "single" else None

    def prepare(self, tokens: Tokens, length):
        """Makes float32 ``pe_q [B, T, H, C]`` and ``pe_k [B, T, K, C]``."""
        return self.by_head(self.encoder(tokens.positions))

    def by_head(self, pe_BTE):
        """Returns the encoder's vectors as queries and keys use them, see ``prepare``."""
        pe_q, pe_k = pe_BTE, pe_BTE
        if self.pe_qk is not None:
            pe_q, pe_k = jnp.split(self.pe_qk(pe_BTE), [self.heads[0] * self.head_dim], axis=-1)
        return tuple(pe.reshape(*pe.shape[:2], -1, self.head_dim) for pe in (pe_q, pe_k))

    def rotate(self, x_BTHC, tokens, side):
        pe_q, pe_k = (jnp.moveaxis(pe, 2, 0) for pe in tokens.made)
        pe = jnp.moveaxis(side.of_heads(pe_q) if side.is_query else side.of_kv_heads(pe_k), 0, 2)
        if self.hook == "attn_scalar":
            pe = self.scalar_scale * pe if side.is_query else pe
            beside = pe.astype(x_BTHC.dtype) + jnp.zeros_like(x_BTHC[..., :1])  # for every row
            return jnp.concatenate([x_BTHC, beside], axis=-1)
        x = x_BTHC.astype(jnp.float32)
        return (x * pe if self.hook == "attn_mul" else x + pe).astype(x_BTHC.dtype)


class SeqPEInputAdd(DigitEncoding, Added):
    """Encodes each position by a small Transformer over its digits, and adds it at the input.

    The arguments are as in ``DigitEncoding``.
    """

    def prepare(self, tokens: Tokens, length):
        """Makes float32 ``pe [B, T, D]``."""
        return self.encoder(tokens.positions)

    def vectors(self, tokens):
        return tokens.made
