"""Writes the technical report, a PDF, from the results that ``make results`` uses.

    python -m experiments.results.reports.technical_report --results=build/results

The template is ``templates/report.typ``, which has words and no numbers. The program needs
``pip install -e '.[report]'``.
"""

import argparse
import dataclasses
import re
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from experiments.command import exit_status
from experiments.results.answers import SOLVED
from experiments.results.atlas import family
from experiments.results.comparisons import Q
from experiments.results.ledger import UNTESTABLE
from experiments.results.lengths import WINDOWED
from experiments.results.record import write_files
from experiments.results.reports import (
    atlas_tables,
    extension_tables,
    findings,
    ledger_page,
    maps,
    sources,
)
from experiments.results.reports.choosing_page import SLOW, read_decoding
from experiments.results.reports.markdown import markdown_table
from experiments.results.reports.multimodal_tables import TABLES, markdown
from experiments.results.reports.templates import fill
from experiments.results.reports.typst_words import blocks, inline
from posenc_jax import REGISTRY, __version__

Rows = list[list[Any]]
_PADDING = 6  # around a figure, in its units
_CAPTIONS = {
    "images": "Accuracy by the side of the image, on rescaled and on pasted digits.",
    "pointing": "Accuracy on screens of several sizes, a plot for each question.",
    "video": "Accuracy by length and by gap, and how often the distractor is answered.",
    "story": "Error against pace, warp and time, and how far answers of several cameras are apart.",
}


class Report:
    """Fills the template from results.

    Attributes:
      docs: the folder of the kept results.
      papers: the arXiv numbers of the bibliography.
      pictures: the files of figures that the text shows, by the names that it uses.
    """

    def __init__(self, docs: Path):
        self.docs = docs
        self.sources = sources.read(docs)
        self.papers = set(re.findall(r"@\w+\{(\d{4}\.\d{5}),", self._bibliography()))
        self.pictures: dict[str, Path] = {}

    def files(self) -> dict[str, str]:
        """Returns the text for Typst and what it includes, by the names of the files.

        Raises:
          ValueError: results are missing or damaged.
        """
        text = fill("report.typ", **self._values(), **self._words())
        drawn = {name: _padded(path.read_text()) for name, path in self.pictures.items()}
        return {"report.typ": text, "references.bib": self._bibliography()} | drawn

    def _bibliography(self) -> str:
        text = (self.docs / "references.bib").read_text()
        return text.replace("``", "“").replace("''", "”")

    def _words(self) -> dict[str, Any]:
        """Returns the functions of the template, which return Typst."""

        def table(head: Iterable[str], rows: Rows) -> str:
            cells = [[str(cell) for cell in row] for row in rows]
            return blocks(markdown_table(list(head), cells), self.papers)

        def picture(name: str, caption: str, width: int) -> str:
            places = (self.docs / "atlas", self.docs / "figures", self.docs)
            existing = [folder / name for folder in places if (folder / name).exists()]
            self.pictures.setdefault(name, next(iter(existing), self.docs / name))
            return f'#drawing("{name}", [{inline(caption, self.papers)}], {width})'

        return {
            "words": lambda text: inline(str(text), self.papers),
            "markdown": lambda text: blocks(text, self.papers),
            "bullets": lambda lines: "\n".join(f"- {inline(s, self.papers)}" for s in lines),
            "said": self._said,
            "code": lambda lines: "```\n" + "\n".join(lines) + "\n```",
            "table": table,
            "picture": picture,
        }

    def _said(self, name: str) -> str:
        """Returns findings as a list, without what the first page has."""
        first = [] if name == "all" else findings.sentences("all", self.sources)
        said = [s for s in findings.sentences(name, self.sources) if s not in first]
        return "\n".join(f"- {inline(s, self.papers)}" for s in said)

    def _values(self) -> dict[str, Any]:
        atlas = self.sources.atlas
        text = [q for q in atlas.questions.to_dict("records") if q["topic"] == "text"]
        ladder, about = self._ladder(), atlas.about
        by_family = defaultdict(list)
        for scheme in REGISTRY:
            by_family[family(scheme)].append(f"`{scheme}`")
        commands = [about["command"], self.sources.ledger["about"]["command"], ladder["command"]]
        return {
            "version": __version__,
            "schemes": len(self.sources.of("text").index.drop(WINDOWED)),
            "seeds": int(atlas.answers["seeds"].max()),
            "multiple": f"{max(q['multiple'] for q in text):.0f}",
            "question": max(text, key=lambda q: q["multiple"])["says"],
            "about": about,
            "versions": ", ".join(f"{name} {number}" for name, number in about["versions"].items()),
            "share": f"{SOLVED:.0%}".replace("%", " %"),
            "q": Q,
            "tasks": [[name, says] for name, says in about["tasks"].items()],
            "families": [[name, ", ".join(names)] for name, names in by_family.items()],
            "tables": self._tables(),
            "ladder": ladder,
            "ledger": self._ledger(),
            "needs": self._needs(),
            "panels": self._panels(),
            "decoding": self._decoding(),
            "commands": [c.removesuffix(" --report") for c in commands]
            + ["make results", "make report"],
        }

    def _tables(self) -> dict[str, str]:
        """Returns the tables of the pages as Markdown."""
        tables = atlas_tables.tables(dataclasses.replace(self.sources, trust={}))
        made = {
            "text": tables[atlas_tables.TEXT.heading],
            "gains": tables[atlas_tables.GAINS.heading],
            "learned": tables[atlas_tables.LEARNED.heading],
            "longer": tables[atlas_tables.TRAINED_LONGER.heading],
        }
        listed = re.findall(r"(?:^\|.*\n)+", (self.docs / "schemes/index.md").read_text(), re.M)
        longer = extension_tables.TABLES[0]
        extension = extension_tables.markdown(
            longer, extension_tables.read(self.docs / "data" / longer.file)
        )
        return made | {"schemes": "\n".join(listed), "extension": extension}

    def _ladder(self) -> dict[str, Any]:
        """Returns what the ladder found, its rungs, correlations and figures."""
        told = self.sources.ladder
        captions = {"window": maps.WINDOW_CAPTION, "by_tokens": maps.TOKENS_CAPTION}
        figures = {}
        for name, (_, caption) in captions.items():
            if (path := self.docs / f"ladder/{name}.svg").exists():
                self.pictures[f"ladder_{name}.svg"] = path
                figures[f"ladder_{name}.svg"] = caption
        rungs = told["rungs"].values()
        points, finished = (sum(rung[key] for rung in rungs) for key in ("points", "finished"))
        return {
            "finding": told["finding"],
            "rungs": [
                [f"`{name}`", rung["title"], rung["schemes"], rung["seeds"]]
                + [f"{rung['finished']} of {rung['points']}"]
                for name, rung in told["rungs"].items()
            ],
            "correlations": [
                [pair["differs"], (pair["trained"] or pair["beyond"])["schemes"]]
                + [_rho(pair[loss]) for loss in ("trained", "beyond")]
                for pair in told["correlations"]
            ],
            "figures": figures,
            "points": points,
            "missing": points - finished,
            "digest": f"`{told['about']['corpus_digest'][:16]}`",
            "command": told["about"]["command"],
        }

    def _ledger(self) -> dict[str, Any]:
        """Returns the rows of the ledger and its counts."""
        ledger = self.sources.ledger
        claims = [claim | {"says": _letters(claim["says"])} for claim in ledger["claims"]]
        return {
            "rule": ledger["rule"],
            "correction": ledger["correction"],
            "counts": ledger_page.counts(claims),
            "corrected": ledger_page.counts(claims, "after_correction"),
            "rows": [
                [c["says"], c["source"].partition(",")[0], c["verdict"], c["after_correction"]]
                for c in claims
            ],
            "scales": [
                [f"`{c['name']}`", c["scale_needed"]] for c in claims if c["verdict"] == UNTESTABLE
            ],
            "missing": ", ".join(f"`{c['name']}`" for c in claims if c["verdict"] == "missing"),
        }

    def _needs(self) -> Rows:
        """Returns the decisions of the guide, which ``choosing_page.py`` has written."""
        text = (self.docs / "choosing.md").read_text()
        return [list(n) for n in re.findall(r"^## (.+?): (.+)\n\n- Evidence: (.+)$", text, re.M)]

    def _panels(self) -> list[dict[str, str]]:
        """Returns the tables of images, screens, videos and stories, and their figures."""
        studies = [(table, table.read(self.docs / "data")) for table in TABLES]
        return [
            {
                "heading": table.heading,
                "table": markdown(study),
                "picture": f"{table.experiment}.svg",
                "caption": _CAPTIONS[table.experiment],
            }
            for table, study in studies
            if study
        ]

    def _decoding(self) -> dict[str, Any]:
        times = read_decoding(self.docs / "data/decode.csv")
        slow = {name: by for name, by in times.items() if by > SLOW}
        return {
            "all": len(times),
            "cheap": len(times) - len(slow),
            "bound": SLOW,
            "slow": [
                [f"`{name}`", f"{by:.2f}"] for name, by in sorted(slow.items(), key=lambda i: i[1])
            ],
        }


def _rho(pair: Mapping[str, Any] | None) -> str:
    return f"{pair['rho']:.2f} ({pair['low']:.2f} to {pair['high']:.2f})" if pair else "-"


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


def compiled(files: Mapping[str, str], kind: Literal["pdf", "png"] = "pdf") -> Any:
    """Returns the report as a PDF, or its pages as pictures (PNG), to look at.

    Raises:
      ValueError: typst is not installed.
    """
    try:
        import typst
    except ImportError:
        raise ValueError(
            "the report needs typst, which is not installed; run: pip install -e '.[report]'"
        ) from None
    with tempfile.TemporaryDirectory() as folder:
        for name, text in files.items():
            (Path(folder) / name).write_text(text)
        return typst.compile(str(Path(folder) / "report.typ"), format=kind, ppi=80)


@exit_status
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--docs", type=Path, default=Path("docs"), help="the kept results")
    parser.add_argument("--out", type=Path, default=Path("build/report.pdf"))
    args = parser.parse_args()
    text = compiled(Report(args.docs).files())
    write_files(args.out.parent, {args.out.name: text})
    print(f"report: {args.out}")


if __name__ == "__main__":
    sys.exit(main())
