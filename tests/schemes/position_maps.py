"""Writes out RoPE with another relative position in the place of the distance."""

import math

import numpy as np

from schemes.equations import Scheme
from schemes.rotary import OTHER, TRAIN_LENGTH, Rotary


class PositionMap(Rotary):
    def relative(self, m, n, given) -> float:
        raise NotImplementedError

    def rotations(self, positions, rate, given):
        relative = [[self.relative(m, n, given) for n in positions] for m in positions]
        return np.exp(1j * np.array(relative)[..., None] * rate)


class ReRoPE(PositionMap):
    def relative(self, m, n, given):
        return min(m - n, given["window"])


class LeakyReRoPE(PositionMap):
    def relative(self, m, n, given):
        w = given["window"]
        return m - n if m - n < w else w + (m - n - w) / given.get("factor", 16)


class SelfExtend(PositionMap):
    def relative(self, m, n, given):
        w, group = given["window"], given.get("group_size", 8)
        if m - n < w:
            return m - n
        shift = w - (w // group if given.get("floor") else w / group)
        return math.floor(m / group) - math.floor(n / group) + shift


class JetLong(PositionMap):
    def frequencies(self, d, base, given, longest):
        self.group = max(1, math.ceil(longest / TRAIN_LENGTH))
        return super().frequencies(d, base, given, longest)

    def relative(self, m, n, given):
        if m - n <= given.get("window", TRAIN_LENGTH // 16):
            return m - n
        return math.floor(m / self.group) - math.floor(n / self.group)


class DualChunk(PositionMap):
    def relative(self, m, n, given):
        chunk = given.get("chunk_size", 3 * TRAIN_LENGTH // 4)
        stride = chunk - given.get("local_window", TRAIN_LENGTH // 8)
        (q_chunk, q_place), (k_chunk, k_place) = divmod(m, stride), divmod(n, stride)
        if q_chunk <= k_chunk:
            return q_place - k_place
        if q_chunk == k_chunk + 1:
            return min(q_place + stride, chunk) - k_place
        return min(2 * stride - 1, chunk) - k_place

    def logits(self, q, k, positions, given, weights):
        growth = max(1.0, (positions.max() + 1) / given.get("original_length", math.inf))
        temperature = 1 + 0.1 * math.log(growth)  # also of channels that do not rotate
        return temperature * super().logits(q, k, positions, given, weights)


OTHER_ROPE = OTHER | {"rotary_dim": 10}

SCHEMES = {
    "rerope": Scheme(
        ReRoPE(), [{"window": 8}, {"window": 21} | OTHER_ROPE], overrides={"window": 8}
    ),
    "leaky_rerope": Scheme(
        LeakyReRoPE(),
        [{"window": 8}, {"window": 21, "factor": 2.5} | OTHER_ROPE],
        overrides={"window": 8},
    ),
    "self_extend": Scheme(
        SelfExtend(),
        [
            {"window": 10, "group_size": 4},
            {"window": 21} | OTHER_ROPE,
            {"window": 10, "group_size": 4, "floor": True},
        ],
        overrides={"window": 8},
        shift_invariant=False,
    ),
    "jet_long": Scheme(JetLong(), [{}, {"window": 21} | OTHER_ROPE], shift_invariant=False),
    "dual_chunk": Scheme(
        DualChunk(),
        [
            {},
            {"chunk_size": 15, "local_window": 6} | OTHER_ROPE,
            {"chunk_size": 15, "local_window": 9},  # 2 s - 1 below the chunk size
            {"original_length": 7},
            {"original_length": 7} | OTHER_ROPE,
        ],
        shift_invariant=False,
    ),
}
