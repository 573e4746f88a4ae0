"""Packs the results of a workdir into one small file, and restores them without training.

    python -m experiments.results.archive --workdir=runs/answers --out=docs/data/answers.tar.xz
    python -m experiments.results.archive --restore=docs/data/answers.tar.xz --workdir=runs/answers

The file has what reports read of every finished point: the config, the training losses and the
results, with seven digits a number and five in lists, and no checkpoints. After ``--restore`` the
command of the experiment trains only what is missing, on any machine; ``launch.py --report`` writes
the report without training.
"""

import argparse
import hashlib
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
from experiments.results.locks import claimed
from experiments.results.record import as_lines, read_json, write_files
from experiments.results.seal import read_evaluation, sealed
from posenc_jax.files import parsed, read_bytes

# The files of a finished point. The last one is written last, and marks the point as finished.
FILES = ("run.json", "metrics.jsonl", "evaluation.json")
# A point whose model was given lacks this file, because it was not trained.
_OF_TRAINING = "metrics.jsonl"
# A line of metrics keeps these. Speeds and norms are for whoever watches a training run.
_COLUMNS = ("step", "loss", "score")
# A float32 has seven digits; lists have losses that are averaged, or drawn.
_DIGITS, _DIGITS_IN_LISTS = 7, 5
# An archive of strangers may expand to more than the memory of this machine.
_MOST_BYTES = 2**28


def pack(workdir: Path) -> bytes:
    """Returns the archive of all finished points; the same results give the same bytes.

    Raises a ValueError if the workdir has no finished point, or a file of one is damaged or was
    changed, and an OSError if a file of one is lost.
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
    """Returns the files of a finished point by name as they are packed, all of them checked."""
    run = read_json(folder / FILES[0]) or {}
    evaluation = read_evaluation(folder, {"training": dict}, run) or {}
    contents = {FILES[0]: (folder / FILES[0]).read_bytes()}
    if evaluation["training"].get("steps") != 0:
        metrics = (folder / _OF_TRAINING).read_bytes()
        _check(folder / _OF_TRAINING, metrics)
        lines = map(json.loads, metrics.splitlines())
        rows = [{key: line[key] for key in _COLUMNS if key in line} for line in lines]
        contents[_OF_TRAINING] = as_lines(map(_shortened, rows)).encode()
    results = {k: v if k == "config" else _shortened(v) for k, v in evaluation.items()}
    return contents | {FILES[-1]: _as_json(results)}


def _as_json(value: Any) -> bytes:
    return (json.dumps(value, indent=1) + "\n").encode()


def _shortened(value: Any, digits: int = _DIGITS) -> Any:
    """Returns a value of JSON whose numbers have fewer digits, and fewer still in lists."""
    match value:
        case float():
            return float(f"{value:.{digits}g}")
        case dict():
            return {key: _shortened(inner) for key, inner in value.items()}
        case list():
            return [_shortened(inner, _DIGITS_IN_LISTS) for inner in value]
    return value


def _finished(folder: Path) -> Iterator[Path]:
    """Yields the folders of finished points, by a walk that works in a bucket too."""
    if (folder / FILES[-1]).exists():
        yield folder
    elif folder.is_dir():
        for path in folder.iterdir():
            yield from _finished(path)


def restore(packed: Path, workdir: Path) -> tuple[int, int]:
    """Writes the points of an archive into a workdir, except points that it already has.

    Returns how many points were written, and how many the workdir had. Raises a ValueError if the
    file is no archive of results, or another program is at work on a point.
    """
    points = read(packed)
    written = 0
    for place, files in points.items():
        folder = workdir / place
        if not is_in_bucket(workdir) and not folder.resolve().is_relative_to(workdir.resolve()):
            raise ValueError(f"{folder} leads out of {workdir} by a link; remove the link")
        # Finished, or begun and perhaps with checkpoints: keep it. Other files alone are what a
        # restore that was killed has left, or what a run has before it has trained anything.
        if any((folder / name).exists() for name in (FILES[-1], "checkpoints")):
            continue
        run, evaluation = json.loads(files[FILES[0]]), json.loads(files[FILES[-1]])
        metrics = files.get(_OF_TRAINING)
        digest = None if metrics is None else hashlib.sha256(metrics).hexdigest()
        contents = files | {FILES[-1]: _as_json(sealed(evaluation, run, digest))}
        with claimed(folder):
            write_files(folder, {name: contents[name] for name in FILES if name in contents})
        written += 1
    return written, len(points) - written


def read(packed: Path) -> dict[str, dict[str, bytes]]:
    """Returns the files of each point by the point's folder, all of them checked."""
    points: dict[str, dict[str, bytes]] = {}
    try:
        # Decompressed as a whole, because reading entries may not reach the checksum at the end.
        decompressor = lzma.LZMADecompressor()
        whole = decompressor.decompress(read_bytes(packed), max_length=_MOST_BYTES)
        if not decompressor.eof:
            raise ValueError(
                f"{packed} is not a complete archive of results, or expands to more than "
                f"{_MOST_BYTES >> 20} MiB, which none does"
            )
        entries = io.BytesIO(whole)
        with tarfile.open(fileobj=entries) as archive:
            for entry in archive:
                place = PurePosixPath(entry.name)
                # A sparse file may claim any size, and a link lead anywhere.
                is_plain = entry.isreg() and not entry.issparse()
                if not is_plain or place.is_absolute() or ".." in place.parts:
                    raise ValueError(f"{packed} has {entry.name!r}, which is no file of a point")
                file = archive.extractfile(entry)
                assert file is not None
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
    """Raises a ValueError unless a file is an object of JSON, or has one in each line (.jsonl)."""
    try:
        for part in content.splitlines() if path.suffix == ".jsonl" else [content]:
            if not isinstance(parsed(part), dict):
                raise ValueError("it is no object")
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
