"""Checks that all processes of a job run the same program on the same config.

Each process of a job starts a command of its own. If two commands differ in a learning rate, or two
hosts in a line of source, a mixture of both would be trained and recorded as one of them.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict

from experiments.results.environment import environment, source_digests
from experiments.results.record import RefusedError, json_digest, of_all
from experiments.settings import listed


def check_agreement(config: ConfigDict, flags: Mapping[str, Any]) -> None:
    """Compares digests of all that decides on a run over all processes of the job.

    Every process raises a RefusedError that says what is not the same.
    """
    mine = {what: json_digest(facts) for what, facts in facts_of(config, flags).items()}
    everywhere = [json.loads(digests) for digests in of_all(json.dumps(mine))]
    if others := [what for what in mine if len({digests[what] for digests in everywhere}) > 1]:
        raise RefusedError(
            f"the processes of the job differ in {' and '.join(others)}: start all of them with "
            "the same command, settings and revision"
        )


def facts_of(config: ConfigDict, flags: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what decides on a run, by what it is called."""
    fields = flatten_dict(config.to_dict(), sep=".")
    schemes = {
        scheme
        for name, value in fields.items()
        if name.rpartition(".")[2] == "schemes"
        for scheme in listed(value)
    }
    own = {name: path for name in schemes if (path := Path(f"{name}.py")).is_file()}
    state: Any = jax.config  # not every version has the types of its fields
    return {
        # As text, and by name: the order of fields has no meaning.
        "--config": {name: repr(value) for name, value in fields.items()},
        "their other flags": {name: str(value) for name, value in flags.items()},
        "source code": source_digests(),
        "own scheme files": {
            name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in own.items()
        },
        "versions of packages": environment()["versions"],  # also Python's, a corpus
        "settings of JAX": {
            "prng": state.jax_default_prng_impl,
            "threefry": state.jax_threefry_partitionable,
            "precision": state.jax_default_matmul_precision,
            "x64": state.jax_enable_x64,
            "xla": os.environ.get("XLA_FLAGS"),
        },
    }
