"""Draws the pictures of docs/concepts.md, which shows them when the site is built.

Everything in them is computed by the library: positions by their builders, weights by ``attend``,
and logits by ``posenc_jax.logits``.
"""

import dataclasses

import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

import posenc_jax
from experiments.results.drawing import COLOURS, INK, finish, style, svg
from posenc_jax import Encoding, attend, positions


@dataclasses.dataclass(frozen=True)
class Picture:
    """Holds an SVG, which a notebook shows."""

    text: str

    def _repr_svg_(self) -> str:
        return self.text


# Two documents in one row, which the first three pictures share.
SEGMENTS = np.array([[0, 0, 0, 0, 0, 1, 1, 1]])


def of_positions() -> Picture:
    """Returns tokens in the order in which they are written, with the positions of five kinds."""
    times = positions.since([10.0, 10.5, 12.0, 12.25, 15.0, 15.5, 16.0, 20.0], 12.0)
    rows = {
        "text": positions.text(8),
        "text, continued": positions.text(8, start=100),
        "two documents in a row": positions.packed(SEGMENTS),
        "seconds since an event": np.reshape(times, (1, -1)),
        "a patch of an image: row, column": positions.centred_grid(2, 4),
    }
    with style():
        figure = Figure(figsize=(7.2, 2.6), layout="constrained")
        axes = figure.subplots()
        for place, (name, made) in enumerate(rows.items()):
            values = np.asarray(made)[0]
            axes.text(-0.8, place, name, ha="right", va="center")
            for token, value in enumerate(values):
                words = "\n".join(f"{number:g}" for number in np.ravel(value))
                box = dict(boxstyle="round", facecolor=COLOURS[place], alpha=0.18, edgecolor="none")
                axes.text(token, place, words, ha="center", va="center", fontsize=8, bbox=box)
        axes.text(-0.8, len(rows), "index", ha="right", va="center", style="italic")
        for token in range(8):
            axes.text(token, len(rows), str(token), ha="center", va="center", style="italic")
        axes.set(xlim=(-4.6, 7.6), ylim=(len(rows) + 0.4, -0.6))
        axes.axis("off")
        return Picture(svg(figure))


def of_tokens() -> Picture:
    """Returns who sees whom: causally, in packed documents, and through a window."""
    views = {
        "order": dict(segment_ids=None, window=None),
        "order and segments": dict(segment_ids=SEGMENTS, window=None),
        "and a window of 3": dict(segment_ids=SEGMENTS, window=3),
    }
    with style():
        figure = Figure(figsize=(7.2, 2.7), layout="constrained")
        for axes, (name, view) in zip(figure.subplots(1, 3), views.items(), strict=True):
            made = positions.text(8) if view["segment_ids"] is None else positions.packed(SEGMENTS)
            weights_TS = _weights(Encoding(), made, **view)
            axes.imshow(weights_TS > 0, cmap="Blues", vmin=0, vmax=1.6)
            axes.set(title=name, xlabel="key, by index", xticks=range(8), yticks=range(8))
        figure.axes[0].set_ylabel("query, by index")
        return Picture(svg(figure))


def _weights(encoding: Encoding, made, *, segment_ids=None, window=None) -> np.ndarray:
    """Returns attention weights ``[T, S]`` where queries and keys are zeros."""
    count = made.shape[1]
    zeros_BTHC = jnp.zeros((1, count, 1, count))
    identity_BSKC = jnp.eye(count)[None, :, None]  # sums of such values are the weights
    here = encoding.at(made, segment_ids=segment_ids)
    out = attend(here, zeros_BTHC, zeros_BTHC, identity_BSKC, window=window)
    return np.asarray(out[0, :, 0])


def of_hooks() -> Picture:
    """Returns the way from embeddings to the output of attention, with the hooks on it."""
    steps = (
        ("token embeddings", "embed", "sinusoidal, learned"),
        ("the layer's input", "observe", "FoX, PaTH"),
        ("queries and keys", "rotate", "RoPE and its family"),
        ("logits", "score", "ALiBi, T5, FIRE"),
        ("sums of values", "mix", "Shaw's values"),
        ("output", "rotate_back", "rotary for values"),
    )
    with style():
        figure = Figure(figsize=(7.2, 2.3), layout="constrained")
        axes = figure.subplots()
        plain = dict(boxstyle="round", facecolor="none", edgecolor=INK)
        hook = dict(boxstyle="round", facecolor=COLOURS[0], alpha=0.2, edgecolor="none")
        for x, (what, name, schemes) in enumerate(steps):
            axes.text(x, 1, what.replace(" ", "\n", 1), ha="center", va="center", bbox=plain)
            axes.text(x, 0.2, name, ha="center", va="center", family="monospace", bbox=hook)
            axes.text(x, -0.1, schemes.replace(", ", ",\n"), ha="center", va="top", fontsize=7.5)
            arrow = dict(arrowstyle="->", color=INK, shrinkA=2, shrinkB=2)
            axes.annotate("", (x, 0.68), (x, 0.36), arrowprops=arrow)
            if x:
                axes.annotate("", (x - 0.38, 1), (x - 0.62, 1), arrowprops=arrow)
        axes.set(xlim=(-0.6, len(steps) - 0.4), ylim=(-0.75, 1.35))
        axes.axis("off")
        return Picture(svg(figure))


def of_attention() -> Picture:
    """Returns what three schemes do to logits of equal queries and keys, and to their weights."""
    count, head_dim = 65, 64
    schemes = {
        "nope": posenc_jax.make("nope"),
        "rope": posenc_jax.make("rope", head_dim=head_dim),
        "alibi": posenc_jax.make("alibi", num_heads=8),
    }
    ones_BTHC = jnp.full((1, count, 8, head_dim), 0.5**0.5)  # a logit of 4 without positions
    made = positions.text(count)
    with style():
        figure = Figure(figsize=(7.2, 2.6), layout="constrained")
        left, right = figure.subplots(1, 2)
        for colour, (name, encoding) in zip(COLOURS, schemes.items(), strict=False):
            logits_BHTS = posenc_jax.logits(encoding.at(made), ones_BTHC, ones_BTHC)
            row = np.asarray(logits_BHTS)[0, 2, -1][::-1]  # of the last query, the nearest first
            left.plot(row, color=colour, label=name)
            right.plot(np.exp(row) / np.exp(row).sum(), color=colour)
        left.set(xlabel="distance in tokens", title="logit")
        right.set(xlabel="distance in tokens", title="weight", yscale="log")
        left.legend(frameon=False)
        for axes in (left, right):
            finish(axes)
        return Picture(svg(figure))
