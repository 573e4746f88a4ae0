"""Writes out SeqPE, which reads positions as strings of digits."""

import math

import numpy as np

from schemes.equations import NoPE, Scheme


def normed(x, weights, path):
    x = x - x.mean(-1, keepdims=True)
    x = x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-5)
    return x * weights[f"{path}.scale"] + weights[f"{path}.bias"]


def affine(x, weights, path):
    return x @ weights[f"{path}.kernel"] + weights[f"{path}.bias"]


def gelu(x):
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


class SeqPE(NoPE):
    def vector(self, position, given, weights):
        """Returns ``pe [E]`` of one position, ``[]`` or ``[A]``, from its string of digits."""
        size = len(str(given.get("max_position", 20000) - 1))
        numbers = [str(int(item)) for item in np.ravel(position)]
        string = "".join(number.rjust(size, "0") for number in numbers)
        x = [
            weights["encoder.digit_table"][int(digit)] + weights["encoder.slot_table"][slot]
            for slot, digit in enumerate(string)
        ]
        if len(numbers) > 1:
            axes = np.repeat(weights["encoder.axis_table"], size, axis=0)
            x = list(np.stack(x) + axes)
        padding = [slot < size - len(n) for n in numbers for slot in range(size)]
        size = len(string)
        x = np.stack([*x, weights["encoder.summary"]])
        may_see = np.ones((size + 1, size + 1), bool)
        if not given.get("bidirectional"):
            may_see = np.tri(size + 1, dtype=bool)
        if given.get("mask_padding"):
            may_see[:, :-1] &= ~np.array(padding)
            # Rows without anything to see are never seen either.
            may_see[~may_see.any(-1)] = True
        num_heads = given.get("encoder_heads", 1)
        for layer in range(given.get("encoder_layers", 1)):
            block = f"encoder.digit_blocks.[{layer}]"
            inner = normed(x, weights, f"{block}.attention_norm")
            qkv = affine(inner, weights, f"{block}.attention_in")
            qkv = qkv.reshape(size + 1, 3, num_heads, -1)
            heads = []
            for q, k, v in np.moveaxis(qkv, 0, 2).swapaxes(0, 1):
                logits = np.where(may_see, q @ k.T / math.sqrt(q.shape[-1]), -np.inf)
                attention = np.exp(logits - logits.max(-1, keepdims=True))
                heads.append(attention / attention.sum(-1, keepdims=True) @ v)
            heads = np.concatenate(heads, axis=-1)
            x = x + affine(heads, weights, f"{block}.attention_out")
            inner = normed(x, weights, f"{block}.mlp_norm")
            hidden = gelu(affine(inner, weights, f"{block}.mlp_in"))
            x = x + affine(hidden, weights, f"{block}.mlp_out")
        pe = affine(normed(x[-1], weights, "encoder.last_norm"), weights, "encoder.out")
        return pe / given.get("temperature", 1.0)

    def vectors(self, positions, given, weights):
        return np.stack([self.vector(p, given, weights) for p in positions.T])

    def logits(self, q, k, positions, given, weights):
        hook, (T, H, C) = given.get("hook", "attn_scalar"), q.shape
        pe = self.vectors(positions, given, weights)
        both = np.tile(pe, 2) if given.get("pe_qk") == "none" else affine(pe, weights, "pe_qk")
        pe_q, pe_k = both.reshape(T, 2, H, C).swapaxes(0, 1)
        scale = given.get("scalar_scale", 1.0) if hook == "attn_scalar" else 0.0
        if hook == "attn_mul":
            q, k = q * pe_q, k * pe_k
        elif hook == "attn_add":
            q, k = q + pe_q, k + pe_k
        logits = np.einsum("thc,shc->hts", q, k)
        if scale:
            logits = logits + scale * np.einsum("thc,shc->hts", pe_q, pe_k)
        return logits / math.sqrt(C)


class SeqPEInputAdd(NoPE):
    def embed(self, x, positions, given, weights):
        return x + SeqPE().vectors(positions, given, weights)


NONE = {"pe_qk": "none"}
WHOLE_HEADS = {"num_heads": 2}  # of 16 channels, which make the width of 32

SHARED = dict(
    in_training={
        **{"shift_probability": 1.0, "contrastive_weight": 0.0, "transfer_weight": 0.0},
        **{"num_pivots": 4, "num_candidates": 8, "num_offsets": 8},
    },
    overrides={"encoder_layers": 1},  # of 2, to compile half as much
    whole_positions_only=True,
    shift_invariant=False,
)

SCHEMES = {
    "seqpe": Scheme(
        SeqPE(),
        [
            {"encoder_layers": 2},
            {"max_position": 400, "encoder_heads": 4, "scalar_scale": 0.5, **NONE, **WHOLE_HEADS},
            {"hook": "attn_mul", "bidirectional": True},
            {"hook": "attn_add", "mask_padding": True, "temperature": 2.0},
            {"hook": "attn_mul", **NONE, **WHOLE_HEADS},
            {"num_axes": 2, "max_position": 200},
            {"num_axes": 3, "hook": "attn_mul", "mask_padding": True, "max_position": 200},
        ],
        **SHARED,
    ),
    "seqpe_input_add": Scheme(
        SeqPEInputAdd(),
        [
            {"mask_padding": True, "bidirectional": True, "encoder_layers": 2},
            {"num_axes": 2, "max_position": 200, "temperature": 2.0},
            {"encoder_heads": 4},
        ],
        **SHARED,
    ),
}
