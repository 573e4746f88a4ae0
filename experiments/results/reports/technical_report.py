"""Writes the technical report, a PDF, from the results that ``make results`` uses.

    python -m experiments.results.reports.technical_report --out=build/report.pdf

The template is ``templates/report.typ``, which has words and no numbers. The program needs
``pip install -e '.[report]'``.
"""

import argparse
import dataclasses
import re
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments import imported
from experiments.command import exit_status
from experiments.results.answers import SOLVED
from experiments.results.atlas import family
from experiments.results.comparisons import Q
from experiments.results.ledger import UNTESTABLE
from experiments.results.lengths import WINDOWED
from experiments.results.record import write_files
from experiments.results.reports import (
    atlas_tables,
    choosing_page,
    extension_tables,
    findings,
    ledger_page,
    multimodal_tables,
    sources,
)
from experiments.results.reports.templates import FIGURES, fill
from experiments.results.reports.typst_words import blocks, inline
from posenc_jax import REGISTRY, __version__

_PADDING = 6  # around a figure, in its units


def files(docs: Path) -> dict[str, str]:
    """Returns the text for Typst and what it includes, by the names of the files.

    Raises a ValueError if results in the folder ``docs`` are missing or damaged.
    """
    results, pictures = sources.read(docs), dict[str, str]()
    bibliography = (docs / "references.bib").read_text().replace("``", "“").replace("''", "”")
    papers = set(re.findall(r"@\w+\{(\d{4}\.\d{5}),", bibliography))
    first = findings.sentences("all", results)

    def picture(name: str, caption: str, width: int) -> str:
        places = (docs / "atlas" / name, docs / "figures" / name, docs / name)
        file = name.replace("/", "_")
        pictures[file] = _padded(next(filter(Path.exists, places)).read_text())
        return f'#drawing("{file}", [{inline(caption, papers)}], {width})'

    def said(name: str) -> str:
        """Returns findings as a list, without what the first page has."""
        told = findings.sentences(name, results)
        return "\n".join(f"- {inline(s, papers)}" for s in told if name == "all" or s not in first)

    text = fill(
        "report.typ",
        **_values(docs, results),
        words=lambda text: inline(str(text), papers),
        markdown=lambda text: blocks(text, papers),
        typst=lambda caller: blocks(caller(), papers),
        said=said,
        letters=_letters,
        picture=picture,
    )
    return {"report.typ": text, "references.bib": bibliography} | pictures


def _values(docs: Path, results: sources.Sources) -> dict[str, Any]:
    """Returns what the template is filled with; its tables are Markdown by their headings."""
    atlas, ledger, ladder = results.atlas, results.ledger, results.ladder
    text = [q for q in atlas.questions.to_dict("records") if q["topic"] == "text"]
    families: dict[str, list[str]] = {}
    for scheme in REGISTRY:
        families.setdefault(family(scheme), []).append(f"`{scheme}`")
    listed = re.findall(r"(?:^\|.*\n)+", (docs / "schemes/index.md").read_text(), re.M)
    panels = multimodal_tables.tables(docs / "data")
    return {
        "version": __version__,
        "schemes": len(atlas.answers_to("text").index.drop(WINDOWED)),
        "seeds": int(atlas.answers["seeds"].max()),
        "longest": max(text, key=lambda q: q["multiple"]),
        "about": atlas.about,
        "solved": SOLVED,
        "q": Q / 2,
        "families": families,
        "tables": atlas_tables.tables(dataclasses.replace(results, trust={})),
        "listed": "\n".join(listed),
        "extension": next(iter(extension_tables.tables(docs / "data").values())),
        "panels": [(table, panels[table.heading]) for table in multimodal_tables.TABLES],
        "ladder": ladder,
        "figures": {f"ladder/{name}.svg": FIGURES[name][1] for name in ("window", "by_tokens")},
        "ledger": ledger,
        "counts": ledger_page.counts,
        "untestable": UNTESTABLE,
        "needs": choosing_page.sections(choosing_page.read_rungs(docs, results)[0]),
        "decoding": choosing_page.read_decoding(docs / "data/decode.csv"),
        "slow": choosing_page.SLOW,
    }


def _letters(text: str) -> str:
    """Returns a text with a letter for each Chinese character, which Typst's fonts lack."""
    characters = dict.fromkeys(re.findall(r"[\u4e00-\u9fff]", text))
    letters = dict(zip(characters, "ABCDEFGHIJKLMNOPQRSTUVWXYZ", strict=False))
    return text.translate(str.maketrans(letters))


def _padded(svg: str) -> str:
    """Returns a picture with room around it, because Typst cuts what its frame cuts."""

    def wider(match: re.Match) -> str:
        x, y, width, height = map(float, match[1].split())
        frame = x - _PADDING, y - _PADDING, width + 2 * _PADDING, height + 2 * _PADDING
        return 'viewBox="' + " ".join(f"{number:g}" for number in frame) + '"'

    return re.sub(r'viewBox="([^"]+)"', wider, svg, count=1)


def compiled(files: Mapping[str, str]) -> bytes:
    """Returns the report as a PDF, or raises a ValueError if typst is not installed."""
    typst = imported("typst", "report", "the report")
    with tempfile.TemporaryDirectory() as folder:
        for name, text in files.items():
            (Path(folder) / name).write_text(text)
        return typst.compile(str(Path(folder) / "report.typ"))


@exit_status
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("build/report.pdf"))
    args = parser.parse_args()
    text = compiled(files(Path("docs")))
    write_files(args.out.parent, {args.out.name: text})
    print(f"report: {args.out}")


if __name__ == "__main__":
    sys.exit(main())
