"""The store: rows come back as they went in, and nobody ever sees half a file."""

from __future__ import annotations

import datetime as dt
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from results_folder import Folder

from prunelib.errors import UserError
from prunelib.results import store as store_module
from prunelib.results.query import query
from prunelib.results.schemas import SCHEMA_VERSION, TABLES, description, to_table
from prunelib.results.store import MARKER, Store

CANARY = {
    "model": "m",
    "ablation": "d",
    "token_ids": [1, 2],
    "candidates": [3],
    "logprobs": [-0.5],
    "unit_id": "u1",
}


class Killed(BaseException):
    """The process ends here: nothing that runs afterwards may matter."""


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "out")


def values_of(kind: pa.DataType) -> st.SearchStrategy[Any]:
    if pa.types.is_list(kind):
        return st.lists(values_of(kind.value_type), max_size=3)
    if pa.types.is_timestamp(kind):
        earliest, latest = dt.datetime(1990, 1, 1), dt.datetime(2090, 1, 1)  # noqa: DTZ001
        return st.datetimes(earliest, latest, timezones=st.just(dt.UTC))
    bits = {pa.int32(): 31, pa.int64(): 63}.get(kind)
    if bits:
        return st.integers(-(2**bits), 2**bits - 1)
    if pa.types.is_floating(kind):
        return st.floats(allow_nan=False)
    return st.booleans() if pa.types.is_boolean(kind) else st.text(max_size=5)


def rows_of(table: str) -> st.SearchStrategy[list[dict[str, Any]]]:
    columns = {
        field.name: st.none() | values_of(field.type) if field.nullable else values_of(field.type)
        for field in TABLES[table]
    }
    return st.lists(st.fixed_dictionaries(columns), max_size=4)


@given(st.data())
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_rows_come_back(store: Store, data: st.DataObject) -> None:
    table = data.draw(st.sampled_from(sorted(TABLES)))
    rows = data.draw(rows_of(table))
    path = store.write(table, "u1", rows)
    assert store.read(table, ["u1"]).to_pylist() == rows
    assert store.read(table, ["u1"]).schema.equals(TABLES[table], check_metadata=True)
    assert pq.read_schema(path).metadata[b"schema_version"] == str(SCHEMA_VERSION).encode()


def test_a_table_can_be_written_as_arrow(store: Store) -> None:
    table = to_table("canaries", [CANARY])
    shuffled = table.select(table.column_names[::-1]).replace_schema_metadata(None)
    store.write("canaries", "u1", shuffled)
    assert store.read("canaries").to_pylist() == [CANARY]


def test_reading_keeps_the_order_asked_for(store: Store) -> None:
    for unit_id in ("u2", "u1", "u3"):
        store.write("canaries", unit_id, [CANARY | {"unit_id": unit_id}])
    assert store.read("canaries")["unit_id"].to_pylist() == ["u1", "u2", "u3"]
    assert store.read("canaries", ["u3", "u1"])["unit_id"].to_pylist() == ["u3", "u1"]
    assert store.read("canaries", []).num_rows == 0
    assert store.read("ablations").schema.equals(TABLES["ablations"])
    with pytest.raises(FileNotFoundError):
        store.read("canaries", ["u4"])


def test_done_and_has(store: Store) -> None:
    assert store.done("canaries") == set()
    assert not store.has("canaries", "u1")
    store.write("canaries", "u1", [CANARY])
    store.write("canaries", "u2", [])  # a unit may have nothing to say and still be done
    (store.table_dir("canaries") / ".tmp-1").write_bytes(b"half")
    (store.table_dir("canaries") / "README").write_text("not ours")
    assert store.done("canaries") == {"u1", "u2"}
    assert store.has("canaries", "u2")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": None}, "canaries.model holds 1 nulls"),
        ({"model": 3}, "canaries.model"),
        ({"model": b"m"}, "canaries.model"),
        ({"token_ids": [True]}, "canaries.token_ids"),
        ({"token_ids": [None]}, "canaries.token_ids"),
        ({"logprobs": [False]}, "canaries.logprobs"),
        ({"logprobs": 0.5}, "canaries.logprobs"),
        ({"token_ids": [1.5]}, "canaries.token_ids"),
        ({"token_ids": [2**31]}, "canaries.token_ids"),
        ({"token_ids": "12"}, "canaries.token_ids"),
        ({"logprobs": ["x"]}, "canaries.logprobs"),
        ({"extra": 1}, r"unknown \['extra'\]"),
    ],
)
def test_rows_that_do_not_fit_are_refused(
    store: Store, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        store.write("canaries", "u1", [CANARY, CANARY | change])
    assert not store.has("canaries", "u1")


def test_missing_columns_and_wrong_types_are_refused(store: Store) -> None:
    short = {k: v for k, v in CANARY.items() if k != "model"}
    with pytest.raises(ValueError, match=r"missing \['model'\]"):
        store.write("canaries", "u1", [short])
    floats = pa.table({**{k: [v] for k, v in CANARY.items()}, "model": [1.0]})
    with pytest.raises(ValueError, match=r"canaries.model is double, not string"):
        store.write("canaries", "u1", floats)


def test_a_text_is_no_list_of_texts(folder: Folder) -> None:
    folder.answers("ig", "1", answers="ab")
    with pytest.raises(ValueError, match=r"predictions.answers"):
        folder.write()


def test_times_name_their_zone(store: Store) -> None:
    row = {
        "run": "r-1", "unit_id": "u1", "stage": "search", "model": None, "detail": None,
        "status": "done", "worker": None, "attempt": 1, "halvings": 0, "seconds": 1,
        "peak_memory_mb": None, "error_kind": None, "error_text": None,
        "finished_at": dt.datetime.now(dt.UTC),
    }  # fmt: skip
    store.write("units", "u1", [row])
    with pytest.raises(ValueError, match=r"units.finished_at"):
        store.write("units", "u2", [row | {"finished_at": dt.datetime(2026, 1, 1)}])  # noqa: DTZ001


@pytest.mark.parametrize("unit_id", ["", "../u", "a/b", "a.b", "A", "a\n", ".tmp-x", "a b", "ü"])
def test_no_unit_id_leaves_the_folder(store: Store, unit_id: str) -> None:
    with pytest.raises(ValueError, match="unit id"):
        store.write("canaries", unit_id, [CANARY])
    with pytest.raises(KeyError):
        store.path("../other", "u1")


def _kill_at(step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def half_a_file(table: pa.Table, handle: Any, **options: Any) -> None:
        handle.write(b"PAR1 and then nothing")
        raise Killed

    def die(*args: Any, **options: Any) -> None:
        raise Killed

    calls = {"n": 0}
    real = os.fsync

    def die_at_the_second(descriptor: int) -> None:
        calls["n"] += 1
        if calls["n"] == 2:
            raise Killed
        real(descriptor)

    faults: dict[str, Callable[[], None]] = {
        "open": lambda: monkeypatch.setattr(Path, "open", die),
        "write": lambda: monkeypatch.setattr(store_module.pq, "write_table", half_a_file),
        "fsync": lambda: monkeypatch.setattr(os, "fsync", die),
        "rename": lambda: monkeypatch.setattr(Path, "replace", die),
        "fsync of the directory": lambda: monkeypatch.setattr(os, "fsync", die_at_the_second),
    }
    faults[step]()


@pytest.mark.parametrize("cleanup", [True, False], ids=["exception", "kill"])
@pytest.mark.parametrize("before", [True, False], ids=["rewrite", "new"])
@pytest.mark.parametrize("step", ["open", "write", "fsync", "rename", "fsync of the directory"])
def test_a_write_that_dies_leaves_nothing_or_the_whole_file(
    store: Store, monkeypatch: pytest.MonkeyPatch, step: str, before: bool, cleanup: bool
) -> None:
    old, new = [CANARY], [CANARY | {"model": "new"}]
    if before:
        store.write("canaries", "u1", old)
    with monkeypatch.context() as patch:
        _kill_at(step, patch)
        if not cleanup:  # a killed process does not tidy up either
            patch.setattr(Path, "unlink", lambda *args, **options: None)
        with pytest.raises(Killed):
            store.write("canaries", "u1", new)
    visible = new if step == "fsync of the directory" else old if before else []
    assert store.done("canaries") == ({"u1"} if visible else set())
    assert store.read("canaries").to_pylist() == visible
    if visible:
        assert query(store.root, "FROM canaries").to_pylist() == visible
    leftovers = [p for p in store.table_dir("canaries").iterdir() if p.name.startswith(".tmp-")]
    assert len(leftovers) == (not cleanup and step in ("write", "fsync", "rename"))
    store.write("canaries", "u1", new)
    assert store.read("canaries").to_pylist() == new


def test_open_writes_the_version_once(tmp_path: Path) -> None:
    root = tmp_path / "a" / "b"
    Store.open(root)
    marker = root / MARKER
    assert json.loads(marker.read_text()) == {"schema_version": SCHEMA_VERSION}
    written = marker.stat().st_mtime_ns
    Store.open(root)
    assert marker.stat().st_mtime_ns == written
    assert [p.name for p in root.iterdir()] == [MARKER]


def test_open_refuses_another_version(tmp_path: Path) -> None:
    (tmp_path / MARKER).write_text('{"schema_version": 99}')
    with pytest.raises(UserError, match="schema version 99, this prunelib writes 1"):
        Store.open(tmp_path)
    (tmp_path / MARKER).write_text("not json")
    with pytest.raises(UserError, match="damaged"):
        Store.open(tmp_path)


def test_open_refuses_what_it_cannot_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    for root in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(UserError, match="cannot write results") as caught:
            Store.open(root)
        assert "\n" not in str(caught.value)
    Store.open(tmp_path / "out")
    monkeypatch.setattr(os, "access", lambda *args: False)  # root may write anywhere
    with pytest.raises(UserError, match="permission denied"):
        Store.open(tmp_path / "out")


def test_open_for_reading_wants_results(tmp_path: Path, store: Store) -> None:
    for root in (tmp_path / "missing", store.root):
        with pytest.raises(UserError):
            Store.open(root, create=False)
    assert not (tmp_path / "missing").exists()
    store.write("canaries", "u1", [CANARY])
    assert Store.open(store.root, create=False).done("canaries") == {"u1"}


def test_only_old_leftovers_are_removed(store: Store) -> None:
    store.write("canaries", "u1", [CANARY])
    old, young = (store.table_dir("canaries") / f".tmp-{age}" for age in ("old", "young"))
    for path in (old, young):
        path.write_bytes(b"half")
    two_hours_ago = time.time() - 7200
    os.utime(old, (two_hours_ago, two_hours_ago))
    os.utime(store.path("canaries", "u1"), (two_hours_ago, two_hours_ago))
    Store.open(store.root, create=False)
    assert old.exists()
    Store.open(store.root)
    assert not old.exists()
    assert young.exists()
    assert store.has("canaries", "u1")


def test_every_table_and_column_is_described() -> None:
    for name, schema in TABLES.items():
        assert schema.metadata[b"schema_version"] == str(SCHEMA_VERSION).encode()
        for item in (schema, *schema):
            assert description(item), name
            assert "\n" not in description(item)
