"""Packs the results of a workdir into one small file, and restores them without training.

    python -m experiments.results.archive --workdir=runs/answers --out=docs/data/answers.tar.xz
    python -m experiments.results.archive --restore=docs/data/answers.tar.xz --workdir=runs/answers

The file has the results and the training metrics of every finished point, and no checkpoints. After
``--restore`` the command of the experiment trains only what is missing, on any machine;
``launch.py --report`` writes the report without training.
"""

import argparse
import io
import json
import lzma
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from experiments.command import exit_status
from experiments.results.bucket import folder_at, is_in_bucket
from experiments.results.record import claimed, read_json, write_files

# The files of a finished point. The last one is written last, and marks the point as finished.
FILES = ("run.json", "metrics.jsonl", "evaluation.json")
# A point whose model was given lacks this file, because it was not trained.
_OF_TRAINING = "metrics.jsonl"
# An archive of strangers may expand to more than the memory of this machine.
_MOST_BYTES = 2**28


def pack(workdir: Path) -> bytes:
    """Returns the archive of all finished points; the same results give the same bytes.

    Raises:
      ValueError: the workdir has no finished point, or a file of one is damaged.
      OSError: a file of one is lost.
    """
    packed = io.BytesIO()
    folders = sorted(_finished(workdir))
    if not folders:
        raise ValueError(f"--workdir={workdir} has no finished point; give a folder of results")
    with tarfile.open(fileobj=packed, mode="w:xz", preset=9) as archive:
        for folder in folders:
            for name, content in _contents(folder).items():
                entry = tarfile.TarInfo((folder / name).relative_to(workdir).as_posix())
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))
    return packed.getvalue()


def _contents(folder: Path) -> dict[str, bytes]:
    """Returns the files of a finished point by name, all of them checked."""
    contents = {}
    training = read_json(folder / FILES[-1], {"training": dict})["training"]
    for name in FILES:
        if name != _OF_TRAINING or training.get("steps") != 0:
            contents[name] = (folder / name).read_bytes()
            _check(folder / name, contents[name])
    return contents


def _finished(folder: Path) -> Iterator[Path]:
    """Yields the folders of finished points, by a walk that works in a bucket too."""
    if (folder / FILES[-1]).exists():
        yield folder
    elif folder.is_dir():
        for path in folder.iterdir():
            yield from _finished(path)


def restore(packed: Path, workdir: Path) -> tuple[int, int]:
    """Writes the points of an archive into a workdir, except points that it already has.

    Returns:
      How many points were written, and how many the workdir had.

    Raises:
      ValueError: the file is no archive of results, or another program is at work on a point.
    """
    points = read(packed)
    written = 0
    for place, files in points.items():
        folder = workdir / place
        if not is_in_bucket(workdir) and not folder.resolve().is_relative_to(workdir.resolve()):
            raise ValueError(f"{folder} leads out of {workdir} by a link; remove the link")
        if (folder / FILES[0]).exists():  # finished or begun, and may have checkpoints: keep it
            continue
        with claimed(folder):
            write_files(folder, {name: files[name] for name in FILES if name in files})
        written += 1
    return written, len(points) - written


def read(packed: Path) -> dict[str, dict[str, bytes]]:
    """Returns the files of each point by the point's folder, all of them checked."""
    points: dict[str, dict[str, bytes]] = {}
    try:
        # Decompressed as a whole, because reading entries may not reach the checksum at the end.
        decompressor = lzma.LZMADecompressor()
        whole = decompressor.decompress(packed.read_bytes(), max_length=_MOST_BYTES)
        if not decompressor.eof:
            raise ValueError(
                f"{packed} is not a complete archive of results, or expands to more than "
                f"{_MOST_BYTES >> 20} MiB, which none does"
            )
        entries = io.BytesIO(whole)
        with tarfile.open(fileobj=entries) as archive:
            for entry in archive:
                place = PurePosixPath(entry.name)
                file = archive.extractfile(entry)
                if file is None or place.is_absolute() or ".." in place.parts:
                    raise ValueError(f"{packed} has {entry.name!r}, which is no file of a point")
                points.setdefault(str(place.parent), {})[place.name] = file.read()
    except (tarfile.TarError, lzma.LZMAError) as error:
        raise ValueError(f"{packed} is not a complete archive of results: {error}") from None
    for folder, files in points.items():
        if {*files, _OF_TRAINING} != {*FILES}:
            raise ValueError(
                f"{packed} has {', '.join(sorted(files))} of {folder}; a point has "
                f"{', '.join(FILES)}. Make the archive again"
            )
        for name, content in files.items():
            _check(PurePosixPath(folder, name), content)
    return points


def records(packed: Path) -> list[dict[str, Any]]:
    """Returns what was measured at all points of an archive, one record for each number."""
    evaluations = (json.loads(files[FILES[-1]]) for files in read(packed).values())
    return [record for evaluation in evaluations for record in evaluation["records"]]


def measured(workdir: Path) -> list[dict[str, Any]]:
    """Returns what was measured at all finished points of a workdir, as ``records`` does."""
    paths = (folder / FILES[-1] for folder in sorted(_finished(workdir)))
    return [record for path in paths for record in read_json(path, {"records": list})["records"]]


def _check(path, content):
    """Raises a ValueError unless a file is JSON, or has a value of JSON in each line (.jsonl)."""
    try:
        for part in content.splitlines() if path.suffix == ".jsonl" else [content]:
            json.loads(part)
    except ValueError as error:
        raise ValueError(
            f"{path} is damaged, and cannot be read as JSON: {error}. Delete its folder, and run "
            "the experiment again"
        ) from None


@exit_status
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workdir", required=True, help="folder of an experiment")
    way = parser.add_mutually_exclusive_group(required=True)
    way.add_argument("--out", type=Path, help="archive to write")
    way.add_argument("--restore", type=Path, help="archive to bring back into the workdir")
    args = parser.parse_args()
    workdir = folder_at(args.workdir)
    if args.out:
        packed = pack(workdir)
        write_files(args.out.parent, {args.out.name: packed})
        print(f"archive: {args.out}, {len(packed) / 1024:.0f} KiB")
    else:
        written, had = restore(args.restore, workdir)
        print(f"{written} points restored; {args.workdir} already had {had}")


if __name__ == "__main__":
    sys.exit(main())
