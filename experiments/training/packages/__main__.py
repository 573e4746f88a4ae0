"""Makes the corpus ``packages`` from archives of the package index."""

import argparse
import sys
from pathlib import Path

from experiments.command import exit_status
from experiments.training.packages import corpus
from experiments.training.packages.archives import downloads
from experiments.training.packages.datasheet import datasheet


@exit_status
def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.training.packages", description=__doc__
    )
    parser.add_argument("--out", type=Path, help="the folder to write; default: the user's cache")
    parser.add_argument("--datasheet", type=Path, help="also write this page about the corpus")
    chosen = parser.parse_args(arguments)
    folder = chosen.out or corpus.cache()
    if folder.exists():
        print(f"{folder} is there already; remove it to make it anew")
        return
    packages = corpus.read_list(corpus.LIST)
    with downloads() as download:
        collection = corpus.collect(packages, download)
    made = corpus.assemble(collection)
    if made.digest != corpus.DIGEST:
        raise ValueError(
            f"the corpus has the digest {made.digest}, but this version of the code is for "
            f"{corpus.DIGEST}: packages.csv or a rule was changed; if that was meant, put the new "
            "digest into experiments/training/packages/corpus.py"
        )
    corpus.write(collection, made, folder)
    if chosen.datasheet:
        chosen.datasheet.write_text(datasheet(packages, collection, made.digest))
    print(f"{folder}: {len(collection.documents)} documents, digest {made.digest}")


if __name__ == "__main__":
    sys.exit(main())
