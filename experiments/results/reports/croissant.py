"""Describes the kept results for machines (Croissant) and for people (a datasheet).

    python -m experiments.results.reports.croissant

writes ``croissant.json`` and ``index.md`` in docs/data. A digest, a size and a count come from the
files themselves; ``descriptions.yaml``, in the same folder, says what a file and a column have.
"""

import hashlib
import json
import sys
import textwrap
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from experiments.command import exit_status
from experiments.results import archive
from experiments.results.record import write_files
from experiments.results.reports.markdown import markdown_table
from experiments.results.reports.templates import fill
from posenc_jax import __version__

_DESCRIPTIONS = "descriptions.yaml"
_TYPES = {"b": "sc:Boolean", "i": "sc:Integer", "f": "sc:Float"}
_TERMS = (
    "citeAs column data dataType equivalentProperty examples extract field samplingRate "
    "fileProperty fileObject fileSet format includes isLiveDataset jsonPath key md5 parentField "
    "path recordSet references regex repeated replace separator source subField transform"
)
_TYPED = {"data": "@json", "dataType": "@vocab", "examples": "@json"}


def described(data: Path) -> dict[str, Any]:
    """Returns the Croissant metadata of the files in ``data`` and beside it.

    Raises a ValueError if a file or a column has no description.
    """
    told = _read(data)
    unknown = {p.name for p in data.iterdir() if p.suffix in (".csv", ".gz", ".xz")}
    if unknown := unknown - told["files"].keys():
        raise ValueError(
            f"{data} has {', '.join(sorted(unknown))}: describe it in {data / _DESCRIPTIONS}"
        )
    distribution, tables = [], []
    for name, says in told["files"].items():
        content, is_table = (data / name).read_bytes(), _is_table(name)
        distribution.append(
            _node("FileObject", name, says)
            | {
                "contentUrl": name,
                "contentSize": f"{len(content)} B",
                "encodingFormat": "text/csv" if is_table else "application/x-xz",
                "sha256": hashlib.sha256(content).hexdigest(),
            }
        )
        if is_table:
            tables.append(_table(data / name, name, says, told["columns"]))
        else:  # an archive, with a file for each finished run
            what = "what was measured of each run, as JSON: records, and how it was trained"
            distribution.append(
                _node("FileSet", f"{name}/evaluations", what)
                | {
                    "containedIn": {"@id": name},
                    "encodingFormat": "application/json",
                    "includes": "**/evaluation.json",
                }
            )
    cited = yaml.safe_load((data.resolve().parents[1] / "CITATION.cff").read_text())
    authors = ", ".join(author["name"] for author in cited["authors"])
    terms = {term: f"cr:{term}" for term in _TERMS.split()}
    return {
        "@context": {
            "@language": "en",
            "@vocab": "https://schema.org/",
            "sc": "https://schema.org/",
            "cr": "http://mlcommons.org/croissant/",
            "rai": "http://mlcommons.org/croissant/RAI/",
            "dct": "http://purl.org/dc/terms/",
            "conformsTo": "dct:conformsTo",
        }
        | terms
        | {term: {"@id": terms[term], "@type": kind} for term, kind in _TYPED.items()},
        "@type": "sc:Dataset",
        "name": "posenc_jax_results",
        "description": told["about"],
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "license": "https://www.apache.org/licenses/LICENSE-2.0",
        "version": __version__,
        "citeAs": f"{authors}. {cited['title']}. Version {cited['version']}.",
        "creator": {"@type": "sc:Organization", "name": "The posenc_jax authors"},
        "distribution": distribution,
        "recordSet": tables,
    }


def _read(data: Path) -> dict[str, Any]:
    """Returns ``descriptions.yaml``, with the columns of every opponent among the others."""
    told = yaml.safe_load((data / _DESCRIPTIONS).read_text())
    for name, words in told["against"].items():
        told["columns"] |= {
            f"vs_{name}": f"whether the scheme is better or worse than {words} by seed, after "
            "correction",
            f"vs_{name}_difference": f"mean difference to {words}, positive where it is better",
            f"vs_{name}_margin": "half of the 95 % interval of that difference",
            f"vs_{name}_p": "p value of that difference, after correction",
        }
    return told


def _is_table(name: str) -> bool:
    return name.endswith((".csv", ".csv.gz"))


def _node(kind: str, name: str, says: str, shown: str = "") -> dict[str, Any]:
    return {"@type": f"cr:{kind}", "@id": name, "name": shown or name, "description": says}


def _table(path: Path, file: str, says: str, meanings: dict[str, str]) -> dict[str, Any]:
    stem, fields = path.name.partition(".")[0], []
    for column, values in pd.read_csv(path).items():
        if column not in meanings:
            where = path.name, column, _DESCRIPTIONS
            raise ValueError("{} has a column {!r}: describe it in docs/data/{}".format(*where))
        fields.append(
            _node("Field", f"{stem}/{column}", meanings[column], column)
            | {
                "dataType": _TYPES.get(values.dtype.kind, "sc:Text"),
                "source": {"fileObject": {"@id": file}, "extract": {"column": column}},
            }
        )
    return _node("RecordSet", stem, says) | {"field": fields}


def datasheet(data: Path) -> str:
    """Returns the page about the files, for people."""
    told, rows = _read(data), []
    for name, says in told["files"].items():
        path = data / name
        if _is_table(name):
            count = f"{len(pd.read_csv(path)):,} rows"
        else:
            count = f"{len(archive.read(path)):,} runs"
        size, shown = path.stat().st_size / 1000, name.removeprefix("../")
        rows.append([f"[{shown}]({name})", says, count, f"{size:,.0f}"])
    table = markdown_table(["file", "what it has", "runs or rows", "KB"], rows)
    return fill("datasheet.md", about=textwrap.fill(told["about"], 115), table=table)


@exit_status
def main() -> None:
    data = Path("docs/data")
    text = json.dumps(described(data), indent=1) + "\n"
    write_files(data, {"croissant.json": text, "index.md": datasheet(data)})
    print(f"data: {data / 'croissant.json'} and {data / 'index.md'}")


if __name__ == "__main__":
    sys.exit(main())
