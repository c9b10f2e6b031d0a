"""As much of the Hugging Face hub as fetching a data set or a model takes, on loopback."""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

#: The one commit of every repository, by the revisions that lead to it.
COMMIT = "0123456789abcdef0123456789abcdef01234567"
REVISIONS = {"main", "v1", COMMIT}
OWNER = "somebody"


class _Hub(BaseHTTPRequestHandler):
    root: Path
    asked: list[str]

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        self.asked.append(self.path)
        path, _, query = self.path.partition("?")
        parts = path.strip("/").removeprefix("api/").split("/")
        if parts[0] not in ("datasets", "models"):  # files of models have no such prefix
            parts.insert(0, "models")
        _, owner, name, kind, revision, *rest = [*parts, "", "", ""]
        folder = self.root / name
        if owner == "gated":
            self._error(403, "GatedRepo")
        elif owner != OWNER or not folder.is_dir():
            self._error(401, "RepoNotFound")
        elif kind == "discussions":
            offered = [{"title": "Adding safetensors", "num": 3, "status": "open",
                        "author": {"name": "SFconvertbot"},
                        "repo": {"name": f"{owner}/{name}", "type": "model"},
                        "createdAt": "2026-01-01T00:00:00.000Z", "isPullRequest": True}]
            found = offered if (folder / "pytorch_model.bin").exists() else []
            self._answer(json.dumps({"discussions": found, "count": len(found),
                                     "start": 0}).encode())
        elif revision not in REVISIONS:
            self._error(404, "RevisionNotFound")
        elif kind == "revision":
            files = [{"rfilename": f.relative_to(folder).as_posix()}
                     for f in sorted(folder.rglob("*")) if f.is_file()]
            self._answer(json.dumps({"id": f"{owner}/{name}", "sha": COMMIT,
                                     "siblings": files}).encode())
        elif kind == "tree":
            below = folder.joinpath(*filter(None, rest))
            found = below.rglob("*") if "recursive=true" in query.lower() else below.glob("*")
            self._answer(json.dumps([self._entry(folder, f.relative_to(folder).as_posix())
                                     for f in sorted(found)]).encode())
        elif not (file := folder.joinpath(*filter(None, rest))).is_file():
            self._error(404, "EntryNotFound")
        else:
            self._answer(file.read_bytes())

    def do_POST(self) -> None:
        """What some paths of a repository are: files, folders or nothing."""
        self.asked.append(self.path)
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        folder = self.root / self.path.split("/")[4]
        found = [self._entry(folder, path) for path in asked["paths"] if (folder / path).exists()]
        self._answer(json.dumps(found).encode())

    def _entry(self, folder: Path, path: str) -> dict[str, object]:
        about: dict[str, object] = {"path": path, "oid": hashlib.sha1(path.encode()).hexdigest()}
        if (folder / path).is_dir():
            return about | {"type": "directory"}
        return about | {"type": "file", "size": (folder / path).stat().st_size}

    def _error(self, status: int, code: str) -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{hashlib.sha1(body).hexdigest()}"')
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def serving(root: Path) -> Iterator[tuple[str, list[str]]]:
    """Address of a hub whose repositories ``somebody/NAME`` are folders, and what it was asked."""
    asked: list[str] = []
    handler = type("Handler", (_Hub,), {"root": root, "asked": asked})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}", asked
        server.shutdown()
