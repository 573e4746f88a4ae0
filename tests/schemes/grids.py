"""Writes out schemes on a grid, with positions ``[T]``, the same on every axis, or ``[A, T]``."""

import numpy as np
from scipy.ndimage import map_coordinates

from posenc_jax.encodings.rotary import frequencies
from schemes.absolute import Sinusoidal
from schemes.biases import ALiBi
from schemes.equations import Alternative, NoPE, Scheme, content
from schemes.rotary import ROPE, Rotary


def on_axes(positions, num_axes):
    return np.broadcast_to(positions, (num_axes, positions.shape[-1]))


class AxialRoPE(Rotary):
    def turns(self, positions, rate, own):
        positions = on_axes(positions, own.get("num_axes", 2))
        axes = np.arange(len(rate)) % len(positions)
        angles = (positions[axes] * rate[:, None]).T
        return np.exp(1j * angles)[:, None] / np.exp(1j * angles)[None]

    def frequencies(self, d, base, own, longest):
        return super().frequencies(d, own.get("base", 100.0), own, longest)


class Sinusoidal2D(NoPE):
    def embed(self, x, positions, own, weights):
        num_axes, scale = own.get("num_axes", 2), own.get("token_scale", 1.0)
        parts = np.split(np.zeros_like(x), num_axes, axis=-1)
        one_axis = own | {"layout": "half"}
        tables = [
            Sinusoidal().embed(part, axis, one_axis, weights)
            for part, axis in zip(parts, on_axes(positions, num_axes), strict=True)
        ]
        return x * scale + np.concatenate(tables, axis=-1)


class Learned2D(NoPE):
    def embed(self, x, positions, own, weights):
        table = weights["table"]
        places = on_axes(positions, table.ndim - 1)
        if own.get("out_of_range") == "interpolate":
            last = np.array(table.shape[:-1])[:, None] - 1
            longest = places.max(axis=-1, keepdims=True)
            places = np.where(longest > last, places * (last / longest), places)
        cells = [
            map_coordinates(channel, places, order=1, mode="nearest")
            for channel in np.moveaxis(table, -1, 0)
        ]
        return x + np.stack(cells, axis=-1)


class ALiBi2D(ALiBi):
    def logits(self, q, k, positions, own, weights):
        positions = np.atleast_2d(positions)
        apart = np.linalg.norm(positions[:, :, None] - positions[:, None, :], axis=0)
        slopes = own.get("slope_scale", 1.0) * np.array(self.slopes(q.shape[1]))
        return content(q, k) - slopes[:, None, None] * apart


SLOWER = Alternative(frequencies.PositionInterpolation(2.0))
NUM_AXES = {"num_axes": Alternative(4, num_axes=4, baseline_axes=2)}

SCHEMES = {
    "axial_rope": Scheme(
        AxialRoPE(),
        [{}, {"num_axes": 3, "base": 1e4, "layout": "interleaved", "rotary_dim": 12}],
        {key: ROPE[key] for key in ("rotary_dim", "layout")}
        | NUM_AXES
        | {"base": Alternative(10.0), "frequencies": SLOWER},
    ),
    "sinusoidal_2d": Scheme(
        Sinusoidal2D(),
        [{}, {"num_axes": 4, "base": 300.0, "token_scale": 1.5}],
        NUM_AXES | {"base": Alternative(100.0), "token_scale": Alternative(2.0)},
        shift_invariant=False,
    ),
    "learned_2d": Scheme(
        Learned2D(),
        [
            {"out_of_range": "clamp"},
            {"out_of_range": "interpolate", "grid": (4, 6)},
            {"out_of_range": "interpolate", "grid": (3, 2, 5)},
        ],
        {
            "out_of_range": Alternative("interpolate"),
            "grid": Alternative((4, 6), num_axes=2),
        },
        overrides={"out_of_range": "clamp"},
        whole_positions_only=True,
        shift_invariant=False,
    ),
    "alibi_2d": Scheme(
        ALiBi2D(),
        [{}, {"num_heads": 6, "slope_scale": 0.25}],
        {"slope_scale": Alternative(0.25)},
    ),
}
