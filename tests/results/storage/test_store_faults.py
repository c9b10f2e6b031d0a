"""Whatever goes wrong, and wherever: what was acknowledged is there once, and a retry finishes."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from faulty_disk import Disk, Killed
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from prunelib.errors import UserError
from prunelib.results.query import query
from prunelib.results.schemas import TABLES
from prunelib.results.storage import compaction, files, intact
from prunelib.results.storage import store as store_module
from prunelib.results.storage.compaction import compact
from prunelib.results.storage.store import Store

Model = dict[str, list[dict[str, Any]]]
Step = tuple[str, str, list[dict[str, Any]]]
SQL = duckdb.connect()
FAULTS = ("error", "power-data", "power-names")


def canaries(unit_id: str, count: int, text: str = "m") -> list[dict[str, Any]]:
    return [{"model": text, "intervention": "d", "token_ids": [i], "candidates": [],
             "logprobs": [0.1], "unit_id": unit_id} for i in range(count)]


def write(unit_id: str, count: int, text: str = "m") -> Step:
    return ("write", unit_id, canaries(unit_id, count, text))


WORKLOAD: list[Step] = [
    write("u1", 2),
    write("u2", 0),
    ("compact", "", []),
    write("u1", 1, "again"),
    ("compact", "", []),
]


def perform(location: str, steps: list[Step], done: Callable[[], Any]) -> None:
    """Open the store and take the steps; ``done()`` after each."""
    store = Store.open(location)
    for kind, unit_id, rows in steps:
        if kind == "write":
            store.write("canaries", unit_id, rows)
        else:
            compact(store, grace=0)
        done()


def expected(steps: list[Step]) -> Model:
    return {unit_id: rows for kind, unit_id, rows in steps if kind == "write"}


def found(location: str) -> Model:
    """What the store shows, by its ids and by SQL over the whole table, which must agree."""
    store = Store(files.open_files(location))
    ids = sorted(store.done("canaries"))
    by_id = {unit_id: store.read("canaries", [unit_id]).to_pylist() for unit_id in ids}
    assert all(store.has("canaries", unit_id) for unit_id in ids)
    content = store.dataset("canaries", store.current("canaries"))
    everything = SQL.register("t", content).sql("FROM t").to_arrow_table().to_pylist()
    assert in_order(everything) == in_order([row for rows in by_id.values() for row in rows])
    return by_id


def in_order(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(rows, key=repr)


def taken(location: str, disk: Disk, monkeypatch: pytest.MonkeyPatch) -> tuple[int, bool]:
    """Steps of the workload that were acknowledged before the fault, and whether all were."""
    acknowledged: list[int] = []
    try:
        with monkeypatch.context() as patch:
            patch.setattr(files, "os", disk)
            perform(location, WORKLOAD, lambda: acknowledged.append(1))
    except (OSError, UserError, Killed):
        return len(acknowledged), False
    return len(acknowledged), True


def taken_by_a_child(location: str, disk: Disk, monkeypatch: pytest.MonkeyPatch
                     ) -> tuple[int, bool]:
    """The same in a process that is killed with SIGKILL."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        files.os = disk  # type: ignore[attr-defined]
        perform(location, WORKLOAD, lambda: os.write(writing, b"."))
        os._exit(0)
    os.close(writing)
    _, status = os.waitpid(child, 0)
    with os.fdopen(reading, "rb") as acknowledged:
        return len(acknowledged.read()), status == 0


@pytest.fixture
def one_table(monkeypatch: pytest.MonkeyPatch) -> None:
    """Opening and compacting look at one table only: fewer places to fail, all of a kind."""
    for module in (store_module, compaction):
        monkeypatch.setattr(module, "TABLES", {"canaries": TABLES["canaries"]})


@pytest.mark.usefixtures("one_table")
@pytest.mark.parametrize("fault", [
    *FAULTS, pytest.param("kill", marks=pytest.mark.long)])
def test_every_call_may_be_the_last(
    fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempt = taken_by_a_child if fault == "kill" else taken
    for at in range(1, 1000):
        location = str(tmp_path / str(at))
        disk = Disk(fault, at)
        count, finished = attempt(location, disk, monkeypatch)
        rows = found(location)
        assert rows in (expected(WORKLOAD[:count]), expected(WORKLOAD[: count + 1])), at
        # A step may survive an error, and leave a file to the next compaction. What a child counted
        # is not seen here, but it was killed.
        if finished and disk.seen < at:
            break
        perform(location, WORKLOAD[count:] or WORKLOAD[-1:], lambda: None)
        assert found(location) == expected(WORKLOAD), at
        assert len(list(Path(location, "canaries").glob("*.parquet"))) == 0, at
        shutil.rmtree(location)
    assert finished and at > 30


class Results(RuleBasedStateMachine):
    """Any sequence of writes, compactions, crashes and power cuts, against a dict."""

    units = st.sampled_from(["u1", "u2", "u3", "u4"])
    faults = st.sampled_from(["error", "crash", "power-data", "power-names"])

    @initialize()
    def begin(self) -> None:
        self.patch = pytest.MonkeyPatch()
        for module in (store_module, intact):  # so that the n-th call is always the same
            self.patch.setattr(module, "in_threads", lambda act, items: list(map(act, items)))
        self.folder = tempfile.TemporaryDirectory()
        self.store = Store.open(self.folder.name)
        self.model: Model = {}
        self.readers: list[tuple[Any, list[dict[str, Any]]]] = []
        self.counter = 0

    def teardown(self) -> None:
        if self.model:
            counted = query(self.folder.name, "SELECT count(*) AS n FROM canaries").to_pylist()
            assert counted == [{"n": sum(map(len, self.model.values()))}]
        self.folder.cleanup()
        self.patch.undo()

    def new_rows(self, unit_id: str, count: int) -> list[dict[str, Any]]:
        self.counter += 1
        return canaries(unit_id, count, f"writing {self.counter}")

    @rule(unit_id=units, count=st.integers(0, 3))
    def write(self, unit_id: str, count: int) -> None:
        self.model[unit_id] = self.new_rows(unit_id, count)
        self.store.write("canaries", unit_id, self.model[unit_id])

    @rule(unit_id=units, count=st.integers(0, 3), fault=faults, at=st.integers(1, 14))
    def write_on_a_faulty_disk(self, unit_id: str, count: int, fault: str, at: int) -> None:
        rows = self.new_rows(unit_id, count)
        before = self.model.get(unit_id)
        if self.survives(fault, at, lambda: self.store.write("canaries", unit_id, rows)):
            self.model[unit_id] = rows
            return
        now = found(self.folder.name).get(unit_id)
        assert now in (before, rows)
        if now is not None:
            self.model[unit_id] = now

    @rule(at=st.integers(1, 40), fault=faults, grace=st.sampled_from([0, 3600]))
    def compact_on_a_faulty_disk(self, at: int, fault: str, grace: int) -> None:
        self.forget_readers(grace)
        self.survives(fault, at, lambda: compact(self.store, grace))

    @rule(grace=st.sampled_from([0, 3600]))
    def compact(self, grace: int) -> None:
        self.forget_readers(grace)
        compact(self.store, grace)

    @rule()
    def two_compactions_at_once(self) -> None:
        """Both look before either commits: the second one's files repeat the first one's."""
        sources = compaction._sources(self.store, "canaries")
        for batch in compaction._batches(self.store, "canaries", sources):
            compact(self.store)
            compaction._merge(self.store, "canaries", batch)

    @rule()
    def another_process(self) -> None:
        self.store = Store.open(self.folder.name)

    @rule()
    def open_a_reader(self) -> None:
        rows = [row for rows in self.model.values() for row in rows]
        self.readers.append((self.store.dataset("canaries", self.store.current("canaries")), rows))

    @invariant()
    def readers_still_see_what_was_there(self) -> None:
        for content, rows in self.readers:
            content = content if isinstance(content, pa.Table) else content.to_table()
            assert in_order(content.to_pylist()) == in_order(rows)

    @invariant()
    def the_store_shows_the_model(self) -> None:
        assert found(self.folder.name) == self.model

    def forget_readers(self, grace: int) -> None:
        """Without grace, those who opened the results earlier have to open them again."""
        if not grace:
            self.readers.clear()

    def survives(self, fault: str, at: int, action: Callable[[], Any]) -> bool:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(files, "os", Disk(fault, at))
            try:
                action()
            except (OSError, UserError):
                return False
            except Killed:
                pass
            else:
                return True
        self.store = Store.open(self.folder.name)
        return False


TestResults = Results.TestCase
TestResults.settings = settings(max_examples=25, stateful_step_count=15, deadline=None)
