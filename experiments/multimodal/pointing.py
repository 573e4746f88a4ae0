"""Pointing at icons: trained on screens of one size, tested on wider and taller ones.

    python launch.py --config=configs/pointing.py:small --workdir=runs/pointing

A screen is a grid of cells with an icon in each; a cell is a patch. It is a window of a larger
desktop, whose cells are numbered along both sides: the number of its upper left corner, along
either side, comes before the screen as a token of text. Every cell is asked which icons stand one
and two to its left and above it, and for its own row and column on the desktop. After the screen
come some of its icons once more, as in "click on this", and are asked where they stand.

The published models (2510.03230) write coordinates one digit at a time. Here row and column are
read off at once: neighbours asked for by a token after the screen stayed at chance.
"""

import dataclasses
import functools
import hashlib
import importlib.util
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
import optax
from matplotlib.ft2font import FT2Font
from PIL import Image, ImageDraw, ImageFont

from experiments.multimodal.experiment import Drawn, Experiment
from experiments.multimodal.model import Decoder, attention_weights, patches
from experiments.multimodal.study import Map, Panel, Result
from posenc_jax.rotary import positions
from posenc_jax.rotary.positions import Text, Vision

# How far, in rows and columns, from the cell that is asked.
NEIGHBOURS = {"1 left": (0, 1), "2 left": (0, 2), "1 up": (1, 0), "2 up": (2, 0)}
BUILDERS = "qwen2_vl", "spatial_reset", "videorope", "vanilla"
BOX = 0.84, 0.37, 0.0  # orange


@dataclasses.dataclass(frozen=True)
class Setting:
    """What is trained on.

    Attributes:
      data: "mdi" (the Material Design Icons of ``fonticon-materialdesignicons7``) or "dejavu" (the
        symbols of DejaVu Sans, which matplotlib brings along).
      icons: how many different ones there are.
      icon, cell: sides in pixels, of an icon and of the cell it is in the middle of.
      rows, columns: cells of a screen.
      queries: how many icons are asked for after the screen; they are on it once.
    """

    data: str = "mdi"
    icons: int = 64
    icon: int = 10
    cell: int = 12
    rows: int = 8
    columns: int = 8
    queries: int = 8


@dataclasses.dataclass(frozen=True)
class Trials:
    """How to evaluate.

    Attributes:
      screens: rows and columns of the tested screens, those of training first. The desktop is as
        large as the largest side.
      count: of screens of each size.
      batch: in one forward pass.
    """

    screens: tuple[tuple[int, int], ...] = ((8, 8), (8, 16), (16, 8), (16, 16))
    count: int = 64
    batch: int = 16


class Pointing(Experiment):
    title = "Pointing at icons on screens larger than those trained on"
    axes = ("time", "row", "column")

    def load(self):
        self.setting, self.trials = Setting(**self.config["task"]), Trials(**self.config["eval"])
        _check(self.setting, self.trials)
        self.own = self.setting.rows, self.setting.columns
        self.desktop = max(max(screen) for screen in self.trials.screens)
        self.icons = load_icons(self.setting)
        for scheme in self.config["schemes"].split(","):
            _builder(self.variant(scheme.strip()))
        self.length = 1 + self.own[0] * self.own[1] + self.setting.queries
        xs = tuple(_name(screen) for screen in self.trials.screens)
        self.panels = tuple(
            Panel(condition, "accuracy", "rows x columns of the screen", xs, xs[:1])
            for condition in (*NEIGHBOURS, "own place", "pointing")
        )
        digest = hashlib.sha256(self.icons.tobytes()).hexdigest()[:16]
        self.data = {"icons": self.setting.data, "digest": digest}
        self.summary = (
            f"Screens of {_name(self.own)} cells with one of {len(self.icons)} icons in each, in a "
            f"desktop of {self.desktop} x {self.desktop}. Which icon stands 1 or 2 cells to the "
            "left of a cell or above it, on which row and column of the desktop is the cell "
            "itself, and where is an icon that is shown again after the screen? A place is right "
            "if row and column are."
        )

    def task(self, scheme):
        return Screens(self, scheme, self.recipe.batch_size)

    def draw(self, rng, count: int, screen: tuple[int, int]) -> dict[str, np.ndarray]:
        """``count`` screens.

        ``icons`` int32 ``[B, rows, columns]``, numbers of icons; ``asked`` ``[B, queries]``, those
        asked for; ``place`` ``[B, queries, 2]``, row and column of each on the screen; ``corner``
        ``[B]``, the number of its first row, and column, on the desktop.
        """
        rows, columns = screen
        queries = self.setting.queries
        order = rng.permuted(np.tile(np.arange(len(self.icons)), (count, 1)), axis=1)
        asked, others = order[:, :queries], order[:, queries:]
        fill = rng.integers(0, others.shape[1], (count, rows * columns))
        icons = np.take_along_axis(others, fill, axis=1)
        cells = rng.permuted(np.tile(np.arange(rows * columns), (count, 1)), axis=1)[:, :queries]
        np.put_along_axis(icons, cells, asked, axis=1)
        drawn = {
            "icons": icons.reshape(count, rows, columns),
            "asked": asked,
            "place": np.stack([cells // columns, cells % columns], axis=-1),
            "corner": rng.integers(0, self.desktop - max(screen) + 1, count),
        }
        return {key: value.astype(np.int32) for key, value in drawn.items()}

    def tests(self, screen) -> dict[str, np.ndarray]:
        words = np.random.Philox(key=np.array(screen, np.uint64))
        return self.draw(np.random.Generator(words), self.trials.count, screen)

    def measure(self, scheme, model):
        answer = functools.partial(self.predictions, scheme)
        for screen in self.trials.screens:
            drawn = self.tests(screen)
            found = self.predict(answer, model, drawn)
            right = {
                name: np.where(target < 0, np.nan, found[name] == target)
                for name, target in targets(drawn).items()
            }
            for name in NEIGHBOURS:
                accuracy = float(np.nanmean(right[name]))
                yield Result(name, _name(screen), "accuracy", accuracy, 1 / len(self.icons))
            cells = screen[0] * screen[1]
            hits = right["row"] * right["column"]
            for name, part in (("own place", hits[:, :cells]), ("pointing", hits[:, cells:])):
                yield Result(name, _name(screen), "accuracy", float(part.mean()), 1 / cells)

    def predictions(self, scheme, model, batch):
        """The likeliest answers, int ``[B, T]`` by question."""
        logits = self.logits(scheme, model, batch)
        return {name: jnp.argmax(each, axis=-1) for name, each in logits.items()}

    def logits(self, scheme, model, batch, key=None):
        """Of every answer: ``[B, T, answers]`` by question, of cells and icons asked for."""
        inputs, places = self.sequence(scheme, batch)
        told = inputs["is_patch"].shape[1] - batch["icons"][0].size - batch["asked"].shape[1]
        logits = model(inputs, places, key=key)[:, told:]
        ends = np.cumsum(list(self.answers().values()))
        parts = jnp.split(logits, ends[:-1], axis=-1)
        return dict(zip(self.answers(), parts, strict=True))

    def answers(self) -> dict[str, int]:
        """How many there are to each question; together they are the vocabulary.

        Those to "row" are the numbers of the desktop, as they are read.
        """
        sides = {"row": self.desktop, "column": self.desktop}
        return sides | {name: len(self.icons) for name in NEIGHBOURS}

    def sequence(self, scheme, batch):
        """What the decoder reads, and its positions: numbers, cells, and icons asked for."""
        B, rows, columns = batch["icons"].shape
        variant = self.variant(scheme)
        vision = Vision(1, rows, columns, ruler=variant["ruler"])
        placed = _builder(variant)([Text(1), vision, Text(batch["asked"].shape[1])])
        numbers = batch["corner"][:, None] + np.array([[0, *vision.marks]])
        shown = jnp.concatenate([batch["icons"].reshape(B, -1), batch["asked"]], axis=1)
        first, then = numbers.shape[1], shown.shape[1]
        inputs = {
            "tokens": jnp.pad(numbers, ((0, 0), (0, then))),
            "patches": jnp.pad(self.cut()[shown], ((0, 0), (first, 0), (0, 0))),
            "is_patch": np.arange(first + then)[None] >= first,
        }
        return inputs, placed.positions

    def cut(self):
        """The icons as the decoder reads them: float32 from -1 to 1."""
        pixels = self.icons.astype(np.float32) / 127.5 - 1
        return jnp.asarray(patches(pixels, self.setting.cell)[:, 0])

    def picture(self, screen) -> np.ndarray:
        """The first tested screen, with a box around the icon that is asked for first."""
        drawn = self.tests(screen)
        cell = self.setting.cell
        grey = np.block([[self.icons[n] for n in row] for row in drawn["icons"][0]]) / 255
        colour = 1 - np.repeat(grey[..., None], 3, axis=-1)
        top, left = cell * drawn["place"][0, 0]
        box = colour[top : top + cell, left : left + cell]
        for edge in (box[0], box[-1], box[:, 0], box[:, -1]):
            edge[:] = BOX
        return colour

    def pictures(self):
        return {
            f"{_name(screen)}, boxed: the icon asked for": self.picture(screen)
            for screen in self.trials.screens
        }

    def maps(self, scheme, model):
        """What the middle cell reads, and the first icon asked for, as in the pictures."""
        for screen in (self.own, self.trials.screens[-1]):
            rows, columns = screen
            one = jax.tree.map(lambda x: x[:1], self.tests(screen))
            inputs, places = self.sequence(scheme, one)
            weights = np.asarray(jax.jit(attention_weights)(model, inputs, places))
            start = weights.shape[-1] - rows * columns - self.setting.queries
            middle = rows // 2, columns // 2
            asks = {"a cell": (start + middle[0] * columns + middle[1], middle)}
            asks["pointing"] = start + rows * columns, None
            for what, (query, where) in asks.items():
                for layer, read in enumerate(weights.mean(axis=2)[:, 0, query], 1):
                    of_cells = read[start : start + rows * columns].reshape(screen)
                    caption = f"{_name(screen)}, {what}, layer {layer}"
                    yield Map(caption, of_cells.round(4).tolist(), where)


@dataclasses.dataclass(frozen=True, eq=False)
class Screens(Drawn):
    """Screens drawn at random."""

    experiment: Pointing
    scheme: str
    batch_size: int

    def init(self, key):
        sizes = {"patch_dim": self.experiment.setting.cell**2}
        sizes["vocab_size"] = sum(self.experiment.answers().values())
        return self.experiment.make_model(Decoder, self.scheme, key, **sizes)

    def draw(self, rng, count):
        return self.experiment.draw(rng, count, self.experiment.own)

    def loss(self, model, batch, key):
        logits = self.experiment.logits(self.scheme, model, batch, key)
        cells = batch["icons"][0].size
        losses = []
        for name, target in targets(batch).items():
            each = optax.softmax_cross_entropy_with_integer_labels(logits[name], target)
            # Cells, of which there are many, and icons asked for count as much.
            for part in (slice(None, cells), slice(cells, None)):
                if name in NEIGHBOURS and part.start == cells:
                    continue
                losses.append(each[:, part].mean(where=target[:, part] >= 0))
        return sum(losses) / len(losses)


def targets(drawn) -> dict:
    """The right answers, int32 ``[B, T]`` by question: of cells, then of icons asked for.

    -1 is where there is none: past the side of the screen.
    """
    B, rows, columns = drawn["icons"].shape
    none = ((0, 0), (0, drawn["asked"].shape[1]))
    found = {}
    for side, name in enumerate(("row", "column")):
        of_cells = np.tile(np.indices((rows, columns), np.int32)[side].reshape(1, -1), (B, 1))
        places = jnp.concatenate([of_cells, drawn["place"][..., side]], axis=1)
        found[name] = places + drawn["corner"][:, None]
    for name, (down, across) in NEIGHBOURS.items():
        there = drawn["icons"][:, : rows - down, : columns - across]
        there = jnp.pad(there, ((0, 0), (down, 0), (across, 0)), constant_values=-1)
        found[name] = jnp.pad(there.reshape(B, -1), none, constant_values=-1)
    return found


def load_icons(setting: Setting) -> np.ndarray:
    """uint8 ``[icons, cell, cell]``, all different, the ink light; see ``Setting``.

    Raises:
      ValueError: no such data, it is not installed, or it has fewer icons.
    """
    path, symbols = _font(setting.data)
    font = ImageFont.truetype(path, 8 * setting.icon)
    order = np.random.Philox(key=np.uint64(0)).random_raw(len(symbols)).argsort()
    found: dict[bytes, np.ndarray] = {}
    for number in order:
        icon = _draw(chr(symbols[number]), font, setting)
        if icon is not None:
            found.setdefault(icon.tobytes(), icon)
        if len(found) == setting.icons:
            return np.stack(list(found.values()))
    raise ValueError(
        f"task.icons={setting.icons} are more than the {len(found)} different ones of "
        f"task.data={setting.data!r} at task.icon={setting.icon} pixels"
    )


def _font(name):
    """The file of the font, and its symbols."""
    if name == "mdi":
        package = importlib.util.find_spec("fonticon_mdi7")
        if package is None:
            raise ValueError(
                "task.data='mdi' needs the package fonticon-materialdesignicons7; run: "
                "pip install posenc_jax[icons]"
            )
        path = Path(package.origin).parent / "fonts/materialdesignicons-webfont.ttf"
        first, last = 0xF0000, 0xFFFFF
    elif name == "dejavu":
        path = Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf"
        first, last = 0x2190, 0x27BF  # arrows, mathematics, shapes, pictures
    else:
        raise ValueError(f"task.data={name!r} must be 'mdi' or 'dejavu'")
    characters = FT2Font(str(path)).get_charmap()
    return str(path), sorted(c for c in characters if first <= c <= last)


def _draw(symbol, font, setting):
    """The symbol, as large as an icon may be, in the middle of its cell; None if there is no ink.

    Drawn large and then made smaller, so that all fonts fill their icons.
    """
    left, top, right, bottom = font.getbbox(symbol)
    if right <= left or bottom <= top:
        return None
    ink = Image.new("L", (right - left, bottom - top))
    ImageDraw.Draw(ink).text((-left, -top), symbol, fill=255, font=font)
    scale = setting.icon / max(ink.size)
    width, height = (max(1, round(scale * side)) for side in ink.size)
    cell = Image.new("L", (setting.cell, setting.cell))
    corner = (setting.cell - width) // 2, (setting.cell - height) // 2
    cell.paste(ink.resize((width, height), Image.Resampling.BOX), corner)
    return np.asarray(cell)


def _builder(variant):
    """The builder of ``posenc_jax.rotary.positions`` that a variant names."""
    name = variant["positions"]
    if name not in BUILDERS:
        raise ValueError(f"positions={name!r} of a variant must be one of {', '.join(BUILDERS)}")
    return getattr(positions, name)


def _name(screen) -> str:
    return f"{screen[0]} x {screen[1]}"


def _check(setting: Setting, trials: Trials):
    if not 1 <= setting.icon <= setting.cell:
        raise ValueError(
            f"an icon of task.icon={setting.icon} pixels does not fit into a cell of "
            f"task.cell={setting.cell}: it must have 1 to {setting.cell}"
        )
    own = setting.rows, setting.columns
    if trials.screens[:1] != (own,) or len(set(trials.screens)) < len(trials.screens):
        raise ValueError(
            f"eval.screens={trials.screens} must start with the rows and columns trained on, "
            f"task.rows={own[0]} and task.columns={own[1]}, and have none twice"
        )
    least = 1 + max(max(offset) for offset in NEIGHBOURS.values())
    for screen in trials.screens:
        if len(screen) != 2 or min(screen) < least:
            raise ValueError(
                f"{screen} of eval.screens must be rows and columns, {least} or more of each: "
                f"cells are asked for their neighbours {least - 1} away"
            )
    most = min(setting.icons - 1, *(rows * columns for rows, columns in trials.screens))
    if not 1 <= setting.queries <= most:
        raise ValueError(
            f"task.queries={setting.queries} must be 1 to {most}: icons asked for are on the "
            f"screen once, so task.icons={setting.icons} must have others, and "
            f"{_name(own)} cells must have room"
        )
