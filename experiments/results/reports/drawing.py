"""Sets the style that all figures share, and writes figures as SVG."""

import io
import re
from collections.abc import Iterable
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from experiments.results.statistics import BASELINE

# Okabe and Ito's colours, which colour-blind readers tell apart; their yellow is lost on white.
# The last colour, and all lines and words without a colour, are dark on white and light on black.
INK = "#222222"
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#aa3377", "#e69f00", "#56b4e9", INK)
_LIGHT_OR_DARK = "<style>svg{color:#222}@media(prefers-color-scheme:dark){svg{color:#ddd}}</style>"
DASHES = ("-", (0, (5, 1.6)), (0, (1.4, 1.1)), (0, (6, 1.5, 1.2, 1.5)))

_STYLE: dict[Any, Any] = dict.fromkeys(
    ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), INK
) | {"svg.hashsalt": "x", "font.size": 9}


def drawing_style():
    """Makes figures that are the same every time, with text as paths, which need no font."""
    return matplotlib.rc_context(_STYLE | {"svg.fonttype": "path"})


def page_style():
    """Makes smaller figures, for pages with many: text stays text, in the browser's fonts."""
    fonts: dict[str, Any] = {"svg.fonttype": "none", "font.sans-serif": ["DejaVu Sans"]}
    return matplotlib.rc_context(_STYLE | fonts)


def styles_of(names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Returns matplotlib's keywords for the line of each scheme."""
    # 7 colours and 4 dashes share no factor, so 28 names have different styles.
    cycle = enumerate(sorted(set(names) - {BASELINE}))
    styles: dict[str, dict[str, Any]] = {
        n: dict(color=COLOURS[i % 7], linestyle=DASHES[i % 4], linewidth=1.5) for i, n in cycle
    }
    return styles | {BASELINE: dict(color="#777777", linestyle=DASHES[1], linewidth=2.4)}


def finish(axes: Axes) -> None:
    """Draws the grid and leaves out the frame's upper and right lines."""
    axes.grid(color=INK, alpha=0.12, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)


def line_with_band(axes: Axes, xs: pd.Series, cells: pd.DataFrame, **style: Any) -> Line2D:
    """Draws the means of cells as a line, and their 95 % intervals as a band around it."""
    mean, margin = cells["mean"], cells["margin"].fillna(0)
    (line,) = axes.plot(xs, mean, **style)
    band = mean - margin, mean + margin
    axes.fill_between(xs, *band, color=style["color"], alpha=0.18, linewidth=0)
    return line


def svg(figure: Figure) -> str:
    """Returns the figure as SVG, without dates and comments, to a hundredth of a point.

    It has no background, and what is drawn in ``INK`` is light where the reader's screen is dark.
    """
    output = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(output, format="svg", metadata=nothing, transparent=True)
    text = re.sub(r"<!--.*?-->\n?", "", output.getvalue(), flags=re.DOTALL)
    text = re.sub("#222222|#444444", "currentColor", text)
    text = re.sub("(<svg[^>]*>)", rf"\1{_LIGHT_OR_DARK}", text, count=1, flags=re.DOTALL)
    # Numbers below 1 keep their digits, because some are scales. Labels of axes are not changed.
    places = re.compile(r"\b([1-9]\d*\.\d\d)\d+")
    attribute = re.compile(r'\b(?:d|x|y|transform)="[^"]*"')
    return attribute.sub(lambda match: places.sub(r"\1", match[0]), re.sub(r"\n +", "\n", text))


def tiles(frames: np.ndarray, columns: int) -> np.ndarray:
    """Returns frames ``[F, side, side]`` as one picture, in rows with white lines between."""
    framed = np.pad(frames, ((0, -len(frames) % columns), (1, 1), (1, 1)), constant_values=1)
    side = framed.shape[-1]
    return framed.reshape(-1, columns, side, side).swapaxes(1, 2).reshape(-1, columns * side)
