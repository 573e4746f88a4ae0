"""Models whose layers differ: an encoding, and a window or none, for each place of a pattern.

Each function here gives ``Layers`` for a model whose number of layers is a multiple of
``interval``, the length of the pattern.
"""

from posenc_jax.encoding import Encoding
from posenc_jax.encodings.logit_scale import Llama4Temperature
from posenc_jax.encodings.rope import RoPE
from posenc_jax.layers import Layers
from posenc_jax.rotary.frequencies import PositionInterpolation


def irope(
    *,
    head_dim: int,
    base: float = 500_000.0,
    interval: int = 4,
    floor_scale: int = 8192,
    attn_scale: float = 0.1,
) -> Layers:
    """iRoPE of Llama 4: every fourth layer without positions, under a temperature; RoPE elsewhere.

    Llama 4's RoPE layers also attend within chunks of 8192 tokens, which is left out here. SmolLM3
    has the same pattern without a temperature (``attn_scale=0``).

    Args:
      head_dim: channels of one head.
      base: RoPE's; 500000 in Llama 4 [unverified].
      interval: layers of one turn, the last of which has no positions.
      floor_scale, attn_scale: of ``Llama4Temperature``.
    """
    _check_interval(interval)
    nope = Llama4Temperature(floor_scale=floor_scale, attn_scale=attn_scale)
    return Layers(
        [RoPE(head_dim=head_dim, base=base, layout="interleaved")] * (interval - 1) + [nope]
    )


def rnope_swa(
    *, head_dim: int, base: float = 10000.0, interval: int = 4, window: int = 4096
) -> Layers:
    """RNoPE-SWA: every fourth layer sees everything, without positions; RoPE in a window elsewhere.

    https://arxiv.org/abs/2501.18795

    Args:
      head_dim: channels of one head.
      base: RoPE's [unverified].
      interval: layers of one turn, the last of which has no positions.
      window: keys a query sees in RoPE's layers, itself included; 4096 beside training lengths of
        8192 in the paper [unverified].
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
    """Gemma 3: five layers of RoPE in a window, then one of slower RoPE over everything.

    https://arxiv.org/abs/2503.19786

    Args:
      head_dim: channels of one head.
      local_base: of the layers with a window.
      global_base: of the layer without.
      global_factor: position interpolation of the layer without. Gemma 3 is trained with 1 and
        extended to 128k tokens with 8 [unverified].
      interval: layers of one turn, the last of which sees everything.
      window: keys a query sees in the other layers, itself included; 1024 in Gemma 3 [unverified].
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
