"""Defines the encodings that some models have around the one in their config."""

import dataclasses

from flax import nnx

from posenc_jax.encoding import Encoding
from posenc_jax.encodings.rotary.frequencies.base import Default, Frequencies
from posenc_jax.encodings.rotary.lerope import LeRoPE
from posenc_jax.encodings.rotary.rope import RoPE, rotates_by_rule
from posenc_jax.hf.values import HEADS, Config, whole
from posenc_jax.registry import make


@dataclasses.dataclass(frozen=True)
class Backwards(Frequencies):
    """Rotates every pair as fast as RoPE does, in the opposite direction."""

    def __call__(self, channels, base, length):
        inv_freq, attention_factor = Default()(channels, base, length)
        return inv_freq * -1.0, attention_factor


def nanochat(config: Config, encoding: Encoding, rngs: nnx.Rngs | None) -> Encoding:
    """Returns RoPE that rotates the other way."""
    rope = _plain_rope(config, encoding)
    return make("rope", head_dim=rope.head_dim, base=rope.base, frequencies=Backwards())


def mistral_large4(config: Config, encoding: Encoding, rngs: nnx.Rngs | None) -> Encoding:
    """Returns the encoding under a learned scale of queries, with learned rates if it rotates.

    The rates (LeRoPE) are shared by all layers that rotate, and the scale (LogScale) is that of a
    layer. The config has RoPE for the ``qk_rope_head_dim`` channels, or NoPE.
    """
    if rngs is None:
        raise ValueError(
            f"model_type={config['model_type']!r} needs rngs=nnx.Rngs(0): the rates of its pairs, "
            "and the scale of its queries, are parameters; fill them from the checkpoint"
        )
    over = encoding
    if encoding.overrides("rotate"):
        rope = _plain_rope(config, encoding)
        over = LeRoPE(
            head_dim=whole(config, "qk_nope_head_dim") + rope.head_dim,
            base=rope.base,
            frequencies=rope.frequencies,
            rotary_dim=rope.rotary_dim,
            layout=rope.layout,
        )
    return make("log_scale", num_heads=whole(config, *HEADS), over=over, rngs=rngs)


def _plain_rope(config, encoding) -> RoPE:
    if not rotates_by_rule(encoding) or encoding.axes is not None:
        raise ValueError(
            f"the rotary section of {config['model_type']!r} gives {type(encoding).__name__}, but "
            "only RoPE of one axis is offered here"
        )
    return encoding
