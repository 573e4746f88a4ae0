r"""Time-AdaLN scales and shifts a LayerNorm's output by functions of the world time.

https://arxiv.org/abs/2512.05076 (BulletTime; its code is not published)

$$ z \gets \mathrm{LN}(z)\, \gamma(e) + \beta(e) $$

This norm stands in front of attention; e is a convolution over the world times of a clip's frames,
and gamma and beta are small networks. Time-RoPE tells attention how far apart two times are, and
Time-AdaLN tells every token its own time.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from posenc_jax.checks import check_divides, count_of


class Network(nnx.Module):
    """Applies a network of two layers; the second starts at zero."""

    def __init__(self, hidden: int, model_dim: int, rngs: nnx.Rngs):
        self.inner = nnx.Linear(hidden, hidden, rngs=rngs)
        self.outer = nnx.Linear(hidden, model_dim, kernel_init=nnx.initializers.zeros, rngs=rngs)

    def __call__(self, e_BFE) -> jax.Array:
        return self.outer(jax.nn.silu(self.inner(jax.nn.silu(e_BFE))))


class TimeAdaLN(nnx.Module):
    """Normalises with a LayerNorm that is scaled and shifted by the time.

    The paper does not give the width and nonlinearity of the networks, the size of the
    convolution's kernel, or the initial values. Here the width is ``hidden``, a SiLU precedes each
    layer, the kernel is as large as the stride, and the module starts as a plain LayerNorm.

    Args:
      hidden: width of the convolution's output and of the networks; by default ``model_dim``.
      source_frames: number of video frames in one frame of tokens, such as 4 where a video encoder
        compresses four into one. It is the stride of the convolution.
      time_scale: divisor of the times, about the length of a clip, so that they are numbers near 1.
      rngs: source of the initial values; the last layers start at zero.
    """

    def __init__(
        self,
        *,
        model_dim: int,
        rngs: nnx.Rngs,
        hidden: int | None = None,
        source_frames: int = 1,
        time_scale: float = 1.0,
    ):
        count_of("source_frames", source_frames)
        hidden = model_dim if hidden is None else hidden
        self.source_frames = source_frames
        self.time_scale = time_scale
        self.norm = nnx.LayerNorm(
            model_dim, use_scale=False, use_bias=False, use_fast_variance=False, rngs=rngs
        )
        self.convolution = nnx.Linear(source_frames, hidden, rngs=rngs)
        self.scale, self.shift = (Network(hidden, model_dim, rngs) for _ in range(2))

    def __call__(self, x_BTD, times) -> jax.Array:
        """Returns the input of attention, ``[B, T, D]``.

        Args:
          x_BTD: the residual stream, frame after frame.
          times: int or float32 ``[B, F * source_frames]``, where F divides T; ``B`` may be 1. A
            time for every token, F = T, is fine.

        Raises:
          ValueError: the shapes do not fit. The tokens of a time that is NaN become NaN.
        """
        gamma, beta = self.modulation(times, x_BTD.shape[1])
        x = self.norm(x_BTD.astype(jnp.float32))
        return (x * gamma + beta).astype(x_BTD.dtype)

    def modulation(self, times, length: int) -> tuple[jax.Array, jax.Array]:
        """Returns gamma and beta, float32 ``[B, T, D]``, for a norm other than LayerNorm."""
        B, source = times.shape
        check_divides(source_frames=self.source_frames, times=source)
        frames = source // self.source_frames
        check_divides(frames=frames, tokens=length)
        times = times.astype(jnp.float32) / self.time_scale
        e_BFE = self.convolution(times.reshape(B, -1, self.source_frames))
        gamma, beta = (
            jnp.repeat(network(e_BFE), length // frames, axis=1)
            for network in (self.scale, self.shift)
        )
        return 1 + gamma, beta
