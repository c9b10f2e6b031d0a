"""What passes by itself is waited for; what does not is said at once."""

from __future__ import annotations

import errno
import logging
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
import tenacity
from faulty_disk import Disk
from s3_server import free_port, serving
from test_store import CANARY

from prunelib.results.storage import files
from prunelib.results.storage.store import Store


class Outage(Disk):
    """A disk whose calls of one kind fail, the first ``times`` times."""

    def __init__(self, name: str, code: int, times: int) -> None:
        super().__init__("outage", 0, code)
        self.kind, self.times = name, times
        self.opened: list[str] = []

    def __getattr__(self, name: str) -> object:
        value = super().__getattr__(name)

        def call(*arguments: object) -> object:
            if name == "open" and ".tmp-" in str(arguments[0]):
                self.opened.append(str(arguments[0]))
            if name == self.kind and self.times > 0:
                self.times -= 1
                raise OSError(self.code, "injected")
            return value(*arguments)

        return call if callable(value) else value


@pytest.fixture
def naps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds that were slept between tries; nobody really sleeps."""
    found: list[float] = []
    monkeypatch.setattr(tenacity.nap, "time", SimpleNamespace(sleep=found.append))
    return found


@pytest.mark.parametrize("code", sorted(files._PASSING))
@pytest.mark.parametrize("call", ["write", "fsync", "replace"])
def test_an_outage_is_waited_for(
    call: str, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, naps: list[float],
    caplog: pytest.LogCaptureFixture,
) -> None:
    store = Store.open(tmp_path)
    store.write("canaries", "u0", [])
    disk = Outage(call, code, times=7)
    monkeypatch.setattr(files, "os", disk)
    store.write("canaries", "u1", [CANARY])
    assert store.read("canaries").to_pylist() == [CANARY]
    assert naps == [1, 2, 4, 8, 16, 30, 30]
    assert len(caplog.records) == 1 and "\n" not in caplog.text.strip()
    assert len(set(disk.opened)) >= 8 and len(set(disk.opened)) == len(disk.opened)
    assert not list(tmp_path.rglob(".tmp-*"))


def test_an_outage_that_does_not_end_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, naps: list[float]
) -> None:
    store = Store.open(tmp_path)
    monkeypatch.setattr(files, "_PATIENCE", 0.2)
    monkeypatch.setattr(files, "os", Outage("write", errno.ENOSPC, times=10**9))
    with pytest.raises(OSError, match="injected"):
        store.write("canaries", "u1", [CANARY])
    assert len(naps) > 1
    assert not store.has("canaries", "u1") and not list(tmp_path.rglob(".tmp-*"))


@pytest.mark.parametrize("code", [errno.EACCES, errno.ENOENT, errno.ENAMETOOLONG])
def test_other_errors_are_raised_at_once(
    code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, naps: list[float]
) -> None:
    store = Store.open(tmp_path)
    monkeypatch.setattr(files, "os", Outage("replace", code, times=1))
    with pytest.raises(OSError, match="injected"):
        store.write("canaries", "u1", [CANARY])
    assert naps == []


def test_an_s3_server_that_was_away(
    s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    port = free_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    with serving(port, tmp_path / "before"):
        store = Store.open(s3)
    asleep, back, over = threading.Event(), threading.Event(), threading.Event()

    def come_back() -> None:
        asleep.wait(60)
        with serving(port, tmp_path / "after"):
            back.set()
            over.wait(60)

    def sleep(seconds: float) -> None:
        asleep.set()
        back.wait(60)

    monkeypatch.setattr(tenacity.nap, "time", SimpleNamespace(sleep=sleep))
    server = threading.Thread(target=come_back)
    server.start()
    try:
        store.write("canaries", "u1", [CANARY])
        assert store.read("canaries").to_pylist() == [CANARY]
    finally:
        asleep.set()
        over.set()
        server.join()
    assert [r.levelno for r in caplog.records] == [logging.WARNING]


def test_a_unit_is_one_put(s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    with serving(port, tmp_path / "log"):
        store = Store.open(s3)
        store.write("canaries", "u1", [CANARY])
        store.files.commit("canaries/large", bytes(6 << 20))
        store.files.commit("canaries/huge", bytes(20 << 20))
        assert store.files.read("canaries/huge") == bytes(20 << 20)
    sent = [line for line in (tmp_path / "log").read_text().splitlines()
            if '"PUT' in line or '"POST' in line]
    requests = {name: sum(name in line for line in sent)
                for name in ("u1.parquet", "canaries/large", "canaries/huge")}
    assert requests["u1.parquet"] == requests["canaries/large"] == 1
    assert requests["canaries/huge"] > 1  # parts, which nobody sees before the last request
