"""Checks that all processes of a job run the same program on the same config.

Each process of a job starts a command of its own. If two commands differ in a learning rate, or two
hosts in a line of source, a mixture of both would be trained and recorded as one of them.
"""

import json
from collections.abc import Mapping
from typing import Any

from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict

from experiments.results.environment import environment, source_digests
from experiments.results.record import of_all


def check_agreement(config: ConfigDict, flags: Mapping[str, Any]) -> None:
    """Compares config, flags, source and versions of packages over all processes of the job.

    Every process raises a ValueError that names the first difference.
    """
    everywhere = of_all(json.dumps(facts_of(config, flags), sort_keys=True))
    if len(set(everywhere)) > 1:
        raise ValueError(difference([json.loads(facts) for facts in everywhere]))


def facts_of(config: ConfigDict, flags: Mapping[str, Any]) -> dict[str, str]:
    """Returns what decides on a run, as text by name."""
    facts = {f"--{name}": str(value) for name, value in flags.items()}
    # As text, and by name: the order of fields has no meaning.
    fields = flatten_dict(config.to_dict(), sep=".")
    facts |= {f"--config.{name}": repr(value) for name, value in fields.items()}
    for path, digest in source_digests().items():
        facts[f"the file {path}"] = f"SHA-256 {digest[:12]}"
    versions = environment()["versions"]  # also Python's, whose sources are a corpus
    return facts | {f"the package {name}": version for name, version in versions.items()}


def difference(everywhere: list[dict[str, str]]) -> str:
    """Returns a sentence about the first fact that is not the same in all processes."""
    for name in sorted(set().union(*everywhere)):
        values = [facts.get(name, "missing") for facts in everywhere]
        other = next((n for n, value in enumerate(values) if value != values[0]), None)
        if other is not None:
            return (
                f"the processes of the job differ: {name} is {values[0]} in process 0 and "
                f"{values[other]} in process {other}; start all of them with the same command and "
                "the same revision"
            )
    raise AssertionError("the processes are the same")
