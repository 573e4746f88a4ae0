"""Logits that grow with the position of the query, so that attention over more keys stays sharp.

Each is put over another encoding and multiplies its queries after rotation: all products of
queries and keys grow, and what the other adds to the logits by distance alone does not. It adds
``prepare`` (the factor of each position) and ``rotate`` to the other's hooks.

    LogN                q * max(1, ln(m + 1) / ln L)                       2202.12172
    SSMax               q * s_h ln(m + 1)                                  2501.19399
    Llama4Temperature   q * (1 + a ln(1 + floor((m + 1) / F)))             Llama 4

m is the position of the query; one below 0 counts as 0.
"""

import dataclasses
import math
from collections.abc import Mapping

import jax.numpy as jnp
from flax import nnx

from posenc_jax.encoding import Encoding
from posenc_jax.encodings.wrapper import Wrapper, wrapped


class LogitScale(Wrapper):
    """Multiplies the queries of another encoding; subclasses say by what.

    Args:
      over, sizes: the other encoding, see ``wrapped``.
    """

    shift_invariant = False

    def __init__(self, over, **sizes):
        super().__init__(wrapped(over, **sizes))
        self.shift_invariant = False

    def factor(self, count):
        """float32, of ``count = m + 1``, int or float32 and 1 or more."""
        raise NotImplementedError

    def for_heads(self, factor_BT1, num_heads: int):
        """The factor of each head."""
        del num_heads
        return factor_BT1

    def prepare(self, positions, length):
        if positions.ndim != 2:
            raise ValueError(
                f"{type(self).__name__} needs one position axis, positions of shape [B, T], not "
                f"{positions.shape}"
            )
        factor_BT = self.factor(jnp.maximum(positions, 0) + 1)
        return factor_BT, self.inner.prepare(positions, length)

    def read(self, x_BTD, tokens):
        factor_BT, prepared = tokens.prepared
        tokens = dataclasses.replace(tokens, prepared=prepared)
        return factor_BT, self.inner.read(x_BTD, tokens)

    def rotate(self, x_BTHC, prepared, *, is_query):
        factor_BT, prepared = prepared
        x_BTHC = self.inner.rotate(x_BTHC, prepared, is_query=is_query)
        if not is_query:
            return x_BTHC
        factor_BTH = self.for_heads(factor_BT[..., None], x_BTHC.shape[2])
        return (x_BTHC.astype(jnp.float32) * factor_BTH[..., None]).astype(x_BTHC.dtype)

    def score(self, logits_BHTS, tile):
        return self.inner.score(logits_BHTS, _of_inner(tile))

    def mix(self, out_BTHC, weights_BHTS, tile):
        return self.inner.mix(out_BTHC, weights_BHTS, _of_inner(tile))


def _of_inner(tile):
    return dataclasses.replace(tile, q_prepared=tile.q_prepared[1], k_prepared=tile.k_prepared[1])


class LogN(LogitScale):
    """Queries past the training length L grow as the logarithm of their position.

    Args:
      train_length: L, 2 or more.
      over: the encoding beneath, RoPE where it was published (``wrapped``).
      **sizes: what ``over`` is built with.
    """

    def __init__(
        self,
        *,
        train_length: int,
        over: "str | Mapping | Encoding" = "rope",
        **sizes,
    ):
        _check_length(train_length)
        super().__init__(over, train_length=train_length, **sizes)
        self.train_length = train_length

    def factor(self, count):
        return jnp.maximum(1.0, jnp.log(count.astype(jnp.float32)) / math.log(self.train_length))


class SSMax(LogitScale):
    """Softmax to the base of the number of visible keys, times a trained number.

    The number of visible keys is taken as ``m + 1``, whatever a window hides. The first token of a
    sequence gets logits of 0, which its one key does not mind. Encodings with parameters are
    usually shared by the layers; beneath this one, given by name, each layer has its own.

    Args:
      num_heads: query heads of one layer.
      train_length: L, 2 or more; s starts at ``1 / ln L`` in every head and layer, so that the
        last token of a training sequence starts as in softmax. The paper reports 0.168 after
        training at 1024 [unverified], and 1 / ln 1024 is 0.144.
      over: the encoding beneath, RoPE in the paper (``wrapped``).
      rngs: what ``over`` takes its initial values from.
      **sizes: what else ``over`` is built with.
    """

    per_layer = True

    def __init__(
        self,
        *,
        num_heads: int,
        train_length: int,
        rngs: nnx.Rngs,
        over: "str | Mapping | Encoding" = "rope",
        **sizes,
    ):
        _check_length(train_length)
        super().__init__(over, num_heads=num_heads, train_length=train_length, rngs=rngs, **sizes)
        self.per_layer = True
        self.s = nnx.Param(jnp.full((num_heads,), 1 / math.log(train_length), jnp.float32))

    def factor(self, count):
        return jnp.log(count.astype(jnp.float32))

    def for_heads(self, factor_BT1, num_heads):
        if self.s.shape != (num_heads,):
            raise ValueError(
                f"the encoding was made for num_heads={self.s.shape[0]}, but attention has "
                f"{num_heads} query heads"
            )
        return factor_BT1 * self.s[...][None, None]


class Llama4Temperature(LogitScale):
    """Queries grow in steps of ``floor_scale`` positions.

    Args:
      over: the encoding beneath: NoPE in Llama 4, whose RoPE layers have no temperature.
      floor_scale: F, 8192 in Llama 4.
      attn_scale: a, 0.1 in Llama 4.
      **sizes: what ``over`` is built with.
    """

    def __init__(
        self,
        *,
        over: "str | Mapping | Encoding" = "nope",
        floor_scale: int = 8192,
        attn_scale: float = 0.1,
        **sizes,
    ):
        if floor_scale < 1:
            raise ValueError(f"floor_scale={floor_scale!r} must be a positive number of tokens")
        super().__init__(over, **sizes)
        self.floor_scale = floor_scale
        self.attn_scale = attn_scale

    def factor(self, count):
        steps = (count // self.floor_scale).astype(jnp.float32)
        return 1 + self.attn_scale * jnp.log1p(steps)


def _check_length(train_length):
    if train_length < 2:
        raise ValueError(f"train_length={train_length!r} must be at least 2: its logarithm divides")
