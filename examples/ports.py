"""Puts encodings into attention layers that other libraries ship, and compares the outputs.

    python examples/ports.py

Each host is written twice: as its library has it, and with the encoding from here. The table says
how many lines the second has that the first lacks, and by how much the outputs differ. It needs
``pip install equinox dm-haiku``.
"""

import difflib
import functools
import inspect

import equinox as eqx
import haiku as hk
import jax
import jax.numpy as jnp
from flax import linen as nn
from flax import nnx

import posenc_jax
from posenc_jax import functional

HEADS, WIDTH, LENGTH = 4, 64, 48
X_BTD = jax.random.normal(jax.random.key(0), (2, LENGTH, WIDTH))
POSITIONS = jnp.arange(LENGTH)[None]
CAUSAL = jnp.tril(jnp.ones((LENGTH, LENGTH), bool))
NOPE = posenc_jax.make("nope")


class FlaxNnx:
    """flax.nnx.MultiHeadAttention, without positions"""

    @staticmethod
    def theirs():
        layer = nnx.MultiHeadAttention(
            HEADS,
            WIDTH,
            decode=False,
            rngs=nnx.Rngs(0),
        )
        return layer(X_BTD, mask=CAUSAL)

    @staticmethod
    def ours():
        layer = nnx.MultiHeadAttention(
            HEADS,
            WIDTH,
            decode=False,
            attention_fn=posenc_jax.attention_fn(NOPE, POSITIONS),
            rngs=nnx.Rngs(0),
        )
        return layer(X_BTD)


class FlaxLinen:
    """flax.linen.MultiHeadDotProductAttention, without positions"""

    @staticmethod
    def theirs():
        layer = nn.MultiHeadDotProductAttention(HEADS)
        return layer.init_with_output(jax.random.key(0), X_BTD, mask=CAUSAL)[0]

    @staticmethod
    def ours():
        attention_fn = posenc_jax.attention_fn(NOPE, POSITIONS)
        layer = nn.MultiHeadDotProductAttention(HEADS, attention_fn=attention_fn)
        return layer.init_with_output(jax.random.key(0), X_BTD)[0]


class Equinox:
    """equinox.nn.MultiheadAttention, with its own RoPE"""

    @staticmethod
    def theirs():
        layer = eqx.nn.MultiheadAttention(HEADS, WIDTH, key=jax.random.key(0))
        rope = jax.vmap(eqx.nn.RotaryPositionalEmbedding(WIDTH // HEADS), in_axes=1, out_axes=1)

        def rotate(q, k, v):
            return rope(q), rope(k), v

        return jax.vmap(lambda x: layer(x, x, x, mask=CAUSAL, process_heads=rotate))(X_BTD)

    @staticmethod
    def ours():
        layer = eqx.nn.MultiheadAttention(HEADS, WIDTH, key=jax.random.key(0))
        tables = functional.rope_tables(POSITIONS, WIDTH // HEADS)

        def rotate(q, k, v):
            return *(functional.apply_rope(x[None], *tables)[0] for x in (q, k)), v

        return jax.vmap(lambda x: layer(x, x, x, mask=CAUSAL, process_heads=rotate))(X_BTD)


class Haiku:
    """haiku.MultiHeadAttention, without positions"""

    @staticmethod
    def theirs():
        def layer(x):
            attention = hk.MultiHeadAttention(HEADS, WIDTH // HEADS, w_init_scale=1.0)
            return attention(x, x, x, CAUSAL[None, None])

        return _run_haiku(layer)

    @staticmethod
    def ours():
        class Attention(hk.MultiHeadAttention):
            def __call__(self, x):
                project = functools.partial(self._linear_projection, x, self.key_size)
                q, k, v = map(project, ("query", "key", "value"))
                out_BTHC = posenc_jax.attend(NOPE.at(POSITIONS), q, k, v, x=x)
                out = hk.Linear(self.model_size, w_init=self.w_init)
                return out(out_BTHC.reshape(x.shape))

        def layer(x):
            name = "multi_head_attention"
            attention = Attention(HEADS, WIDTH // HEADS, w_init_scale=1.0, name=name)
            return attention(x)

        return _run_haiku(layer)


def _run_haiku(layer):
    transformed = hk.without_apply_rng(hk.transform(layer))
    return transformed.apply(transformed.init(jax.random.key(0), X_BTD), X_BTD)


def lines_added(host) -> int:
    """Returns how many lines of ``ours`` are not in ``theirs``."""
    before, after = (inspect.getsource(f).splitlines() for f in (host.theirs, host.ours))
    return sum(line.startswith("+ ") for line in difflib.ndiff(before, after)) - 1  # its name


def main() -> None:
    print("| layer of the host | lines added | largest difference |\n|---|---|---|")
    for host in (FlaxNnx, FlaxLinen, Equinox, Haiku):
        difference = float(abs(host.theirs() - host.ours()).max())
        print(f"| {host.__doc__} | {lines_added(host)} | {difference:.1e} |")
        assert difference < 1e-5


if __name__ == "__main__":
    main()
