"""Connects Sphinx to this package: it writes pages of schemes, and reads docstrings."""

import inspect
import re
from pathlib import Path

from sphinx.application import Sphinx

from docs.site import pages
from posenc_jax import REGISTRY


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("builder-inited", _write_pages)
    app.connect("source-read", _link_schemes)
    app.connect("autodoc-process-signature", _signature)
    app.connect("autodoc-process-docstring", _docstring)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _write_pages(app: Sphinx) -> None:
    pages.write(Path(app.srcdir) / "schemes")


def _link_schemes(app: Sphinx, page: str, source: list[str]) -> None:
    """Makes each scheme in the first column of the list of schemes a link to its page."""
    if page != "schemes/index":
        return

    def link(match: re.Match) -> str:
        name = match[1]
        return f"[`{name}`]({name}.md)" if name in REGISTRY else match[0]

    lines = source[0].split("\n")
    for number, line in enumerate(lines):
        if line.startswith("| `"):
            first, bar, rest = line[2:].partition(" | ")
            linked = re.sub(r"`(\w+)`", link, first)
            lines[number] = f"| {linked}{bar}{rest}"
    source[0] = "\n".join(lines)


def _signature(app, what, name, obj, options, signature, returns):
    """Returns the signature of a module's constructor, which its metaclass hides."""
    if what != "class":
        return None
    if obj.__init__ is object.__init__:
        return "()", returns
    parameters = list(inspect.signature(obj.__init__).parameters.values())[1:]
    plain = [p.replace(annotation=inspect.Parameter.empty) for p in parameters]
    # The address of a function says nothing to a reader, and differs from build to build.
    return re.sub(r"<function (\w+) at 0x\w+>", r"\1", str(inspect.Signature(plain))), returns


def _docstring(app, what, name, obj, options, lines: list[str]) -> None:
    """Turns equations between two ``$$`` into those of reStructuredText."""
    text = re.sub(
        r"(?ms)^\$\$\s*(.*?)\s*\$\$$",
        lambda match: ".. math::\n\n" + re.sub(r"(?m)^", "    ", match[1]),
        "\n".join(lines),
    )
    lines[:] = text.split("\n")
