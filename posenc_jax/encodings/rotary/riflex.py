r"""RIFLEx slows down the pair of time whose period makes longer videos repeat themselves.

https://arxiv.org/abs/2502.15894

$$ \theta'_i = 0.9 \cdot \frac{2 \pi}{T} $$

Among the pairs that rotate by time, pair i is the one with the wavelength nearest to
``first_repeat`` frames; it then turns less than once in a video of T frames. All others stay
as they are. It is ``RoPE`` with another frequency rule.
"""

import dataclasses
import math

import numpy as np

from posenc_jax.encodings.rotary.axes import is_matrix
from posenc_jax.encodings.rotary.frequencies.base import (
    Base,
    Frequencies,
    Length,
    Rates,
    known_base,
)
from posenc_jax.encodings.rotary.rope import RoPE

# Share of a turn within the video, in the released code; the paper's equation has a whole turn.
_MARGIN = 0.9


@dataclasses.dataclass(frozen=True)
class RIFLEx(Frequencies):
    """Slows down one pair of another rule.

    Attributes:
      frequencies: the other rule.
      pairs: indices of the pairs of time, from which one is chosen.
      first_repeat: number of frames after which videos of the unchanged model repeat themselves.
      length: number of frames in the longer video.
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

    def __call__(self, channels: int, base: Base, length: Length) -> Rates:
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
    """Returns ``encoding`` for videos of ``length`` frames, for use without or with fine-tuning.

    Args:
      encoding: RoPE with one axis number for each pair (``mrope``, ``i_mrope``, ``time_rope``,
        ...), or RoPE of one axis, time.
      first_repeat: the frame at which longer videos are seen to repeat themselves, counted in the
        decoder's latent frames: about 20 in CogVideoX-5B, and 50 in HunyuanVideo.
      length: number of frames in the longer video, counted in the same way.
      axis: number of the time axis.

    Raises:
      ValueError: ``encoding`` is not such a RoPE, or no pair rotates by ``axis``. A ``length`` that
        is too short is refused when the frequencies are first computed.
    """
    if type(encoding) is not RoPE or np.ndim(encoding.axes or 0) > 1 or is_matrix(encoding.axes):
        raise ValueError(
            f"riflex cannot change {type(encoding).__name__} with these axes: it is for RoPE whose "
            "axes are one number for each pair, alike in all heads"
        )
    axes = encoding.axes or (axis,) * (encoding.rotary_dim // 2)
    pairs = tuple(pair for pair, turned_by in enumerate(axes) if turned_by == axis)
    if not pairs:
        raise ValueError(f"axis={axis} rotates no pair of axes={axes}")
    return RoPE(
        head_dim=encoding.head_dim,
        base=encoding.base,
        frequencies=RIFLEx(encoding.frequencies, pairs, first_repeat, length),
        axes=encoding.axes,
        rotary_dim=encoding.rotary_dim,
        layout=encoding.layout,
    )
