"""Fills the templates of pages, which lie in the folder of this name.

A template of a page is its body: a fragment of HTML in an element of the class ``results``, with
the style ``results.css``. ``document`` makes a page from it, which needs no other file.
"""

import functools
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jinja2
import yaml
from markupsafe import Markup

from experiments.results.reports.markdown import anchor, names
from experiments.results.statistics import number, with_margin

_FOLDER = Path(__file__).with_suffix("")


def read(name: str) -> Any:
    """Returns what the file ``name`` of the folder has, which is YAML."""
    return yaml.safe_load((_FOLDER / name).read_text())


# The title and the caption of figures, by their names.
FIGURES: dict[str, tuple[str, str]] = {
    name: (title, caption) for name, (title, caption) in read("figures.yaml").items()
}


@functools.cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_FOLDER),
        autoescape=jinja2.select_autoescape(["html"]),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(figures=figures, with_margin=with_margin)
    environment.globals.update(figure=figure, section=section, folded=folded)
    environment.filters.update(number=number, names=names, anchor=anchor)
    environment.filters.update(options=_options, arxiv=_arxiv, breakable=_breakable)
    return environment


def fill(name: str, /, **values: Any) -> str:
    """Returns the template ``name`` with these values; text in HTML is escaped."""
    return _environment().get_template(name).render(values)


def macros(name: str) -> Any:
    """Returns the macros of the template ``name``, as functions that return text."""
    return _environment().get_template(name).module


def document(title: str, body: str, width: str = "") -> str:
    """Returns a page that stands alone, from its title and its body, which is HTML.

    A page whose ``width`` is "broad" takes the whole screen.
    """
    style = (_FOLDER / "results.css").read_text()
    return fill("document.html", title=title, style=style, body=body, width=width)


def figure(name: str, title: str, caption: str, svg: str) -> Markup:
    """Returns a figure with a heading and a caption; ``name`` makes its ids unique in the page."""
    svg = re.sub(r"<style>.*?</style>", "", svg[svg.index("<svg") :], count=1, flags=re.DOTALL)
    svg = re.sub(r' xmlns(:xlink)?="[^"]*"', "", svg)
    # An id may occur once in a page, but matplotlib uses the same ids in every figure.
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", svg)
    return Markup(fill("figure.html", name=name, title=title, caption=caption, svg=svg))


def figures(drawn: Mapping[str, str]) -> list[Markup]:
    """Returns drawings by name as figures, with the words of ``FIGURES``."""
    return [figure(name, *FIGURES[name], drawing) for name, drawing in drawn.items()]


def section(title: str, body: str = "", caption: str = "", items: Iterable[str] = ()) -> Markup:
    """Returns a section of a page: a heading, a list, what ``body`` has as HTML, and a caption."""
    return Markup(fill("section.html", title=title, body=body, caption=caption, items=items))


def folded(title: str, body: str = "", code: str = "", *, is_open: bool = False) -> Markup:
    """Returns a part of a page that readers unfold: HTML, or code."""
    return Markup(fill("folded.html", title=title, body=body, code=code, is_open=is_open))


def _options(command: str) -> str:
    """Returns a command with a line for each option."""
    return command.replace(" --", " \\\n  --")


def _breakable(name: str) -> Markup:
    """Returns a name that may go on in the next line after each underscore."""
    return Markup("_<wbr>").join(name.split("_"))


def _arxiv(source: str) -> Markup:
    """Returns a text whose numbers of arXiv are links."""
    link = r"<a href='https://arxiv.org/abs/\g<0>'>\g<0></a>"
    return Markup(re.sub(r"\b\d{4}\.\d{5}\b", link, str(Markup.escape(source))))
