"""RIFLEx slows the one pair of time whose turn ends where longer videos begin to repeat themselves.

https://arxiv.org/abs/2502.15894

Of the pairs that turn by time, the one whose wavelength is nearest to ``first_repeat`` frames turns
by ``0.9 * 2 pi / length`` a frame, less than once in a video of ``length`` frames. All others stay.
A setting of RoPE's frequencies.
"""

import dataclasses
import math

import numpy as np

from posenc_jax.encodings.rotary.axes import is_matrix
from posenc_jax.encodings.rotary.frequencies.base import (
    Base,
    Frequencies,
    Length,
    Turns,
    known_base,
)
from posenc_jax.encodings.rotary.rope import RoPE

# Share of a turn in the whole video, in the released code; the paper's equation has a whole one.
_MARGIN = 0.9


@dataclasses.dataclass(frozen=True)
class RIFLEx(Frequencies):
    """Slows one pair of another rule.

    Attributes:
      frequencies: the other rule.
      pairs: numbers of the pairs from which one is chosen, those of time.
      first_repeat: frames after which videos of the unchanged model repeat themselves.
      length: frames of the longer video.
    """

    frequencies: Frequencies
    pairs: tuple[int, ...]
    first_repeat: float
    length: int

    def __post_init__(self):
        if not 0 < self.first_repeat < math.inf:
            raise ValueError(f"first_repeat={self.first_repeat!r} must be a number of frames")
        if self.frequencies.adapts:
            raise ValueError(
                f"{self.frequencies} adapts to the length, and RIFLEx changes frequencies that do "
                "not: give the rule of the trained model"
            )

    def __call__(self, channels: int, base: Base, length: Length) -> Turns:
        turns, attention_factor = self.frequencies(channels, known_base(base, "RIFLEx"), length)
        inv_freq = np.array(turns)
        wavelengths = [round(2 * math.pi / f) if f else math.inf for f in inv_freq[[*self.pairs]]]
        nearest = np.argmin([abs(frames - self.first_repeat) for frames in wavelengths])
        if not self.length > wavelengths[nearest]:
            raise ValueError(
                f"length={self.length!r} must be above the {wavelengths[nearest]} frames of the "
                f"wavelength of time that is nearest to first_repeat={self.first_repeat!r}: a "
                "shorter video does not repeat itself, and needs no RIFLEx"
            )
        inv_freq[self.pairs[nearest]] = _MARGIN * 2 * math.pi / self.length
        return inv_freq, attention_factor


def riflex(encoding: RoPE, *, first_repeat: float, length: int, axis: int = 0) -> RoPE:
    """Returns ``encoding`` for longer videos, without training or, with its length, in training.

    Args:
      encoding: RoPE whose axes are of pairs: ``mrope``, ``i_mrope``, ``time_rope``, ...; or RoPE
        of one axis, that of time.
      first_repeat: the frame at which longer videos are seen to repeat themselves, as the decoder
        counts frames (latent ones): about 20 in CogVideoX-5B, and 50 in HunyuanVideo.
      length: frames of the longer video, counted in the same way.
      axis: the number of the axis of time.

    Raises:
      ValueError: the axes are of another kind, or none of them is time's. A video that is too short
        is refused when frequencies are first asked for.
    """
    if type(encoding) is not RoPE or np.ndim(encoding.axes or 0) > 1 or is_matrix(encoding.axes):
        raise ValueError(
            f"riflex cannot change {type(encoding).__name__} with these axes: it is for RoPE whose "
            "axes are one number for each pair, alike in all heads"
        )
    axes = encoding.axes or (axis,) * (encoding.rotary_dim // 2)
    pairs = tuple(pair for pair, turned_by in enumerate(axes) if turned_by == axis)
    if not pairs:
        raise ValueError(f"axis={axis} turns no pair of axes={axes}")
    return RoPE(
        head_dim=encoding.head_dim,
        base=encoding.base,
        frequencies=RIFLEx(encoding.frequencies, pairs, first_repeat, length),
        axes=encoding.axes,
        rotary_dim=encoding.rotary_dim,
        layout=encoding.layout,
    )
