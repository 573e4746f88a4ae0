"""Writes out schemes in which the content of the tokens between a query and a key decides."""

import math

import numpy as np

from schemes.biases import ALiBi
from schemes.equations import NoPE, Scheme, content, pairs_of


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def between(gates):
    """Sums ``gates [T, H]`` over the tokens after each key up to each query: ``[H, T, T]``."""
    T, H = gates.shape
    sums = np.zeros((H, T, T))
    for m in range(T):
        for n in range(m):
            sums[:, m, n] = gates[n + 1 : m + 1].sum(axis=0)
    return sums


def convolved(x, kernel):
    """Convolves ``x [T, N]``; row 0 of ``kernel [W, N]`` is for the token itself."""
    return np.stack(
        [sum(x[t - j] * kernel[j] for j in range(min(t + 1, len(kernel)))) for t in range(len(x))]
    )


class FoX(NoPE):
    def observe(self, x, given, weights):
        self.log_gate = np.log(sigmoid(x @ weights["gate.kernel"] + weights["gate.bias"]))

    def logits(self, q, k, positions, given, weights):
        return content(q, k) + between(self.log_gate)


class PaTH(FoX):
    def observe(self, x, given, weights):
        w = x if given.get("rank", 32) is None else x @ weights["down_kernel"]
        w = convolved(w @ weights["up_kernel"], weights["convolution"])
        w = w * sigmoid(w)
        w = w.reshape(len(x), weights["beta_bias"].size, -1)
        w = w / np.sqrt((w**2).sum(-1, keepdims=True) + 1e-6)
        beta = 2 * sigmoid(x @ weights["beta_kernel"] + weights["beta_bias"])
        outer = w[..., :, None] * w[..., None, :]
        self.transition = np.eye(w.shape[-1]) - beta[..., None, None] * outer
        if given.get("forget_gate"):
            super().observe(x, given, weights)

    def logits(self, q, k, positions, given, weights):
        T, H, C = q.shape
        group = H // self.transition.shape[1]
        logits = np.zeros((H, T, T))
        for h in range(H):
            for n in range(T):
                key = k[n, h]
                for m in range(n, T):
                    if m > n:
                        key = self.transition[m, h // group] @ key
                    logits[h, m, n] = q[m, h] @ key
        if given.get("forget_gate"):
            logits = logits + between(self.log_gate)
        return logits / math.sqrt(C)


class SelectiveRoPE(NoPE):
    def observe(self, x, given, weights):
        shares = x.reshape(len(x), given.get("num_heads", 4), -1)
        x = (shares / np.sqrt((shares**2).sum(-1, keepdims=True) + 1e-6)).reshape(x.shape)
        phi = convolved(x @ weights["down_kernel"] @ weights["up_kernel"], weights["convolution"])
        phi = phi.reshape(len(x), given.get("num_kv_heads", given.get("num_heads", 4)), -1)
        if given.get("bias"):
            phi = phi + np.exp(weights["bias"])
        if given.get("gate"):
            phi = phi * sigmoid(x @ weights["gate_kernel"] + weights["gate_bias"])[..., None]
        self.phi = phi

    def logits(self, q, k, positions, given, weights):
        T, H, C = q.shape
        pairs = C // 2
        rate = given.get("temperature", 1.0) * given.get("base", 5e5) ** (-np.arange(pairs) / pairs)
        angle = between(self.phi.reshape(T, -1)).reshape(*self.phi.shape[1:], T, T)
        angle = np.repeat(angle * rate[None, :, None, None], H // len(angle), axis=0)
        q, k = (pairs_of(x, "half") for x in (q, k))
        product = np.einsum("thp,shp,hpts->hts", q, k.conj(), np.exp(1j * angle))
        return product.real / math.sqrt(C)


def rotated_content(q, k, angle, given):
    """Returns the logits of pairs that rotate by ``angle [T, K, pairs]``."""
    rotation = np.exp(1j * np.repeat(angle, q.shape[1] // angle.shape[1], axis=1))
    q, k = (pairs_of(x, given.get("layout")) * rotation for x in (q, k))
    return np.einsum("thp,shp->hts", q, k.conj()).real / math.sqrt(2 * q.shape[-1])


class RePo(NoPE):
    def observe(self, x, given, weights):
        gates, content = x @ weights["gate_kernel"], x @ weights["content_kernel"]
        self.positions = (gates * sigmoid(gates) * content) @ weights["position_kernel"]

    def logits(self, q, k, positions, given, weights):
        pairs = q.shape[-1] // 2
        rate = given.get("base", 1e4) ** (-np.arange(pairs) / pairs)
        return rotated_content(q, k, self.positions[..., None] * rate, given)


class CABLE(FoX):
    def observe(self, x, given, weights):
        self.log_gate = -np.log1p(np.exp(x @ weights["gate.kernel"] + weights["gate.bias"]))


class Wall(FoX):
    def observe(self, x, given, weights):
        gates = np.einsum("td,dhc->thc", x, weights["kernel"]) + weights["bias"]
        self.by_channel = np.log(sigmoid(gates))
        if given.get("forget_gate"):
            super().observe(x, given, weights)

    def logits(self, q, k, positions, given, weights):
        T, H, C = q.shape
        left = np.exp(between(self.by_channel.reshape(T, H * C)).reshape(H, C, T, T))
        logits = np.einsum("thc,shc,hcts->hts", q, k, left) / math.sqrt(C)
        return logits + between(self.log_gate) if given.get("forget_gate") else logits


class GrapeAP(NoPE):
    def observe(self, x, given, weights):
        self.p = (x @ weights["kernel"]).reshape(len(x), given.get("num_heads", 4), -1)

    def logits(self, q, k, positions, given, weights):
        p, P = self.p, self.p.shape[-1]
        scaled = p / np.sqrt((p**2).mean(-1, keepdims=True) + np.finfo(np.float32).eps)
        pairs = scaled[..., : P // 2] + 1j * scaled[..., P // 2 :]
        pairs = pairs * np.exp(-1j * positions)[:, None, None]
        rotated = np.concatenate([pairs.real, pairs.imag], axis=-1)
        slopes = np.array(ALiBi().slopes(q.shape[1]))[:, None, None]
        gates = slopes * np.log(sigmoid(np.einsum("thp,shp->hts", p, rotated) / P))
        bias = np.zeros(gates.shape)
        for m in range(len(p)):
            for n in range(m):
                bias[:, m, n] = gates[:, m, n + 1 : m + 1].sum(-1)
        return content(q, k) + bias


class GrapeMContextual(NoPE):
    def observe(self, x, given, weights):
        gates = sigmoid((x @ weights["kernel"] + weights["bias"]) / 16)
        self.phase = np.concatenate([np.zeros_like(gates[:1]), np.cumsum(gates, axis=0)[:-1]])

    def logits(self, q, k, positions, given, weights):
        return rotated_content(q, k, -self.phase[..., None] * np.exp(weights["logs"]), given)


SCHEMES = {
    "cable": Scheme(
        CABLE(),
        [{"bias_init": 0.0}, {"bias_init": 1.0, "num_heads": 6}],
        overrides={"bias_init": -1.0},
        reads_positions=False,
    ),
    "wall": Scheme(
        Wall(),
        [{"bias_init": 0.0}, {"bias_init": -2.0, "num_heads": 2, "forget_gate": True}],
        overrides={"bias_init": 1.0},
        reads_positions=False,
    ),
    "grape_ap": Scheme(GrapeAP(), [{}, {"width": 4, "num_heads": 6}], shift_invariant=False),
    "grape_m_contextual": Scheme(
        GrapeMContextual(),
        [{}, {"base": 30.0, "layout": "interleaved", "by_head": True}],
        reads_positions=False,
    ),
    "fox": Scheme(
        FoX(),
        [{"bias_init": 0.0}, {"bias_init": -1.0, "num_heads": 6}],
        overrides={"bias_init": 1.0},
        reads_positions=False,
    ),
    "repo": Scheme(
        RePo(), [{}, {"base": 30.0, "layout": "interleaved", "hidden": 6}], reads_positions=False
    ),
    "path": Scheme(
        PaTH(),
        [
            {},
            {"num_kv_heads": 2, "rank": 5, "width": 1},
            {"num_kv_heads": 1, "rank": None, "width": 4, "forget_gate": True},
        ],
        reads_positions=False,
    ),
    "selective_rope": Scheme(
        SelectiveRoPE(),
        [
            {},
            {"num_heads": 2, "num_kv_heads": 1, "gate": True, "temperature": 3.0, "width": 1},
            {"bias": True, "base": 100.0, "rank": 3},
            {"bias": True, "gate": True},
        ],
        reads_positions=False,
    ),
}
