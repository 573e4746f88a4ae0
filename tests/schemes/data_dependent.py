"""Writes out schemes in which the content of the tokens between a query and a key decides."""

import math

import numpy as np

from schemes.equations import Alternative, NoPE, Scheme, content


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
    def observe(self, x, own, weights):
        self.log_gate = np.log(sigmoid(x @ weights["gate.kernel"] + weights["gate.bias"]))

    def logits(self, q, k, positions, own, weights):
        return content(q, k) + between(self.log_gate)


class PaTH(FoX):
    def observe(self, x, own, weights):
        w = x if own.get("rank", 32) is None else x @ weights["down_kernel"]
        w = convolved(w @ weights["up_kernel"], weights["convolution"])
        w = w * sigmoid(w)
        w = w.reshape(len(x), weights["beta_bias"].size, -1)
        w = w / np.sqrt((w**2).sum(-1, keepdims=True) + 1e-6)
        beta = 2 * sigmoid(x @ weights["beta_kernel"] + weights["beta_bias"])
        outer = w[..., :, None] * w[..., None, :]
        self.transition = np.eye(w.shape[-1]) - beta[..., None, None] * outer
        if own.get("forget_gate"):
            super().observe(x, own, weights)

    def logits(self, q, k, positions, own, weights):
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
        if own.get("forget_gate"):
            logits = logits + between(self.log_gate)
        return logits / math.sqrt(C)


class SelectiveRoPE(NoPE):
    def observe(self, x, own, weights):
        shares = x.reshape(len(x), own.get("num_heads", 4), -1)
        x = (shares / np.sqrt((shares**2).sum(-1, keepdims=True) + 1e-6)).reshape(x.shape)
        phi = convolved(x @ weights["down_kernel"] @ weights["up_kernel"], weights["convolution"])
        phi = phi.reshape(len(x), own.get("num_kv_heads", own.get("num_heads", 4)), -1)
        if own.get("bias"):
            phi = phi + np.exp(weights["bias"])
        if own.get("gate"):
            phi = phi * sigmoid(x @ weights["gate_kernel"] + weights["gate_bias"])[..., None]
        self.phi = phi

    def logits(self, q, k, positions, own, weights):
        T, H, C = q.shape
        pairs = C // 2
        rate = own.get("temperature", 1.0) * own.get("base", 5e5) ** (-np.arange(pairs) / pairs)
        turn = between(self.phi.reshape(T, -1)).reshape(*self.phi.shape[1:], T, T)
        turn = np.repeat(turn * rate[None, :, None, None], H // len(turn), axis=0)
        q, k = (x[..., :pairs] + 1j * x[..., pairs:] for x in (q, k))
        product = np.einsum("thp,shp,hpts->hts", q, k.conj(), np.exp(1j * turn))
        return product.real / math.sqrt(C)


SCHEMES = {
    "fox": Scheme(
        FoX(),
        [{"bias_init": 0.0}, {"bias_init": -1.0, "num_heads": 6}],
        {"bias_init": Alternative(-1.0)},
        overrides={"bias_init": 1.0},
        reads_positions=False,
    ),
    "path": Scheme(
        PaTH(),
        [
            {},
            {"num_kv_heads": 2, "rank": 5, "width": 1},
            {"num_kv_heads": 1, "rank": None, "width": 4, "forget_gate": True},
        ],
        {
            "rank": Alternative(None),
            "width": Alternative(2),
            "forget_gate": Alternative(True),
        },
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
        {
            "base": Alternative(100.0),
            "temperature": Alternative(2.0),
            "rank": Alternative(4),
            "width": Alternative(2),
            "gate": Alternative(True),
            "bias": Alternative(True),
        },
        reads_positions=False,
    ),
}
