"""Writes a page that shows what each encoding does to attention.

    python -m experiments.studies.gallery

The page plots, for every scheme, the logit of a query for a key of the same content, averaged over
random contents, against the distance between the two, at the training length and at eight times
that length. Every curve is computed by the encoding itself, with its parameters before training.
"""

import argparse
import dataclasses
import functools
import inspect
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from matplotlib.figure import Figure
from rich.console import Console

from experiments.command import count, exit_status, schemes
from experiments.config import short_keywords
from experiments.progress import stage
from experiments.results import report
from experiments.results.drawing import COLOURS, finish, style, svg
from experiments.results.record import write_files
from experiments.results.report import Section
from posenc_jax import REGISTRY, Chunks, Encoding, Layers, describe, logits, make, positions
from posenc_jax.costs import Description
from posenc_jax.registry import lookup, signature

TIMES = 8
CONTENTS = 16  # random contents a curve is the mean of
# Layers of the models whose patterns depend on their number.
LAYERS = {"global_nope": 4, "beam": 6, "flint": 4}
# The explanation of the curves.
CURVES = (
    "The logit of a query for a key of the same content, averaged over random contents, against "
    f"the distance between them. Coloured lines are the heads in texts of {TIMES} times the "
    "trained length; dashed lines are the same heads in texts of the trained length, which the "
    "dotted line marks. Parameters are those before training."
)


@functools.partial(jax.jit, static_argnames="length")
def curve(encoding: Encoding, contents_BHC, length: int) -> jax.Array:
    """Returns mean logits of the last token for each of ``length`` tokens, float32 ``[H, length]``.

    All tokens of a sequence have the same content, which is also their query and their key.
    """
    B, H, C = contents_BHC.shape
    x_BTD = jnp.broadcast_to(contents_BHC.reshape(B, 1, H * C), (B, length, H * C))
    here = encoding.at(positions.text(length))
    x_BTD = here.embed(x_BTD)
    here, _ = here.see(x_BTD)
    x_BTHC = x_BTD.reshape(B, length, H, C)
    keys, last = here.keys(x_BTHC, x_BTHC), here.part(length - 1, 1)
    return logits(last, x_BTHC[:, -1:], keys)[:, :, 0].mean(axis=0)


def draw(curves: dict[int, np.ndarray], train_length: int, window: int | None = None) -> str:
    """Draws the curves ``{length: [H, length]}`` of one layer, up to its window, as SVG."""
    figure = Figure(figsize=(4.6, 2.7), layout="constrained")
    axes = figure.add_subplot()
    for length, logits_HT in sorted(curves.items(), reverse=True):
        trained = length == train_length
        # A logarithmic axis has no 0, so distance 0 is left out.
        distance = np.arange(length)[1:window]
        for number, logits_T in enumerate(np.unique(logits_HT, axis=0)):
            axes.plot(
                distance,
                logits_T[::-1][1:window],
                color="#222222" if trained else COLOURS[number % len(COLOURS)],
                linestyle=(0, (4, 2)) if trained else "-",
                linewidth=0.9 if trained else 1.4,
            )
    axes.axvline(train_length, color="#444444", linewidth=0.9, linestyle=":")
    axes.set_xscale("log", base=2)
    ticks = [2**k for k in range(0, 40, 2) if 2**k < max(curves)]
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.minorticks_off()
    axes.set(xlabel="distance", ylabel="logit", xlim=(1, max(curves)))
    finish(axes)
    return svg(figure)


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Holds the sizes of the models whose attention is drawn."""

    train_length: int = 256
    num_heads: int = 4
    head_dim: int = 64


@dataclasses.dataclass(frozen=True)
class Drawing:
    """Holds what one encoding of a scheme does, its logits by distance as SVG, and costs.

    ``layers`` says which layers of the pattern have it, counted from 1, such as "Layers 1, 2 of 4",
    or nothing where all are alike; ``window`` how many keys a query sees, or None for all.
    """

    layers: str
    cost: Description
    window: int | None
    curves: str


def drawings(name: str, sizes: Sizes, keywords: Mapping[str, Any]) -> list[Drawing]:
    """Draws each encoding of the scheme ``name``; there are several where layers differ."""
    heads, length = sizes.num_heads, sizes.train_length
    made = {"model_dim": heads * sizes.head_dim, "rngs": nnx.Rngs(0), **keywords}
    factor = signature(name).parameters.get("factor")
    if factor is not None and factor.default is inspect.Parameter.empty:
        made.setdefault("factor", 4.0)
    layers = Layers.of(make(name, **dataclasses.asdict(sizes), **made))
    places = [layers.at(place) for place in range(len(layers.pattern))]
    drawn = []
    for encoding, window in dict.fromkeys(places):
        # True of all in REGISTRY.
        assert encoding is not None and not isinstance(window, Chunks | tuple)
        which = [str(i) for i, place in enumerate(places, 1) if place == (encoding, window)]
        layer = "Layer" if len(which) == 1 else "Layers"
        title = f"{layer} {', '.join(which)} of {len(places)}" if len(places) > 1 else ""
        # A scheme that needs whole rows may take memory quadratic in the length for each content.
        shape = (2 if encoding.whole_rows else CONTENTS, 1, sizes.head_dim)
        # All heads have the same content, so that only the encoding makes them differ.
        contents_BHC = jnp.repeat(jax.random.normal(jax.random.key(0), shape), heads, axis=1)
        curves = {n: np.asarray(curve(encoding, contents_BHC, n)) for n in (length, TIMES * length)}
        cost = describe(encoding, num_heads=heads, head_dim=sizes.head_dim, length=length)
        drawn.append(Drawing(title, cost, window, draw(curves, length, window)))
    return drawn


def sections(name: str, sizes: Sizes, keywords: Mapping[str, Any]) -> Iterator[Section]:
    """Yields a part of the page for each encoding of the scheme ``name``."""
    documented = inspect.getdoc(lookup(name)) or ""
    says = " ".join(documented.partition("\n\n")[0].replace("``", "").split())
    for drawing in drawings(name, sizes, keywords):
        window = "" if drawing.window is None else f"; the last {drawing.window} keys are seen"
        told = f"{says} {drawing.cost}{window}"
        yield report.drawn(drawing.curves, f"{name} {drawing.layers}".strip(), told)


@exit_status
def main() -> None:
    parser = argparse.ArgumentParser("posenc gallery", description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("build/gallery.html"))
    names = list(REGISTRY)
    parser.add_argument("--schemes", type=schemes, default=names, help="with commas; default: all")
    parser.add_argument("--train_length", type=count, default=Sizes.train_length)
    parser.add_argument("--heads", type=count, default=Sizes.num_heads)
    parser.add_argument("--head_dim", type=count, default=Sizes.head_dim)
    args = parser.parse_args()
    sizes = Sizes(args.train_length, args.heads, args.head_dim)
    console = Console(highlight=False, markup=False)
    keywords = short_keywords(args.train_length)
    told = f"{args.heads} heads of {args.head_dim} channels, trained at {args.train_length} tokens."
    parts = [Section(text=f"{CURVES} {told}")]
    with stage("gallery", len(args.schemes), console) as advance, style():
        for name in args.schemes:
            layers = {"num_layers": LAYERS[name]} if name in LAYERS else {}
            parts += sections(name, sizes, keywords.get(name, {}) | layers)
            advance(name)
    page = report.page("What each encoding does to attention", parts)
    write_files(args.out.parent, {args.out.name: page})
    console.print(f"gallery: {args.out}")


if __name__ == "__main__":
    sys.exit(main())
