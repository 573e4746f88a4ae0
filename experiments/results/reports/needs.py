"""Lists the needs for which the guide chooses a scheme."""

import dataclasses
from typing import Any

from experiments.results.reports.templates import read

NONE = "none yet"


@dataclasses.dataclass(frozen=True)
class Need:
    """Describes a need for which a scheme is to be chosen.

    The fields are those of ``templates/needs.yaml``; ``asked`` has pairs of a topic and a multiple.
    """

    title: str
    asked: tuple[tuple[str, float], ...]
    remains: str = NONE
    chapter: str = ""
    recommended: tuple[str, ...] = ()


def _need(fields: dict[str, Any]) -> Need:
    asked = tuple((topic, n) for topic, times in fields["asked"].items() for n in times)
    return Need(**fields | {"asked": asked})


NEEDS = tuple(map(_need, read("needs.yaml")))
