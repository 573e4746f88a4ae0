"""Writes a page for each scheme, from its class, the registry, the tests and the results."""

import concurrent.futures
import dataclasses
import functools
import inspect
import json
import multiprocessing
import os
import pkgutil
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import jinja2

from docs.site import docstrings, models, papers, results, snippets
from docs.site.docstrings import Docstring
from experiments.config import short_keywords
from experiments.results.drawing import style
from experiments.studies import gallery
from posenc_jax import REGISTRY, make
from posenc_jax.encodings.rotary.frequencies.yarn import YaRN
from posenc_jax.encodings.rotary.rope import RoPE
from posenc_jax.registry import PATTERNS, keywords, lookup

ROOT = Path(__file__).parents[2]
SIZES = gallery.Sizes(train_length=128, num_heads=4, head_dim=32)
# Every program runs once, so compiling it well would take longer than running it.
FAST_TO_COMPILE = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
# The classes and functions that docstrings name, by their names.
_CLASSES = {
    target.partition(":")[2]: functools.partial(pkgutil.resolve_name, target)
    for target in REGISTRY.values()
}
_POINTER = re.compile(
    r"(?:see|(?:the )?keywords? of|attributes of|(?:the same )?as in) `{0,2}(\w+)`{0,2}"
)
# Titles of the families of schemes, by the folder below posenc_jax/encodings.
FAMILIES = {
    "absolute": "Added at the input",
    "rotary": "Rotary",
    "rotary.frequencies": "Rotary, at other frequencies",
    "bias": "Biases by distance",
    "content": "By content",
    "position_maps": "RoPE with remapped distances",
    "wrappers": "Over another scheme",
    "": "Patterns of layers",
}
_TEMPLATES = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def write(folder: Path) -> None:
    """Writes the pages of all schemes, their figures, and the list of papers, into a folder.

    Pages are written by as many processes as there are cores, at most four. JAX starts in these
    only: Sphinx forks this process later, which the threads of JAX would not survive.
    """
    workers = min(4, len(os.sched_getaffinity(0)))
    flags = os.environ.get("XLA_FLAGS", "")
    os.environ["XLA_FLAGS"] = f"{flags} {FAST_TO_COMPILE}"
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(workers, context) as pool:
        list(pool.map(functools.partial(write_page, folder), REGISTRY))
    os.environ["XLA_FLAGS"] = flags
    (folder / "references.md").write_text(references())
    for family in FAMILIES:
        (folder / f"{file_of(family)}.md").write_text(list_of(family))


def family_of(name: str) -> str:
    """Returns the family of a scheme, by where its class is; the base class is an absolute one."""
    _, folder, *below = REGISTRY[name].partition(":")[0].split(".")
    return ".".join(below[:-1]) if folder == "encodings" else "absolute"


def file_of(family: str) -> str:
    """Returns the name of the page of a family."""
    return f"family_{family.replace('.', '_') or 'patterns'}"


def list_of(family: str) -> str:
    """Returns the page of a family, which lists its schemes."""
    names = [name for name in REGISTRY if family_of(name) == family]
    rows = [f"| [`{n}`]({n}.md) | {myst(docstrings.of_scheme(n)[-1].sentence)} |" for n in names]
    head = [f"# {FAMILIES[family]}", "", "| scheme | description |", "|---|---|"]
    tree = ["```{toctree}", ":hidden:", "", *names, "```"]
    return "\n".join([*head, *rows, "", *tree, ""])


def write_page(folder: Path, name: str) -> None:
    """Writes the page of a scheme, and its figures."""
    drawn, files = draw(name), []
    for number, (layers, svg) in enumerate(drawn.figures, 1):
        file = f"{name}_{number}.svg"
        (folder / file).write_text(svg)
        files.append((layers, file))
    (folder / f"{name}.md").write_text(page(name, drawn, files))


def references() -> str:
    """Returns the page of all papers, each with the schemes that cite it."""
    cited_by: dict[str, list[str]] = {number: [] for number in papers.papers()}
    for name in REGISTRY:
        for number in _cited(docstrings.of_scheme(name)):
            cited_by[number].append(f"[`{name}`]({name}.md)")
    lines = [
        f"- {papers.citation(number)}" + (f" {', '.join(names)}." if names else "")
        for number, names in cited_by.items()
    ]
    return "\n".join(["# References", "", *lines, ""])


@dataclasses.dataclass(frozen=True)
class Drawn:
    """Holds the figures of a scheme, and what one layer of each of its encodings costs.

    Attributes:
      figures: a figure for each encoding: which layers have it ("" for all), and its SVG.
      costs: the same for sentences on the cost.
      hooks: the hooks that its encodings override.
    """

    figures: list[tuple[str, str]]
    costs: list[tuple[str, str]]
    hooks: tuple[str, ...]


def draw(name: str) -> Drawn:
    """Draws a scheme, and runs the code of its page."""
    snippets.check(name)
    layers = {"num_layers": gallery.LAYERS[name]} if name in gallery.LAYERS else {}
    keywords = short_keywords(SIZES.train_length).get(name, {}) | layers
    with style():
        drawings = gallery.drawings(name, SIZES, keywords)
    costs = [
        (
            drawing.layers,
            f"{drawing.cost.parameters:,} parameters, and {drawing.cost.overhead:+.1%} operations "
            "in attention"
            + ("" if drawing.window is None else f"; the last {drawing.window} keys are seen"),
        )
        for drawing in drawings
    ]
    hooks = dict.fromkeys(hook for drawing in drawings for hook in drawing.cost.hooks)
    return Drawn([(drawing.layers, drawing.curves) for drawing in drawings], costs, tuple(hooks))


def page(name: str, drawn: Drawn, figures: list[tuple[str, str]]) -> str:
    """Returns the page of a scheme; ``figures`` has the files of ``drawn.figures``."""
    documented = docstrings.of_scheme(name)
    sentences = [part.sentence for part in documented if part.sentence]
    general, special = documented[0].prose, [text for part in documented[1:] for text in part.prose]
    # What a scheme shares with others of its module comes after what is its own.
    is_shared = not documented[0].sentence
    prose = [*special, *general] if is_shared else [*general, *sentences[1:], *special]
    cited = _cited(documented)
    return _TEMPLATES.get_template("scheme.md.jinja").render(
        name=name,
        summary=myst(sentences[0]),
        equations=[tex for part in documented for tex in part.equations],
        prose=[myst(part) for part in prose],
        snippet=snippets.snippet(name),
        figures=figures,
        curves=gallery.CURVES,
        sizes=SIZES,
        arguments=arguments(name, documented),
        hooks=_hooks(name, drawn.hooks),
        costs=drawn.costs,
        source=_source(_where_from(documented)),
        papers=[papers.citation(number) for number in cited],
        bibtex="\n\n".join(papers.bibtex(number) for number in cited),
        oracle=oracle(name),
        golden=golden(name),
        models=_models(name),
        results=results.of_scheme(name),
        claims=results.claims(name),
        path=REGISTRY[name].partition(":")[0].replace(".", "/") + ".py",
    )


def _where_from(documented: list[Docstring]) -> str:
    """Returns the source of a scheme: its own docstring's, or else its module's."""
    return next((part.source for part in reversed(documented) if part.source), "")


def _cited(documented: list[Docstring]) -> list[str]:
    return papers.numbers(_where_from(documented))


def arguments(name: str, documented: list[Docstring]) -> list[dict[str, str]]:
    """Returns what a scheme's page says of each keyword of ``make``."""
    build: Any = lookup(name)
    rows = []
    for key, parameter in keywords(build).items():
        empty = parameter.default is inspect.Parameter.empty
        rows.append(
            {
                "name": key,
                "type": _type(parameter),
                "default": "required" if empty else f"by default `{parameter.default!r}`",
                "says": myst(said(key, build, documented)).replace("\n", " "),
            }
        )
    return rows


def said(key: str, build: Any, documented: list[Docstring]) -> str:
    """Returns what docstrings say of a keyword: the scheme's, a base class's, or that of ``make``.

    What another docstring is named for ("keywords of ``RoPE``") is taken from there. Returns "" for
    a keyword that no docstring has.
    """
    bases = list(build.__mro__[1:-1]) if isinstance(build, type) else []
    for part in [*documented[::-1], *map(_parsed, (*bases, RoPE, YaRN, make))]:
        if key in part.arguments:
            text = _followed(key, part.arguments[key], sys.modules[build.__module__])
            return text[0].upper() + text[1:]
    return ""


def _followed(key: str, text: str, module: ModuleType) -> str:
    """Returns what the docstring says that ``text`` names, and the rest of ``text``."""
    pointer = _POINTER.match(text)
    if not pointer:
        return text
    named = getattr(module, pointer[1], None) or _CLASSES[pointer[1]]()
    inner = _followed(key, _parsed(named).arguments[key], sys.modules[named.__module__])
    rest = text[pointer.end() :].lstrip(";,. ")
    return f"{inner.rstrip('.')}. {rest[0].upper()}{rest[1:]}" if rest else inner


def _parsed(build: Any) -> Docstring:
    return docstrings.parse(inspect.getdoc(build) or "none")


def _type(parameter: inspect.Parameter) -> str:
    named = parameter.annotation
    if named is inspect.Parameter.empty:
        return ""
    text = named if isinstance(named, str) else inspect.formatannotation(named)
    text = re.sub(r"\b(?:[a-z_]\w*\.)+(?=\w)", "", text)
    return f"`{text}`"


def oracle(name: str) -> str:
    """Returns where the tests write a scheme's equation again, or "" for a pattern of layers."""
    sys.path.insert(0, str(ROOT / "tests"))
    try:
        import schemes  # type: ignore[import-not-found]
    finally:
        sys.path.pop(0)
    return "" if name in PATTERNS else type(schemes.ALL[name].equations).__name__


def golden(name: str) -> list[dict[str, str]]:
    """Returns the stored arrays that a scheme is compared with."""
    index = json.loads((ROOT / "tests/golden/index.json").read_text())
    return [
        {
            "name": array,
            "source": _cell(about["source"]),
            "notes": _cell(about.get("notes", "")),
        }
        for array, about in index.items()
        if name in about["schemes"]
    ]


def _cell(text: str) -> str:
    return re.sub(r"([|*_<>\[\]$`])", r"\\\1", " ".join(text.split()))


def _hooks(name: str, hooks: tuple[str, ...]) -> str:
    link = "[hooks](../contribute.md#the-hooks-of-a-scheme)"
    listed = ", ".join(f"`{hook}`" for hook in hooks)
    if not hooks:
        return f"It overrides none of the {link}."
    whose = "Its encodings override" if name in PATTERNS else "It overrides"
    return f"{whose} these {link}: {listed}."


def _source(source: str) -> str:
    """Returns what a source says besides the papers, which are listed in full."""
    rest = re.sub(r"https://arxiv\.org/abs/\S+", "", source).strip(" ,")
    rest = re.sub(r"^\([^()]*\)(, \([^()]*\))*$", "", rest)
    return myst(re.sub(r"(https?://[^\s,)]+)", r"<\1>", rest))


def _models(name: str) -> str:
    which = models.model_types().get(name, [])
    sections = [f"`{section}`" for section, scheme in models.SECTIONS.items() if scheme == name]
    parts = []
    if sections and name != "rope":
        parts.append(f"`from_hf` builds it for a config with `rope_type` {', '.join(sections)}.")
    if which:
        listed = ", ".join(f"`{model}`" for model in which)
        parts.append(
            f"{len(which)} model type{'s' if len(which) > 1 else ''} of transformers that "
            f"posenc_jax knows {'have' if len(which) > 1 else 'has'} it in some layers, by the "
            f"default config: {listed}."
        )
    return " ".join(parts) or "posenc_jax knows no published model whose default config has it."


def myst(text: str) -> str:
    """Returns a part of a docstring as MyST."""
    if text.startswith("    "):
        return text
    parts = re.split(r"(``.+?``)", text, flags=re.DOTALL)
    return "".join(
        f"`{part[2:-2]}`" if part.startswith("``") else re.sub(r"(?<!^)([*_\[\]])", r"\\\1", part)
        for part in parts
    )
