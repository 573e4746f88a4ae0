"""Refuses configs that no run could follow, once, before anything is read or built.

A constructor refuses what it can judge by its own arguments. This file has the rest: numbers that
would keep the program busy until time or memory ends, and values that would be taken without a
meaning.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from ml_collections import ConfigDict

# The most that a whole number of a config may be, by the last part of its name.
_MOST = {
    "seeds": 1000,
    "num_layers": 1000,
    "num_heads": 2**12,
    "model_dim": 2**17,
    "mlp_dim": 2**20,
    "documents": 10**6,
    "batch_size": 2**20,
    "length": 2**24,
}
_MOST_OF_ALL = 2**31 - 1  # JAX counts in int32
_TYPES = ("float32", "bfloat16", "float16")
# Names separated by commas, of which there must be at least one.
_LISTS = ("schemes", "methods", "task.tasks")


def fields_of(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields the name and the value of each field, such as ``train.steps`` and 100."""
    for name, value in config.items():
        if isinstance(value, Mapping):
            yield from fields_of(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def check_config(config: ConfigDict) -> None:
    """Raises a ValueError for the first field of an experiment's config that has no meaning.

    Of a config of several studies, each is checked when it is made.
    """
    if "studies" in config:
        if not config.studies:
            raise ValueError("studies has no study; leave it out to run those of the config")
        return
    # Other fields are computed by dividing by the number of heads, so it is first.
    heads = config.get("model", {}).get("num_heads")
    if heads is not None and heads < 1:
        raise ValueError(f"model.num_heads={heads} must be at least 1")
    fields = config.to_dict()
    for name, value in fields_of(fields):
        if why := _wrong(name, name.rpartition(".")[2], value):
            raise ValueError(f"{name}={value!r} {why}")
    encodings = fields.get("encodings", {})
    for name, extension in fields.get("extend", {}).items():
        trained = extension["of"]
        if encodings.get(trained, {}).get("name", trained) != "rope":
            raise ValueError(
                f"extend.{name}.of={trained!r} must be 'rope' or a variant of it: these schemes "
                "make a trained RoPE longer"
            )


def _wrong(name: str, field: str, value: Any) -> str:
    """Returns what is wrong with a field, or an empty string."""
    if isinstance(value, int):
        most = _MOST.get(field, _MOST_OF_ALL)
        return f"must be at most {most}" if value > most else ""
    if field in ("dtype", "param_dtype") and value is not None and str(value) not in _TYPES:
        return f"must be one of {', '.join(_TYPES)}"
    if name in _LISTS:
        names = [part.strip() for part in value.split(",")]
        return "must be names separated by commas, each once" if _repeats(names) else ""
    if isinstance(value, tuple) and all(isinstance(part, str) for part in value):
        return "must name each once" if _repeats(value) else ""
    return "must be above 0: cameras would stand still" if name == "task.view" and not value else ""


def _repeats(names) -> bool:
    return "" in names or len({*names}) < len(names)
