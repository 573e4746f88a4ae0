"""Sets the style that all figures share, and writes figures as SVG."""

import io
import re
from collections.abc import Iterable
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.results.statistics import BASELINE

# Okabe and Ito's colours, which colour-blind readers tell apart; their yellow is lost on white.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#aa3377", "#e69f00", "#56b4e9", "#222222")
DASHES = ("-", (0, (5, 1.6)), (0, (1.4, 1.1)), (0, (6, 1.5, 1.2, 1.5)))


def drawing_style():
    """Makes figures that are the same every time, with text as paths, which need no font."""
    return matplotlib.rc_context({"svg.fonttype": "path", "svg.hashsalt": "x", "font.size": 9})


def page_style():
    """Makes smaller figures, for pages with many: text stays text, in the browser's fonts."""
    return matplotlib.rc_context(
        {
            "svg.fonttype": "none",
            "svg.hashsalt": "x",
            "font.size": 9,
            "font.sans-serif": ["DejaVu Sans"],
        }
    )


def styles_of(names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Returns matplotlib's keywords for the line of each scheme."""
    # 7 colours and 4 dashes share no factor, so 28 names have different styles.
    cycle = enumerate(sorted(set(names) - {BASELINE}))
    styles: dict[str, dict[str, Any]] = {
        n: dict(color=COLOURS[i % 7], linestyle=DASHES[i % 4], linewidth=1.5) for i, n in cycle
    }
    return styles | {BASELINE: dict(color="#777777", linestyle=DASHES[1], linewidth=2.4)}


def finish(axes: Axes, **grid: Any) -> None:
    """Draws the grid and leaves out the frame's upper and right lines.

    Args:
      axes: the axes, drawn otherwise.
      **grid: arguments of ``axes.grid``, such as ``axis="x"``.
    """
    axes.grid(color="#e4e4e4", linewidth=0.6, **grid)
    axes.spines[["top", "right"]].set_visible(False)


def svg(figure: Figure) -> str:
    """Returns the figure as SVG, without dates and comments, to a hundredth of a point."""
    output = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(output, format="svg", metadata=nothing)
    text = re.sub(r"<!--.*?-->\n?", "", output.getvalue(), flags=re.DOTALL)
    # Numbers below 1 keep their digits, because some are scales. Labels of axes are not changed.
    places = re.compile(r"\b([1-9]\d*\.\d\d)\d+")
    attribute = re.compile(r'\b(?:d|x|y|transform)="[^"]*"')
    return attribute.sub(lambda found: places.sub(r"\1", found[0]), re.sub(r"\n +", "\n", text))


def tiles(frames: np.ndarray, columns: int) -> np.ndarray:
    """Returns frames ``[F, side, side]`` as one picture, in rows with white lines between."""
    framed = np.pad(frames, ((0, -len(frames) % columns), (1, 1), (1, 1)), constant_values=1)
    side = framed.shape[-1]
    return framed.reshape(-1, columns, side, side).swapaxes(1, 2).reshape(-1, columns * side)
