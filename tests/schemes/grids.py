"""Writes out schemes on a grid, with positions ``[T]``, the same on every axis, or ``[A, T]``."""

import numpy as np
from scipy.linalg import block_diag, circulant, expm
from scipy.ndimage import map_coordinates

from schemes.absolute import Sinusoidal
from schemes.biases import ALiBi
from schemes.equations import NoPE, Scheme, content, distances
from schemes.rotary import YARN, Rotary


def on_axes(positions, num_axes):
    return np.broadcast_to(positions, (num_axes, positions.shape[-1]))


class AxialRoPE(Rotary):
    def rotations(self, positions, rate, given):
        positions = on_axes(positions, given.get("num_axes", 2))
        axes = np.arange(len(rate)) % len(positions)
        angles = (positions[axes] * rate[:, None]).T
        return np.exp(1j * angles)[:, None] / np.exp(1j * angles)[None]

    def frequencies(self, d, base, given, longest):
        return super().frequencies(d, given.get("base", 100.0), given, longest)


class Directions(Rotary):
    """Rotates each pair of each head by a product of a vector and the position."""

    def vectors(self, num_heads, pairs, given, weights):
        """Returns ``[heads, pairs, axes]``, for as many heads as have vectors of their own."""
        raise NotImplementedError

    def logits(self, q, k, positions, given, weights):
        H, d = q.shape[1], given.get("rotary_dim", q.shape[-1])
        vectors = self.vectors(given.get("num_kv_heads", H), d // 2, given, weights)
        self.of_heads = np.repeat(vectors, H // len(vectors), axis=0)
        return super().logits(q, k, positions, given, weights)

    def rotations(self, positions, rate, given):
        places = on_axes(positions, self.of_heads.shape[-1])
        apart = places[:, :, None] - places[:, None, :]
        return np.exp(1j * np.einsum("ats,hpa->htsp", apart, self.of_heads))


class RoPEMixed(Directions):
    layout = "interleaved"

    def vectors(self, num_heads, pairs, given, weights):
        return weights["vectors"]


class STRING(NoPE):
    """Exponentiates generators that commute: rotations by pairs, seen from the learned basis."""

    def rotated(self, x, places, given, weights):
        T, H, C = x.shape
        first, second = np.arange(C // 2), np.arange(C // 2) + C // 2
        if given.get("layout") == "interleaved":
            first, second = np.arange(0, C, 2), np.arange(1, C, 2)
        rotated = np.zeros(x.shape)
        for t, h in np.ndindex(T, H):
            head = h * len(weights["skew"]) // H
            skew, generator = np.zeros((2, C, C))
            skew[np.tril_indices(C, -1)] = weights["skew"][head]
            skew -= skew.T
            basis = (np.eye(C) - skew) @ np.linalg.inv(np.eye(C) + skew)
            generator[second, first] = weights["rates"][head] @ places[:, t]
            generator[first, second] = -generator[second, first]
            rotated[t, h] = expm(basis.T @ generator @ basis) @ x[t, h]
        return rotated

    def logits(self, q, k, positions, given, weights):
        places = on_axes(positions, given.get("num_axes", 1))
        q, k = (self.rotated(x, places, given, weights) for x in (q, k))
        return content(q, k)


class CirculantSTRING(NoPE):
    """Exponentiates circulant generators as they are, without a Fourier transform."""

    def logits(self, q, k, positions, given, weights):
        columns_KNCA, (T, H, C) = weights["columns"], q.shape
        places = on_axes(positions, columns_KNCA.shape[-1])
        rotations = np.zeros((T, H, C, C))
        for t, h in np.ndindex(T, H):
            of_head = columns_KNCA[h * len(columns_KNCA) // H]
            matrix = block_diag(*(circulant(columns @ places[:, t]) for columns in of_head))
            rotations[t, h] = expm(matrix - matrix.T)
        q, k = (np.einsum("thdc,thc->thd", rotations, x) for x in (q, k))
        return content(q, k)


class GoldenGate(Directions):
    def vectors(self, num_heads, pairs, given, weights):
        # On two axes; the golden arrays have three.
        rotation = np.exp(1j * np.pi * (5**0.5 - 1) / 2 * np.arange(num_heads * pairs))
        unit = np.stack([rotation.real, rotation.imag], axis=-1)
        low, high = given.get("slowest", 0.2), given.get("fastest", 20.0)
        still = round(given.get("zero_share", 0.0) * pairs)
        rate = np.zeros(pairs)
        rate[still:] = np.geomspace(low, high, pairs - still)
        return unit.reshape(num_heads, pairs, 2) * rate[:, None]


class DINOv3(Rotary):
    def rotations(self, positions, rate, given):
        axis = np.arange(len(rate)) // (len(rate) // 2)
        places = on_axes(positions, 2)[axis].T
        return np.exp(1j * (places[:, None] - places[None]) * rate)

    def frequencies(self, d, base, given, longest):
        one_axis = given.get("base", 100.0) ** (-4 * np.arange(d // 4) / d)
        return 2 * np.pi * np.tile(one_axis, 2), 1.0


class SwinV2(NoPE):
    def logits(self, q, k, positions, given, weights):
        places, grid = on_axes(positions, 2), given.get("grid", (8, 8))
        units = [8 * distances(x) / max(side - 1, 1) for x, side in zip(places, grid, strict=True)]
        spaced = np.stack([np.sign(u) * np.log2(1 + abs(u)) / 3 for u in units], axis=-1)
        hidden = np.maximum(spaced @ weights["inner_kernel"] + weights["inner_bias"], 0)
        bias = 16 / (1 + np.exp(-hidden @ weights["outer_kernel"]))
        q, k = (x / np.sqrt((x**2).sum(-1, keepdims=True)) for x in (q, k))
        scale = np.minimum(np.exp(weights["log_scale"]), 100)[:, None, None]
        return scale * np.einsum("thc,shc->hts", q, k) + np.moveaxis(bias, -1, 0)


class Sinusoidal2D(NoPE):
    def embed(self, x, positions, given, weights):
        num_axes, scale = given.get("num_axes", 2), given.get("token_scale", 1.0)
        parts = np.split(np.zeros_like(x), num_axes, axis=-1)
        one_axis = given | {"layout": "half"}
        tables = [
            Sinusoidal().embed(part, axis, one_axis, weights)
            for part, axis in zip(parts, on_axes(positions, num_axes), strict=True)
        ]
        return x * scale + np.concatenate(tables, axis=-1)


class Learned2D(NoPE):
    def embed(self, x, positions, given, weights):
        table = weights["table"]
        places = on_axes(positions, table.ndim - 1)
        if given.get("out_of_range") == "interpolate":
            last = np.array(table.shape[:-1])[:, None] - 1
            longest = places.max(axis=-1, keepdims=True)
            places = np.where(longest > last, places * (last / longest), places)
        cells = [
            map_coordinates(channel, places, order=1, mode="nearest")
            for channel in np.moveaxis(table, -1, 0)
        ]
        return x + np.stack(cells, axis=-1)


class ALiBi2D(ALiBi):
    def logits(self, q, k, positions, given, weights):
        positions = np.atleast_2d(positions)
        apart = np.linalg.norm(positions[:, :, None] - positions[:, None, :], axis=0)
        slopes = given.get("slope_scale", 1.0) * np.array(self.slopes(q.shape[1]))
        return content(q, k) - slopes[:, None, None] * apart


SCHEMES = {
    "axial_rope": Scheme(
        AxialRoPE(),
        [
            {},
            {"num_axes": 3, "base": 1e4, "layout": "interleaved", "rotary_dim": 12},
            {"base": 9.0, "frequencies": YARN},
        ],
        num_axes=2,
    ),
    "rope_mixed": Scheme(
        RoPEMixed(), [{}, {"layout": "half", "num_heads": 2}, {"base": 3.0}], num_axes=2
    ),
    "string": Scheme(
        STRING(),
        [
            {},
            {"base": 30.0, "layout": "interleaved", "num_kv_heads": 2},
            {"num_axes": 3, "num_heads": 2},
        ],
    ),
    "circulant_string": Scheme(
        CirculantSTRING(),
        [{}, {"base": 30.0, "block_size": 8, "num_kv_heads": 2}, {"num_axes": 3, "num_heads": 2}],
    ),
    "golden_gate": Scheme(
        GoldenGate(),
        [
            {},
            {"slowest": 0.5, "fastest": 9.0, "rotary_dim": 10, "layout": "interleaved"},
            {"zero_share": 0.3, "num_heads": 2, "fastest": 3.0},
        ],
        num_axes=2,
    ),
    "dinov3": Scheme(
        DINOv3(),
        [{}, {"base": 30.0, "layout": "interleaved"}],
        in_training={"shift": 0.5, "jitter": 1.5, "rescale": 1.1},
        num_axes=2,
    ),
    "swin_v2": Scheme(
        SwinV2(),
        [{"hidden": 8}, {"hidden": 5, "grid": (1, 30)}],
        overrides={"hidden": 8},
        num_axes=2,
    ),
    "sinusoidal_2d": Scheme(
        Sinusoidal2D(),
        [{}, {"num_axes": 4, "base": 300.0, "token_scale": 1.5}],
        shift_invariant=False,
        num_axes=2,
    ),
    "learned_2d": Scheme(
        Learned2D(),
        [
            {"out_of_range": "clamp"},
            {"out_of_range": "interpolate", "grid": (4, 6)},
            {"out_of_range": "interpolate", "grid": (3, 2, 5)},
        ],
        overrides={"out_of_range": "clamp"},
        whole_positions_only=True,
        shift_invariant=False,
    ),
    "alibi_2d": Scheme(ALiBi2D(), [{}, {"num_heads": 6, "slope_scale": 0.25}], num_axes=2),
}
