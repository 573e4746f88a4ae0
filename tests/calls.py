"""Makes correct calls, from which tests of mistakes change one argument."""

import common
import jax.numpy as jnp

import posenc_jax
from posenc_jax.positions import text

B, T, H, C = 2, 6, common.HEADS, common.HEAD_DIM
X_BTD = jnp.ones((B, T, common.WIDTH))


def sides(num_heads=H, keys=T, num_kv_heads=None, channels=C):
    """Returns queries, keys and values."""
    shapes = (T, num_heads), (keys, num_kv_heads or num_heads), (keys, num_kv_heads or num_heads)
    return [jnp.asarray(common.normal(i, B, *s, channels)) for i, s in enumerate(shapes)]


def seen(encoding, positions=None, x_BTD=X_BTD, **options):
    """Returns an encoding at the tokens of a layer with the input ``x_BTD``."""
    positions = text(T) if positions is None else positions
    return encoding.at(positions, **options).see(x_BTD)[0]


def attend(encoding="rope", *qkv, here=None, **options):
    """Attends to six tokens under a scheme, or the scheme called so."""
    encoding = common.build(encoding) if isinstance(encoding, str) else encoding
    here = seen(encoding) if here is None else here
    return posenc_jax.attend(here, *(qkv or sides()), **options)
