"""Draws what a scheme does to a logit, and runs the code of its page."""

import dataclasses

from docs.site import snippets
from experiments.config import short_keywords
from experiments.results.reports.drawing import page_style
from experiments.studies import gallery

SIZES = gallery.Sizes(train_length=128, num_heads=4, head_dim=32)


@dataclasses.dataclass(frozen=True)
class Drawn:
    """Holds the figures of a scheme, and what one layer of each of its encodings costs.

    Attributes:
      figures: a figure for each encoding: which layers have it ("" for all), and its SVG.
      costs: the same for sentences on the cost.
      hooks: the hooks that its encodings override.
    """

    figures: list[tuple[str, str]]
    costs: list[tuple[str, str]]
    hooks: tuple[str, ...]


def draw(name: str) -> Drawn:
    """Draws a scheme, and runs the code of its page."""
    snippets.check(name)
    layers = {"num_layers": gallery.LAYERS[name]} if name in gallery.LAYERS else {}
    keywords = short_keywords(SIZES.train_length).get(name, {}) | layers
    with page_style():
        drawings = gallery.drawings(name, SIZES, keywords)
    costs = [
        (
            drawing.layers,
            f"{drawing.cost.parameters:,} parameters, and {drawing.cost.overhead:+.1%} operations "
            "in attention"
            + ("" if drawing.window is None else f"; the last {drawing.window} keys are seen"),
        )
        for drawing in drawings
    ]
    hooks = dict.fromkeys(hook for drawing in drawings for hook in drawing.cost.hooks)
    return Drawn([(drawing.layers, drawing.curves) for drawing in drawings], costs, tuple(hooks))
