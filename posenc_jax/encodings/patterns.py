"""Builds layers that differ: an encoding, and a window or none, for each place of a pattern.

Each function here gives ``Layers`` for a model whose number of layers is a multiple of
``interval``, the length of the pattern.
"""

from posenc_jax.encoding import Encoding
from posenc_jax.encodings.rotary.frequencies import PositionInterpolation
from posenc_jax.encodings.rotary.rope import RoPE
from posenc_jax.encodings.wrappers.logit_scale import Llama4Temperature
from posenc_jax.model.layers import Layers


def irope(
    *,
    head_dim: int,
    base: float = 500_000.0,
    interval: int = 4,
    floor_scale: int = 8192,
    attn_scale: float = 0.1,
) -> Layers:
    """Builds iRoPE of Llama 4: RoPE, and in every fourth layer a temperature without positions.

    Llama 4's RoPE layers also attend within chunks of 8192 tokens, which is left out here. SmolLM3
    has the same pattern without a temperature (``attn_scale=0``).

    Args:
      head_dim: channels of one head.
      base: base of RoPE; 500000 in Llama 4.
      interval: number of layers in one turn, the last of which has no positions.
      floor_scale, attn_scale: keywords of ``Llama4Temperature``.
    """
    _check_interval(interval)
    nope = Llama4Temperature(floor_scale=floor_scale, attn_scale=attn_scale)
    return Layers(
        [RoPE(head_dim=head_dim, base=base, layout="interleaved")] * (interval - 1) + [nope]
    )


def rnope_swa(
    *, head_dim: int, base: float = 10000.0, interval: int = 4, window: int = 4096
) -> Layers:
    """Builds RNoPE-SWA: RoPE in a window, and in every fourth layer no positions and no window.

    https://arxiv.org/abs/2501.18795

    Args:
      head_dim: channels of one head.
      base: base of RoPE. The paper's could not be verified.
      interval: number of layers in one turn, the last of which has no positions.
      window: number of keys that a query sees in RoPE's layers, itself included; 4096 in Command
        R7B, which has this pattern.
    """
    _check_interval(interval)
    encodings = [RoPE(head_dim=head_dim, base=base)] * (interval - 1) + [Encoding()]
    return Layers(encodings, [window] * (interval - 1) + [None])


def dual_base(
    *,
    head_dim: int,
    local_base: float = 10000.0,
    global_base: float = 1_000_000.0,
    global_factor: float = 1.0,
    interval: int = 6,
    window: int = 1024,
) -> Layers:
    """Builds the layers of Gemma 3: five of RoPE in a window, then one of slower RoPE without.

    https://arxiv.org/abs/2503.19786

    Args:
      head_dim: channels of one head.
      local_base: base of the layers with a window.
      global_base: base of the layer without.
      global_factor: position interpolation of the layer without; 8 in the released models of 4, 12
        and 27 billion parameters, none in the smaller ones.
      interval: number of layers in one turn, the last of which sees everything.
      window: number of keys that a query sees in the other layers, itself included; 1024 in those
        larger models, 512 in the smaller ones.
    """
    _check_interval(interval)
    near = RoPE(head_dim=head_dim, base=local_base)
    far = RoPE(
        head_dim=head_dim, base=global_base, frequencies=PositionInterpolation(global_factor)
    )
    return Layers([near] * (interval - 1) + [far], [window] * (interval - 1) + [None])


def _check_interval(interval):
    if interval < 2:
        raise ValueError(
            f"interval={interval!r} must be at least 2: the layers of a pattern differ"
        )
