"""Writes what docs/ and README.md say of the kept results.

    python -m experiments.results.reports

writes the guide docs/choosing.md and the badges docs/atlas/trust.json; the tables of
docs/results.md, multimodal.md and extension.md, which are the first ones below their headings; and
the findings in README.md and docs/results.md. The text around tables and findings stays as it is.
``make results`` runs this.
"""

import dataclasses
import sys
from pathlib import Path

from experiments.command import exit_status
from experiments.results.record import write_files
from experiments.results.reports import (
    atlas_tables,
    choosing_page,
    extension_tables,
    findings,
    learned_page,
    multimodal_tables,
    sources,
    trust,
)
from experiments.results.reports.markdown import written


@exit_status
def main() -> None:
    docs, data = Path("docs"), Path("docs/data")
    results = sources.read(docs)
    rungs, missing = choosing_page.read_rungs(docs, results)
    decoding = choosing_page.read_decoding(data / "decode.csv")
    write_files(docs, {"choosing.md": choosing_page.guide(rungs, missing, decoding)})
    trust.write(docs / "atlas" / trust.JSON, rungs)
    results = dataclasses.replace(results, trust=trust.read(docs / "atlas" / trust.JSON))
    pages = {
        "results.md": atlas_tables.tables(results) | learned_page.tables(data),
        "multimodal.md": multimodal_tables.tables(data),
        "extension.md": extension_tables.tables(data),
    }
    texts = {name: written((docs / name).read_text(), tables) for name, tables in pages.items()}
    texts["results.md"] = findings.rewritten(texts["results.md"], results)
    write_files(docs, texts)
    readme = Path("README.md")
    shared = {name: pages["results.md"][name] for name in (atlas_tables.WINS, atlas_tables.PAIRS)}
    text = written(readme.read_text(), shared)
    write_files(Path(), {"README.md": findings.rewritten(text, results)})
    print(f"pages: {readme}, docs/choosing.md, {', '.join(f'docs/{name}' for name in texts)}")


if __name__ == "__main__":
    sys.exit(main())
