r"""RIFLEx slows down the pair of time whose period makes longer videos repeat themselves.

https://arxiv.org/abs/2502.15894

$$ \theta'_i = 0.9 \cdot \frac{2 \pi}{T} $$

Among the pairs that rotate by time, pair i is the one with the wavelength nearest to
``first_repeat`` frames; it then turns less than once in a video of T frames. All other pairs stay
as they are. RIFLEx is a frequency rule of ``RoPE``.
"""

import dataclasses
import math

import numpy as np

from posenc_jax.checks import check_positive, check_range
from posenc_jax.encodings.rotary.frequencies.base import Frequencies, Length, Rates
from posenc_jax.encodings.rotary.rope import RoPE, rotates_by_rule

# Share of a turn within the video, in the released code; the paper's equation has a whole turn.
_MARGIN = 0.9


@dataclasses.dataclass(frozen=True)
class RIFLEx(Frequencies):
    """Slows down one pair of another rule."""

    frequencies: Frequencies  # the other rule
    pairs: tuple[int, ...]  # indices of the pairs of time, from which one is chosen
    # Number of frames after which videos of the unchanged model repeat themselves.
    first_repeat: float
    length: int  # number of frames in the longer video

    def __post_init__(self):
        check_positive(first_repeat=self.first_repeat)

    def __call__(self, channels: int, base: float, length: Length) -> Rates:
        unchanged, attention_factor = self.frequencies(channels, base, length)
        inv_freq = np.array(unchanged)
        wavelengths = [round(2 * math.pi / f) if f else math.inf for f in inv_freq[[*self.pairs]]]
        nearest = np.argmin([abs(frames - self.first_repeat) for frames in wavelengths])
        # A video no longer than this wavelength does not repeat itself, and needs no RIFLEx.
        check_range(wavelengths[nearest] + 1, length=self.length)
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
    axes = encoding.axes or (axis,) * (encoding.rotary_dim // 2)
    pairs = tuple(pair for pair, axis_of_pair in enumerate(axes) if axis_of_pair == axis)
    is_fit = rotates_by_rule(encoding) and bool(pairs)
    if not is_fit or encoding.frequencies.adapts(encoding.rotary_dim, encoding.base):
        raise ValueError(
            f"riflex cannot change this {type(encoding).__name__}: it is for RoPE with frequencies "
            "that do not adapt to the length, and axes that are one number for each pair, alike in "
            f"all heads, some of them axis={axis}"
        )
    return RoPE(
        head_dim=encoding.head_dim,
        base=encoding.base,
        frequencies=RIFLEx(encoding.frequencies, pairs, first_repeat, length),
        axes=encoding.axes,
        rotary_dim=encoding.rotary_dim,
        layout=encoding.layout,
    )
