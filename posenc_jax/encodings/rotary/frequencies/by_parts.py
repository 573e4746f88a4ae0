r"""NTK-by-parts keeps the fast pairs and interpolates the slow ones.

https://arxiv.org/abs/2309.00071 (section 3.2)

$$
\theta'_i = \gamma_i\, \theta_i + (1 - \gamma_i)\, \frac{\theta_i}{s}, \qquad
\gamma_i = \mathrm{clip}\Big(\frac{L\, \theta_i / 2 \pi - \alpha}{\beta - \alpha},\ 0,\ 1\Big)
$$

s is the factor, L the training length, and ``L theta / 2 pi`` the number of turns within it.
"""

import dataclasses
from typing import Unpack

import numpy as np

from posenc_jax.checks import check_ascending, check_range, count_of
from posenc_jax.encodings.rotary.frequencies.base import (
    Frequencies,
    Length,
    Rates,
    geometric,
    interpolated,
    turns_in,
)
from posenc_jax.encodings.rotary.rope import RoPE, Rotating


@dataclasses.dataclass(frozen=True)
class NTKByPartsFrequencies(Frequencies):
    """Divides the frequencies of the pairs that turn rarely within ``train_length``."""

    train_length: int
    factor: float
    alpha: float = 1.0
    beta: float = 32.0

    def __post_init__(self):
        count_of("train_length", self.train_length)
        check_range(1, factor=self.factor)
        check_ascending(alpha=self.alpha, beta=self.beta)

    def __call__(self, channels: int, base: float, length: Length) -> Rates:
        inv_freq = geometric(channels, base)
        turns = turns_in(self.train_length, inv_freq)
        unscaled = unscaled_by_turns(turns, self.alpha, self.beta)
        return interpolated(inv_freq, unscaled, self.factor), 1.0


class NTKByParts(RoPE):
    """NTK-by-parts (2309.00071, section 3.2) has the frequencies of YaRN as in the paper.

    There is no temperature. The class of this name in the authors' first release has another
    formula, which blends RoPE, PI and NTK with other bounds.

    Args:
      factor: s, target length / train length.
      alpha, beta: a pair that turns alpha times or less within the training length is divided by
        the factor, and a pair that turns beta times or more is kept.
    """

    def __init__(
        self,
        *,
        head_dim: int,
        train_length: int,
        factor: float,
        alpha: float = 1.0,
        beta: float = 32.0,
        **rope: Unpack[Rotating],
    ):
        rule = NTKByPartsFrequencies(train_length, factor, alpha, beta)
        super().__init__(head_dim=head_dim, frequencies=rule, **rope)


class Llama3(RoPE):
    """Llama 3.1's scaling (``llama3`` in Hugging Face) is NTK-by-parts between 1 and 4 turns.

    Its arguments are named as in Llama's configuration: ``low_freq_factor`` is alpha and
    ``high_freq_factor`` is beta. Llama 3.2 has a factor of 32. Llama 4 Scout has 1 for both alpha
    and beta: pairs that turn once or more are kept, and all others divided.

    Args:
      train_length: L, ``original_max_position_embeddings`` in Hugging Face.
      factor: s, by which the slow pairs are slowed down.
      low_freq_factor, high_freq_factor: the two bounds alpha and beta.
    """

    def __init__(
        self,
        *,
        head_dim: int,
        train_length: int,
        factor: float,
        low_freq_factor: float = 1.0,
        high_freq_factor: float = 4.0,
        **rope: Unpack[Rotating],
    ):
        check_ascending(low_freq_factor=low_freq_factor, high_freq_factor=high_freq_factor)
        rule = NTKByPartsFrequencies(train_length, factor, low_freq_factor, high_freq_factor)
        super().__init__(head_dim=head_dim, frequencies=rule, **rope)


def unscaled_by_turns(turns: np.ndarray, slow: float, fast: float) -> np.ndarray:
    """Returns the share of each pair that is kept: from 0 at ``slow`` turns to 1 at ``fast``."""
    if slow == fast:
        return (turns >= fast).astype(np.float64)
    return np.clip((turns - slow) / (fast - slow), 0, 1)
