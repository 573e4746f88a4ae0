"""Scales logits by a function of the query's position, or caps them, over another scheme."""

import math

import numpy as np

from schemes.biases import ALiBi
from schemes.data_dependent import FoX
from schemes.equations import NoPE, Scheme
from schemes.rotary import PositionInterpolation, Rotary

BENEATH = {"nope": NoPE(), "rope": Rotary(), "pi": PositionInterpolation(), "alibi": ALiBi()}
BENEATH["fox"] = FoX()


class LogitScale(NoPE):
    """Scales the products of queries and keys; biases come after."""

    over = "rope"

    def factor(self, count, given, weights):
        """Returns the factor, ``[H, T]`` or ``[1, T]``."""
        raise NotImplementedError

    def beneath(self, given, weights):
        over = given.get("over", self.over)
        name, rest = (over, {}) if isinstance(over, str) else (over["name"], dict(over))
        inside = {key.removeprefix("inner."): value for key, value in weights.items()}
        return BENEATH[name], given | rest, inside

    def observe(self, x, given, weights):
        scheme, given, weights = self.beneath(given, weights)
        scheme.observe(x, given, weights)

    def logits(self, q, k, positions, given, weights):
        scheme, of_scheme, inside = self.beneath(given, weights)
        unscaled = scheme.logits(q, k, positions, of_scheme, inside)
        bias = scheme.logits(0 * q, k, positions, of_scheme, inside)
        factor = self.factor(np.maximum(positions, 0) + 1, given, weights)
        return (unscaled - bias) * factor[..., None] + bias


class SoftCap(LogitScale):
    """Caps the sum of products and biases."""

    def logits(self, q, k, positions, given, weights):
        scheme, of_scheme, inside = self.beneath(given, weights)
        cap = given.get("cap", 50.0)
        return cap * np.tanh(scheme.logits(q, k, positions, of_scheme, inside) / cap)


class LogN(LogitScale):
    def factor(self, count, given, weights):
        return np.maximum(1, np.log(count) / math.log(given.get("train_length", 32)))[None]


class SSMax(LogitScale):
    def factor(self, count, given, weights):
        return weights["s"][:, None] * np.log(count)


class Llama4Temperature(LogitScale):
    over = "nope"

    def factor(self, count, given, weights):
        steps = np.floor(count / given.get("floor_scale", 8192))
        return 1 + given.get("attn_scale", 0.1) * np.log(1 + steps)[None]


class LogScale(LogitScale):
    def factor(self, count, given, weights):
        return weights["s"][:, None] * np.log(count) + weights["b"][:, None]


class MinistralScale(Llama4Temperature):
    over = "rope"

    def factor(self, count, given, weights):
        given = given | {"floor_scale": given["train_length"]}
        return super().factor(count - 1, given, weights)


class BeamScale(LogitScale):
    over = "nope"

    def factor(self, count, given, weights):
        return (1 + count / given.get("scale", 2048))[None] ** given.get("exponent", 0.1)


SCHEMES = {
    "soft_cap": Scheme(
        SoftCap(),
        [
            {"cap": 2.0},
            {"over": "alibi", "cap": 5.0},
            {"over": {"name": "pi", "factor": 3.0}, "cap": 1.0},
        ],
        overrides={"cap": 4.0},
    ),
    "logn": Scheme(
        LogN(),
        [{"train_length": 8}, {"over": "alibi", "train_length": 20}]
        + [{"over": {"name": "pi", "factor": 3.0}, "train_length": 30}],
        overrides={"train_length": 8},
        shift_invariant=False,
    ),
    "ssmax": Scheme(
        SSMax(), [{}, {"over": "nope", "num_heads": 2}, {"over": "fox"}], shift_invariant=False
    ),
    "log_scale": Scheme(
        LogScale(), [{}, {"over": "nope", "num_heads": 2}, {"over": "alibi"}], shift_invariant=False
    ),
    "ministral_scale": Scheme(
        MinistralScale(),
        [
            {"train_length": 8, "attn_scale": 0.1},
            {"train_length": 3, "attn_scale": 0.7, "over": "nope"},
        ],
        overrides={"train_length": 3, "attn_scale": 0.5},
        shift_invariant=False,
    ),
    "beam_scale": Scheme(
        BeamScale(),
        [{"scale": 16.0, "exponent": 0.5}, {"scale": 3.0, "exponent": 1.5, "over": "rope"}],
        overrides={"scale": 3.0, "exponent": 1.0},
        shift_invariant=False,
    ),
    "llama4_temperature": Scheme(
        Llama4Temperature(),
        [
            {"floor_scale": 8, "attn_scale": 0.1},
            {"floor_scale": 3, "attn_scale": 0.7, "over": "rope"},
        ],
        overrides={"floor_scale": 3, "attn_scale": 0.5},
        shift_invariant=False,
    ),
}
