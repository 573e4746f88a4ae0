"""Mixes keys and values with those of the token before, over another scheme."""

import numpy as np

from schemes.data_dependent import sigmoid
from schemes.equations import Alternative, Scheme
from schemes.logit_scale import LogitScale


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

    def values(self, out, attention, positions, given, weights):
        # The sums are of values not yet mixed, which causal weights let one read off.
        v = np.linalg.solve(attention, out.swapaxes(0, 1)).swapaxes(0, 1)
        return np.einsum("hts,shc->thc", attention, self.mixed(v, self.of_values))


SCHEMES = {
    "kv_shift": Scheme(
        KVShift(),
        [{}, {"over": "alibi", "num_kv_heads": 2}],
        {"over": Alternative("alibi")},
        mixes_keys=True,
    )
}
