"""Builds published patterns of layers that differ in their encodings and windows.

A function that takes ``num_layers`` returns ``Layers`` for a model with that many. The others
return ``Layers`` for a model whose number of layers is a multiple of ``interval``, the length of
the pattern. An irregular pattern, such as Granite-Swash's, in which each layer has its own base, is
written as a list: ``Layers([RoPE(...), Encoding(), ...], [128, None, ...])``.
"""

from posenc_jax.checks import check_range, count_of
from posenc_jax.encoding import Encoding
from posenc_jax.encodings.rotary.frequencies.base import checked_base
from posenc_jax.encodings.rotary.frequencies.pi import PositionInterpolation
from posenc_jax.encodings.rotary.frequencies.yarn import YaRN
from posenc_jax.encodings.rotary.rope import RoPE
from posenc_jax.encodings.wrappers.logit_scale import BeamScale, Llama4Temperature
from posenc_jax.model.layers import Layers


def irope(
    *,
    head_dim: int,
    base: float = 500_000.0,
    interval: int = 4,
    floor_scale: int = 8192,
    attn_scale: float = 0.1,
) -> Layers:
    r"""Builds iRoPE of Llama 4: RoPE, but in every fourth layer a temperature and no positions.

    Llama 4 (transformers ``llama4``; no paper)

    $$
    \text{layer } l: \begin{cases}
    \text{NoPE, } q_m \gets q_m\,(1 + a \ln(1 + \lfloor (m + 1) / F \rfloor)) & l \bmod 4 = 0 \\
    \text{RoPE} & \text{otherwise} \end{cases}
    $$

    Llama 4's RoPE layers also attend within chunks of 8192 tokens, which is left out here;
    ``layers_from_hf`` has them (``Chunks``). Channel pairs are neighbours, as in Llama 4. SmolLM3
    has the same pattern without a temperature, but its channel pairs have ``layout="half"``: use
    ``global_nope`` with ``window=None`` for it.

    Args:
      base: base of RoPE; 500000 in Llama 4.
      interval: length of the pattern in layers; its last layer has no positions.
      floor_scale, attn_scale: keywords of ``Llama4Temperature``.
    """
    near = RoPE(head_dim=head_dim, base=base, layout="interleaved")
    far = Llama4Temperature(over=Encoding(), floor_scale=floor_scale, attn_scale=attn_scale)
    return _ended(near, far, interval, None)


def rnope_swa(
    *, head_dim: int, base: float = 10000.0, interval: int = 4, window: int = 4096
) -> Layers:
    r"""Builds RNoPE-SWA: RoPE in a window, but in every fourth layer no positions and no window.

    https://arxiv.org/abs/2501.18795

    $$
    \text{layer } l: \begin{cases} \text{NoPE} & l \bmod 4 = 0 \\
    \text{RoPE, } m - n < w & \text{otherwise} \end{cases}
    $$

    Args:
      base: base of RoPE. The paper's value could not be verified.
      interval: length of the pattern in layers; its last layer has no positions.
      window: number of keys that a query sees in RoPE's layers, itself included; 4096 in Command
        R7B, which has this pattern with interleaved pairs (``global_nope`` has ``layout=``).
    """
    return _ended(RoPE(head_dim=head_dim, base=base), Encoding(), interval, window)


def dual_base(
    *,
    head_dim: int,
    local_base: float = 10000.0,
    global_base: float = 1_000_000.0,
    global_factor: float = 1.0,
    interval: int = 6,
    window: int = 1024,
) -> Layers:
    r"""Builds the layers of Gemma 3: five of RoPE in a window, then one of slower RoPE without it.

    https://arxiv.org/abs/2503.19786

    $$
    \text{layer } l: \begin{cases} \text{RoPE, } b = 10^6 & l \bmod 6 = 0 \\
    \text{RoPE, } b = 10^4,\ m - n < w & \text{otherwise} \end{cases}
    $$

    Args:
      local_base: base of the layers with a window.
      global_base: base of the layer without a window.
      global_factor: factor of position interpolation in the layer without a window; 8 in the
        released models of 4, 12 and 27 billion parameters, 1 in the smaller ones.
      interval: length of the pattern in layers; its last layer has no window.
      window: number of keys that a query sees in the other layers, itself included; 1024 in those
        larger models, 512 in the smaller ones.
    """
    check_range(1, global_factor=global_factor)
    near = RoPE(head_dim=head_dim, base=checked_base(local_base, "local_base"))
    far = PositionInterpolation(
        head_dim=head_dim,
        base=checked_base(global_base, "global_base"),
        factor=global_factor,
    )
    return _ended(near, far, interval, window)


def global_nope(
    *,
    head_dim: int,
    num_layers: int,
    base: float = 10000.0,
    interval: int = 4,
    window: int | None = 4096,
    from_end: bool = False,
    layout: str = "half",
) -> Layers:
    r"""Builds RoPE in a window, but every ``interval``-th layer without positions and window.

    Command A, EXAONE 4, SmolLM3 and others (no paper; the idea of RNoPE-SWA)

    $$
    \text{layer } l: \begin{cases} \text{NoPE} & l \bmod \text{interval} = 0 \\
    \text{RoPE, } m - n < w & \text{otherwise} \end{cases}
    $$

    It is ``rnope_swa`` for any number of layers, counted from either end. Command A (Cohere 2),
    whose pairs are interleaved, EXAONE 4, Trinity (AFMoE) and Kolibri count from the first layer;
    Muse Spark counts from the last; SmolLM3 has no windows.

    Args:
      num_layers: number of layers of the model.
      base, layout: keywords of ``RoPE``; the base is 500000 in Muse Spark and 5e6 in SmolLM3 3B,
        whose class has 2e6 by default.
      interval: number of layers from one layer without positions to the next.
      window: number of keys that a query sees in RoPE's layers, itself included, or None for all;
        4096 in Command A and EXAONE 4, 2048 in Muse Spark.
      from_end: whether to count from the last layer, which then has no positions. Otherwise the
        first layer without positions is number ``interval``, counted from 1.
    """
    near = RoPE(head_dim=head_dim, base=base, layout=layout)
    layers = _ended(near, Encoding(), interval, window)
    return layers.over(num_layers, from_end=from_end)


def global_yarn(
    *,
    head_dim: int,
    train_length: int,
    base: float = 500_000.0,
    factor: float = 8.0,
    interval: int = 4,
    window: int = 4096,
) -> Layers:
    r"""Builds the layers of OLMo 3: RoPE in a window, but YaRN without one in every fourth layer.

    OLMo 3 (transformers ``olmo3``; no paper is cited here)

    $$
    \text{layer } l: \begin{cases} \text{YaRN} & l \bmod 4 = 0 \\
    \text{RoPE, } m - n < w & \text{otherwise} \end{cases}
    $$

    Only layers without a window are extended, because within a window no distance is new.

    Args:
      train_length: number of tokens in a training sequence before the extension.
      base: base of all layers.
      factor: factor of YaRN, by which the context grows.
      interval: length of the pattern in layers; its last layer has no window.
      window: number of keys that a query sees in the other layers, itself included.
    """
    near = RoPE(head_dim=head_dim, base=base)
    far = YaRN(head_dim=head_dim, base=base, train_length=train_length, factor=factor)
    return _ended(near, far, interval, window)


def beam(
    *,
    head_dim: int,
    num_layers: int,
    base: float = 10000.0,
    interval: int = 6,
    window: int = 512,
    scale: float = 2048.0,
    exponent: float = 0.1,
) -> Layers:
    r"""Builds the layers of Beam: RoPE in a window, but scaled NoPE in every sixth and the last.

    Beam (transformers ``beam``; no paper)

    $$
    \text{layer } l: \begin{cases}
    \text{NoPE, } q_m \gets q_m\,(1 + (m + 1) / F)^p & l \bmod 6 = 0 \text{ or last} \\
    \text{RoPE, } m - n < w & \text{otherwise} \end{cases}
    $$

    Args:
      num_layers: number of layers of the model.
      base: base of RoPE.
      interval: number of layers from one layer without positions to the next.
      window: number of keys that a query sees in RoPE's layers, itself included.
      scale, exponent: keywords of ``BeamScale``, which scales the logits of the other layers.
    """
    count_of("interval", interval, minimum=2)
    far = BeamScale(over=Encoding(), scale=scale, exponent=exponent)
    ends = [number % interval == 0 or number == num_layers for number in range(1, num_layers + 1)]
    return _windowed(RoPE(head_dim=head_dim, base=base), far, ends, window)


def flint(*, head_dim: int, num_layers: int, base: float = 10000.0, window: int = 513) -> Layers:
    r"""Builds the layers of Flint: RoPE in a window, and some layers without positions and window.

    Flint (transformers ``flint``; no paper)

    $$
    \text{layer } l: \begin{cases} \text{NoPE} & l \in \{1, 2\},\ l \bmod 4 = 2 \text{ or last} \\
    \text{RoPE, } m - n < w & \text{otherwise} \end{cases}
    $$

    These are the first two, every fourth from the second on, and the last. For Flint's attention
    sinks use ``Transformer(..., sinks="head")``.

    Args:
      num_layers: number of layers of the model.
      base: base of RoPE.
      window: number of keys that a query sees in RoPE's layers, itself included.
    """
    ends = [n < 2 or n % 4 == 1 or n == num_layers - 1 for n in range(num_layers)]
    return _windowed(RoPE(head_dim=head_dim, base=base), Encoding(), ends, window)


def _windowed(near: Encoding, far: Encoding, sees_all: list[bool], window: int) -> Layers:
    """Builds layers with ``far`` and no window where ``sees_all``, else ``near`` in a window."""
    return Layers(
        [far if is_far else near for is_far in sees_all],
        [None if is_far else window for is_far in sees_all],
    )


def _ended(near: Encoding, far: Encoding, interval: int, window: int | None) -> Layers:
    """Builds a pattern of ``near`` in a window, whose last place is ``far`` without one."""
    others = count_of("interval", interval, minimum=2) - 1
    return Layers([near] * others + [far], [window] * others + [None])
