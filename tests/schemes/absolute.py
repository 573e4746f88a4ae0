"""Writes out the equations of positions added to the token embeddings."""

import math

import numpy as np

from schemes.equations import NoPE, Scheme


class Sinusoidal(NoPE):
    def embed(self, x, positions, given, weights):
        D = x.shape[-1]
        rate = given.get("base", 10000.0) ** -(np.arange(0, D, 2) / D)
        table = np.empty_like(x)
        sin, cos = (slice(0, None, 2), slice(1, None, 2))
        if given.get("layout") == "half":
            sin, cos = (slice(0, D // 2), slice(D // 2, None))
        table[:, sin] = np.sin(positions[:, None] * rate)
        table[:, cos] = np.cos(positions[:, None] * rate)
        return x * given.get("token_scale", math.sqrt(D)) + table


class Learned(NoPE):
    def embed(self, x, positions, given, weights):
        table = weights["table"]
        last = len(table) - 1
        if given.get("out_of_range") == "interpolate" and positions.max() > last:
            positions = positions * last / positions.max()
        # Linear between rows, and the nearest row outside.
        columns = [np.interp(positions, np.arange(last + 1), column) for column in table.T]
        return x + np.stack(columns, axis=-1)


SCHEMES = {
    "sinusoidal": Scheme(
        Sinusoidal(),
        [{}, {"base": 300.0, "layout": "half", "token_scale": 1.5}],
        shift_invariant=False,
    ),
    "learned": Scheme(
        Learned(),
        [{"out_of_range": "clamp"}, {"out_of_range": "interpolate"}],
        overrides={"out_of_range": "clamp"},
        whole_positions_only=True,
        shift_invariant=False,
    ),
}
