"""Near relatives of the rotary family add decay, mixed frequencies or polar coordinates."""

import dataclasses
import math

import numpy as np

from schemes.equations import Alternative, NoPE, Scheme, distances
from schemes.rotary import TRAIN_LENGTH, YARN, Rotary


class XPos(Rotary):
    def turns(self, positions, rate, given):
        pairs = len(rate)
        gamma, scale_base = given.get("gamma", 0.4), given.get("scale_base", 512)
        zeta = (np.arange(pairs) / pairs + gamma) / (1 + gamma)
        fading = zeta ** (distances(positions)[..., None] / scale_base)
        return fading * super().turns(positions, rate, given)

    def logits(self, q, k, positions, given, weights):
        return super().logits(q, k, positions, {"layout": "interleaved"} | given, weights)


class FoPE(NoPE):
    def turned(self, x, positions, given, weights):
        """Turns ``x`` head by head, pair by pair."""
        T, H, C = x.shape
        d = given.get("rotary_dim", C)
        rates = [given.get("base", 1e4) ** (-2 * i / d) for i in range(d // 2)]
        rates = np.array([rate for rate in rates if rate >= 2 * math.pi / TRAIN_LENGTH])
        num_kv_heads, _, mixed = weights["cos_coef"].shape
        out = x.copy()
        for h in range(H):
            kv = h // (H // num_kv_heads)
            for i in range(d // 2):
                a, b = (
                    (2 * i, 2 * i + 1) if given.get("layout") == "interleaved" else (i, i + d // 2)
                )
                cos, sin = np.ones(T), np.full(T, 1.0 if given.get("padding") == "ones" else 0.0)
                if i < mixed:
                    cos = np.cos(np.outer(positions, rates)) @ weights["cos_coef"][kv, :, i]
                    sin = np.sin(np.outer(positions, rates)) @ weights["sin_coef"][kv, :, i]
                out[:, h, a] = x[:, h, a] * cos - x[:, h, b] * sin
                out[:, h, b] = x[:, h, b] * cos + x[:, h, a] * sin
        return out

    def logits(self, q, k, positions, given, weights):
        q, k = (self.turned(x, positions, given, weights) for x in (q, k))
        return super().logits(q, k, positions, given, weights)


class LeRoPE(Rotary):
    layout, turns_last = "interleaved", True

    def frequencies(self, d, base, given, longest):
        rate, temperature = super().frequencies(d, base, given, longest)
        return rate * np.exp(self.alpha), temperature

    def logits(self, q, k, positions, given, weights):
        self.alpha = weights["alpha"]
        return super().logits(q, k, positions, given, weights)


class ValueRoPE(Rotary):
    layout, turns_last = "interleaved", True

    def turned(self, x, positions, given, sign):
        """Turns the last channels of ``x [T, H, C]``."""
        d = given.get("rotary_dim", x.shape[-1])
        rate, _ = self.frequencies(d, given.get("base", 1e4), given, None)
        still, x = x[..., : x.shape[-1] - d], x[..., x.shape[-1] - d :]
        if given.get("layout") == "half":
            pairs = x[..., : d // 2] + 1j * x[..., d // 2 :]
        else:
            pairs = x[..., 0::2] + 1j * x[..., 1::2]
        pairs = pairs * np.exp(sign * 1j * positions[:, None] * rate)[:, None]
        if given.get("layout") == "half":
            return np.concatenate([still, pairs.real, pairs.imag], axis=-1)
        turned = np.stack([pairs.real, pairs.imag], axis=-1)
        return np.concatenate([still, turned.reshape(x.shape)], axis=-1)

    def values(self, out, attention, positions, given, weights):
        # The sums are of values not yet turned, which causal weights let one read off.
        v = np.linalg.solve(attention, out.swapaxes(0, 1)).swapaxes(0, 1)
        sums = np.einsum("hts,shc->thc", attention, self.turned(v, positions, given, 1))
        return self.turned(sums, positions, given, -1)


class GrapeM(Rotary):
    def logits(self, q, k, positions, given, weights):
        every, group = [], q.shape[1] // len(weights["logs"])
        for head in range(q.shape[1]):
            self.logs = weights["logs"][head // group]
            one = (x[:, head : head + 1] for x in (q, k))
            # Clockwise is at minus the position.
            every.append(super().logits(*one, -positions, given, weights)[0])
        return np.stack(every)

    def frequencies(self, d, base, given, longest):
        return np.exp(self.logs / 16), 1.0


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
        {"gain": Alternative(1.0), "learned": Alternative(True, trains=True)},
        invisible=(("cos_coef",), ("sin_coef",)),
        shift_invariant=False,
    ),
    "lerope": Scheme(
        LeRoPE(),
        [
            {},
            {"rotary_dim": 10, "base": 300.0, "layout": "half"},
            {"frequencies": YARN},
        ],
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
        GrapeM(),
        [{}, {"base": 300.0, "layout": "interleaved", "by_head": True, "num_kv_heads": 2}],
    ),
    "pope": Scheme(
        PoPE(),
        [{}, {"base": 300.0, "num_heads": 2, "phase_init": "zero"}],
        # Zero is the same with every seed.
        overrides={"phase_init": "uniform"},
    ),
}
