"""Defines the decoder's block: attention and a feed-forward network, added to the residual."""

import functools

import jax
import jax.numpy as jnp
from flax import nnx

from posenc_jax.attention import attend, rotate_keys
from posenc_jax.attention.ring import context_size
from posenc_jax.model.cache import Past, Stored
from posenc_jax.tokens import Tokens


class Attention(nnx.Module):
    """Projects to queries, keys and values, attends, and projects back."""

    def __init__(
        self,
        model_dim,
        num_heads,
        num_kv_heads,
        head_dim,
        out_std,
        *,
        norm_epsilon,
        qk_norm,
        qkv_bias,
        sinks,
        dtype,
        param_dtype,
        rngs,
    ):
        types = dict(dtype=dtype, param_dtype=param_dtype, rngs=rngs)
        linear = functools.partial(_linear, dtype=dtype, param_dtype=param_dtype, rngs=rngs)
        self.head_dim = head_dim
        self.q = linear(model_dim, num_heads * head_dim, use_bias=qkv_bias)
        self.k = linear(model_dim, num_kv_heads * head_dim, use_bias=qkv_bias)
        self.v = linear(model_dim, num_kv_heads * head_dim, use_bias=qkv_bias)
        self.out = linear(num_heads * head_dim, model_dim, out_std)
        self.qk_norm = qk_norm

        def norm(heads):
            width = heads * head_dim if qk_norm == "all" else head_dim
            return nnx.RMSNorm(width, epsilon=norm_epsilon, **types) if qk_norm else None

        self.q_norm, self.k_norm = norm(num_heads), norm(num_kv_heads)
        self.sink_of_token = linear(model_dim, num_heads) if sinks == "token" else None
        self.sink_of_head = (
            nnx.Param(0.02 * jax.random.normal(rngs.params(), (num_heads,), param_dtype))
            if sinks == "head"
            else None
        )

    def __call__(self, x_BTD, encoding, tokens: Tokens, past: Past | None = None, **rule):
        """Returns the layer's output, and what the cache stores, if there is one; see ``Block``.

        ``rule`` are keywords of ``attend``.
        """
        rule["sinks"] = self._sinks(x_BTD)
        B, T, _ = x_BTD.shape
        q = self._heads(self.q, self.q_norm, x_BTD)
        k = self._heads(self.k, self.k_norm, x_BTD)
        v = self._heads(self.v, None, x_BTD)
        if past is None:
            stored = None
            attended = attend(encoding, q, k, v, tokens, x=x_BTD, **rule)
        else:
            attended, stored = _attend_to_past(encoding, q, k, v, x_BTD, tokens, past, **rule)
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


def _attend_to_past(encoding, q, k, v, x_BTD, tokens: Tokens, past: Past, **rule):
    """Returns the attended sums of new tokens, and the slots with the new tokens in them."""
    keys, state, made = past.tokens, past.stored.of_repeat(past.repeat).state, None
    if state is not None:
        # A text that starts at slot 0 must not continue from the state of an earlier text.
        state = jax.tree.map(lambda x: jnp.where(past.start == 0, jnp.zeros_like(x), x), state)
        tokens, state = tokens.resumed(encoding, x_BTD, state)
        made = encoding.of_keys(tokens.made)
    if keys.stage == "rotated":
        k, v, _ = rotate_keys(encoding, k, v, tokens, num_heads=q.shape[2])
    stored = past.with_new(Stored.of(k, v, x_BTD, made, state))
    layer = stored.of_repeat(past.repeat)
    if layer.made is not None:
        keys = keys.having(layer.made)
    elif layer.x is not None:
        keys = keys.observed(encoding, layer.x)
        tokens = keys.part(past.start, q.shape[1])
    k, v = layer.k.swapaxes(1, 2), layer.v.swapaxes(1, 2)
    return attend(encoding, q, k, v, tokens, keys, **rule), stored


class SwiGLU(nnx.Module):
    """Computes ``down(silu(gate x) * up x)``."""

    def __init__(self, model_dim, mlp_dim, out_std, *, dtype, param_dtype, rngs):
        linear = functools.partial(_linear, dtype=dtype, param_dtype=param_dtype, rngs=rngs)
        self.gate = linear(model_dim, mlp_dim)
        self.up = linear(model_dim, mlp_dim)
        self.down = linear(mlp_dim, model_dim, out_std)

    def __call__(self, x_BTD):
        hidden = jax.nn.silu(by_token(self.gate, x_BTD)) * by_token(self.up, x_BTD)
        return by_token(self.down, hidden)


class Block(nnx.Module):
    """Adds to the residual attention and then the feed-forward network, each with a norm before it.

    With ``post_norm`` each reads the residual as it is, and its output is normalised instead.
    ``attention`` are the keywords that ``Attention`` alone takes.

    ``past`` is what the cache stores of earlier tokens in this layer. A call returns the residual,
    and what the cache stores with the new tokens in it, or None without a past.
    """

    def __init__(
        self,
        model_dim,
        num_heads,
        num_kv_heads,
        head_dim,
        mlp_dim,
        out_std,
        *,
        norm_epsilon,
        post_norm,
        dtype,
        param_dtype,
        rngs,
        **attention,
    ):
        types = dict(dtype=dtype, param_dtype=param_dtype, rngs=rngs)
        norms = types | dict(epsilon=norm_epsilon)
        settings = attention | types | dict(norm_epsilon=norm_epsilon)
        self.attention_norm = nnx.RMSNorm(model_dim, **norms)
        self.attention = Attention(
            model_dim, num_heads, num_kv_heads, head_dim, out_std, **settings
        )
        self.mlp_norm = nnx.RMSNorm(model_dim, **norms)
        self.mlp = SwiGLU(model_dim, mlp_dim, out_std, **types)
        self.post_norm = post_norm

    def normalise(self, x_BTD, tokens: Tokens):
        """Normalises for attention; a subclass whose norm depends on positions overrides it."""
        del tokens
        return self.attention_norm(x_BTD)

    def __call__(self, x_BTD, encoding, tokens: Tokens, past: Past | None = None, **rule):
        x = x_BTD if self.post_norm else self.normalise(x_BTD, tokens)
        attended, stored = self.attention(x, encoding, tokens, past, **rule)
        x_BTD = x_BTD + (self.normalise(attended, tokens) if self.post_norm else attended)
        if self.post_norm:
            return x_BTD + self.mlp_norm(self.mlp(x_BTD)), stored
        return x_BTD + self.mlp(self.mlp_norm(x_BTD)), stored


def _linear(d_in, d_out, std=0.02, *, use_bias=False, dtype, param_dtype, rngs):
    init = nnx.initializers.normal(std)
    types = dict(dtype=dtype, param_dtype=param_dtype)
    return nnx.Linear(d_in, d_out, use_bias=use_bias, kernel_init=init, **types, rngs=rngs)


def by_token(layer, x_BTD):
    """Runs ``layer`` over the tokens of all sequences along one axis.

    The gradient of a matrix is a product over tokens; XLA:CPU runs it three to five times faster
    in two dimensions than in three. Tokens that are sharded over ``context`` keep their axis.
    """
    if context_size() > 1:
        return layer(x_BTD)
    B, T, D = x_BTD.shape
    return layer(x_BTD.reshape(B * T, D)).reshape(B, T, -1)
