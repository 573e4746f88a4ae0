"""Writes out the equations of schemes in which content and distance meet."""

import math

import numpy as np

from schemes.biases import ALiBi
from schemes.equations import NoPE, Scheme, content, distances


class TransformerXL(NoPE):
    def logits(self, q, k, positions, given, weights):
        u, v, w_r = weights["u"], weights["v"], weights["w_r"]
        D = w_r.shape[-1]
        rate = given.get("base", 1e4) ** (-np.arange(0, D, 2) / D)
        angle = distances(positions)[..., None] * rate
        r = np.concatenate([np.sin(angle), np.cos(angle)], axis=-1)
        place = np.einsum("hcd,tsd->htsc", w_r, r)
        of_content = np.einsum("thc,shc->hts", q + u, k)
        of_place = np.einsum("thc,htsc->hts", q + v, place)
        return (of_content + of_place) / math.sqrt(q.shape[-1])


class Shaw(NoPE):
    def rows(self, positions, given):
        k = given.get("max_distance", 16)
        return np.clip(np.rint(-distances(positions)).astype(int), -k, k) + k

    def logits(self, q, k, positions, given, weights):
        keys = k[None] + weights["keys"][self.rows(positions, given)][:, :, None]
        return np.einsum("thc,tshc->hts", q, keys) / math.sqrt(q.shape[-1])

    def values(self, v, attention, positions, given, weights):
        out = super().values(v, attention, positions, given, weights)
        if not given.get("values", True):
            return out
        rows = self.rows(positions, given)
        return out + np.einsum("hts,tsc->thc", attention, weights["values"][rows])


class DeBERTa(NoPE):
    def row(self, distance, given):
        num_buckets, max_distance = given.get("num_buckets"), given.get("max_distance", 512)
        if num_buckets is None:
            return min(max(distance + max_distance, 0), 2 * max_distance - 1)
        mid, size = num_buckets // 2, min(abs(distance), max_distance - 1)
        if size > mid:
            share = math.log(size / mid) / math.log((max_distance - 1) / mid)
            # A hair less, so that the largest distance is not rounded into one bucket more.
            size = math.ceil(share * (mid - 1) - 1e-9) + mid
        bucket = size if distance > 0 else -size
        return min(max(bucket + num_buckets, 0), 2 * num_buckets - 1)

    def logits(self, q, k, positions, given, weights):
        keys = np.einsum("rd,hcd->rhc", weights["table"], weights["w_kr"])
        queries = np.einsum("rd,hcd->rhc", weights["table"], weights["w_qr"]) + weights["b_qr"]
        logits = np.einsum("thc,shc->hts", q, k)
        for (m, n), distance in np.ndenumerate(np.rint(distances(positions)).astype(int)):
            to_place = self.row(distance, given)
            to_content = self.row(-distance, given) if given.get("p2c_row") == "paper" else to_place
            logits[:, m, n] += (q[m] * keys[to_place] + k[n] * queries[to_content]).sum(-1)
        return logits / math.sqrt(3 * q.shape[-1])


class DAPE(NoPE):
    def logits(self, q, k, positions, given, weights):
        H, distance = q.shape[1], abs(distances(positions))
        if given.get("bias") == "alibi":
            bias = -np.array(ALiBi().slopes(H))[:, None, None] * distance
        else:
            p, a = (0.01 + np.log1p(np.exp(weights[f"bias.raw_{x}"])) for x in "pa")
            bias = -p[:, None, None] * np.log(1 + a[:, None, None] * distance)
        z = content(q, k)
        into = np.concatenate([weights["of_logit"], weights["of_bias"]])
        hidden = np.einsum("hts,he->tse", np.concatenate([z, bias]), into) + weights["hidden_bias"]
        hidden = np.where(hidden > 0, hidden, 0.01 * hidden)
        change = hidden @ weights["out"].T + weights["out_bias"]
        return z + bias + np.moveaxis(change, -1, 0)


class Inkling(NoPE):
    def observe(self, x, given, weights):
        self.vectors = (x @ weights["kernel"]).reshape(len(x), given.get("num_heads", 4), -1)

    def tau(self, positions, given):
        floor = given.get("log_floor")
        if floor is None:
            return np.ones(len(positions))
        count = np.maximum(positions, 0) + 1
        return 1 + given.get("log_scale", 0.1) * np.log(np.maximum(count / floor, 1))

    def logits(self, q, k, positions, given, weights):
        tau, products = self.tau(positions, given), content(q, k)
        bias = np.zeros(products.shape)
        for (m, n), distance in np.ndenumerate(np.floor(distances(positions) + 0.5).astype(int)):
            if 0 <= distance < weights["profiles"].shape[1]:
                bias[:, m, n] = self.vectors[m] @ weights["profiles"][:, distance]
        return tau[None, :, None] * (products + bias)


class Inkling2(Inkling):
    def clipped(self, y, longest):
        return y * np.minimum(1, longest / (np.sqrt((y**2).sum(-1, keepdims=True)) + 1e-6))

    def observe(self, x, given, weights):
        super().observe(x, given, weights)
        scaled = self.vectors * weights["vector_scale"]
        self.vectors = self.clipped(scaled, given["vector_clip"])

    def logits(self, q, k, positions, given, weights):
        q = q * weights["query_scale"]
        q, k = (self.clipped(y, given["clip"]) for y in (q, k))
        return super().logits(q, k, positions, given, weights)


class GrapeA(NoPE):
    def logits(self, q, k, positions, given, weights):
        def softplus(x):
            return np.log1p(np.exp(x))

        def gate(name, x):
            unit = weights[name] / np.sqrt((weights[name] ** 2).sum(-1, keepdims=True))
            return softplus(np.einsum("thc,hc->ht", x, unit) / math.sqrt(q.shape[-1]))

        of = {"both": ("key", "query")}.get(given.get("gate", "both"), (given.get("gate"),))
        gates = gate("of_key", k)[:, None, :] if "key" in of else 0.0
        gates = gates + (gate("of_query", q)[..., None] if "query" in of else 0.0)
        rate = np.array(ALiBi().slopes(q.shape[1])) * softplus(weights["omega"])
        return content(q, k) - rate[:, None, None] * abs(distances(positions)) * gates


class CoPE(NoPE):
    def logits(self, q, k, positions, given, weights):
        T, H, C = q.shape
        table, z = weights["table"], content(q, k)
        logits = z.copy()
        for h, m, n in np.ndindex(H, T, T):
            place = sum(1 / (1 + math.exp(-z[h, m, t])) for t in range(n, m + 1))
            place = min(place, len(table) - 1)
            below, above = math.floor(place), math.ceil(place)
            e = table[below] + (place - below) * (table[above] - table[below])
            logits[h, m, n] += q[m, h] @ e / (1 if given.get("nodiv") else math.sqrt(C))
        return logits


class StickBreaking(NoPE):
    def logits(self, q, k, positions, given, weights):
        logits = np.zeros((q.shape[1], len(q), len(q)))
        for h, m in np.ndindex(logits.shape[:2]):
            left = 1.0
            for n in reversed(range(m)):
                share = 1 / (1 + math.exp(-q[m, h] @ k[n, h] / math.sqrt(q.shape[-1])))
                logits[h, m, n] = math.log(share * left)
                left *= 1 - share
            logits[h, m, m] = math.log(left)
        return logits


SCHEMES = {
    "shaw": Scheme(
        Shaw(),
        [{}, {"max_distance": 5, "num_heads": 2}, {"values": False}],
        whole_positions_only=True,
    ),
    "deberta": Scheme(
        DeBERTa(),
        [
            {},
            {"max_distance": 20, "num_heads": 2, "p2c_row": "paper"},
            {"max_distance": 100, "num_buckets": 8},
        ],
        whole_positions_only=True,
    ),
    "dape": Scheme(
        DAPE(),
        [{}, {"bias": "alibi", "num_heads": 2, "hidden": 6}],
        # One constant a head, which softmax does not see.
        invisible=(("out_bias",),),
        mixes_heads=True,
    ),
    "cope": Scheme(
        CoPE(), [{"num_positions": 6}, {"num_heads": 2, "nodiv": True}], reads_positions=False
    ),
    "stick_breaking": Scheme(
        StickBreaking(), [{}, {"num_heads": 2, "num_kv_heads": 1}], reads_positions=False
    ),
    "inkling": Scheme(
        Inkling(),
        [
            {"extent": 10, "rank": 4},
            {"extent": 40, "rank": 6, "log_floor": 8, "log_scale": 0.4, "num_heads": 2},
        ],
        overrides={"extent": 8, "rank": 4},
    ),
    "inkling2": Scheme(
        Inkling2(),
        [
            {"extent": 10, "rank": 6, "log_floor": 4, "clip": 3.0, "vector_clip": 2.0},
            {"extent": 40, "log_floor": 8, "log_scale": 0.4, "clip": 1.5, "vector_clip": 0.8},
        ],
        overrides={"extent": 8, "rank": 4, "log_floor": 4, "clip": 1.0, "vector_clip": 1.0},
        shift_invariant=False,
    ),
    "grape_a": Scheme(GrapeA(), [{}, {"gate": "key", "num_heads": 6}, {"gate": "query"}]),
    "transformer_xl": Scheme(TransformerXL(), [{}, {"base": 300.0, "num_heads": 2}]),
}
