"""Names the runs of an experiment: points, each one trained scheme and one seed.

Schemes that extend a trained one are evaluated on its checkpoint.
"""

import dataclasses
from collections.abc import Sequence


@dataclasses.dataclass(frozen=True)
class Point:
    """Describes one training run.

    Attributes:
      scheme: the scheme that is trained.
      seed: the seed of its initial values and its batches.
      extensions: the schemes that are evaluated on its checkpoint too.
      rate: the learning rate instead of the recipe's, if several are tried.
    """

    scheme: str
    seed: int
    extensions: tuple[str, ...]
    rate: float | None = dataclasses.field(default=None, kw_only=True)

    @property
    def name(self) -> str:
        """Returns the run's name on the terminal, and its folder below ``runs``."""
        return f"{self.group}/seed{self.seed}"

    @property
    def group(self) -> str:
        """Returns the name that all seeds of the run share on the terminal."""
        return self.label + ("" if self.rate is None else f"/rate{self.rate:g}")

    @property
    def schemes(self) -> tuple[str, ...]:
        """Returns all schemes that are evaluated on its checkpoint."""
        return (self.scheme, *self.extensions)

    @property
    def label(self) -> str:
        """Returns the name that all seeds of the run share, in reports."""
        return self.scheme


def trained_points(
    names: list[str], extend: dict[str, str], seeds: int, rates: Sequence[float] = ()
) -> list[Point]:
    """Returns every trained scheme of ``names`` under every seed, seeds outermost.

    A comparison that is cut short thus has all schemes under fewer seeds, not fewer schemes.
    ``extend`` has the trained scheme of each scheme that extends another, and ``rates`` the
    learning rates that are tried for every scheme; empty, it means the recipe's alone.
    """
    trained = [name for name in names if name not in extend]
    for name in names:
        if name in extend and extend[name] not in trained:
            raise ValueError(
                f"{name} is evaluated on a trained {extend[name]}; add {extend[name]} to schemes"
            )
    return [
        Point(name, seed, tuple(n for n in names if extend.get(n) == name), rate=rate)
        for seed in range(seeds)
        for name in trained
        for rate in rates or (None,)
    ]
