"""Trains a model to point at icons on screens of one size, and tests it on wider and taller ones.

A screen is a grid of cells with an icon in each; a cell is a patch. The screen is a window of a
larger desktop, whose rows and columns are numbered. The number of the screen's first row, which is
also that of its first column, comes before the screen as a token of text. Ruler tokens
(2510.03230), if a variant has any, are numbers of rows and columns. Every cell is asked which icons
are one and two cells to its left and above it, and in which row and column of the desktop it is.

All cells are asked at once, and row and column are read at once. Another design, which showed an
icon again after the screen and asked for its row and column, stayed at chance (two layers, 900
steps).
"""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
import optax
from matplotlib.ft2font import FT2Font
from PIL import Image, ImageDraw, ImageFont

from experiments import folder_of
from experiments.results.panels import Panel, Result
from experiments.settings import bounded, one_of
from experiments.studies.drawn_examples import DrawnExamples, digest_of, generator, shuffled
from experiments.studies.multimodal.model import Decoder, patches
from posenc_jax import positions
from posenc_jax.positions import Text, Vision

# Rows down and columns to the right from a neighbour to the cell that is asked about it.
NEIGHBOURS = {"1 left": (0, 1), "2 left": (0, 2), "1 up": (1, 0), "2 up": (2, 0)}
FARTHEST = 2


@dataclasses.dataclass(frozen=True)
class Setting:
    """Describes the data of training.

    Attributes:
      data: "mdi" (the Material Design Icons of ``fonticon-materialdesignicons7``) or "dejavu" (the
        symbols of DejaVu Sans, which matplotlib brings along).
      icons: how many different icons there are.
      icon, cell: side in pixels of an icon, and of the cell around it, which is no smaller.
      rows, columns: cells of a screen.
    """

    data: str = "mdi"
    icons: int = 16
    icon: int = 10
    cell: int = 12
    rows: int = 8
    columns: int = 8


@dataclasses.dataclass(frozen=True)
class Trials:
    """Describes the data of evaluation.

    Attributes:
      screens: rows and columns of the tested screens, the trained ones first. The desktop is as
        large as the largest side.
      count: screens of each size.
      batch: screens in one forward pass.
    """

    screens: tuple[tuple[int, int], ...] = bounded(
        ((8, 8), (8, 16), (16, 8), (16, 16)), least=1 + FARTHEST
    )
    count: int = 64
    batch: int = 16


class Pointing(DrawnExamples):
    """Asks every cell of a screen for its neighbours and its place."""

    kinds = (Setting, Trials)
    builders = (positions.qwen2_vl, positions.spatial_reset, positions.videorope, positions.vanilla)
    title = "Pointing at icons on screens larger than those trained on"
    baseline = "rope"

    def load(self):
        self.trained = self.setting.rows, self.setting.columns
        if self.trials.screens[:1] != (self.trained,):
            raise ValueError(
                f"eval.screens={self.trials.screens} must begin with the screen trained on, "
                f"task.rows={self.trained[0]} and task.columns={self.trained[1]}"
            )
        self.desktop = max(max(screen) for screen in self.trials.screens)
        self.icons = load_icons(self.setting)
        self.length = 1 + self.trained[0] * self.trained[1]
        for scheme in self.schemes:
            self.place(scheme, self.trained)
        xs = tuple(_name(screen) for screen in self.trials.screens)
        self.panels = tuple(
            Panel(condition, "accuracy", "rows x columns of the screen", xs, xs[:1])
            for condition in (*NEIGHBOURS, "row", "column", "place")
        )
        self.data = {"icons": self.setting.data, "digest": digest_of(self.icons)}

    def new_model(self, scheme, key):
        vocab_size = sum(self.answers().values())
        sizes = {"patch_dim": self.setting.cell**2, "vocab_size": vocab_size}
        return self.make_model(Decoder, scheme, key, **sizes)

    def draw(self, scheme, rng, count, step):
        return self.drawn(rng, count, self.trained)

    def loss(self, scheme, model, batch, key):
        """Returns the cross-entropy, a mean over the questions."""
        logits = self.logits(scheme, model, batch, key)
        loss = optax.softmax_cross_entropy_with_integer_labels
        right = targets(batch)
        return sum(loss(logits[name], right[name]).mean() for name in right) / len(right)

    def drawn(self, rng, count: int, screen: tuple[int, int]) -> dict[str, np.ndarray]:
        """Returns ``count`` screens, drawn at random.

        The result has the numbers of the ``icons``, int32 ``[B, rows, columns]``, and ``corner``,
        the number on the desktop of the first row and column, int32 ``[B]``.
        """
        icons = rng.integers(0, len(self.icons), (count, *screen))
        corner = rng.integers(0, self.desktop - max(screen) + 1, count)
        return {"icons": icons.astype(np.int32), "corner": corner.astype(np.int32)}

    def measure(self, scheme, model):
        def answer(model, batch):
            logits = self.logits(scheme, model, batch)
            return jax.tree.map(lambda x: jnp.argmax(x, axis=-1), logits)

        for screen in self.trials.screens:
            # The same screens every time.
            drawn, x = self.drawn(generator(*screen), self.trials.count, screen), _name(screen)
            answers = self.predict(answer, model, drawn)
            right = {name: answers[name] == target for name, target in targets(drawn).items()}
            right["place"] = right["row"] & right["column"]
            chance = dict.fromkeys(NEIGHBOURS, 1 / len(self.icons))
            chance |= {"row": 1 / screen[0], "column": 1 / screen[1]}
            chance["place"] = chance["row"] * chance["column"]
            for name, hits in right.items():
                yield Result(name, x, "accuracy", float(hits.mean()), chance[name])

    def logits(self, scheme, model, batch, key=None):
        """Returns logits of the answers of every cell that has a right one, by question."""
        inputs, places = self.sequence(scheme, batch)
        B, rows, columns = batch["icons"].shape
        of_cells = model(inputs, places, key=key)[:, -rows * columns :]
        ends = np.cumsum(list(self.answers().values()))
        parts = jnp.split(of_cells.reshape(B, rows, columns, -1), ends[:-1], axis=-1)
        logits = dict(zip(self.answers(), parts, strict=True))
        return logits | {
            name: logits[name][:, down:, across:] for name, (down, across) in NEIGHBOURS.items()
        }

    def answers(self) -> dict[str, int]:
        """Returns how many answers each question has; all answers together are the vocabulary.

        The answers to "row" are tokens 0, 1, ..., with which the decoder also reads numbers.
        """
        sides = {"row": self.desktop, "column": self.desktop}
        return sides | dict.fromkeys(NEIGHBOURS, len(self.icons))

    def place(self, scheme, screen) -> tuple[Vision, np.ndarray]:
        """Returns a screen with the variant's rulers, and the positions of all tokens."""
        vision = Vision(1, screen[0], screen[1], ruler=self.variant(scheme)["ruler"])
        return vision, self.builder(scheme)([Text(1), vision]).positions

    def sequence(self, scheme, batch):
        """Returns the decoder's inputs, first numbers and then cells, and their positions."""
        B, *screen = batch["icons"].shape
        vision, places = self.place(scheme, screen)
        numbers = batch["corner"][:, None] + np.array([[0, *vision.marks]])
        shown = self.pixels()[batch["icons"].reshape(B, -1)]
        told, cells = numbers.shape[1], shown.shape[1]
        inputs = {
            "tokens": jnp.pad(numbers, ((0, 0), (0, cells))),
            "patches": jnp.pad(shown, ((0, 0), (told, 0), (0, 0))),
            "is_patch": np.arange(told + cells)[None] >= told,
        }
        return inputs, places

    def pixels(self):
        """Returns the icons as the decoder reads them, float32 ``[icons, patch_dim]``, variance 1.

        The mean icon is subtracted, because what all icons share would hide their differences. A
        constant is added, because attention to a place, whatever icon is there, needs something
        that all patches share.
        """
        ink = patches(self.icons.astype(np.float32), self.setting.cell)[:, 0]
        ink = ink - ink.mean(axis=0, keepdims=True)
        return jnp.asarray(ink / ink.std() + 0.3)


def targets(drawn) -> dict:
    """Returns the right answers of the cells, int32 ``[B, rows, columns]`` by question.

    Cells that lack a neighbour, at the upper or left side, are left out of the question about it.
    """
    icons, corner = drawn["icons"], drawn["corner"][:, None, None]
    rows, columns = icons.shape[1:]
    row, column = np.indices((rows, columns), np.int32)[:, None]
    neighbours = {
        name: icons[:, : rows - down, : columns - across]
        for name, (down, across) in NEIGHBOURS.items()
    }
    return {"row": corner + row, "column": corner + column} | neighbours


def load_icons(setting: Setting) -> np.ndarray:
    """Returns the icons, uint8 ``[icons, cell, cell]``, all different, the ink light."""
    path, symbols = _font(setting.data)
    font = ImageFont.truetype(path, 8 * setting.icon)
    icons: dict[bytes, np.ndarray] = {}
    for number in shuffled(len(symbols)):
        icon = _draw(chr(symbols[number]), font, setting)
        if icon is not None:
            icons.setdefault(icon.tobytes(), icon)
        if len(icons) == setting.icons:
            return np.stack(list(icons.values()))
    raise ValueError(
        f"task.icons={setting.icons} are more than the {len(icons)} different ones of "
        f"task.data={setting.data!r} at task.icon={setting.icon} pixels"
    )


def _font(name):
    """Returns the file of the font, and its symbols."""
    if one_of("task.data", name, ("mdi", "dejavu")) == "mdi":
        folder = folder_of("fonticon_mdi7", "icons", "task.data='mdi'")
        path = folder / "fonts/materialdesignicons-webfont.ttf"
        first, last = 0xF0000, 0xFFFFF
    else:
        path = Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf"
        first, last = 0x2190, 0x27BF  # arrows, mathematics, shapes, pictures
    characters = FT2Font(str(path)).get_charmap()
    return str(path), sorted(c for c in characters if first <= c <= last)


def _draw(symbol, font, setting):
    """Draws a symbol in the middle of its cell; returns None if there is no ink.

    The symbol is drawn large and then scaled down, so that symbols of any font fill their icons.
    """
    side = 2 * font.size
    ink = Image.new("L", (side, side))
    ImageDraw.Draw(ink).text((side // 2, side // 2), symbol, fill=255, font=font, anchor="mm")
    if not ink.getbbox():
        return None
    ink = ink.crop(ink.getbbox())
    scale = setting.icon / max(ink.size)
    width, height = (max(1, round(scale * side)) for side in ink.size)
    cell = Image.new("L", (setting.cell, setting.cell))
    corner = (setting.cell - width) // 2, (setting.cell - height) // 2
    cell.paste(ink.resize((width, height), Image.Resampling.BOX), corner)
    return np.asarray(cell)


def _name(screen) -> str:
    return f"{screen[0]} x {screen[1]}"
