"""Defines the decoder's block: attention and a feed-forward network, added to the residual."""

import dataclasses
from typing import Any

import jax
from flax import nnx

from posenc_jax.attention import attend
from posenc_jax.attention.context import context_size
from posenc_jax.encoding import Here
from posenc_jax.model.slots import Past


@dataclasses.dataclass(frozen=True)
class Settings:
    """Holds the keywords of ``Transformer`` that all of its blocks have in common.

    ``out_std`` is the standard deviation of the two projections into the residual stream.
    """

    model_dim: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    mlp_dim: int
    out_std: float
    norm_epsilon: float
    qk_norm: str | None
    qkv_bias: bool
    post_norm: bool
    dtype: Any
    param_dtype: Any

    def linear(self, d_in, d_out, rngs, *, std=0.02, use_bias=False) -> nnx.Linear:
        """Returns a linear layer with a kernel of N(0, std)."""
        init = nnx.initializers.normal(std)
        types = dict(dtype=self.dtype, param_dtype=self.param_dtype)
        return nnx.Linear(d_in, d_out, use_bias=use_bias, kernel_init=init, **types, rngs=rngs)

    def norm(self, width, rngs) -> nnx.RMSNorm:
        """Returns a norm over ``width`` channels."""
        types = dict(dtype=self.dtype, param_dtype=self.param_dtype)
        return nnx.RMSNorm(width, epsilon=self.norm_epsilon, **types, rngs=rngs)


class Attention(nnx.Module):
    """Projects to queries, keys and values, attends, and projects back."""

    def __init__(self, settings: Settings, sinks: str | None, rngs: nnx.Rngs):
        D, C = settings.model_dim, settings.head_dim
        H, K = settings.num_heads, settings.num_kv_heads
        self.head_dim, self.qk_norm = C, settings.qk_norm
        self.q, self.k, self.v = (
            settings.linear(D, heads * C, rngs, use_bias=settings.qkv_bias) for heads in (H, K, K)
        )
        self.out = settings.linear(H * C, D, rngs, std=settings.out_std)
        widths = (H * C, K * C) if settings.qk_norm == "all" else (C, C)
        self.q_norm, self.k_norm = (
            settings.norm(width, rngs) if settings.qk_norm else None for width in widths
        )
        self.sink_of_token = settings.linear(D, H, rngs) if sinks == "token" else None
        self.sink_of_head = (
            nnx.Param(0.02 * jax.random.normal(rngs.params(), (H,), settings.param_dtype))
            if sinks == "head"
            else None
        )

    def __call__(self, x_BTD, here: Here, past: Past | None = None, **rule):
        """Returns the layer's output, and the slots of the cache, if there is one; see ``Block``.

        ``rule`` are keywords of ``attend``.
        """
        rule["sinks"] = self._sinks(x_BTD)
        B, T, _ = x_BTD.shape
        q = self._heads(self.q, self.q_norm, x_BTD)
        k = self._heads(self.k, self.k_norm, x_BTD)
        v = self._heads(self.v, None, x_BTD)
        if past is None:
            attended, stored = attend(here, q, k, v, x=x_BTD, **rule), None
        else:
            attended, stored = past.attend(here, q, k, v, x_BTD, **rule)
        return by_token(self.out, attended.reshape(B, T, -1)), stored

    def _sinks(self, x_BTD):
        """Returns the sinks of ``attend``, ``[H]`` or ``[B, T, H]``, or None."""
        if self.sink_of_head is not None:
            return self.sink_of_head[...]
        return None if self.sink_of_token is None else by_token(self.sink_of_token, x_BTD)

    def _heads(self, project, norm, x_BTD):
        """Returns queries, keys or values, ``[B, T, heads, C]``, normalised where ``norm`` is."""
        B, T, _ = x_BTD.shape
        projected = by_token(project, x_BTD)
        if norm is not None and self.qk_norm == "all":
            projected = norm(projected)
        heads = projected.reshape(B, T, -1, self.head_dim)
        return norm(heads) if norm is not None and self.qk_norm == "head" else heads


class SwiGLU(nnx.Module):
    """Computes ``down(silu(gate x) * up x)``."""

    def __init__(self, settings: Settings, rngs: nnx.Rngs):
        D, inner = settings.model_dim, settings.mlp_dim
        self.gate, self.up = (settings.linear(D, inner, rngs) for _ in range(2))
        self.down = settings.linear(inner, D, rngs, std=settings.out_std)

    def __call__(self, x_BTD):
        hidden = jax.nn.silu(by_token(self.gate, x_BTD)) * by_token(self.up, x_BTD)
        return by_token(self.down, hidden)


class Block(nnx.Module):
    """Adds attention and then a feed-forward network to the residual, each with a norm before it.

    With ``post_norm`` both read the residual as it is, and their outputs are normalised instead.

    ``past`` is the part of the cache that has the earlier tokens of this layer. A call returns the
    residual, and the slots of the cache with the new tokens in them, or None without a past.
    """

    def __init__(self, settings: Settings, sinks: str | None, rngs: nnx.Rngs):
        self.attention_norm = settings.norm(settings.model_dim, rngs)
        self.attention = Attention(settings, sinks, rngs)
        self.mlp_norm = settings.norm(settings.model_dim, rngs)
        self.mlp = SwiGLU(settings, rngs)
        self.post_norm = settings.post_norm

    def normalise(self, x_BTD, here: Here):
        """Normalises for attention; a subclass whose norm depends on positions overrides it."""
        return self.attention_norm(x_BTD)

    def __call__(self, x_BTD, here: Here, past: Past | None = None, **rule):
        x = x_BTD if self.post_norm else self.normalise(x_BTD, here)
        attended, stored = self.attention(x, here, past, **rule)
        x_BTD = x_BTD + (self.normalise(attended, here) if self.post_norm else attended)
        if self.post_norm:
            return x_BTD + self.mlp_norm(self.mlp(x_BTD)), stored
        return x_BTD + self.mlp(self.mlp_norm(x_BTD)), stored


def by_token(layer, x_BTD):
    """Runs ``layer`` over the tokens of all sequences along one axis.

    The gradient of a matrix is a product over tokens; XLA:CPU runs it three to five times faster
    in two dimensions than in three. Tokens that are sharded over ``context`` keep their axis.
    """
    if context_size() > 1:
        return layer(x_BTD)
    B, T, D = x_BTD.shape
    return layer(x_BTD.reshape(B * T, D)).reshape(B, T, -1)
