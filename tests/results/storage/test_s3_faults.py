"""An S3 that is busy, slow, full of keys, or shared by two writers."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from rich.console import Console
from test_store import CANARY

from jobs.watch import watch_run
from prunelib.errors import UserError
from prunelib.results.arrow import to_table
from prunelib.results.query import query
from prunelib.results.storage.compaction import compact
from prunelib.results.storage.rows import parquet
from prunelib.results.storage.seal import sealed
from prunelib.results.storage.store import Store
from prunelib.results.storage.verify import verify


class Gate(ThreadingHTTPServer):
    """Hands requests on to an S3 server; ``before`` may answer one with a status instead."""

    daemon_threads = True

    def __init__(self, address: str) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.behind = address.removeprefix("http://")
        self.before: Callable[[str, str], int | None] = lambda method, path: None
        self.busy: list[str] = []


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Gate

    def _hand_on(self) -> None:
        body = self._body()
        status = self.server.before(self.command, self.path)
        if status is not None:
            self.server.busy.append(self.path)
            self._answer(status, [], b"")
            return
        behind = http.client.HTTPConnection(self.server.behind, timeout=60)
        headers = {name: value for name, value in self.headers.items()
                   if name.lower() not in ("transfer-encoding", "expect")}
        behind.request(self.command, self.path, body, headers)
        answer = behind.getresponse()
        self._answer(answer.status, answer.getheaders(), answer.read())
        behind.close()

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _hand_on

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _answer(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        self.send_response(status)
        length = {name.lower(): value for name, value in headers}.get("content-length", len(body))
        for name, value in headers:
            if name.lower() not in ("content-length", "transfer-encoding", "connection", "date",
                                    "server"):
                self.send_header(name, value)
        self.send_header("Content-Length", str(length if self.command == "HEAD" else len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def gate(s3_server: str, s3: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    """A gate before the S3 server, which the environment names."""
    with Gate(s3_server) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
        yield server
        server.shutdown()
        thread.join()


def canary(unit_id: str, **changes: Any) -> dict[str, Any]:
    return CANARY | {"unit_id": unit_id} | changes


def test_a_busy_and_slow_server_loses_nothing(gate: Gate, s3: str) -> None:
    """The first request for a file is answered by 503, the next ones late."""
    import time

    seen: set[tuple[str, str]] = set()

    def before(method: str, path: str) -> int | None:
        if path.endswith(".parquet") and (method, path) not in seen:
            seen.add((method, path))
            return 503
        time.sleep(0.05)
        return None

    store = Store.open(s3)
    gate.before = before
    for unit in ("u1", "u2"):
        store.write("canaries", unit, [canary(unit)])
    assert Store.open(s3, create=False).done("canaries") == {"u1", "u2"}
    compact(store, 0)
    assert query(s3, "SELECT count(*) AS n FROM canaries").to_pylist() == [{"n": 2}]
    assert not verify(s3).damage and len(gate.busy) >= 6
    assert store.read("canaries")["unit_id"].to_pylist() == ["u1", "u2"]


def test_a_file_that_cannot_be_had_now_is_not_damaged(gate: Gate, s3: str) -> None:
    Store.open(s3).write("canaries", "u1", [CANARY])
    gate.before = lambda method, path: 503 if path.endswith("u1.parquet") else None
    with pytest.raises(UserError, match="no answer from S3"):
        query(s3, "SELECT 1")


def test_two_writers_of_one_unit(s3: str) -> None:
    """Both believe to be first; one of them counts, whole."""
    stores = [Store.open(s3) for _ in range(4)]

    def write(at: int) -> None:
        for _ in range(3):
            stores[at].write("canaries", "u1", [canary("u1", model=f"m{at}")] * (at + 1))

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(write, range(4)))
    found = Store.open(s3, create=False).read("canaries")
    (model,) = set(found["model"].to_pylist())
    assert found.num_rows == int(model[1:]) + 1 and not verify(s3).damage


def test_a_damaged_object_is_set_aside(s3: str) -> None:
    store = Store.open(s3)
    for unit in ("u1", "u2"):
        store.write("canaries", unit, [canary(unit)])
    content = bytearray(store.files.read("canaries/u1.parquet"))
    content[40] ^= 1
    store.files.commit("canaries/u1.parquet", bytes(content))
    assert query(s3, "SELECT unit_id FROM canaries").to_pylist() == [{"unit_id": "u2"}]
    assert not store.has("canaries", "u1")
    store.set_aside(store.damage())
    assert not verify(s3).damage and list(store.files.list("damaged/canaries"))
    store.write("canaries", "u1", [CANARY])
    assert store.done("canaries") == {"u1", "u2"}


@pytest.mark.long
def test_more_keys_than_s3_lists_at_a_time(s3: str) -> None:
    """It lists a thousand."""
    store = Store.open(s3)
    ids = [f"u{i}" for i in range(1010)]

    def commit(unit: str) -> None:  # as `write` does, which first looks at what is there
        name = f"canaries/{unit}.parquet"
        content = parquet("canaries", to_table("canaries", [canary(unit)]))
        store.files.commit(name, sealed(name, content))

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(commit, ids))
    other = Store.open(s3, create=False)
    assert other.done("canaries") == set(ids)
    assert query(s3, "SELECT count(*) AS n FROM canaries").to_pylist() == [{"n": len(ids)}]
    before: pa.Table = other.read("canaries")
    compact(store, 0)
    assert Store.open(s3, create=False).read("canaries").equals(before)
    assert len(store.files.list("canaries")) == 0


def test_watching_without_access_ends(
    s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Store.open(s3)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    console = Console(file=(tmp_path / "said").open("w"))
    for place, message in ((s3, "access denied: check AWS_ACCESS_KEY_ID"),
                           ("gs://bucket/x", "not gs://")):
        with pytest.raises(UserError, match=message) as caught:
            watch_run(place, None, console, seconds=0.1)
        assert "\n" not in str(caught.value)
