"""Writes out the equations of biases by distance."""

import math

import numpy as np

from schemes.equations import NoPE, Scheme, content, distances


class ALiBi(NoPE):
    def slopes(self, num_heads):
        power = 2 ** math.floor(math.log2(num_heads))
        slopes = [2 ** (-8 * (h + 1) / power) for h in range(power)]
        if power < num_heads:
            slopes += self.slopes(2 * power)[0::2][: num_heads - power]
        return slopes

    def logits(self, q, k, positions, given, weights):
        slopes = given.get("slope_scale", 1.0) * np.array(self.slopes(q.shape[1]))
        return content(q, k) - slopes[:, None, None] * abs(distances(positions))


class T5(NoPE):
    def bucket(self, distance, num_buckets, max_distance):
        """Returns the bucket of a distance of 0 or more, in whole numbers.

        e + floor(ln(n / e) / ln(Dmax / e) (N - e)) is at least e + j where
        n^(N - e) e^j >= Dmax^j e^(N - e).
        """
        exact = num_buckets // 2
        if distance < exact:
            return distance
        far = num_buckets - exact
        steps = [j for j in range(far) if distance**far * exact**j >= max_distance**j * exact**far]
        return exact + max(steps)

    def logits(self, q, k, positions, given, weights):
        num_buckets, max_distance = given.get("num_buckets", 32), given.get("max_distance", 128)
        bias = np.empty((q.shape[1], len(positions), len(positions)))
        for (m, n), distance in np.ndenumerate(distances(positions)):
            distance = math.floor(distance + 0.5)
            if given.get("bidirectional"):
                half = num_buckets // 2
                bucket = self.bucket(abs(distance), half, max_distance) + half * (distance < 0)
            else:
                bucket = self.bucket(max(distance, 0), num_buckets, max_distance)
            bias[:, m, n] = weights["table"][bucket]
        return content(q, k) + given.get("table_scale", 1) * bias


class KerpleLog(NoPE):
    def logits(self, q, k, positions, given, weights):
        p, a = (0.01 + np.log1p(np.exp(weights[key])) for key in ("raw_p", "raw_a"))
        p, a = p[:, None, None], a[:, None, None]
        return content(q, k) - p * np.log(1 + a * abs(distances(positions)))


class KerplePower(NoPE):
    def logits(self, q, k, positions, given, weights):
        a = 0.01 + np.log1p(np.exp(weights["raw_a"]))[:, None, None]
        p = 0.01 + 1.99 / (1 + np.exp(-weights["raw_p"]))[:, None, None]
        return content(q, k) - a * abs(distances(positions)) ** p


class Sandwich(NoPE):
    def logits(self, q, k, positions, given, weights):
        H, channels = q.shape[1], given.get("channels", 128)
        rate = given.get("base", 1e4) ** (-2 * np.arange(channels // 2) / channels)
        inner = np.cos(distances(positions)[..., None] * rate).sum(-1)
        return content(q, k) + np.stack([inner / (8 * h / H) for h in range(1, H + 1)])


class FIRE(NoPE):
    def logits(self, q, k, positions, given, weights):
        def psi(x):
            return np.log(abs(weights["c"] * x) + 1)

        threshold = abs(weights["length_multiplier"] * given["init_length"])
        reach = np.maximum(positions, threshold)[:, None]
        share = psi(distances(positions)) / (psi(reach) + 1e-6)
        hidden = share[..., None] * weights["inner.kernel"][0] + weights["inner.bias"]
        bias = np.maximum(hidden, 0) @ weights["outer.kernel"] + weights["outer.bias"]
        return content(q, k) + np.moveaxis(bias, -1, 0)


SCHEMES = {
    "alibi": Scheme(ALiBi(), [{}, {"num_heads": 6, "slope_scale": 0.25}]),
    "t5": Scheme(
        T5(),
        [{}, {"num_buckets": 8, "max_distance": 50, "bidirectional": True, "table_scale": 3.0}],
    ),
    "kerple_log": Scheme(KerpleLog(), [{}, {"num_heads": 6}]),
    "kerple_power": Scheme(KerplePower(), [{}, {"num_heads": 6}]),
    "sandwich": Scheme(Sandwich(), [{}, {"num_heads": 6, "channels": 20, "base": 300.0}]),
    "fire": Scheme(
        FIRE(),
        [{"init_length": 64.0}, {"init_length": 16.0, "hidden": 8}],
        overrides={"init_length": 8.0},
        # The last bias of its network is one constant a head, which softmax does not see.
        invisible=(("outer", "bias"),),
        shift_invariant=False,
    ),
}
