"""Counts the model types of the installed transformers: answered right, refused, and wrong.

    python -m parity.table

For each type a small model is run and compared, as in ``test_model_types``, for one layer at a time
(``from_hf``) and for the whole pattern (``layers_from_hf``). The table goes to
``docs/how-to/model_types.md``.
"""

import collections
import pathlib

import transformers
from flax import nnx
from transformers import CONFIG_MAPPING
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

from parity import checks
from parity.small_models import as_published
from posenc_jax import layers_from_hf
from posenc_jax.hf.config import flattened
from posenc_jax.hf.families import having
from posenc_jax.hf.refused import REFUSED as NOT_OFFERED

PATH = pathlib.Path(__file__).parent.parent / "docs" / "how-to" / "model_types.md"
RUN, PARTS = "right: a small model was run", "right: its rotary code was run"
TEXT, READ = "answered: as its model of text, which is right", "answered: its code was read"
REFUSED, WRONG, NO_DEFAULT = "refused", "wrong", "its class has no default that works"


def by_layer(model_type: str) -> str:
    """Returns the outcome of ``from_hf`` for one type."""
    if model_type in checks.KNOWN and model_type not in checks.NOT_RUN:
        return _checked(checks.check_model, RUN, model_type)
    if model_type in checks.BY_PARTS:
        return _checked(checks.check_parts, PARTS, model_type)
    if model_type in NOT_OFFERED:
        return REFUSED
    try:
        config = as_published(CONFIG_MAPPING[model_type]())
    except Exception:
        return NO_DEFAULT
    return _unchecked(config, bool(checks.answers_of(config)))


def as_pattern(model_type: str, one: str) -> str:
    """Returns the outcome of ``layers_from_hf``; ``one`` is the outcome of ``from_hf``."""
    if model_type in checks.NO_PATTERN:
        return REFUSED
    if one == RUN:
        return one  # ``check_model`` has checked both.
    if one in (REFUSED, WRONG, NO_DEFAULT):
        return one
    config = as_published(CONFIG_MAPPING[model_type](**checks.GIVEN.get(model_type, {})))
    stack = "decoder" if model_type in having(scheme="t5") else None
    try:
        layers_from_hf(config, layer_type=stack, rngs=nnx.Rngs(0))
    except ValueError:
        return REFUSED
    return _unchecked(config, True)


def _unchecked(config, is_answered):
    if not is_answered:
        return REFUSED
    inner = flattened(config, {})["model_type"]
    return TEXT if inner != config["model_type"] and inner in checks.KNOWN else READ


def _checked(check, right, model_type):
    try:
        check(model_type)
    except (AssertionError, ValueError) as error:
        print(model_type, error)
        return WRONG
    return right


def main():
    counts = collections.defaultdict(collections.Counter)
    for model_type in sorted(CONFIG_MAPPING_NAMES):
        one = by_layer(model_type)
        every = as_pattern(model_type, one)
        print(model_type, one, every, sep="; ", flush=True)
        counts["from_hf"][one] += 1
        counts["layers_from_hf"][every] += 1
    rows = [RUN, PARTS, TEXT, READ, REFUSED, NO_DEFAULT, WRONG]
    lines = [
        "# Model types of transformers",
        "",
        f"`python -m parity.table` writes this page, with transformers {transformers.__version__}, "
        f"which has {len(CONFIG_MAPPING_NAMES)} model types.",
        "",
        "| | `from_hf`, a layer | `layers_from_hf`, all layers |",
        "|---|---|---|",
    ]
    for row in rows:
        lines.append(f"| {row} | {counts['from_hf'][row]} | {counts['layers_from_hf'][row]} |")
    PATH.write_text("\n".join(lines) + "\n")
    print(PATH.read_text())


if __name__ == "__main__":
    main()
