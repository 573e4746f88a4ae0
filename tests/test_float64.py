"""Every scheme against its paper's equation, written again in float64 NumPy.

One row of a batch at a time, positions ``[T]`` in any order: no shared code, no shared tricks.
Rotary logits come from a complex product with the distance, T5's buckets from whole numbers,
Transformer-XL's second term from a table of all distances.
"""

import math

import common
import jax
import numpy as np
import pytest

BATCH, TOKENS, HEAD_DIM = 3, 20, 16


def content(q, k):
    return np.einsum("thc,shc->hts", q, k) / math.sqrt(q.shape[-1])


def distances(positions):
    return positions[:, None] - positions[None, :]


class NoPE:
    """A scheme's equations; those below override what they change.

    ``own`` are the keywords it was made with, ``weights`` its parameters.
    """

    def embed(self, x, positions, own, weights):
        return x

    def logits(self, q, k, positions, own, weights):
        return content(q, k)


class Sinusoidal(NoPE):
    def embed(self, x, positions, own, weights):
        D = x.shape[-1]
        rate = own.get("base", 10000.0) ** -(np.arange(0, D, 2) / D)
        table = np.empty_like(x)
        sin, cos = (slice(0, None, 2), slice(1, None, 2))
        if own.get("layout") == "half":
            sin, cos = (slice(0, D // 2), slice(D // 2, None))
        table[:, sin] = np.sin(positions[:, None] * rate)
        table[:, cos] = np.cos(positions[:, None] * rate)
        return x * own.get("token_scale", math.sqrt(D)) + table


class Learned(NoPE):
    def embed(self, x, positions, own, weights):
        table = weights["table"]
        last = len(table) - 1
        if own.get("out_of_range") == "interpolate" and positions.max() > last:
            positions = positions * last / positions.max()
        # Linear between rows, and the nearest row outside.
        columns = [np.interp(positions, np.arange(last + 1), column) for column in table.T]
        return x + np.stack(columns, axis=-1)


class Rotary(NoPE):
    def frequencies(self, d, base, own, longest):
        """Radians a token of each pair, and the factor on the logits."""
        return base ** (-2 * np.arange(d // 2) / d), 1.0

    def logits(self, q, k, positions, own, weights):
        d = own.get("rotary_dim", q.shape[-1])
        rate, temperature = self.frequencies(d, own.get("base", 1e4), own, positions.max() + 1)
        if own.get("layout") == "interleaved":
            first, second = slice(0, d, 2), slice(1, d, 2)
        else:
            first, second = slice(0, d // 2), slice(d // 2, d)
        q_complex = q[..., first] + 1j * q[..., second]
        k_complex = k[..., first] + 1j * k[..., second]
        turn = np.exp(1j * distances(positions)[..., None] * rate)
        turned = np.einsum("thp,shp,tsp->hts", q_complex, k_complex.conj(), turn).real
        still = np.einsum("thc,shc->hts", q[..., d:], k[..., d:])
        return (temperature * turned + still) / math.sqrt(q.shape[-1])


class PositionInterpolation(Rotary):
    def frequencies(self, d, base, own, longest):
        rate, _ = super().frequencies(d, base, own, longest)
        return rate / own["factor"], 1.0


class NTK(Rotary):
    def frequencies(self, d, base, own, longest):
        return super().frequencies(d, base * own["factor"] ** (d / (d - 2)), own, longest)


class DynamicNTK(Rotary):
    def frequencies(self, d, base, own, longest):
        if longest > common.TRAIN_LENGTH:
            factor = own.get("factor", 1.0)
            bracket = factor * longest / common.TRAIN_LENGTH - (factor - 1)
            base = base * bracket ** (d / (d - 2))
        return super().frequencies(d, base, own, longest)


class YaRN(Rotary):
    def frequencies(self, d, base, own, longest):
        rate, _ = super().frequencies(d, base, own, longest)
        factor, fast, slow = own["factor"], own.get("beta_fast", 32), own.get("beta_slow", 1)
        if own.get("ramp") == "turns":
            # The paper's gamma of r = L / wavelength: 1 keeps a pair, 0 divides it.
            turns = common.TRAIN_LENGTH / (2 * np.pi / rate)
            gamma = np.clip((turns - slow) / (fast - slow), 0, 1)
        else:
            # The same between whole pairs: i solves 2 pi base^(2 i / d) = L / turns.
            low, high = (
                d / 2 * math.log(common.TRAIN_LENGTH / (2 * math.pi * turns), base)
                for turns in (fast, slow)
            )
            if own.get("truncate", True):
                low, high = math.floor(low), math.ceil(high)
            low, high = max(low, 0), min(high, d - 1)
            gamma = 1 - np.clip((np.arange(d // 2) - low) / (high - low), 0, 1)

        def mu(mscale):
            return 0.1 * mscale * math.log(factor) + 1

        temperature = mu(1)
        if "mscale" in own:
            temperature = mu(own["mscale"]) / mu(own["mscale_all_dim"])
        return (1 - gamma) * rate / factor + gamma * rate, temperature**2


class HoPE(Rotary):
    def frequencies(self, d, base, own, longest):
        rate, _ = super().frequencies(d, base, own, longest)
        wavelength = 2 * np.pi / rate
        return rate * (own.get("cut_cycles", 1) * wavelength < common.TRAIN_LENGTH), 1.0


class Proportional(Rotary):
    def frequencies(self, d, base, own, longest):
        rate, _ = super().frequencies(d, base, own, longest)
        rate[math.floor(own["fraction"] * d / 2) :] = 0
        return rate / own.get("factor", 1.0), 1.0


class ALiBi(NoPE):
    def slopes(self, num_heads):
        power = 2 ** math.floor(math.log2(num_heads))
        slopes = [2 ** (-8 * (h + 1) / power) for h in range(power)]
        if power < num_heads:
            slopes += self.slopes(2 * power)[0::2][: num_heads - power]
        return slopes

    def logits(self, q, k, positions, own, weights):
        slopes = np.array(self.slopes(q.shape[1]))
        return content(q, k) - slopes[:, None, None] * abs(distances(positions))


class T5(NoPE):
    def bucket(self, distance, num_buckets, max_distance):
        """Bucket of a distance of 0 or more, in whole numbers.

        e + floor(ln(n / e) / ln(Dmax / e) (N - e)) is at least e + j where
        n^(N - e) e^j >= Dmax^j e^(N - e).
        """
        exact = num_buckets // 2
        if distance < exact:
            return distance
        far = num_buckets - exact
        steps = [j for j in range(far) if distance**far * exact**j >= max_distance**j * exact**far]
        return exact + max(steps)

    def logits(self, q, k, positions, own, weights):
        num_buckets, max_distance = own.get("num_buckets", 32), own.get("max_distance", 128)
        bias = np.empty((q.shape[1], len(positions), len(positions)))
        for (m, n), distance in np.ndenumerate(distances(positions)):
            distance = int(distance)
            if own.get("bidirectional"):
                half = num_buckets // 2
                bucket = self.bucket(abs(distance), half, max_distance) + half * (distance < 0)
            else:
                bucket = self.bucket(max(distance, 0), num_buckets, max_distance)
            bias[:, m, n] = weights["table"][bucket]
        return content(q, k) + bias


class KerpleLog(NoPE):
    def logits(self, q, k, positions, own, weights):
        p, a = (0.01 + np.log1p(np.exp(weights[key])) for key in ("raw_p", "raw_a"))
        p, a = p[:, None, None], a[:, None, None]
        return content(q, k) - p * np.log(1 + a * abs(distances(positions)))


class FIRE(NoPE):
    def logits(self, q, k, positions, own, weights):
        def psi(x):
            return np.log(abs(weights["c"] * x) + 1)

        threshold = abs(weights["length_multiplier"] * own["init_length"])
        reach = np.maximum(positions, threshold)[:, None]
        share = psi(distances(positions)) / (psi(reach) + 1e-6)
        hidden = share[..., None] * weights["inner.kernel"][0] + weights["inner.bias"]
        bias = np.maximum(hidden, 0) @ weights["outer.kernel"] + weights["outer.bias"]
        return content(q, k) + np.moveaxis(bias, -1, 0)


class TransformerXL(NoPE):
    def logits(self, q, k, positions, own, weights):
        u, v, w_r = weights["u"], weights["v"], weights["w_r"]
        D = w_r.shape[-1]
        angle = distances(positions)[..., None] * own.get("base", 1e4) ** (-np.arange(0, D, 2) / D)
        r = np.concatenate([np.sin(angle), np.cos(angle)], axis=-1)
        place = np.einsum("hcd,tsd->htsc", w_r, r)
        of_content = np.einsum("thc,shc->hts", q + u, k)
        of_place = np.einsum("thc,htsc->hts", q + v, place)
        return (of_content + of_place) / math.sqrt(q.shape[-1])


# The equations of each scheme, and the keywords of at least two settings. Positions are whole
# numbers in the first, and where a scheme can take them fractional and negative in the others.
REFERENCES = {
    "nope": (NoPE(), [{}, {"num_heads": 2}]),
    "sinusoidal": (Sinusoidal(), [{}, {"base": 300.0, "layout": "half", "token_scale": 1.5}]),
    "learned": (Learned(), [{"out_of_range": "clamp"}, {"out_of_range": "interpolate"}]),
    "rope": (Rotary(), [{}, {"base": 300.0, "layout": "interleaved", "rotary_dim": 10}]),
    "pi": (PositionInterpolation(), [{"factor": 4.0}, {"factor": 1.5, "rotary_dim": 8}]),
    "ntk": (NTK(), [{"factor": 4.0}, {"factor": 8.0, "base": 300.0, "rotary_dim": 12}]),
    "dynamic_ntk": (DynamicNTK(), [{}, {"factor": 3.0, "layout": "interleaved"}]),
    "yarn": (
        YaRN(),
        [
            {"factor": 4.0},
            {"factor": 6.0, "ramp": "turns", "beta_fast": 4.0, "rotary_dim": 12},
            {"factor": 2.0, "truncate": False, "mscale": 1.0, "mscale_all_dim": 0.3},
            {"factor": 8.0, "base": 20.0, "beta_fast": 3.0, "beta_slow": 0.5},
        ],
    ),
    "hope": (HoPE(), [{}, {"cut_cycles": 0.2, "base": 300.0}]),
    "p_rope": (Proportional(), [{"fraction": 0.75}, {"fraction": 0.4, "factor": 2.0}]),
    "alibi": (ALiBi(), [{}, {"num_heads": 6}]),
    "t5": (T5(), [{}, {"num_buckets": 8, "max_distance": 50, "bidirectional": True}]),
    "kerple_log": (KerpleLog(), [{}, {"num_heads": 6}]),
    "fire": (FIRE(), [{"init_length": 64.0}, {"init_length": 16.0, "hidden": 8}]),
    "transformer_xl": (TransformerXL(), [{}, {"base": 300.0, "num_heads": 2}]),
}
WHOLE_POSITIONS_ONLY = {"learned", "t5"}


def softmax(logits):
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


def reference_attention(equations, x_BTD, positions_BT, own, weights, projections):
    outputs = []
    for x_TD, positions_T in zip(x_BTD, positions_BT, strict=True):
        x_TD = equations.embed(x_TD, positions_T, own, weights)
        q, k, v = (np.einsum("td,dhc->thc", x_TD, w) for w in projections)
        logits_HTS = equations.logits(q, k, positions_T, own, weights)
        # A query sees the tokens written before it, wherever their positions lie.
        logits_HTS = np.where(np.tri(len(x_TD), dtype=bool), logits_HTS, -np.inf)
        outputs.append(np.einsum("hts,shc->thc", softmax(logits_HTS), v))
    return np.stack(outputs)


CASES = [(name, i) for name, (_, settings) in REFERENCES.items() for i in range(len(settings))]


@pytest.mark.parametrize(("name", "setting"), CASES)
def test_attention_is_the_equation(name, setting):
    equations, settings = REFERENCES[name]
    own = settings[setting]
    num_heads = own.get("num_heads", common.HEADS)
    encoding = common.build(name, head_dim=HEAD_DIM, **own)
    weights = {
        ".".join(path): np.asarray(value, np.float64)
        for path, value in common.parameter_paths(encoding)
    }
    rng = np.random.default_rng(setting)
    positions = np.stack([rng.choice(150, TOKENS, replace=False) for _ in range(BATCH)])
    positions[0] //= 8  # a row within the training length, with positions that repeat
    positions = positions.astype(np.int32)
    if setting and name not in WHOLE_POSITIONS_ONLY:
        positions = positions.astype(np.float32) * np.float32(0.75) - 9

    x_BTD = 0.5 * common.normal(setting, BATCH, TOKENS, common.WIDTH)
    projections = common.projections(num_heads, HEAD_DIM)
    actual = common.attention(encoding, x_BTD, positions, weights=projections)
    arguments = [a.astype(np.float64) for a in (x_BTD, positions)]
    expected = reference_attention(
        equations, *arguments, own, weights, [w.astype(np.float64) for w in projections]
    )
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=2e-5)

    # The comparison is worth something only if the order of positions shows in it.
    if name != "nope":
        mixed = jax.numpy.asarray(np.roll(positions, 1, axis=1))
        other = common.attention(encoding, x_BTD, mixed, weights=projections)
        assert np.abs(other - expected).max() > 1e-2


@pytest.mark.parametrize("name", common.SCHEMES)
def test_every_scheme_has_its_equation(name):
    assert name in REFERENCES, (
        f"no equation for {name!r}: add it, with two settings or more, to REFERENCES in {__file__}"
    )
    assert len(REFERENCES[name][1]) >= 2
