"""Finds and draws which packages of the project import which.

    python -m docs.site.architecture

writes docs/figures/architecture.svg anew.
"""

import ast
import io
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

_PACKAGES = ("posenc_jax", "experiments", "configs")


def packages(page: str) -> list[str]:
    """Returns the packages in the tables of docs/architecture.md, from the top down."""
    return re.findall(r"^\| `((?:posenc_jax|experiments|configs)[\w.]*)` \|", page, re.MULTILINE)


def imports(root: Path, order: Sequence[str]) -> dict[tuple[str, str], list[str]]:
    """Returns the files in which one package imports another, by the names of the two.

    Only imports at the top of a file count.
    """
    files = defaultdict(list)
    for package in _PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            name = ".".join(path.relative_to(root).with_suffix("").parts)
            importer = _package(name.removesuffix(".__init__"), order)
            for imported in _imported(ast.parse(path.read_text()), root):
                if (package := _package(imported, order)) != importer:
                    files[importer, package].append(str(path.relative_to(root)))
    return dict(files)


def _imported(module: ast.Module, root: Path) -> Iterator[str]:
    """Yields the modules of this project that a module imports."""
    for statement in module.body:
        if isinstance(statement, ast.ImportFrom) and statement.module:
            if statement.module.split(".")[0] not in _PACKAGES:
                continue
            for alias in statement.names:
                below = f"{statement.module}.{alias.name}"
                path = root / below.replace(".", "/")
                is_module = path.is_dir() or path.with_suffix(".py").exists()
                yield below if is_module else statement.module
        elif isinstance(statement, ast.Import):
            yield from (a.name for a in statement.names if a.name.split(".")[0] in _PACKAGES)


def _package(name: str, order: Sequence[str]) -> str:
    """Returns the package of a module: the longest name in ``order`` that it begins with."""
    around = [package for package in order if f"{name}.".startswith(f"{package}.")]
    return max(around, key=len, default=name)


def direct(pairs: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Returns the imports that do not follow from others, because a package between does both."""
    below = defaultdict(set)
    for importer, imported in pairs:
        below[importer].add(imported)

    def reached(package):
        return below[package].union(*(reached(lower) for lower in below[package]))

    return [
        (importer, imported)
        for importer in list(below)
        for imported in sorted(below[importer])
        if not any(imported in reached(lower) for lower in below[importer] - {imported})
    ]


def draw(root: Path) -> str:
    """Returns the figure as SVG: each package stands as low as what it imports allows."""
    import matplotlib
    from matplotlib.figure import Figure

    order = packages((root / "docs/architecture.md").read_text())
    arrows = direct(imports(root, order))
    level: dict[str, int] = {}
    for package in reversed(order):
        under = [level[imported] for importer, imported in arrows if importer == package]
        level[package] = 1 + max(under, default=-1)
    rows = defaultdict(list)
    for package in order:
        if any(package in pair for pair in arrows):
            rows[level[package]].append(package)
    places = {
        package: ((number + 0.5) / len(row), height)
        for height, row in rows.items()
        for number, package in enumerate(row)
    }
    figure = Figure(figsize=(8, 0.75 * len(rows)), layout="constrained")
    axes = figure.subplots()
    axes.set(xlim=(0, 1), ylim=(-0.5, len(rows) - 0.5))
    axes.axis("off")
    boxes = {}
    for package, (x, y) in places.items():
        colour = "#d7e7f5" if package.startswith("posenc_jax") else "#f5ead7"
        box = dict(boxstyle="round", facecolor=colour, edgecolor="#666666")
        name = package.replace(".", ".\n", 1)  # in two lines, so that six names fit into a row
        text = axes.text(x, y, name, ha="center", va="center", fontsize=9, bbox=box, zorder=3)
        boxes[package] = text.get_bbox_patch()
    figure.draw_without_rendering()  # so that arrows know where boxes end
    for importer, imported in arrows:
        ends = dict(patchA=boxes[importer], patchB=boxes[imported], shrinkA=0, shrinkB=1)
        arrow = dict(arrowstyle="->", color="#999999", **ends)
        axes.annotate("", places[imported], places[importer], arrowprops=arrow, zorder=1)
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "rooms"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return "\n".join(line.rstrip() for line in buffer.getvalue().splitlines()) + "\n"


if __name__ == "__main__":
    here = Path(__file__).parents[2]
    (here / "docs/figures/architecture.svg").write_text(draw(here))
