"""Computes rotary frequencies for longer sequences."""

import math

import numpy as np

from schemes.equations import Scheme
from schemes.rotary import OTHER, TRAIN_LENGTH, YARN, Rotary, YaRN


class DynamicPI(Rotary):
    def frequencies(self, d, base, given, longest):
        rate, _ = super().frequencies(d, base, given, longest)
        return rate / max(1, longest / TRAIN_LENGTH), 1.0


class NTKCritical(Rotary):
    def frequencies(self, d, base, given, longest):
        target = given.get("factor", 4.0) * TRAIN_LENGTH
        exponent = math.log(target / (2 * math.pi)) / math.log(TRAIN_LENGTH / (2 * math.pi))
        return super().frequencies(d, base**exponent, given, longest)


class NTKByParts(Rotary):
    names = ("alpha", "beta")
    published = (4.0, 1.0, 32.0)

    def frequencies(self, d, base, given, longest):
        rate, _ = super().frequencies(d, base, given, longest)
        new = []
        for theta in rate:
            factor, low, high = (
                given.get(name, value)
                for name, value in zip(("factor", *self.names), self.published, strict=True)
            )
            r = given.get("train_length", TRAIN_LENGTH) / (2 * math.pi / theta)
            gamma = 0 if r < low else 1 if r > high else (r - low) / (high - low)
            new.append((1 - gamma) * theta / factor + gamma * theta)
        return np.array(new), 1.0


class Llama3(NTKByParts):
    names = ("low_freq_factor", "high_freq_factor")
    published = (8.0, 1.0, 4.0)


class DynamicYaRN(YaRN):
    def frequencies(self, d, base, given, longest):
        factor = max(1, longest / TRAIN_LENGTH)
        return super().frequencies(d, base, given | {"factor": factor}, longest)


class MrRoPEUni(Rotary):
    def radix(self, j, count):
        """Returns the exponent of s in the factor of digit j of the middle, counted from 1."""
        return 1 / count

    def frequencies(self, d, base, given, longest):
        rate, _ = super().frequencies(d, base, given, longest)
        turns = TRAIN_LENGTH * rate / (2 * math.pi)
        fast, slow = given.get("beta_fast", 32), given.get("beta_slow", 1)
        first = max(0, int((turns >= fast).sum()) - 1)
        last = int((turns > slow).sum())
        factor, slower = given.get("factor", 4.0), 1.0
        for i in range(d // 2):
            if first < i <= last:
                slower *= factor ** self.radix(i - first, last - first)
            rate[i] /= slower
        return rate, given.get("attention_factor", 0.1 * math.log(factor) + 1) ** 2


class MrRoPEPro(MrRoPEUni):
    def radix(self, j, count):
        return 2 * j / (count * (count + 1))


class LongRoPE(Rotary):
    def factors(self, d, base, given):
        """Returns the factors of the pairs and of attention, of the short side and the long one."""
        scale = given.get("factor", 4.0)
        attention = given.get(
            "attention_factor", math.sqrt(1 + math.log(scale) / math.log(TRAIN_LENGTH))
        )
        short = given.get("short_factor", 1.0), given.get("short_attention_factor", attention)
        return short, (given.get("long_factor", scale), attention)

    def rotations(self, positions, rate, given):
        short, long = self.factors(2 * len(rate), given.get("base", 1e4), given)
        slower, attention = long if positions.max() + 1 > TRAIN_LENGTH else short
        unit = []
        for n in positions:
            if n < given.get("start_tokens", -math.inf):
                unit.append(np.exp(1j * n * rate))
            else:
                unit.append(attention * np.exp(1j * n * rate / np.array(slower)))
        return np.array(unit)[:, None] * np.array(unit)[None].conj()


class LongRoPE2(LongRoPE):
    def factors(self, d, base, given):
        scale = given.get("factor", 4.0)
        wavelength = 2 * np.pi * base ** (2 * np.arange(d // 2) / d)
        critical = given.get("critical_pair", int(np.argmax(wavelength > TRAIN_LENGTH)))
        tail = np.broadcast_to(given.get("tail_factors", scale), d // 2 - critical)
        # The base at which RoPE's own rule slows the critical pair down by its factor.
        larger = base * tail[0] ** (d / (2 * critical))
        ntk = (larger / base) ** (2 * np.arange(critical) / d)
        long = np.concatenate([ntk, tail])
        return (1.0, 1.0), (long, super().factors(d, base, given)[1][1])


class Clipped(Rotary):
    def frequencies(self, d, base, given, longest):
        rate, _ = super().frequencies(d, base, given, longest)
        n = given.get("clipped_pairs", round(d // 2 * 20 / 64))
        for j in range(n):
            left = 0.0
            if given.get("taper") != "hard":
                left = 0.5 * (1 + math.cos(math.pi * j / (n - 1)))
            rate[d // 2 - n + j] *= left
        return rate, 1.0


class Resonance(Rotary):
    def frequencies(self, d, base, given, longest):
        rate, temperature = super().frequencies(d, base, given, longest)
        return 2 * np.pi / np.round(2 * np.pi / rate), temperature


LONG_FACTOR = (1.0, 1.5, 2.0, 2.25, 3.0, 4.0, 4.5, 5.0)
SHORT_FACTOR = (1.0, 1.0, 1.05, 1.1, 1.2, 1.2, 1.3, 1.5)

SCHEMES = {
    "dynamic_pi": Scheme(DynamicPI(), [{}, {"base": 300.0, "rotary_dim": 12}]),
    "ntk_critical": Scheme(NTKCritical(), [{}, {"factor": 8.0, "base": 300.0, "rotary_dim": 12}]),
    "ntk_by_parts": Scheme(
        NTKByParts(),
        [{}, {"factor": 6.0, "alpha": 0.5, "beta": 4.0, "base": 300.0, "layout": "interleaved"}],
    ),
    "llama3": Scheme(
        Llama3(),
        [
            {},
            {"factor": 32.0, "low_freq_factor": 0.5, "high_freq_factor": 6.0, "base": 300.0},
            {"high_freq_factor": 1.0},
        ],
        overrides={"factor": 8.0},
    ),
    "dynamic_yarn": Scheme(
        DynamicYaRN(),
        [
            {},
            {"ramp": "turns", "beta_fast": 4.0, "rotary_dim": 12},
            {"truncate": False, "base": 100.0, "beta_fast": 8.0, "beta_slow": 0.5},
            {"attention_factor": 1.0},
        ],
    ),
    **{
        name: Scheme(
            equations,
            [
                {},
                {"factor": 6.0, "base": 300.0, "rotary_dim": 12, "beta_fast": 4.0},
                {"beta_slow": 0.05, "layout": "interleaved", "attention_factor": 1.0},
            ],
        )
        for name, equations in (("mrrope_uni", MrRoPEUni()), ("mrrope_pro", MrRoPEPro()))
    },
    "longrope": Scheme(
        LongRoPE(),
        [
            {"factor": 4.0, "long_factor": LONG_FACTOR, "short_factor": SHORT_FACTOR},
            {"factor": 8.0, "start_tokens": 6, "long_factor": LONG_FACTOR[:6], "rotary_dim": 12},
            {"attention_factor": 1.2, "short_attention_factor": 1.1, **OTHER},
        ],
    ),
    "longrope2": Scheme(
        LongRoPE2(),
        [
            {},
            {"factor": 5.0, "critical_pair": 3, "tail_factors": (5.0, 5.5, 6.0, 6.0, 7.0)},
            {"factor": 8.0, "rotary_dim": 12, "attention_factor": 1.0, **OTHER, "base": 100.0},
        ],
    ),
    "clipped_rope": Scheme(
        Clipped(), [{}, {"clipped_pairs": 5}, {"clipped_pairs": 3, "taper": "hard", "base": 300.0}]
    ),
    "resonance": Scheme(
        Resonance(),
        [{}, OTHER | {"rotary_dim": 10}, {"frequencies": YARN}],
    ),
}
