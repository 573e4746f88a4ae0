"""Checks the arguments of the decoder."""

import math

import jax.numpy as jnp
from flax import nnx

from posenc_jax.tokens import count_of, is_real


def check_sizes(**sizes: int | None) -> None:
    """Checks that sizes are whole numbers, 1 or more; None is allowed."""
    for name, size in sizes.items():
        if size is not None:
            count_of(name, size)


def check_types(rngs, norm_epsilon, **types) -> None:
    """Checks that ``rngs`` are Flax's, and that ``types`` are floating-point types."""
    if not is_real(norm_epsilon) or not 0 <= norm_epsilon < math.inf:
        raise ValueError(f"norm_epsilon={norm_epsilon!r} must be a number, 0 or more")
    if not isinstance(rngs, nnx.Rngs):
        raise ValueError(f"rngs={rngs!r} must be random numbers of Flax: pass nnx.Rngs(0)")
    for name, given in types.items():
        try:
            is_floating = jnp.issubdtype(jnp.dtype(given), jnp.floating)
        except TypeError:  # there is no such type
            is_floating = False
        if not is_floating:
            raise ValueError(f"{name}={given!r} must be a floating-point type, such as 'bfloat16'")


def sinks_of_layers(sinks, num_layers: int) -> list[str | None]:
    """Returns the sinks of each layer, given one for all or a sequence that layers repeat."""
    each = [sinks] if isinstance(sinks, str) or not hasattr(sinks, "__iter__") else list(sinks)
    if not each or num_layers % len(each):
        raise ValueError(
            f"sinks={sinks!r} must be one for all layers, or a sequence that repeats evenly over "
            f"num_layers={num_layers}"
        )
    for kind in each:
        if kind not in (None, "head", "token"):
            raise ValueError(
                f"sinks={kind!r} must be 'head' (one a head, learned), 'token' (computed for each "
                "query) or None"
            )
    return each * (num_layers // len(each))


def check_heads(model_dim, num_heads, num_kv_heads, head_dim, qk_norm) -> None:
    """Checks that numbers of heads divide each other, and that ``qk_norm`` is known."""
    if num_heads % num_kv_heads:
        raise ValueError(f"num_kv_heads={num_kv_heads} must divide num_heads={num_heads}")
    if head_dim is None and model_dim % num_heads:
        raise ValueError(
            f"num_heads={num_heads} must divide model_dim={model_dim}, or head_dim be given"
        )
    if qk_norm not in (None, "head", "all"):
        raise ValueError(
            f"qk_norm={qk_norm!r} must be 'head' (each head by itself), 'all' (all heads "
            "together) or None"
        )
