"""Puts the equations of other schemes on drawn positions."""

import jax
import numpy as np

from schemes.absolute import Sinusoidal
from schemes.equations import NoPE, Scheme
from schemes.rotary import TRAIN_LENGTH, Rotary


class Randomized(NoPE):
    def inner(self, given):
        """Returns the wrapped scheme's equations, and its own keywords."""
        over = given["over"]
        inner = over if isinstance(over, dict) else {"name": over}
        return {"rope": Rotary(), "sinusoidal": Sinusoidal()}[inner["name"]], inner

    def place(self, positions, given):
        count, limit = int(positions.max()) + 1, given["max_length"]
        # The library's own random order of 0 .. limit - 1: the numbers in its first places.
        order = np.asarray(
            jax.random.permutation(jax.random.key(given.get("evaluation_seed", 0)), limit)
        )
        drawn = sorted(number for number in range(limit) if order[number] < count)
        return np.vectorize(lambda position: float(drawn[int(position)]))(positions)

    def embed(self, x, positions, given, weights):
        equations, inner = self.inner(given)
        return equations.embed(x, positions, inner, weights)

    def logits(self, q, k, positions, given, weights):
        equations, inner = self.inner(given)
        return equations.logits(q, k, positions, inner, weights)


class RandomFloat(Randomized):
    def place(self, positions, given):
        longest = max(TRAIN_LENGTH, positions.max() + 1)
        return (2 * positions + 1) / (2 * longest) * given["max_length"]


SCHEMES = {
    "random_float": Scheme(
        RandomFloat(),
        [
            {"over": {"name": "rope", "base": 300.0}, "max_length": 500},
            {"over": "sinusoidal", "max_length": 50},
        ],
        overrides={"max_length": 64},
        depends_on_batch=True,
        distant=0,  # float32 rounds real positions that are far away
    ),
    "randomized": Scheme(
        Randomized(),
        [
            {"over": {"name": "rope", "base": 300.0}, "max_length": 500},
            {"over": "sinusoidal", "max_length": 200, "evaluation_seed": 3},
        ],
        whole_positions_only=True,
        depends_on_batch=True,
        shift_invariant=False,
    ),
}
