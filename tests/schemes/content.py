"""Schemes in which content and distance meet."""

import math

import numpy as np

from schemes.equations import Alternative, NoPE, Scheme, distances


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


SCHEMES = {
    "transformer_xl": Scheme(
        TransformerXL(),
        [{}, {"base": 300.0, "num_heads": 2}],
        {"base": Alternative(100.0)},
        heads="sharded",
    ),
}
