"""The store: rows come back as they went in, and nobody ever sees half a file."""

from __future__ import annotations

import datetime as dt
import json
import os
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from results_folder import Folder

from prunelib.errors import UserError
from prunelib.results.arrow import to_table
from prunelib.results.columns import SCHEMA_VERSION
from prunelib.results.query import query
from prunelib.results.schemas import OF_UNITS, TABLES, description, words
from prunelib.results.storage.marker import MARKER
from prunelib.results.storage.store import Store

CANARY = {
    "model": "m",
    "intervention": "d",
    "token_ids": [1, 2],
    "candidates": [3],
    "logprobs": [-0.5],
    "unit_id": "u1",
}


@pytest.fixture
def store(place: str) -> Store:
    return Store.open(place)


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
        return st.floats(allow_nan=False, width=kind.bit_width)
    return st.booleans() if pa.types.is_boolean(kind) else st.text(max_size=5)


def rows_of(table: str) -> st.SearchStrategy[list[dict[str, Any]]]:
    columns = {
        field.name: st.sampled_from(sorted(known)) if (known := words(field)) else (
            st.none() | values_of(field.type) if field.nullable else values_of(field.type))
        for field in TABLES[table]
    }
    if table in OF_UNITS:
        columns["unit_id"] = st.just("u1")
    return st.lists(st.fixed_dictionaries(columns), max_size=4)


@given(st.data())
@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_rows_come_back(store: Store, data: st.DataObject) -> None:
    table = data.draw(st.sampled_from(sorted(TABLES)))
    rows = data.draw(rows_of(table))
    name = store.write(table, "u1", rows)
    assert store.read(table, ["u1"]).to_pylist() == rows
    assert store.read(table, ["u1"]).schema.equals(TABLES[table], check_metadata=True)
    with store.files.filesystem.open_input_file(store.files.path(name)) as handle:
        metadata = pq.read_schema(handle).metadata
    assert metadata[b"schema_version"] == str(SCHEMA_VERSION).encode()


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
    assert store.read("interventions").schema.equals(TABLES["interventions"])
    with pytest.raises(FileNotFoundError):
        store.read("canaries", ["u4"])


def test_done_and_has(store: Store) -> None:
    assert store.done("canaries") == set()
    assert not store.has("canaries", "u1")
    store.write("canaries", "u1", [CANARY])
    store.write("canaries", "u2", [])  # a unit may have nothing to say and still be done
    store.files.commit("canaries/.tmp-1", b"half")
    store.files.commit("canaries/README", b"not ours")
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
        "status": "done", "worker": None, "attempt": 1, "batch_halvings": 0, "seconds": 1,
        "start_seconds": None, "switch_seconds": None,
        "peak_memory_mb": None, "gpus": None, "error_kind": None, "error_text": None,
        "started_at": None, "finished_at": dt.datetime.now(dt.UTC),
    }  # fmt: skip
    store.write("units", "u1", [row])
    with pytest.raises(ValueError, match=r"units.finished_at"):
        store.write("units", "u2", [row | {"finished_at": dt.datetime(2026, 1, 1)}])  # noqa: DTZ001


@pytest.mark.parametrize("unit_id", ["", "../u", "a/b", "a.b", "A", "a\n", ".tmp-x", "a b", "ü"])
def test_no_unit_id_leaves_the_folder(store: Store, unit_id: str) -> None:
    with pytest.raises(ValueError, match="unit id"):
        store.write("canaries", unit_id, [CANARY])
    with pytest.raises(KeyError):
        store.write("../other", "u1", [CANARY])


def test_a_rewrite_counts_instead_of_what_was_there(store: Store) -> None:
    for model in ("first", "second", "third"):
        store.write("canaries", "u1", [CANARY | {"model": model}])
        assert store.read("canaries")["model"].to_pylist() == [model]
    assert query(store.location, "SELECT model FROM canaries").to_pylist() == [{"model": "third"}]
    assert store.done("canaries") == {"u1"}


def test_open_writes_the_version_once(store: Store) -> None:
    marker = store.files.read(MARKER)
    assert json.loads(marker)["schema_version"] == SCHEMA_VERSION
    assert Store.open(store.location).location == store.location
    assert list(store.files.list("")) == [MARKER] and store.files.read(MARKER) == marker


def test_open_refuses_another_version(store: Store) -> None:
    store.files.commit(MARKER, b'{"schema_version": 99}')
    with pytest.raises(UserError, match="schema version 99, which this prunelib"):
        Store.open(store.location)


def test_rows_are_those_of_their_unit(store: Store) -> None:
    with pytest.raises(ValueError, match="rows of unit u1 as those of u2"):
        store.write("canaries", "u2", [CANARY])
    assert store.done("canaries") == set()


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


@pytest.mark.parametrize("create", [True, False], ids=["write", "read"])
def test_open_says_what_is_wrong_with_s3(
    s3: str, monkeypatch: pytest.MonkeyPatch, create: bool
) -> None:
    wrong = {
        "s3://no-such-bucket/out": "there is no such bucket",
        "s3://": "names no bucket",
        "gs://bucket/out": "s3://bucket/prefix, not gs://",
        Path(s3): "has lost a slash",
    }
    for location, message in wrong.items():
        with pytest.raises(UserError, match=message):
            Store.open(location, create)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(UserError, match="no answer from S3"):
        Store.open(s3, create)


def test_open_without_credentials(s3: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    Store.open(s3)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    with pytest.raises(UserError, match="access denied: check AWS_ACCESS_KEY_ID"):
        Store.open(s3)


def test_open_for_reading_wants_results(store: Store) -> None:
    for location in (f"{store.location}-missing", store.location):
        with pytest.raises(UserError):
            Store.open(location, create=False)
    assert not store.files.exists("../out-missing")
    store.write("canaries", "u1", [CANARY])
    assert Store.open(store.location, create=False).done("canaries") == {"u1"}


def test_only_old_leftovers_are_removed(tmp_path: Path) -> None:
    store = Store.open(tmp_path)
    path = tmp_path / store.write("canaries", "u1", [CANARY])
    old, young = (tmp_path / "canaries" / f".tmp-{age}" for age in ("old", "young"))
    for leftover in (old, young):
        leftover.write_bytes(b"half")
    two_hours_ago = time.time() - 7200
    os.utime(old, (two_hours_ago, two_hours_ago))
    os.utime(path, (two_hours_ago, two_hours_ago))
    Store.open(tmp_path, create=False)
    assert old.exists()
    Store.open(tmp_path)
    assert not old.exists()
    assert young.exists()
    assert store.has("canaries", "u1")


def test_every_table_and_column_is_described() -> None:
    for name, schema in TABLES.items():
        assert schema.metadata[b"schema_version"] == str(SCHEMA_VERSION).encode()
        for item in (schema, *schema):
            assert description(item), name
            assert "\n" not in description(item)
