"""Defines SeqPE's encoder: a small Transformer that reads a position as a string of digits."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from posenc_jax.checks import check_rows
from posenc_jax.encodings.lib.initial_values import normal
from posenc_jax.lookup import rows
from posenc_jax.positions import on_axes

PIECE = 4096  # positions of a row that are encoded at once
BASE = 10


def digits(positions, max_digits: int) -> jax.Array:
    """Returns decimal digits, most significant first, with leading zeros: int32 ``[..., N]``."""
    powers = range(max_digits - 1, -1, -1)
    return jnp.stack([positions // BASE**i % BASE for i in powers], axis=-1).astype(jnp.int32)


def is_written(positions, max_digits: int) -> jax.Array:
    """Returns which digits belong to the number and are not leading zeros: bool ``[..., N]``."""
    powers = range(max_digits - 1, 0, -1)
    return jnp.stack([*(positions >= BASE**i for i in powers), positions >= 0], axis=-1)


def visible(is_written_BTN, *, bidirectional: bool, mask_padding: bool) -> jax.Array:
    """Returns what each digit, and the summary after them, sees: bool ``[B, T, N + 1, N + 1]``.

    With ``mask_padding`` nothing attends to leading zeros, and these may attend to nothing.
    """
    N = is_written_BTN.shape[-1]
    shown = jnp.ones_like(is_written_BTN) if not mask_padding else is_written_BTN
    shown = jnp.concatenate([shown, jnp.ones_like(shown[..., :1])], axis=-1)[:, :, None]
    earlier = np.ones((N + 1, N + 1), bool) if bidirectional else np.tri(N + 1, dtype=bool)
    return shown & earlier[None, None]


class DigitBlock(nnx.Module):
    """Attends between the digits of a string, then runs a feed-forward network; pre-norm."""

    def __init__(self, width: int, num_heads: int, rngs: nnx.Rngs):
        self.num_heads = num_heads
        self.attention_norm = layer_norm(width, rngs)
        self.attention_in = linear(width, 3 * width, width, rngs)
        self.attention_out = linear(width, width, width, rngs)
        self.mlp_norm = layer_norm(width, rngs)
        self.mlp_in = linear(width, 4 * width, width, rngs)
        self.mlp_out = linear(4 * width, width, width, rngs)

    def __call__(self, x_BTNE, visible_BTNN):
        q, k, v = (
            heads.reshape(*heads.shape[:3], self.num_heads, -1)
            for heads in jnp.split(self.attention_in(self.attention_norm(x_BTNE)), 3, axis=-1)
        )
        logits_BTHNM = jnp.einsum("btnhc,btmhc->bthnm", q, k) * q.shape[-1] ** -0.5
        lowest = jnp.finfo(jnp.float32).min  # not -inf, or a digit that sees nothing would be NaN
        weights = jax.nn.softmax(jnp.where(visible_BTNN[:, :, None], logits_BTHNM, lowest))
        mixed = jnp.einsum("bthnm,btmhc->btnhc", weights, v).reshape(x_BTNE.shape)
        x_BTNE = x_BTNE + self.attention_out(mixed)
        hidden = jax.nn.gelu(self.mlp_in(self.mlp_norm(x_BTNE)), approximate=True)
        return x_BTNE + self.mlp_out(hidden)


class DigitEncoder(nnx.Module):
    """Encodes positions as vectors; the arguments are as in ``SeqPE``.

    The input for a digit is the sum of the vectors of the digit, of its slot and, with several
    axes, of its axis. A trained summary vector follows the digits; its output is the position's.
    """

    def __init__(
        self,
        width: int,
        num_heads: int,
        num_layers: int,
        max_digits: int,
        num_axes: int,
        *,
        bidirectional: bool,
        mask_padding: bool,
        temperature: float,
        rngs: nnx.Rngs,
    ):
        self.max_digits = max_digits
        self.num_axes = num_axes
        self.bidirectional = bidirectional
        self.mask_padding = mask_padding
        self.temperature = temperature
        self.digit_table = normal(rngs, BASE, width)
        self.slot_table = normal(rngs, max_digits * num_axes, width)
        self.axis_table = normal(rngs, num_axes, width) if num_axes > 1 else None
        self.summary = normal(rngs, width)
        self.digit_blocks = nnx.List(DigitBlock(width, num_heads, rngs) for _ in range(num_layers))
        self.last_norm = layer_norm(width, rngs)
        self.out = linear(width, width, width, rngs)

    def __call__(self, positions) -> jax.Array:
        """Returns float32 ``[B, T, E]``; NaN for a position without ``max_digits`` digits."""
        positions_ABT = jnp.moveaxis(on_axes(positions, self.num_axes), -1, 0)
        limit = BASE**self.max_digits
        check_rows(positions, limit, "use a larger max_position")
        is_number = (positions_ABT >= 0) & (positions_ABT < limit) & (positions_ABT % 1 == 0)
        number = jnp.where(is_number, positions_ABT, 0).astype(jnp.int32)
        if number.shape[-1] <= PIECE:
            vectors_BTE = self._encode(number)
        else:
            of_token = jax.lax.map(
                lambda number_AB: self._encode(number_AB[..., None])[:, 0],
                jnp.moveaxis(number, -1, 0),
                batch_size=PIECE,
            )
            vectors_BTE = jnp.moveaxis(of_token, 0, 1)
        return jnp.where(is_number.all(axis=0)[..., None], vectors_BTE, jnp.nan)

    def _encode(self, number_ABT):
        def string(of_digits):
            """Returns ``[A, B, T, max_digits]`` as one string of all axes, ``[B, T, N]``."""
            by_axis = jnp.moveaxis(of_digits(number_ABT, self.max_digits), 0, 2)
            return by_axis.reshape(*by_axis.shape[:2], -1)

        x_BTNE = rows(self.digit_table[...], string(digits)) + self.slot_table[...][None, None]
        if self.axis_table is not None:
            of_axis = jnp.repeat(self.axis_table[...], self.max_digits, axis=0)
            x_BTNE = x_BTNE + of_axis[None, None]
        summary = self.summary[...][None, None, None] + jnp.zeros_like(x_BTNE[:, :, :1])
        x_BTNE = jnp.concatenate([x_BTNE, summary], axis=2)
        mask = visible(
            string(is_written), bidirectional=self.bidirectional, mask_padding=self.mask_padding
        )
        for block in self.digit_blocks:
            x_BTNE = block(x_BTNE, mask)
        return self.out(self.last_norm(x_BTNE[:, :, -1])) / self.temperature


def linear(d_in: int, d_out: int, width: int, rngs: nnx.Rngs) -> nnx.Linear:
    """Returns a linear layer, initialised for an encoder of ``width``: N(0, 0.02) at 768."""
    std = 0.02 * math.sqrt(768 / width)
    return nnx.Linear(d_in, d_out, kernel_init=nnx.initializers.normal(std), rngs=rngs)


def layer_norm(width: int, rngs: nnx.Rngs) -> nnx.LayerNorm:
    return nnx.LayerNorm(width, epsilon=1e-5, use_fast_variance=False, rngs=rngs)
