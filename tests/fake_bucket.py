"""Holds a bucket in memory: for etils through fsspec, and for TensorStore through HTTP."""

import contextlib
import http.server
import json
import threading
import urllib.parse
from collections.abc import Iterator

import fsspec
from etils.epath import backend
from fsspec.implementations.memory import MemoryFileSystem
from orbax.checkpoint._src.path import gcs_utils


class Objects(MemoryFileSystem):
    """Holds the objects of all buckets; a folder is the beginning of a name."""

    protocol = ("gs", "gcs")
    store: dict = {}  # noqa: RUF012
    pseudo_dirs = [""]  # noqa: RUF012
    exists = fsspec.AbstractFileSystem.exists

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(str(path).replace("gs://", "memory://"))

    @classmethod
    def generation(cls, name: str) -> int:
        """Returns when an object was written, in microseconds; 0 where there is none."""
        item = cls.store.get(name)
        return int(1e6 * item.modified.timestamp()) if item else 0


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers as the JSON API of Google Cloud Storage does, as far as TensorStore asks."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        bucket, name, query = self._asked()
        if not name:
            first, last = (query.get(key, "") for key in ("startOffset", "endOffset"))
            names = [n.removeprefix(f"/{bucket}/") for n in sorted(Objects.store)]
            inside = [n for n in names if first <= n and (not last or n < last)]
            items = [{"name": n, "generation": "1", "size": "1"} for n in inside]
            self._answer(200, json.dumps({"items": items}).encode())
        elif not (generation := Objects.generation(name)):
            self._answer(404)
        elif query.get("ifGenerationNotMatch") == str(generation):
            self._answer(304)
        else:
            content = Objects.store[name].getvalue()
            first, last = 0, len(content) - 1
            if "Range" in self.headers:
                first, last = self.headers["Range"].removeprefix("bytes=").split("-")
                first, last = int(first), min(int(last or len(content)), len(content) - 1)
            self.send_response(206 if "Range" in self.headers else 200)
            self.send_header("Content-Range", f"bytes {first}-{last}/{len(content)}")
            self.send_header("x-goog-generation", str(generation))
            self._end(content[first : last + 1])

    def do_POST(self):
        bucket, _, query = self._asked()
        name = f"/{bucket}/{query['name']}"
        content = self.rfile.read(int(self.headers["Content-Length"]))
        before = str(Objects.generation(name))
        if query.get("ifGenerationMatch", before) != before:
            return self._answer(412)
        fsspec.filesystem("gcs").pipe_file(name, content)
        about = {"bucket": bucket, "name": query["name"], "size": str(len(content))}
        about |= {"generation": str(Objects.generation(name))}
        self._answer(200, json.dumps(about).encode())

    def do_DELETE(self):
        Objects.store.pop(self._asked()[1], None)
        self._answer(204)

    def log_message(self, *_):
        pass

    def _asked(self):
        path, _, query = self.path.partition("?")
        _, _, rest = path.partition("/b/")
        bucket, _, name = rest.partition("/o/")
        asked = {key: values[0] for key, values in urllib.parse.parse_qs(query).items()}
        bucket = bucket.removesuffix("/o")
        return bucket, f"/{bucket}/{urllib.parse.unquote(name)}" if name else "", asked

    def _answer(self, status, content=b""):
        self.send_response(status)
        self._end(content)

    def _end(self, content):
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


@contextlib.contextmanager
def in_memory(patch) -> Iterator[type[Objects]]:
    """Puts what is called ``gs://...`` into memory; ``patch`` is a ``pytest.MonkeyPatch``."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    patch.setenv("TENSORSTORE_GCS_HTTP_URL", f"http://127.0.0.1:{server.server_port}")
    patch.setenv("GOOGLE_AUTH_TOKEN_FOR_TESTING", "none")
    for name in Objects.protocol:
        fsspec.register_implementation(name, Objects, clobber=True)
    # Google's own client, which tells one kind of bucket from another.
    patch.setattr(gcs_utils, "is_hierarchical_namespace_enabled", lambda path: False)
    backend.fsspec_backend._get_filesystem.cache_clear()
    Objects.store.clear()
    yield Objects
    backend.fsspec_backend._get_filesystem.cache_clear()
    server.shutdown()
