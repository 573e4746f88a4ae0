"""Builds encodings from the keywords that configs and runs have."""

import contextlib
from collections.abc import Mapping
from typing import Any

from flax import nnx

from experiments.training import own_schemes
from posenc_jax import Encoding, Layers, make
from posenc_jax.registry import SIZES, own_keywords

# Strings that may replace numbers in keywords of extensions: see ``at_ratio``. A reference in the
# config cannot, because one run is evaluated at several lengths, and the trained length of a given
# checkpoint is known only when it is read. Runs in archives have the strings in their configs.
RATIO, PART = "ratio", "length/"


def make_encoding(
    encoding: Mapping[str, Any], model: Mapping[str, Any], train_length: int, rngs: nnx.Rngs | None
) -> Encoding | Layers:
    """Builds ``encoding``, a name and its own keywords, for a model of these sizes.

    Its ``frequencies`` may be another rotary scheme, as a name and keywords; then the encoding
    takes the frequencies of that scheme.
    """
    frequencies = encoding.get("frequencies")
    if isinstance(frequencies, Mapping):
        rotary: Any = make_encoding(frequencies, model, train_length, rngs)
        encoding = {**encoding, "frequencies": rotary.frequencies}
    head_dim = model.get("head_dim") or model["model_dim"] // model["num_heads"]
    try:
        return make(
            **encoding,
            num_heads=model["num_heads"],
            num_kv_heads=model.get("num_kv_heads"),
            head_dim=head_dim,
            model_dim=model["model_dim"],
            num_layers=model["num_layers"],
            train_length=train_length,
            rngs=rngs,
        )
    except TypeError as error:
        if own_schemes.digest(encoding["name"]) is None:
            raise
        raise TypeError(
            f"the scheme in {encoding['name']}.py cannot be made: {error}. Its constructor may ask "
            f"for {', '.join(SIZES)} and rngs; give every other argument a default"
        ) from error


def as_trained(name: str, trained: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the keywords that a scheme shares with the trained one that it extends."""
    return {key: trained[key] for key in own_keywords(name) if key in trained}


def at_ratio(keywords: Any, ratio: float, train_length: int) -> Any:
    """Returns an extension's keywords for a length of ``ratio`` times the training length.

    "ratio" means that number, and "length/8" an eighth of the training length.
    """
    if isinstance(keywords, Mapping):
        return {key: at_ratio(value, ratio, train_length) for key, value in keywords.items()}
    if keywords == RATIO:
        return ratio
    if isinstance(keywords, str) and keywords.startswith(PART):
        part = keywords.removeprefix(PART)
        if not part.isdecimal() or int(part) < 1:
            raise ValueError(f"{keywords!r} must be {PART}N, the trained length over N, 1 or more")
        return train_length // int(part)
    for kind in (int, float) if isinstance(keywords, str) else ():
        with contextlib.suppress(ValueError):  # the command line gives numbers as strings
            return kind(keywords)
    return keywords
