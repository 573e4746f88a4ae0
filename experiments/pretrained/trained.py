"""Reads trained models back: finished runs on text, and published weights."""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

from experiments.results.bucket import folder_at
from experiments.results.record import read_run
from experiments.training import own_schemes
from experiments.training.checkpoint import Checkpoints, fingerprint
from experiments.training.corpus import Corpus, tokenised
from experiments.training.encodings import make_encoding
from experiments.training.loop import abstract_state
from experiments.training.mesh import make_mesh, state_shardings
from experiments.training.parameters import parameter_count
from experiments.training.recipe import Recipe
from experiments.training.step import State
from experiments.training.text import make_model, spec_of
from posenc_jax import Encoding, Layers, Transformer
from posenc_jax.encodings.rotary.frequencies.base import Default
from posenc_jax.encodings.rotary.rope import RoPE
from posenc_jax.pretrained import load


def on_mesh(mesh: Mesh) -> Callable[[Transformer], Any]:
    """Returns the function from a model to its shardings on a mesh, by the rules of training."""
    return lambda model: state_shardings({"model": model}, mesh)["model"]


def load_run(
    folder: Path, mesh: Mesh | None = None, source: "Source | None" = None
) -> tuple[State, dict[str, Any]]:
    """Returns the state of a run's newest checkpoint, and the run's config.

    The run is in a folder such as WORKDIR/runs/rope/seed0. A model has the encoding of the last
    phase of its run.
    ``mesh`` is one device by default. ``source`` is the published model that the run was tuned
    from, for sizes that its config lacks. A scheme in a user's own file is read from the current
    folder. Raises a ValueError if there is no run on text, no checkpoint, or one that does not fit
    the config; or if the file is missing or was changed.
    """
    run = read_run(folder)
    if run is None or not (folder / "checkpoints").exists():
        raise ValueError(
            f"{folder} is not the folder of a trained run: give one with run.json and checkpoints, "
            "such as WORKDIR/runs/rope/seed0. A run of experiments.results.archive has no "
            "checkpoints: delete its folder to train it again"
        )
    config = run["config"]
    needed = ("train",) if config.get("model") is None else ("train", "encoding")
    if missing := [name for name in needed if name not in config]:
        raise ValueError(
            f"{folder} is a run of another kind, whose run.json has no {missing[0]}, but only runs "
            "on text can be read back: give one of those"
        )
    if "own_file" in config:
        own_schemes.register_again(config["encoding"]["name"], config["own_file"])
    build = functools.partial(_build, config=config, source=source)
    mesh = mesh or make_mesh(jax.devices()[:1])
    expected = abstract_state(build, Recipe(**config["train"]), mesh)
    with contextlib.closing(Checkpoints(folder / "checkpoints")) as checkpoints:
        restored = checkpoints.newest(expected)
    if restored is None:
        raise ValueError(f"{folder} has no finished checkpoint yet; train it for longer")
    return restored[1], config


def _build(key, config, source) -> Transformer:
    """Returns a model of the kind that a run has trained."""
    if config["model"] is not None:
        spec, recipe = spec_of(config["encoding"], config["model"]), Recipe(**config["train"])
        return make_model(key, spec, train_length(config), recipe.parts[-1])
    start = config["start"]["digest"]
    if source is None or source.digest != start:
        given = "none was given" if source is None else f"that of {source.digest} was given"
        raise ValueError(
            f"the run was tuned from published weights of digest {start}, and {given}; only "
            "experiments.pretrained.export reads it, with --checkpoint as in the config it was "
            "tuned by"
        )
    sizes = sizes_of(source.model)
    encoding: Any = make_encoding(config["encoding"], sizes, config["train_length"], rngs=None)
    return source.model.under(in_place_of_rope(source.model, encoding))


def train_length(config: dict[str, Any]) -> int:
    """Returns the length that a run's encoding was made for.

    A model that was tuned at a greater length keeps the length of the model that it started from.
    """
    return config.get("train_length", config["train"]["length"])


@dataclasses.dataclass(frozen=True)
class Source:
    """Holds a trained RoPE model that is to be made longer.

    Attributes:
      train_length: tokens of a sequence that it was trained on.
      config: the config of its run, or the published one.
      digest: a digest of its parameters.
      tokenizer: the tokenizer of a published model; None if the run's corpus has the tokens.
    """

    model: Transformer
    train_length: int
    config: dict[str, Any]
    digest: str
    tokenizer: Any = None

    @classmethod
    def of(cls, path: str, mesh: Mesh, loading: Mapping[str, Any] | None = None) -> "Source":
        """Loads the folder of a finished run, or what ``posenc_jax.pretrained.load`` takes.

        ``loading`` has keywords of that function, such as ``scan``. Raises a ValueError if there is
        no such model, its run is not finished, or it has no plain RoPE.
        """
        folder = folder_at(path)
        if (folder / "run.json").exists():
            state, config = load_run(folder, mesh)
            done, steps = int(state.step), config["train"]["steps"]
            if done < steps:
                raise ValueError(f"{path} stopped at step {done} of {steps}: finish it first")
            # Plain RoPE has no length of its own, so the length is that of the last training.
            model, length, tokenizer = state.model, config["train"]["length"], None
        else:
            loaded = load(path, shardings=on_mesh(mesh), **(loading or {}))
            model, config, tokenizer = loaded.model, loaded.config, loaded.tokenizer
            length = config["max_position_embeddings"]
        rope_of(model, path)
        return cls(model, length, config, fingerprint(model), tokenizer)

    @property
    def summary(self) -> dict[str, Any]:
        """Returns the summary of ``loop.train`` for a model that is only read, and its digest."""
        nothing = {"steps": 0, "tokens": 0, "seconds": 0.0, "final_loss": None}
        return nothing | {"parameters": parameter_count(self.model), "digest": self.digest}


def loader(mesh: Mesh, loading: Mapping[str, Any] | None = None) -> Callable[[str, int], Source]:
    """Returns a function that loads the trained models of an experiment, and holds the newest one.

    The function takes a path, in which "{seed}" is replaced by the seed, and the seed; ``loading``
    is as in ``Source.of``.
    """
    held: tuple[str, Source] | None = None

    def load(path: str, seed: int) -> Source:
        nonlocal held
        path = path.replace("{seed}", str(seed))
        if held is None or held[0] != path:
            held = None  # released first, because two models may not fit into memory
            held = path, Source.of(path, mesh, loading)
        return held[1]

    return load


def in_tokens_of(source: Source, corpus: Corpus, least: int) -> Corpus:
    """Returns the corpus in the tokens of the model, or raises a ValueError if it has others.

    Text for a tokenizer loses its documents of fewer than ``least`` bytes.
    """
    known = len(source.model.embedding)
    if source.tokenizer is not None:
        encode = functools.partial(source.tokenizer.encode, add_special_tokens=False)
        return tokenised(corpus, lambda text: encode(text).ids, known, least)
    if corpus.vocab_size > known:
        raise ValueError(
            f"corpus {corpus.name!r} has {corpus.vocab_size} token ids, but the model knows "
            f"{known}; give the corpus that it was trained on"
        )
    return corpus


def rope_of(model: Transformer, name: str) -> RoPE:
    """Returns the RoPE of a model whose other layers have no positions, or raises a ValueError."""
    encodings = [encoding for encoding in model.distinct() if type(encoding) is not Encoding]
    rope = encodings[0] if len(encodings) == 1 else None
    is_plain = type(rope) is RoPE and rope.axes is None and rope.frequencies == Default()
    if isinstance(rope, RoPE) and is_plain:
        return rope
    kinds = ", ".join(_kind(encoding) for encoding in encodings) or "no positions"
    raise ValueError(
        f"{name} was trained with {kinds}, and only a model with one plain RoPE can be extended"
    )


def _kind(encoding) -> str:
    is_rope = type(encoding) is RoPE and encoding.frequencies != Default()
    return type(encoding).__name__ + (f" ({encoding.frequencies})" if is_rope else "")


def in_place_of_rope(model: Transformer, encoding: Encoding) -> Layers:
    """Returns the layers of a RoPE model with ``encoding`` in every layer that has RoPE."""
    distinct = [encoding if type(before) is RoPE else before for before in model.distinct()]
    layers = model.layers
    return Layers([distinct[x.source] for x in layers], [x.window for x in layers])


def sizes_of(model: Transformer) -> dict[str, int]:
    """Returns the sizes of ``model`` that an encoding is built with, as keywords."""
    width = model.layers[0].block.attention.q.kernel.shape[-1]
    return {
        "num_heads": width // model.head_dim,
        "num_kv_heads": model.num_kv_heads,
        "head_dim": model.head_dim,
        "model_dim": model.embedding.shape[-1],
        "num_layers": model.num_layers,
    }
