"""Writes the page about the corpus ``packages``: sizes, packages, and what was dropped."""

from collections import Counter, defaultdict
from collections.abc import Iterable

from experiments.results.reports.markdown import markdown_table
from experiments.training.packages.documents import Document, long_lines, shared

HEADER = """# The corpus `packages`

It has source code and English prose from archives of the package index, which
`python -m experiments.training.packages` downloads;
`python -m experiments.training.packages --datasheet=docs/data/packages.md` also writes this page.
Training ("train", "validation") and evaluation ("code", "prose"; "test" is both) are on different
packages.
Sizes are in MB (1,000,000 bytes), and *of 1,024 bytes* counts documents of at least so many.

Digest: `{digest}`
"""
LEAST = (1 << 10, 1 << 12, 1 << 13, 16 * 1024 + 64)
TRAINING = ("train", "validation")


def datasheet(packages: Iterable, collection, digest: str) -> str:
    """Returns a page of Markdown about a ``Collection`` of documents from ``packages``."""
    documents = list(zip(collection.splits, collection.documents, strict=True))
    dropped = Counter[str]()
    for (_, reason), size in collection.dropped.items():
        dropped[reason] += size
    trained, evaluated = (
        set[bytes]().union(
            *(long_lines(d.text) for split, d in documents if (split in TRAINING) == is_training)
        )
        for is_training in (True, False)
    )
    return "\n".join(
        [
            HEADER.format(digest=digest),
            _split_table(documents),
            "Text that was dropped, by rule (see `experiments/training/packages/documents.py`):\n",
            markdown_table(
                ["reason", "MB"], [[reason, _mb(n)] for reason, n in dropped.most_common()]
            ),
            "Of the different lines of at least 20 characters in evaluated documents, "
            f"{shared(evaluated, trained):.1%} (by bytes) also stand in training documents.\n",
            _package_table(packages, collection),
        ]
    )


def _split_table(documents: list[tuple[str, Document]]) -> str:
    by_split = defaultdict(list)
    for split, document in documents:
        by_split[split, document.kind].append(len(document.text))
    rows = []
    for (split, kind), sizes in sorted(by_split.items()):
        counts = [len(sizes), *(sum(size >= least for size in sizes) for least in LEAST)]
        rows.append([split, kind, _mb(sum(sizes)), *(f"{count:,}" for count in counts)])
    sizes_of_documents = [f"of {least:,} bytes" for least in LEAST]
    return markdown_table(["split", "kind", "MB", "documents", *sizes_of_documents], rows)


def _package_table(packages: Iterable, collection) -> str:
    sizes = Counter[tuple[str, str]]()
    for document in collection.documents:
        sizes[document.package, document.kind] += len(document.text)
    for (package, _), size in collection.dropped.items():
        sizes[package, "dropped"] += size
    columns = ("code", "prose", "dropped")
    rows = [
        [
            f"{package.package} {package.version}",
            package.licence,
            "training" if package.split == "train" else "evaluation",
            *(_mb(sizes[package.package, column]) for column in columns),
        ]
        for package in packages
    ]
    return markdown_table(["package", "licence", "for", *columns], rows)


def _mb(size: int) -> str:
    return f"{size / 1e6:.2f}" if size else ""
