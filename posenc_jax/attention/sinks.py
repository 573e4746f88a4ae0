"""Lets queries attend to nothing: each row of logits gets one more logit, which has no value.

``weights = exp(logits) / (exp(sink) + sum exp(logits))``, as in gpt-oss and the models after it.
The learned sink is compared with the final logits, scaled and biased. It is not a token, so it has
no position, and no mask or window hides it.
"""

import jax
import jax.numpy as jnp

from posenc_jax.checks import as_array


def checked(sinks, q_BTHC) -> jax.Array:
    """Returns sinks ``[H]`` or ``[B, T, H]`` as float32 ``[B, T, H]``, whose B and T may be 1."""
    sinks, (B, T, H, _) = as_array("sinks", sinks), q_BTHC.shape
    if sinks.shape not in ((H,), (B, T, H)) or not jnp.issubdtype(sinks.dtype, jnp.floating):
        raise ValueError(
            f"sinks are {sinks.dtype} of shape {sinks.shape}, but must be floating-point numbers, "
            f"one for each of the heads given, [{H}], or for each query too, [{B}, {T}, {H}]"
        )
    return jnp.asarray(sinks, jnp.float32).reshape((1,) * (3 - sinks.ndim) + sinks.shape)


def by_row(sinks_BTH, q_BTHC) -> jax.Array | None:
    """Returns a sink for each row of logits, ``[B, H, T]``, or None where there are none."""
    if sinks_BTH is None:
        return None
    zeros = jnp.zeros_like(q_BTHC[..., 0], jnp.float32)  # sharded as queries are
    return (sinks_BTH + zeros).swapaxes(1, 2)


def put_in(rows, sinks):
    """Returns attention ``[..., T, C]`` and log-sum-exps ``[..., T]`` with sinks included.

    ``rows`` holds both without sinks. A backward pass needs the log-sum-exps with the sinks in.
    """
    out, lse = rows
    if sinks is None:
        return out, lse
    total = jnp.logaddexp(lse, sinks)
    return out * jnp.exp(lse - total)[..., None], total


def gradient(sinks, lse, delta):
    """Returns the gradient by the sinks ``[..., T]``, or None where there are none.

    ``lse`` has the sinks in it, and ``delta`` is the product of output and gradient, row by row.
    """
    return None if sinks is None else -jnp.exp(sinks - lse) * delta
