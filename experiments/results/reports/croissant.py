"""Describes the kept results for machines (Croissant) and for people (a datasheet).

    python -m experiments.results.reports.croissant

writes ``croissant.json`` and ``index.md`` in docs/data. A digest, a size and a count come from the
files themselves; a file or a column without a description here is refused.
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
from experiments.results.reports.page import markdown_table
from experiments.results.reports.templates import fill
from posenc_jax import __version__

# What each file has, by its path from docs/data.
FILES = {
    "answers.tar.xz": "runs of the atlas and of the ledger of claims",
    "decode.csv": "time of decoding one more token under each scheme (benchmarks.decode)",
    "extension_small.csv": "methods that make a small model longer (configs/extension.py:small)",
    "extension_smollm2.csv": "the same for SmolLM2 (configs/extension.py:smollm2)",
    "extension_yarn.csv": "methods after more and more tuning (configs/extension.py:yarn)",
    "extrapolation_long.tar.xz": "four schemes trained longer (configs/extrapolation.py:long)",
    "growth.csv": "time and memory against sizes (benchmarks.growth)",
    "images.tar.xz": "digits on larger canvases (configs/images.py:small)",
    "ladder.tar.xz": "finished runs of the ladder (configs/ladder.py:small)",
    "learned.tar.xz": "finished runs on one task each (configs/learned.py:small)",
    "longrope_small.csv": "every stage of LongRoPE (configs/longrope.py:small)",
    "longrope_smollm2.csv": "LongRoPE's search on SmolLM2 (configs/longrope.py:smollm2)",
    "pointing.tar.xz": "icons on larger screens (configs/pointing.py:small)",
    "story.tar.xz": "a ball at times that no frame shows (configs/story.py:small)",
    "tpu_check.csv.gz": "programs compiled for TPUs without a TPU (benchmarks.tpu_check)",
    "track.tar.xz": "runs of the leaderboard's track (configs/ladder.py:track)",
    "video.tar.xz": "needles in longer videos (configs/video.py:small)",
    "../atlas/atlas.csv.gz": "the atlas: each scheme at each question, with verdicts",
    "../atlas/values.csv.gz": "the atlas: each number that was measured",
    "../claims/claims.csv": "the ledger: each number of each published claim, with verdicts",
}
_VERDICT = "whether the scheme is better or worse than {} by seed, after correction"
_AGAINST = {
    "nope": "no positional encoding",
    "rope": "RoPE",
    "rope_windowed": "RoPE through a window of the trained length",
    "own_window": "the same model through such a window",
}
# What a column means. Units stand in the words.
COLUMNS = {
    "accuracy": "share of next tokens that are predicted right",
    "after_correction": "verdict on the number after correction of all numbers",
    "arguments_gib": "memory of the program's arguments on a chip, GiB",
    "axis": "the size that grows: length, batch, layers, heads or schemes",
    "batch": "rows of a batch",
    "bits_per_byte": "loss in bits per byte of text",
    "chip": "kind of TPU",
    "chips": "number of chips",
    "claim_after_correction": "verdict on the claim after correction of all numbers",
    "claim_name": "name of the claim",
    "claim_verdict": "verdict on the claim",
    "documents": "number of documents that are scored",
    "evaluation": "seconds of an evaluation",
    "fits": "whether the program fits into the memory of a chip",
    "gigaflops_a_chip": "operations of matrix products on a chip, in 1e9",
    "group": "length and stage at which factors are scored",
    "heads": "heads of a layer",
    "high": "upper end of the range that the paper implies",
    "is_need": "whether the number is a condition of the claim and not the claim itself",
    "kind": "whether the factors are a method's or were searched for",
    "last_loss": "loss of the last tokens, nats per token",
    "layers": "layers of the model",
    "learned": "whether most seeds solve the task at the trained length",
    "length": "tokens that are read",
    "loss": "mean loss, nats per token",
    "low": "lower end of the range that the paper implies",
    "margin": "half of the 95 % interval over seeds",
    "mean": "mean over seeds",
    "memory": "temporary memory of a step, or peak memory of a comparison, MiB",
    "memory_gib": "memory that a chip needs, GiB",
    "mesh": "axes of the mesh with their sizes",
    "milliseconds": "time of one more token, ms",
    "multiple": "tokens that are read over the trained length",
    "needle_loss": "loss of hidden numbers, nats per token",
    "outcome": "compiled, too large, refused or FAILED",
    "p": "p value of the number against the nearest end of its range",
    "p_corrected": "the same after correction (Benjamini and Hochberg)",
    "part": "attention, lengths or steps",
    "perplexity": "exponential of the loss",
    "program": "what is compiled: implementation, direction and length, or a kind of step",
    "protocol": "way of evaluating, see experiments/evaluation/lengths.py",
    "question": "what is asked, see atlas.json",
    "ratio": "factor of the encoding",
    "reason": "why a program was refused or failed",
    "run": "seconds of a whole comparison",
    "says": "the number in words",
    "scheme": "name of the encoding or of the variant",
    "schemes": "number of schemes that are compared",
    "seed": "seed of the initial values and of the batches",
    "seeds": "number of seeds",
    "sent_mib_a_chip": "kind of collective, axes of the mesh, and MiB that a chip sends",
    "solved": "number of seeds that solve the task",
    "split": "text that is scored: test, manual, code or prose",
    "step": "seconds of a training step",
    "steps": "steps of fine-tuning",
    "stride": "tokens by which a sliding window moves",
    "temporaries_gib": "memory of temporary arrays on a chip, GiB",
    "times_nope": "time over that without positions in the same run",
    "tokens": "number of tokens that are scored",
    "value": "what was measured, in the unit of the question",
    "verdict": "verdict on the number",
    "what": "scheme or experiment",
    "why": "why a number is missing",
}
for _name, _words in _AGAINST.items():
    COLUMNS |= {
        f"vs_{_name}": _VERDICT.format(_words),
        f"vs_{_name}_difference": f"mean difference to {_words}, positive where it is better",
        f"vs_{_name}_margin": "half of the 95 % interval of that difference",
        f"vs_{_name}_p": "p value of that difference, before correction",
    }

_TYPES = {"b": "sc:Boolean", "i": "sc:Integer", "f": "sc:Float"}
_TERMS = (
    *("citeAs", "column", "data", "dataType", "equivalentProperty", "examples", "extract", "field"),
    *(
        "samplingRate",
        "fileProperty",
        "fileObject",
        "fileSet",
        "format",
        "includes",
        "isLiveDataset",
        "jsonPath",
    ),
    *("key", "md5", "parentField", "path", "recordSet", "references", "regex", "repeated"),
    *("replace", "separator", "source", "subField", "transform"),
)
_TYPED = {"data": "@json", "dataType": "@vocab", "examples": "@json"}
_ABOUT = (
    "Results of posenc_jax: what small Transformers under positional encodings do at the trained "
    "length and beyond it, on text, tasks, images, screens, videos and stories."
)


def described(data: Path) -> dict[str, Any]:
    """Returns the Croissant metadata of the files in ``data`` and beside it.

    Raises:
      ValueError: a file or a column has no description, or a file is missing.
    """
    unknown = {p.name for p in data.iterdir() if p.suffix in (".csv", ".gz", ".xz")} - FILES.keys()
    if unknown:
        raise ValueError(
            f"{data} has {', '.join(sorted(unknown))}: describe it in {__name__}.FILES"
        )
    data = data.resolve()
    distribution: list[dict[str, Any]] = []
    records: list[dict[str, Any]] = []
    for name, says in FILES.items():
        distribution.append(_file(data, name, says))
        if _is_table(name):
            records.append(_table(data / name, name, says))
        else:
            distribution.append(_points(name))
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
        | {term: _term(term) for term in _TERMS},
        "@type": "sc:Dataset",
        "name": "posenc_jax_results",
        "description": _ABOUT,
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "license": "https://www.apache.org/licenses/LICENSE-2.0",
        "version": __version__,
        "citeAs": _citation(data.parents[1]),
        "creator": {"@type": "sc:Organization", "name": "The posenc_jax authors"},
        "distribution": distribution,
        "recordSet": records,
    }


def _citation(root: Path) -> str:
    about = yaml.safe_load((root / "CITATION.cff").read_text())
    authors = ", ".join(author["name"] for author in about["authors"])
    return f"{authors}. {about['title']}. Version {about['version']}."


def _term(term: str) -> Any:
    return {"@id": f"cr:{term}", "@type": _TYPED[term]} if term in _TYPED else f"cr:{term}"


def _is_table(name: str) -> bool:
    return name.endswith((".csv", ".csv.gz"))


def _file(data: Path, name: str, says: str) -> dict[str, Any]:
    content = (data / name).read_bytes()
    return {
        "@type": "cr:FileObject",
        "@id": name,
        "name": name,
        "description": says,
        "contentUrl": name,
        "contentSize": f"{len(content)} B",
        "encodingFormat": "text/csv" if _is_table(name) else "application/x-xz",
        "sha256": hashlib.sha256(content).hexdigest(),
    }


def _points(name: str) -> dict[str, Any]:
    """Returns the set of evaluations in an archive, a file for each finished run."""
    return {
        "@type": "cr:FileSet",
        "@id": f"{name}/evaluations",
        "name": f"{name}/evaluations",
        "description": "what was measured of each run, as JSON: records, and how it was trained",
        "containedIn": {"@id": name},
        "encodingFormat": "application/json",
        "includes": "**/evaluation.json",
    }


def _table(path: Path, name: str, says: str) -> dict[str, Any]:
    stem = path.name.partition(".")[0]
    return {
        "@type": "cr:RecordSet",
        "@id": stem,
        "name": stem,
        "description": says,
        "field": [
            {
                "@type": "cr:Field",
                "@id": f"{stem}/{column}",
                "name": column,
                "description": _meaning(column, path),
                "dataType": _TYPES.get(values.dtype.kind, "sc:Text"),
                "source": {"fileObject": {"@id": name}, "extract": {"column": column}},
            }
            for column, values in pd.read_csv(path).items()
        ],
    }


def _meaning(column: Any, path: Path) -> str:
    if column not in COLUMNS:
        raise ValueError(f"{path} has a column {column!r}: describe it in {__name__}.COLUMNS")
    return COLUMNS[column]


def datasheet(data: Path) -> str:
    """Returns the page about the files, for people."""
    rows = []
    for name, says in FILES.items():
        path = data / name
        if _is_table(name):
            count = f"{len(pd.read_csv(path)):,} rows"
        else:
            count = f"{len(archive.read(path)):,} runs"
        size = path.stat().st_size / 1000
        shown = name.removeprefix("../")
        rows.append([f"[{shown}]({name})", says, count, f"{size:,.0f}"])
    table = markdown_table(["file", "what it has", "runs or rows", "KB"], rows)
    return fill("datasheet.md", about=textwrap.fill(_ABOUT, 115), table=table)


@exit_status
def main() -> None:
    data = Path("docs/data")
    text = json.dumps(described(data), indent=1) + "\n"
    write_files(data, {"croissant.json": text, "index.md": datasheet(data)})
    print(f"data: {data / 'croissant.json'} and {data / 'index.md'}")


if __name__ == "__main__":
    sys.exit(main())
