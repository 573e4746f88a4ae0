"""Mixes keys and values with those of the tokens before."""

import numpy as np

from schemes.data_dependent import convolved, sigmoid
from schemes.equations import Scheme
from schemes.logit_scale import LogitScale
from schemes.rotary import Rotary


class KVShift(LogitScale):
    def observe(self, x, given, weights):
        super().observe(x, given, weights)
        self.of_keys, self.of_values = np.split(sigmoid(x @ weights["kernel"]), 2, axis=1)

    def mixed(self, x, gates):
        """Mixes ``x [T, H, C]``; heads that share a kv head share its gate."""
        gates = np.repeat(gates, x.shape[1] // gates.shape[1], axis=1)
        rows = [(1 - gates[0])[:, None] * x[0]]
        for t in range(1, len(x)):
            rows.append(gates[t][:, None] * x[t - 1] + (1 - gates[t])[:, None] * x[t])
        return np.stack(rows)

    def logits(self, q, k, positions, given, weights):
        scheme, given, weights = self.beneath(given, weights)
        return scheme.logits(q, self.mixed(k, self.of_keys), positions, given, weights)

    def values(self, v, attention, *others):
        return super().values(self.mixed(v, self.of_values), attention, *others)


class ShortConv(KVShift):
    def observe(self, x, given, weights):
        LogitScale.observe(self, x, given, weights)
        self.of_keys, self.of_values = weights["of_keys_kernel"], weights["of_values_kernel"]

    def mixed(self, x, kernel):
        """Convolves ``x [T, H, C]`` with ``kernel [K, W, C]``, place 0 first."""
        kernel = np.repeat(kernel, x.shape[1] // len(kernel), axis=0)
        columns = kernel.swapaxes(0, 1).reshape(len(kernel[0]), -1)
        return x + convolved(x.reshape(len(x), -1), columns).reshape(x.shape)


class DynamicShortConv(ShortConv):
    def observe(self, x, given, weights):
        super().observe(x, given, weights)
        K, W, _ = self.of_keys.shape
        of_tokens = np.split((x @ weights["kernel"]).reshape(len(x), 2 * K, W, 1), 2, axis=1)
        self.of_keys, self.of_values = of_tokens[0] + self.of_keys, of_tokens[1] + self.of_values

    def mixed(self, x, taps):
        """Convolves ``x [T, H, C]`` with ``taps [T, K, W, C]``, place 0 first."""
        taps, total = np.repeat(taps, x.shape[1] // taps.shape[1], axis=1), x.copy()
        for t in range(len(x)):
            for j in range(min(t + 1, taps.shape[2])):
                total[t] += taps[t, :, j] * x[t - j]
        return total / np.sqrt(2 * taps.shape[2] + 1)


class KeyOffset(Rotary):
    def logits(self, q, k, positions, given, weights):
        rotary_dim = given.get("rotary_dim", q.shape[-1] // 2)
        k = k.copy()
        k[1:, :, rotary_dim:] = k[:-1, :, rotary_dim:]
        k[0, :, rotary_dim:] = 0
        return super().logits(q, k, positions, given | {"rotary_dim": rotary_dim}, weights)


SCHEMES = {
    "key_offset": Scheme(
        KeyOffset(),
        [{}, {"base": 300.0, "rotary_dim": 10, "layout": "interleaved", "num_kv_heads": 2}],
        mixes_keys=True,
    ),
    "short_conv": Scheme(
        ShortConv(), [{}, {"over": "alibi", "num_kv_heads": 2, "width": 3}], mixes_keys=True
    ),
    "dynamic_short_conv": Scheme(
        DynamicShortConv(), [{}, {"over": "alibi", "num_kv_heads": 2, "width": 3}], mixes_keys=True
    ),
    "kv_shift": Scheme(KVShift(), [{}, {"over": "alibi", "num_kv_heads": 2}], mixes_keys=True),
}
