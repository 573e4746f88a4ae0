"""Measures in a trained decoder what papers name as reasons for its behaviour in longer texts.

near      The share of the logits' variance that is due to the channel pairs of RoPE whose period is
          within an octave of the trained length L, per layer. HoPE (2410.21216) argues from them.
far       The attention of the last token of a text to tokens 1 to T / 8 of T, over that to the
          middle quarter: above 1, attention is U-shaped, even without the first token. Texts of
          several lengths T tell a bump at a distance from one at the beginning of the text.
first     The attention of the last token to token 0, over that to tokens 1 to T / 8.
copied    By how many bits per token the first half of a text is better predicted when it is read
          again, right after itself. Induction heads (2209.11895), which copy what followed an
          earlier occurrence of the last tokens, bring it about.
reach     The largest logit of a query and a key at distances L to ``EXTENDED`` L, over that at
          distances up to L, with the contents that they have in training sequences, per layer.
excess    How far logits at distances L to ``EXTENDED`` L leave the range that the same query and
          key have at distances up to L, over the error of interpolation: the largest difference of
          a logit half way between two whole distances from the mean of the logits at these, per
          layer. Position interpolation (2306.15595) argues by bounds of both.
bound     The largest of these errors over the bound of theorem 2.1 there, per layer. Above 1, the
          bound does not hold: its proof bounds a geometric sum by less than that sum.
"""

import math
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.evaluation import probes
from experiments.evaluation.layer_attention import watch_texts
from experiments.training.text import token_losses
from posenc_jax import Encoding, Transformer, positions
from posenc_jax.encodings.lib.wrapper import innermost
from posenc_jax.encodings.rotary.base import Rotary
from posenc_jax.encodings.rotary.rope import rotates_by_rule
from posenc_jax.encodings.rotary.xpos import XPos

# Position interpolation is for texts of four times the trained length in most of its paper.
EXTENDED = 4


def measured(model: Transformer, windows_NL: np.ndarray) -> list[dict[str, Any]]:
    """Returns the numbers of all mechanisms that apply to a scheme.

    Arguments are as for ``probes.probe``; each head has its own keys, and a text has 16 tokens or
    more. Records have ``probe, value``, and ``layer`` or ``length`` where there are several.
    """
    attention = *near(model, windows_NL), *ends(model, windows_NL)
    return [*attention, copied(model, windows_NL), *interpolation(model, windows_NL)]


def near(model: Transformer, windows_NL: np.ndarray) -> Iterator[dict[str, Any]]:
    """Yields "near" for each rotary layer."""
    length = windows_NL.shape[1] - 1
    shares = watch_texts(model, shares_of_pairs, windows_NL[:, :-1])
    for layer, share_HP in enumerate(shares):
        if share_HP is not None:
            rope: Any = rotary_of(model.layer_at(layer)[0])
            is_near = [is_near_to(length, period) for period in periods_of(rope, length)]
            value = float(np.asarray(share_HP)[:, is_near].sum(axis=1).mean())
            yield {"probe": "near", "layer": layer, "value": value}


def is_near_to(length: int, period: float | None) -> bool:
    """Returns whether a period, None if the pair stands still, is within an octave of a length."""
    return period is not None and length / 2 <= period <= 2 * length


def rotary_of(encoding: Encoding) -> Rotary | None:
    """Returns the encoding whose pairs' contributions add up to an encoding's logits, if any."""
    encoding = innermost(encoding)
    # Not FoPE, whose pairs have many frequencies, nor position maps, which rotate twice, nor
    # Selective RoPE, which rotates by content.
    if not isinstance(encoding, Rotary) or encoding.overrides("observe"):
        return None
    return encoding if type(encoding).rotate in (Rotary.rotate, XPos.rotate) else None


def periods_of(rope: Rotary, length: int) -> list[float | None]:
    """Returns the period of each pair, from the angle at position 1 of a training sequence."""
    tokens = rope.at(positions.text(2), length=length).tokens
    cos, sin = (np.asarray(table)[0, 1, 0] for table in jax.tree.leaves(tokens.made)[:2])
    angles = abs(np.arctan2(sin, cos))
    periods = [2 * math.pi / angle if angle else None for angle in angles.tolist()]
    return periods + [None] * (rope.rotary_dim < rope.head_dim)


def shares_of_pairs(encoding, tile, rule) -> jax.Array | None:
    """Returns the share of each rotary pair in what decides the attention, float32 ``[H, pairs]``.

    A logit is the sum of its pairs' contributions. The variance of the logits over the keys that a
    query sees is therefore the sum of the pairs' covariances with the logit. A pair's share is its
    covariance over that sum; it is negative if the pair works against the others. Channels that are
    not rotated count as one pair, the last. The result is None without rotary pairs.
    """
    rope = rotary_of(encoding)
    if rope is None:
        return None
    channel = np.arange(rope.head_dim)
    pair = channel % (rope.rotary_dim // 2) if rope.layout == "half" else channel // 2
    pair = np.where(channel < rope.rotary_dim, pair, rope.rotary_dim // 2)
    is_of_CP = jnp.asarray(pair[:, None] == np.arange(pair.max() + 1)[None], jnp.float32)
    visible_TS = rule.visible(tile.q_tokens, tile.k_tokens)[0, 0]

    def covariances(row):
        q_THC, k_SHC = row
        parts_PHTS = jnp.einsum("thc,shc,cp->phts", q_THC, k_SHC, is_of_CP)
        mean_PHT1 = parts_PHTS.mean(axis=-1, keepdims=True, where=visible_TS[None, None])
        parts_PHTS = jnp.where(visible_TS[None, None], parts_PHTS - mean_PHT1, 0)
        return jnp.einsum("phts,hts->hp", parts_PHTS, parts_PHTS.sum(axis=0))

    q_BTHC, k_BSKC = (x.astype(jnp.float32) for x in (tile.q, tile.k))
    k_BSHC = jnp.repeat(k_BSKC, q_BTHC.shape[2] // k_BSKC.shape[2], axis=2)
    # One text at a time: the contributions of all pairs are many times the logits.
    of_pair_HP = jax.lax.map(covariances, (q_BTHC, k_BSHC)).sum(axis=0)
    return of_pair_HP / of_pair_HP.sum(axis=1, keepdims=True)


def ends(model: Transformer, windows_NL: np.ndarray) -> Iterator[dict[str, Any]]:
    """Yields "far" and "first" for texts of L / 2, 3 L / 4 and L tokens."""
    whole = windows_NL.shape[1] - 1
    for length in (whole // 2, 3 * whole // 4, whole):
        weight_S = probes.last_weights(model, windows_NL[:, :length]).mean(axis=(0, 1, 2))
        middle = weight_S[3 * length // 8 : 5 * length // 8].mean()
        beginning = weight_S[1 : 1 + length // 8].mean()
        yield {"probe": "far", "length": length, "value": float(beginning / middle)}
        yield {"probe": "first", "length": length, "value": float(weight_S[0] / beginning)}


def copied(model: Transformer, windows_NL: np.ndarray) -> dict[str, Any]:
    """Returns "copied"."""
    half = windows_NL.shape[1] // 2
    losses_NL = token_losses(model, jnp.asarray(np.tile(windows_NL[:, :half], 2)))
    gain = losses_NL[:, : half - 1].mean() - losses_NL[:, half:].mean()
    return {"probe": "copied", "value": float(gain) / math.log(2)}


def interpolation(model: Transformer, windows_NL: np.ndarray) -> Iterator[dict[str, Any]]:
    """Yields "reach", "excess" and "bound" for each layer with RoPE."""
    length = windows_NL.shape[1] - 1
    whole, further = np.arange(length), np.arange(length, EXTENDED * length)
    for layer, h_XP, speed_P in contributions(model, windows_NL):
        trained, between, beyond = (
            logits_at(h_XP, speed_P, distances) for distances in (whole, whole[:-1] + 0.5, further)
        )
        error = abs(between - (trained[:, 1:] + trained[:, :-1]) / 2).max(axis=1)
        reach = abs(beyond).max(axis=1) / abs(trained).max(axis=1)
        above = beyond.max(axis=1) - trained.max(axis=1)
        below = trained.min(axis=1) - beyond.min(axis=1)
        excess = np.maximum(above, below).clip(0).mean() / error.mean()
        for name, value in (
            ("reach", reach.mean()),
            ("excess", excess),
            ("bound", (error / published_bound(h_XP, speed_P)).max()),
        ):
            yield {"probe": name, "layer": layer, "value": float(value)}


def published_bound(h_XP: np.ndarray, speed_P: np.ndarray) -> np.ndarray:
    """Returns what theorem 2.1 of 2306.15595 allows half way between whole distances, ``[X]``.

    For d channels and a base c, this is ``d / (32 ln c)`` times the largest contribution.
    """
    return abs(h_XP).max(axis=1) / (16 * np.log(speed_P[0] / speed_P[1]))


def logits_at(h_XP: np.ndarray, speed_P: np.ndarray, distances_D: np.ndarray) -> np.ndarray:
    """Returns the logits at distances, ``[X, D]``; the arguments are as in ``contributions``."""
    return (h_XP @ np.exp(1j * speed_P[:, None] * distances_D)).real


def contributions(
    model: Transformer, windows_NL: np.ndarray
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Yields what each pair of RoPE adds to the logits of the last query, without its rotation.

    This is the number of a layer; complex ``[X, P]``, for X pairs of a query and a key (all texts,
    heads and keys) and P channel pairs; and the speed of each channel pair, in radians a token. At
    a distance, a channel pair adds the real part of its number, rotated by the speed times the
    distance.
    """
    length = windows_NL.shape[1] - 1
    for layer, rotated_NHSP in enumerate(watch_texts(model, _last_products, windows_NL[:, :-1])):
        if rotated_NHSP is None:
            continue
        rope: Any = model.layer_at(layer)[0]
        periods = periods_of(rope, length)
        speed_P = np.array([2 * math.pi / period if period else 0.0 for period in periods])
        distance_S1 = np.arange(length)[::-1, None]
        h_NHSP = np.asarray(rotated_NHSP) * np.exp(-1j * speed_P * distance_S1)
        yield layer, h_NHSP.reshape(-1, len(speed_P)), speed_P


def _last_products(encoding, tile, rule):
    """Returns the products of the last query and every key, by channel pair; None without RoPE."""
    if not rotates_by_rule(encoding) or encoding.rotary_dim < encoding.head_dim:
        return None
    q_NHP, k_NSHP = _as_complex(tile.q[:, -1], encoding), _as_complex(tile.k, encoding)
    return tile.scale * q_NHP[:, :, None] * jnp.conj(k_NSHP).swapaxes(1, 2)


def _as_complex(x, rope):
    """Returns each channel pair as a complex number."""
    a, b = jnp.split(x, 2, axis=-1) if rope.layout == "half" else (x[..., 0::2], x[..., 1::2])
    return jax.lax.complex(a.astype(jnp.float32), b.astype(jnp.float32))
