"""Near relatives of the rotary family add decay, mixed frequencies or polar coordinates."""

import dataclasses
import math

import numpy as np

from schemes.equations import NoPE, Scheme, channels_of, distances, pairs_of
from schemes.rotary import TRAIN_LENGTH, YARN, Rotary


class XPos(Rotary):
    layout = "interleaved"

    def rotations(self, positions, rate, given):
        pairs = len(rate)
        gamma, scale_base = given.get("gamma", 0.4), given.get("scale_base", 512)
        zeta = (np.arange(pairs) / pairs + gamma) / (1 + gamma)
        fading = zeta ** (distances(positions)[..., None] / scale_base)
        return fading * super().rotations(positions, rate, given)


class FoPE(NoPE):
    def rotated(self, x, positions, given, weights):
        """Rotates the first channels of ``x``, head by head."""
        T, H, C = x.shape
        d, layout = given.get("rotary_dim", C), given.get("layout")
        rates = [given.get("base", 1e4) ** (-2 * i / d) for i in range(d // 2)]
        rates = np.array([rate for rate in rates if rate >= 2 * math.pi / TRAIN_LENGTH])
        num_kv_heads, _, mixed = weights["cos_coef"].shape
        rotation = np.full((T, H, d // 2), 1 + 1j if given.get("padding") == "ones" else 1 + 0j)
        angles = np.outer(positions, rates)
        for h in range(H):
            kv = h // (H // num_kv_heads)
            cos = np.cos(angles) @ weights["cos_coef"][kv]
            rotation[:, h, :mixed] = cos + 1j * np.sin(angles) @ weights["sin_coef"][kv]
        rotated = channels_of(pairs_of(x[..., :d], layout) * rotation, layout)
        return np.concatenate([rotated, x[..., d:]], axis=-1)

    def logits(self, q, k, positions, given, weights):
        q, k = (self.rotated(x, positions, given, weights) for x in (q, k))
        return super().logits(q, k, positions, given, weights)


class LeRoPE(Rotary):
    layout, rotates_last = "interleaved", True

    def frequencies(self, d, base, given, longest):
        rate, temperature = super().frequencies(d, base, given, longest)
        return rate * np.exp(self.alpha), temperature

    def logits(self, q, k, positions, given, weights):
        self.alpha = weights["alpha"]
        return super().logits(q, k, positions, given, weights)


class ValueRoPE(Rotary):
    layout, rotates_last = "interleaved", True

    def rotated(self, x, positions, given, sign):
        """Rotates the last channels of ``x [T, H, C]``."""
        d, layout = given.get("rotary_dim", x.shape[-1]), given.get("layout", self.layout)
        rate, _ = self.frequencies(d, given.get("base", 1e4), given, None)
        still, x = np.split(x, [x.shape[-1] - d], axis=-1)
        pairs = pairs_of(x, layout) * np.exp(sign * 1j * positions[:, None] * rate)[:, None]
        return np.concatenate([still, channels_of(pairs, layout)], axis=-1)

    def values(self, v, attention, positions, given, weights):
        rotated = self.rotated(v, positions, given, 1)
        sums = super().values(rotated, attention, positions, given, weights)
        return self.rotated(sums, positions, given, -1)


class GrapeM(Rotary):
    def logits(self, q, k, positions, given, weights):
        rates = np.exp(weights["logs"] / 16)
        self.rates = np.repeat(rates, q.shape[1] // len(rates), axis=0)
        return super().logits(q, k, positions, given, weights)

    def rotations(self, positions, rate, given):
        # Clockwise is at minus the position.
        return np.exp(-1j * distances(positions)[..., None] * self.rates[:, None, None])


class PoPE(NoPE):
    def logits(self, q, k, positions, given, weights):
        d = q.shape[-1]
        rate = given.get("base", 1e4) ** (-np.arange(d) / d)
        delta = np.clip(weights["phase"], -2 * np.pi, 0)
        angle = distances(positions)[:, :, None, None] * rate - delta
        magnitudes = (np.log1p(np.exp(x)) for x in (q, k))
        return np.einsum("thc,shc,tshc->hts", *magnitudes, np.cos(angle)) / math.sqrt(d)


SCHEMES = {
    "xpos": Scheme(
        XPos(),
        [{}, {"scale_base": 64.0, "gamma": 0.2, "layout": "half", "rotary_dim": 12, "base": 300.0}],
        distant=10_003,  # zeta ** (distant / 512) must be a float32
    ),
    "fope": Scheme(
        FoPE(),
        [
            {},
            {"padding": "ones", "base": 30.0, "layout": "interleaved", "learned": True},
            {"base": 100.0, "rotary_dim": 12, "num_heads": 2},
        ],
        invisible=(("cos_coef",), ("sin_coef",)),
        shift_invariant=False,
    ),
    "lerope": Scheme(
        LeRoPE(), [{}, {"rotary_dim": 10, "base": 300.0, "layout": "half"}, {"frequencies": YARN}]
    ),
    "value_rope": Scheme(
        ValueRoPE(),
        [
            {},
            {"rotary_dim": 10, "base": 300.0, "layout": "half"},
            {"frequencies": dataclasses.replace(YARN, attention_factor=1.0)},
        ],
    ),
    "grape_m": Scheme(
        GrapeM(), [{}, {"base": 300.0, "layout": "interleaved", "by_head": True, "num_kv_heads": 2}]
    ),
    "pope": Scheme(
        PoPE(),
        [{}, {"base": 300.0, "num_heads": 2, "phase_init": "zero"}],
        # Zero is the same with every seed.
        overrides={"phase_init": "uniform"},
    ),
}
