r"""NTK-by-parts keeps the fast pairs and interpolates the slow ones.

https://arxiv.org/abs/2309.00071 (section 3.2)

$$
\theta'_i = \gamma_i\, \theta_i + (1 - \gamma_i)\, \frac{\theta_i}{s}, \qquad
\gamma_i = \mathrm{clip}\Big(\frac{L\, \theta_i / 2 \pi - \alpha}{\beta - \alpha},\ 0,\ 1\Big)
$$

s is the factor, L the training length, and ``L theta / 2 pi`` the number of turns within it.
"""

import dataclasses

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


@dataclasses.dataclass(frozen=True)
class NTKByParts(Frequencies):
    """NTK-by-parts (2309.00071, section 3.2) has the frequencies of YaRN as in the paper.

    There is no temperature. The class of this name in the authors' first release has another
    formula, which blends RoPE, PI and NTK with other bounds.

    Attributes:
      factor: s, target length / train length.
      alpha, beta: a pair that turns alpha times or less within the training length is divided by
        the factor, and a pair that turns beta times or more is kept.
    """

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


@dataclasses.dataclass(frozen=True)
class Llama3(Frequencies):
    """Llama 3.1's scaling (``llama3`` in Hugging Face) is NTK-by-parts between 1 and 4 turns.

    Its arguments are named as in Llama's configuration: ``low_freq_factor`` is alpha and
    ``high_freq_factor`` is beta. Llama 3.2 has a factor of 32. Llama 4 Scout has 1 for both alpha
    and beta: pairs that turn once or more are kept, and all others divided.

    Attributes:
      train_length: L, ``original_max_position_embeddings`` in Hugging Face.
      factor: s, by which the slow pairs are slowed down.
      low_freq_factor, high_freq_factor: the two bounds alpha and beta.
    """

    train_length: int
    factor: float
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0

    def __post_init__(self):
        count_of("train_length", self.train_length)
        check_range(1, factor=self.factor)
        check_ascending(
            low_freq_factor=self.low_freq_factor, high_freq_factor=self.high_freq_factor
        )

    def __call__(self, channels: int, base: float, length: Length) -> Rates:
        bounds = self.low_freq_factor, self.high_freq_factor
        return NTKByParts(self.train_length, self.factor, *bounds)(channels, base, length)


def unscaled_by_turns(turns: np.ndarray, slow: float, fast: float) -> np.ndarray:
    """Returns the share of each pair that is kept: from 0 at ``slow`` turns to 1 at ``fast``."""
    if slow == fast:
        return (turns >= fast).astype(np.float64)
    return np.clip((turns - slow) / (fast - slow), 0, 1)
