"""Counts how published decoders for text encode positions, from their configs.

    python -m experiments.studies.census

The models are the entries of ``parity/published.json`` that have a name and a year: one size, or
two, of each model whose config was found in a public repository. ``layers_from_hf`` reads the
configs. The command writes ``docs/data/census.csv``, a row for each model, and
``docs/figures/census.svg``.
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from flax import nnx
from matplotlib.figure import Figure

from experiments.command import exit_status
from experiments.results.drawing import COLOURS, INK, SOFT, finish, style, svg
from experiments.results.record import write_files
from posenc_jax import RoPE, layers_from_hf
from posenc_jax.encodings.rotary.frequencies.base import Default

ROOT = Path(__file__).parents[2]
COLUMNS = ["model", "year", "positions", "base", "rotated"]
COLUMNS += ["windowed", "window", "extension", "length"]
LENGTHS = ("max_position_embeddings", "n_positions", "max_seq_len")


def census() -> pd.DataFrame:
    """Returns the table, a row for each model, by year and base.

    ``base`` is that of the layers without a window, ``rotated`` and ``windowed`` are shares of the
    layers that have attention, and ``window`` is in tokens. ``length`` is the longest text that the
    config says the model is for.
    """
    published = json.loads((ROOT / "parity/published.json").read_text()).values()
    rows = [
        {"model": entry["name"], "year": entry["year"]} | of_config(entry["config"])
        for entry in published
        if "name" in entry
    ]
    table = pd.DataFrame(rows)[COLUMNS].astype(dict.fromkeys(("base", "window", "length"), "Int64"))
    return table.sort_values(["year", "base", "model"], ignore_index=True)


def of_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns how the model of a config encodes positions."""
    inner = config.get("text_config", config)
    length = next((inner[key] for key in LENGTHS if key in inner), None)
    read = layers_from_hf(config, rngs=nnx.Rngs(0))
    places = [read.at(number) for number in range(len(read.pattern))]
    layers = [(one, rope_in(one), window) for one, window in places if one is not None]
    ropes = [(rope, window) for _, rope, window in layers if rope is not None]
    windows = [window for *_, window in layers if not _is_all(window, length)]
    widest = [rope for rope, window in ropes if window is None] or [rope for rope, _ in ropes]
    others = {type(one).__name__.lower() for one, rope, _ in layers if rope is None}
    return {
        "positions": "rope" if ropes else " ".join(others).replace("encoding", "none"),
        "base": widest[0].base if widest else None,
        "rotated": len(ropes) / len(layers),
        "windowed": len(windows) / len(layers),
        "window": getattr(windows[0], "size", windows[0]) if windows else None,
        "extension": _extension(widest[0]) if widest else None,
        "length": length,
    }


def rope_in(encoding: Any) -> RoPE | None:
    """Returns the RoPE of a layer, which may be under another scheme, or None."""
    while encoding is not None and not isinstance(encoding, RoPE):
        encoding = getattr(encoding, "inner", None)
    return encoding


def _is_all(window, length) -> bool:
    """Returns whether a query sees all keys of the longest text before it."""
    return window is None or (isinstance(window, int) and window >= (length or window + 1))


def _extension(rope: RoPE) -> str | None:
    scheme = type(rope.frequencies) if type(rope) is RoPE else type(rope)
    return None if scheme is Default else scheme.__name__


def figure(table: pd.DataFrame) -> Figure:
    """Draws the base of each model that rotates, with its extension and the layers that differ."""
    rotating = table.dropna(subset="base").reset_index(drop=True)
    height = 0.155 * len(rotating) + 0.9
    drawn = Figure(figsize=(7, height))
    axes = drawn.add_axes((0.21, 0.5 / height, 0.42, 1 - 0.65 / height))
    for row, model in rotating.iterrows():
        y = len(rotating) - 1 - row
        colour = COLOURS[int(model["year"]) - 2023]
        is_mixed = model["windowed"] > 0 or model["rotated"] < 1
        axes.plot(model["base"], y, "o", color=colour, mfc="none" if is_mixed else colour, ms=5)
        extension = [model["extension"]] if isinstance(model["extension"], str) else []
        place: dict[str, Any] = dict(transform=axes.get_yaxis_transform(), va="center", fontsize=7)
        axes.text(1.03, y, ", ".join([*extension, *_shares(model)]), color=SOFT, **place)
        axes.text(-0.03, y, model["model"], ha="right", color=colour, **place)
    axes.set(xscale="log", xlabel="base of the rotation", ylim=(-1, len(rotating)), yticks=[])
    axes.minorticks_off()
    for year, rows in rotating.groupby("year"):
        first = len(rotating) - rows.index[0] - 0.5
        axes.axhline(first, color=INK, linewidth=0.4, alpha=0.4)
        axes.text(
            0.92, first - 0.1, year, transform=axes.get_yaxis_transform(), va="top", color=SOFT
        )
    finish(axes)
    return drawn


def _shares(model) -> list[str]:
    """Returns which shares of the layers differ from full attention with RoPE."""
    windowed, unrotated = model["windowed"], 1 - model["rotated"]
    words = [f"window {model['window']:,.0f} in {windowed:.0%}"] if windowed else []
    return [*words, f"NoPE in {unrotated:.0%}"] if unrotated > 0 else words


@exit_status
def main() -> None:
    table = census()
    with style():
        drawn = svg(figure(table))
    write_files(ROOT / "docs/data", {"census.csv": table.to_csv(index=False, float_format="%.3g")})
    write_files(ROOT / "docs/figures", {"census.svg": drawn})
    print(f"{len(table)} models")


if __name__ == "__main__":
    sys.exit(main())
