"""Asks where a ball is at a given time of a clip that runs slowly, fast, paused or backwards.

The ball goes along a smooth path in the world's time. A clip has frames at times of its own pace,
from a moving camera, and questions: where is the ball at a time that no frame shows? A question
is a token without pixels. A variant says how the model learns the times:

    clock="frame"             from nothing: frames are numbered, and all questions follow the last
    clock="frame", told=True  from the inputs, where every token has waves of its time
    clock="story"             from the positions: Time-RoPE
    clock="story", adaln=True also from Time-AdaLN of the same times in every block

With clock="story", positions are ``rate`` times the times. A rate below 1 brings clips of a fast
pace back into the range of times that training had, as position interpolation does.
"""

import dataclasses

import numpy as np

from experiments.results.panels import Panel, Result
from experiments.settings import bounded, one_of
from experiments.studies.drawn_examples import DrawnExamples, generator
from experiments.studies.multimodal.ball import REACH, WARPS, Clips, film, steady
from experiments.studies.multimodal.model import ViT, grid, patches
from posenc_jax.encodings.absolute.time_adaln import TimeAdaLN
from posenc_jax.model.block import Block
from posenc_jax.positions import story_time

# Speeds of the inputs' waves of time, as in Time-RoPE, in radians a unit.
WAVES = 0.01 ** (np.arange(6) / 6)
TIME_SCALE = 16.0  # about the length of a clip
# With a camera farther from the middle than this, the ball could be out of the picture.
FARTHEST = 0.5 - REACH


@dataclasses.dataclass(frozen=True)
class Setting:
    """Describes the data of training. A pace is the world's time from one frame to the next.

    Attributes:
      frames: frames of a clip.
      questions: questions of a clip, about times between its earliest and its latest.
      side: side of a frame in pixels.
      patch: side of a patch in pixels.
      paces: the slowest and the fastest pace.
      warps: the ways of ``WARPS`` in which clips run; each clip runs in one of them.
      start: clips start at a time from 0 to this.
      view: how far cameras are from the middle at most along an axis, in widths of a frame; at 0
        they would stand still.
    """

    frames: int = bounded(12, least=3)
    questions: int = 4
    side: int = 16
    patch: int = 8
    paces: tuple[float, float] = bounded((0.5, 2.0), above=0, ascends=True)
    warps: tuple[str, ...] = ("steady", "uneven")
    start: float = bounded(16.0, least=0)
    view: float = bounded(0.1, above=0, most=FARTHEST)


@dataclasses.dataclass(frozen=True)
class Trials:
    """Describes the data of evaluation.

    Attributes:
      paces: paces of steady clips.
      starts: times of the first frame of steady clips of pace 1.
      views: how far cameras are from the middle, as in ``Setting``.
      cameras: how many cameras film the same clip.
      clips: clips in each test.
      batch: clips in one forward pass.
    """

    paces: tuple[float, ...] = bounded((0.25, 0.5, 1.0, 2.0, 4.0), above=0, ascends=True)
    starts: tuple[float, ...] = (0.0, 16.0, 64.0, 256.0)
    views: tuple[float, ...] = bounded((0.05, 0.1, 0.15, 0.2), least=0, most=FARTHEST)
    cameras: int = bounded(8, least=2)
    clips: int = 256
    batch: int = 64


class TimedBlock(Block):
    """Puts Time-AdaLN in front of a block's attention; times are the first axis of positions.

    Time-AdaLN scales and shifts the output of the block's own RMSNorm. A model of such blocks
    cannot be used with a cache.
    """

    def __init__(self, settings, sinks, rngs):
        super().__init__(settings, sinks, rngs)
        self.time = TimeAdaLN(model_dim=settings.model_dim, time_scale=TIME_SCALE, rngs=rngs)

    def normalise(self, x_BTD, here):
        gamma, beta = self.time.modulation(here.tokens.positions[..., 0], x_BTD.shape[1])
        return (super().normalise(x_BTD, here) * gamma + beta).astype(x_BTD.dtype)


class TimedViT(ViT):
    """Adds Time-AdaLN to the blocks of a ViT."""

    block = TimedBlock


class Story(DrawnExamples):
    """Asks where a ball is at times that no frame shows."""

    kinds = (Setting, Trials)
    title = "Stories at another pace"
    baseline = "frame_index"

    def load(self):
        setting, trials = self.setting, self.trials
        patches(np.empty((1, setting.side, setting.side)), setting.patch)  # which may refuse them
        for warp in setting.warps:
            one_of("task.warps", warp, WARPS)
        for scheme in self.schemes:
            one_of(f"variants.{scheme}.clock", self.variant(scheme)["clock"], ("frame", "story"))
        self.cells = (setting.side // setting.patch) ** 2  # patches of a frame
        self.length = setting.frames * self.cells + setting.questions
        self.panels = _panels(setting, trials)
        self.data = {"name": "a ball on smooth random paths"}

    def new_model(self, scheme, key):
        variant = self.variant(scheme)
        patch_dim = self.setting.patch**2 + 3 + 2 * len(WAVES) * variant["told"]
        kind = TimedViT if variant["adaln"] else ViT
        return self.make_model(kind, scheme, key, patch_dim=patch_dim, num_classes=2)

    def rows(self, scheme, clips: Clips):
        """Returns the inputs and positions for a model of ``scheme``, and the right answers."""
        variant, setting = self.variant(scheme), self.setting
        frames = clips.frames(setting.side)
        laid = lay_out(frames, clips.cameras, clips.times, clips.asked, setting.patch)
        inputs, times, positions = laid
        if variant["told"]:
            angles = times[..., None] * WAVES
            inputs = np.concatenate([inputs, np.cos(angles), np.sin(angles)], axis=-1)
        if variant["clock"] == "story":
            positions[..., 0] *= variant["rate"]
        else:
            number = np.arange(inputs.shape[1]) // self.cells
            positions[..., 0] = np.minimum(number, setting.frames)
        answers = (clips.answers / REACH).astype(np.float32)
        return {"inputs": inputs.astype(np.float32), "positions": positions, "answers": answers}

    def draw(self, scheme, rng, count, step):
        """Draws new clips and questions for every batch."""
        setting = self.setting
        ways = [WARPS[name](rng, setting.paces, count, setting.frames) for name in setting.warps]
        chosen = np.stack(ways)[rng.integers(0, len(ways), count), np.arange(count)]
        times = chosen + rng.uniform(0, setting.start, (count, 1))
        return self.rows(scheme, self.clips(rng, times))

    def loss(self, scheme, model, batch, key):
        return ((_answers(model, batch, key) - batch["answers"]) ** 2).mean()

    def measure(self, scheme, model):
        of_paces, of_warps, later, bullet = self.panels
        for pace, x in zip(self.trials.paces, of_paces.xs, strict=True):
            yield self.error(of_paces, x, scheme, model, self.clips_of("steady", (pace, pace)))
        for name in WARPS:
            clips = self.clips_of(name, self.setting.paces)
            yield self.error(of_warps, name, scheme, model, clips)
        for start in self.trials.starts:
            clips = self.clips_of("steady", (1, 1), key=1, start=start)
            yield self.error(later, start, scheme, model, clips)
        for view in self.trials.views:
            answers = self.answers(scheme, model, self.bullet_time(view))
            of_cameras = answers.reshape(-1, self.trials.cameras, *answers.shape[1:])
            spread = _size(of_cameras - of_cameras.mean(axis=1, keepdims=True))
            yield Result(bullet.condition, view, bullet.metric, spread)

    def error(self, panel, x, scheme, model, clips) -> Result:
        """Returns the error of a model on ``clips``."""
        error = _size(self.answers(scheme, model, clips) - clips.answers)
        return Result(panel.condition, x, panel.metric, error, _size(clips.answers))

    def answers(self, scheme, model, clips: Clips) -> np.ndarray:
        """Returns where the model says the ball is, ``[N, Q, 2]``."""
        return REACH * self.predict(_answers, model, self.rows(scheme, clips))

    def clips(self, rng, times) -> Clips:
        """Draws clips at ``times``."""
        return Clips.draw(rng, times, self.setting.questions, self.setting.view)

    def clips_of(self, warp: str, paces, *, key: int = 0, start: float = 0.0) -> Clips:
        """Returns the clips of a test, the same every time."""
        rng, frames = generator(key, 1), self.setting.frames
        times = start + WARPS[warp](rng, paces, self.trials.clips, frames)
        return self.clips(rng, times)

    def bullet_time(self, view: float) -> Clips:
        """Returns clips of pace 1, each in adjacent rows once for each camera."""
        times, frames = self.trials.cameras, self.setting.frames
        rng, count = generator(2, 1), -(-self.trials.clips // times)
        clips = self.clips(rng, steady(rng, (1, 1), count, frames))
        return clips.repeated(times, cameras=film(rng, view, count * times, frames))


def _answers(model, batch, key=None):
    """Returns answers in units of ``REACH``, ``[B, Q, 2]``; questions are the last tokens."""
    x_BTD = model.hidden(batch["inputs"], batch["positions"], key=key)
    return model.unembed(x_BTD[:, -batch["answers"].shape[1] :])


def lay_out(frames, cameras, times, asked, patch: int):
    """Returns the tokens of clips, frame after frame and then the questions.

    The input of a patch is its pixels and the place of its middle in the world, that of a question
    is a mark. The result is inputs ``[N, T, patch ** 2 + 3]``, the time of each token ``[N, T]``,
    and positions float32 ``[N, T, 3]``.
    """
    count, _, side = frames.shape[:3]
    cells = side // patch
    pixels = patches(frames.reshape(-1, side, side), patch).reshape(count, -1, patch**2)
    middle = patch * (grid(cells, cells)[:, None, :, ::-1] + 0.5) / side - 0.5
    where = (cameras[:, :, None] + middle).reshape(count, -1, 2)
    inputs = np.zeros((count, pixels.shape[1] + asked.shape[1], patch**2 + 3))
    inputs[:, : pixels.shape[1], :-1] = np.concatenate([pixels, where], axis=-1)
    inputs[:, pixels.shape[1] :, -1] = 1
    positions = [
        np.concatenate([story_time(of_frames, cells, cells), story_time(of_asked, 1, 1)], axis=1)
        for of_frames, of_asked in zip(times, asked, strict=True)
    ]
    in_order = np.concatenate([np.repeat(times, cells**2, axis=1), asked], axis=1)
    return inputs, in_order, np.concatenate(positions)


def _panels(setting: Setting, trials: Trials) -> tuple[Panel, ...]:
    slow, fast = setting.paces
    paces = {f"{pace:g}x": slow <= pace <= fast for pace in trials.paces}
    in_range = tuple(x for x, is_in_range in paces.items() if is_in_range)
    early = tuple(start for start in trials.starts if start <= setting.start)
    near = tuple(view for view in trials.views if view <= setting.view)
    error, spread = "error in frame widths", "spread of answers in frame widths"
    start = "time of the first frame, at 1x"
    view = "how far cameras are from the middle, in frame widths"
    return (
        Panel("pace", error, "pace of a steady clip", tuple(paces), in_range, True),
        Panel("warp", error, "how the clip runs", tuple(WARPS), setting.warps, True),
        Panel("later in the story", error, start, trials.starts, early, True),
        Panel("bullet time", spread, view, trials.views, near, True),
    )


def _size(vectors) -> float:
    """Returns the root mean square length of vectors along the last axis."""
    return float((vectors**2).sum(axis=-1).mean() ** 0.5)
