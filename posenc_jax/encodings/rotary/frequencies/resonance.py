r"""Resonance RoPE makes every wavelength a whole number of tokens.

https://arxiv.org/abs/2403.00071

$$ \theta'_i = \frac{2 \pi}{\mathrm{round}(2 \pi / \theta_i)} $$
"""

import dataclasses
import math
from typing import Unpack

import numpy as np

from posenc_jax.encodings.lib.double import Double, rounded
from posenc_jax.encodings.rotary.frequencies.base import Default, Frequencies, Length, Rates
from posenc_jax.encodings.rotary.rope import RoPE, Rotating


@dataclasses.dataclass(frozen=True)
class ResonanceFrequencies(Frequencies):
    """Rounds the wavelengths of another rule, by default RoPE's."""

    frequencies: Frequencies | None = None

    def __call__(self, channels: int, base: float, length: Length) -> Rates:
        inv_freq, attention_factor = (self.frequencies or Default())(channels, base, length)
        # A pair that does not rotate has no wavelength, and stays as it is.
        if isinstance(inv_freq, Double):
            is_rotated = inv_freq.high != 0
            wavelength = rounded(2 * math.pi / inv_freq.where(is_rotated, 1.0))
            return (2 * math.pi / wavelength).where(is_rotated, 0.0), attention_factor
        is_rotated = inv_freq != 0
        wavelengths = np.round(2 * math.pi / np.where(is_rotated, inv_freq, 1.0))
        return np.where(is_rotated, 2 * math.pi / wavelengths, 0.0), attention_factor


class Resonance(RoPE):
    """Resonance RoPE (2403.00071) rounds every wavelength to a whole number of tokens.

    A pair that completes a turn within the training length then meets no new angle beyond it. The
    rounding comes after any other scaling: Resonance YaRN is
    ``frequencies=YaRNFrequencies(train_length, factor)``, with YaRN's temperature.

    Args:
      frequencies: rule whose wavelengths are rounded. Default: RoPE's.
    """

    def __init__(
        self, *, head_dim: int, frequencies: Frequencies | None = None, **rope: Unpack[Rotating]
    ):
        rule = ResonanceFrequencies(frequencies)
        super().__init__(head_dim=head_dim, frequencies=rule, **rope)
