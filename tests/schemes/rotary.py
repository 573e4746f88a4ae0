"""Computes the logits of the rotary family from a complex product with the distance."""

import dataclasses
import math

import numpy as np

from posenc_jax.encodings.rotary.frequencies.yarn import YaRNFrequencies
from schemes.equations import NoPE, Scheme, distances, pairs_of

TRAIN_LENGTH = 32  # what common.build gives


class Rotary(NoPE):
    layout, rotates_last = "half", False

    def frequencies(self, d, base, given, longest):
        """Returns the radians a token of each pair, and the factor on the logits.

        Wherever another rule is given, it is YaRN.
        """
        if "frequencies" in given:
            rule = dataclasses.asdict(given["frequencies"])
            rule = {key: rule[key] for key in ("factor", "attention_factor") if rule[key]}
            return YaRN().frequencies(d, base, rule, longest)
        return base ** (-2 * np.arange(d // 2) / d), 1.0

    def rotations(self, positions, rate, given):
        """Returns the rotation between each two positions, complex ``[T, T, pairs]``.

        Where heads rotate by different angles, it is ``[H, T, T, pairs]``.
        """
        return np.exp(1j * distances(positions)[..., None] * rate)

    def logits(self, q, k, positions, given, weights):
        d = given.get("rotary_dim", q.shape[-1])
        rate, temperature = self.frequencies(d, given.get("base", 1e4), given, positions.max() + 1)
        if self.rotates_last:
            # The channels that rotate come first from here on.
            q, k = (np.roll(x, d, axis=-1) for x in (q, k))
        q_pairs, k_pairs = (pairs_of(x[..., :d], given.get("layout", self.layout)) for x in (q, k))
        rotation = self.rotations(positions, rate, given)
        rotation = np.broadcast_to(rotation, (q.shape[1], *rotation.shape[-3:]))
        rotated = np.einsum("thp,shp,htsp->hts", q_pairs, k_pairs.conj(), rotation).real
        still = np.einsum("thc,shc->hts", q[..., d:], k[..., d:])
        return (temperature * rotated + still) / math.sqrt(q.shape[-1])


class PositionInterpolation(Rotary):
    def frequencies(self, d, base, given, longest):
        rate, _ = super().frequencies(d, base, given, longest)
        return rate / given["factor"], 1.0


class NTK(Rotary):
    def frequencies(self, d, base, given, longest):
        return super().frequencies(d, base * given["factor"] ** (d / (d - 2)), given, longest)


class DynamicNTK(Rotary):
    def frequencies(self, d, base, given, longest):
        if longest > TRAIN_LENGTH:
            factor = given.get("factor", 1.0)
            bracket = factor * longest / TRAIN_LENGTH - (factor - 1)
            base = base * bracket ** (d / (d - 2))
        return super().frequencies(d, base, given, longest)


class YaRN(Rotary):
    def frequencies(self, d, base, given, longest):
        rate, _ = super().frequencies(d, base, given, longest)
        factor, fast, slow = given["factor"], given.get("beta_fast", 32), given.get("beta_slow", 1)
        train_length = given.get("train_length", TRAIN_LENGTH)
        if given.get("ramp") == "turns":
            # The paper's gamma of r = L / wavelength: 1 keeps a pair, 0 divides it.
            turns = train_length / (2 * np.pi / rate)
            gamma = np.where(turns < slow, 0.0, 1.0)
            if fast > slow:
                gamma = np.clip((turns - slow) / (fast - slow), 0, 1)
        else:
            # The same between whole pairs: i solves 2 pi base^(2 i / d) = L / turns.
            low, high = (
                d / 2 * math.log(train_length / (2 * math.pi * turns), base)
                for turns in (fast, slow)
            )
            if given.get("truncate", True):
                low, high = math.floor(low), math.ceil(high)
            low, high = max(low, 0), min(high, d - 1)
            gamma = 1 - np.clip((np.arange(d // 2) - low) / (high - low), 0, 1)

        def mu(mscale):
            return 0.1 * mscale * math.log(factor) + 1

        temperature = mu(1)
        if "mscale" in given:
            temperature = mu(given["mscale"]) / mu(given["mscale_all_dim"])
        temperature = given.get("attention_factor", temperature)
        return (1 - gamma) * rate / factor + gamma * rate, temperature**2


class HoPE(Rotary):
    def frequencies(self, d, base, given, longest):
        rate, _ = super().frequencies(d, base, given, longest)
        wavelength = 2 * np.pi / rate
        return rate * (given.get("cut_cycles", 1) * wavelength < TRAIN_LENGTH), 1.0


class Proportional(Rotary):
    def frequencies(self, d, base, given, longest):
        rate, _ = super().frequencies(d, base, given, longest)
        rate[math.floor(given["fraction"] * d / 2) :] = 0
        return rate / given.get("factor", 1.0), 1.0


YARN = YaRNFrequencies(TRAIN_LENGTH, 3.0)
OTHER = {"base": 300.0, "layout": "interleaved"}

SCHEMES = {
    "rope": Scheme(
        Rotary(),
        [{}, {"base": 300.0, "layout": "interleaved", "rotary_dim": 10}, {"frequencies": YARN}],
    ),
    "pi": Scheme(
        PositionInterpolation(), [{"factor": 4.0}, {"factor": 1.5, "base": 300.0, "rotary_dim": 8}]
    ),
    "ntk": Scheme(NTK(), [{"factor": 4.0}, {"factor": 8.0, "base": 300.0, "rotary_dim": 12}]),
    "dynamic_ntk": Scheme(
        DynamicNTK(), [{}, {"factor": 3.0, "base": 300.0, "layout": "interleaved"}]
    ),
    "yarn": Scheme(
        YaRN(),
        [
            {"factor": 4.0},
            {"factor": 6.0, "ramp": "turns", "beta_fast": 4.0, "rotary_dim": 12},
            {"factor": 2.0, "truncate": False, "mscale": 1.0, "mscale_all_dim": 0.3},
            {"factor": 8.0, "base": 20.0, "beta_fast": 3.0, "beta_slow": 0.5},
            {"factor": 8.0, "beta_fast": 1.0, "attention_factor": 1.3},
            {"factor": 8.0, "beta_fast": 1.0, "ramp": "turns"},
        ],
    ),
    "hope": Scheme(HoPE(), [{}, {"cut_cycles": 0.2, "base": 300.0}]),
    "p_rope": Scheme(
        Proportional(), [{"fraction": 0.75}, {"fraction": 0.4, "factor": 2.0, "base": 300.0}]
    ),
}
