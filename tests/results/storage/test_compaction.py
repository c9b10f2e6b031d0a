"""Compaction: the same rows in fewer files, while others write and read."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from results_folder import Folder

from jobs import cli
from prunelib.errors import UserError
from prunelib.results.query import open_results, query, run_query
from prunelib.results.storage import compaction
from prunelib.results.storage import rows as rows_module
from prunelib.results.storage import store as store_module
from prunelib.results.storage.compaction import compact
from prunelib.results.storage.store import Store

WRITTEN = ("interventions", "predictions", "run_units", "units")
#: Of the tests that send many small requests, one is on S3 in `make test`.
S3_IS_LONG = pytest.mark.parametrize(
    "place", ["disk", pytest.param("s3", marks=pytest.mark.long)], indirect=True)


@pytest.fixture
def filled(place: str) -> Folder:
    folder = Folder(place)
    folder.intervention("base", "none", "baseline")
    folder.intervention("ig", "integrated_gradients", "chosen")
    for task in ("t", "u", "v"):
        folder.answers("base", "10c0", task=task, unit_id=f"base-{task}")
        folder.answers("ig", "1110", task=task, unit_id=f"ig-{task}")
    folder.attempt("u1", "done", 0)
    folder.write()
    folder.store.write("predictions", "nothing", [])
    return folder


def everything(store: Store) -> dict[str, pa.Table]:
    return {table: store.read(table) for table in WRITTEN}


def of(unit_id: str, folder: Folder) -> list[dict[str, Any]]:
    """Rows of another unit, else those of one that is there."""
    return [row | {"unit_id": unit_id} for row in folder.rows["predictions", "ig-t"]]


def names(store: Store, table: str = "predictions") -> tuple[int, int]:
    """Numbers of unit files and of merged files."""
    units = [name for name in store.files.list(table) if name.endswith(".parquet")]
    return len(units), len(store.files.list(f"{table}/merged"))


def test_compaction_changes_no_row(filled: Folder) -> None:
    store, before = filled.store, everything(filled.store)
    board = query(filled.root, "FROM leaderboard")
    done = {table: store.done(table) for table in WRITTEN}
    for grace, files in ((3600.0, (7, 1)), (0.0, (0, 1)), (0.0, (0, 1))):
        compact(store, grace)
        for other in (store, Store.open(store.location, create=False)):
            after = everything(other)
            assert all(after[table].equals(before[table]) for table in WRITTEN)
            assert {table: other.done(table) for table in WRITTEN} == done
            assert all(other.has("predictions", unit) for unit in done["predictions"])
            assert not other.has("predictions", "missing")
        assert query(filled.root, "FROM leaderboard").equals(board)
        assert names(store) == files
    assert compact(store, 0) == []
    ids = ["ig-u", "nothing", "base-t"]
    assert store.read("predictions", ids)["task"].to_pylist() == ["u"] * 4 + ["t"] * 4


@S3_IS_LONG
def test_what_is_written_after_compaction_counts(filled: Folder) -> None:
    store = filled.store
    compact(store)
    rewritten = [row | {"gold": "new"} for row in filled.rows["predictions", "ig-t"]][:2]
    store.write("predictions", "ig-t", rewritten)
    sql = "SELECT unit_id, gold, count(*)::INT AS n FROM predictions GROUP BY ALL"
    for _ in range(3):
        found = {(r["unit_id"], r["gold"]): r["n"] for r in query(filled.root, sql).to_pylist()}
        assert found.pop(("ig-t", "new")) == 2
        assert set(found.values()) == {4} and len(found) == 5
        assert store.read("predictions", ["ig-t"]).to_pylist() == rewritten
        compact(store, 0)
    assert names(store) == (0, 1)


def test_the_last_of_several_writings_after_compaction_counts(filled: Folder) -> None:
    """Each is above the one before, though the unit's first file is gone."""
    compact(filled.store, 0)
    for count in range(12):
        filled.store.write("predictions", "nothing", of("nothing", filled)[: count % 4])
        assert len(filled.store.read("predictions", ["nothing"])) == count % 4


@S3_IS_LONG
def test_an_open_connection_goes_on_within_the_grace(
    filled: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "_SMALL", 0)  # small tables are read when they are opened
    with open_results(filled.root) as con:
        compact(filled.store)
        filled.store.write("predictions", "later", of("later", filled))
        compact(filled.store)
        assert run_query(con, "FROM predictions").num_rows == 24
        compact(filled.store, 0)
        with pytest.raises(UserError, match="parquet"):  # the same connection, a day later
            run_query(con, "SELECT sum(shots) FROM predictions")


@S3_IS_LONG
def test_large_tables_become_several_files(
    filled: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = filled.store.read("predictions")
    monkeypatch.setattr(compaction, "_FULL", before.nbytes // 3)
    monkeypatch.setattr(compaction, "_BATCH", 2)
    compact(filled.store, 0)
    assert names(filled.store)[1] == 3
    filled.store.write("predictions", "zz", of("zz", filled))
    (line,) = compact(filled.store, 0)
    assert line.units < 8  # full files are left alone
    assert filled.store.read("predictions").slice(0, 24).equals(before)


def test_one_unit_of_a_big_merged_file_is_not_the_whole_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows_module, "_ROW_GROUP", 20_000)
    store = Store.open(tmp_path)
    row = {"model": "m", "layer": 0, "start": 0, "level": 0, "alpha": 0.5, "totals": [],
           "values": [], "squares": [], "weighted": [], "half": []}
    for unit in range(8):
        sums = [float(unit)] * 1000
        store.write("attribution_parts", f"u{unit}", [row | {"sums": sums, "unit_id": f"u{unit}"}])
    compact(store, 0)
    (name,) = (tmp_path / "attribution_parts" / "merged").iterdir()
    assert pq.read_metadata(name).num_row_groups > 2
    for unit in (0, 3, 7):
        part = store.read("attribution_parts", [f"u{unit}"])
        assert part["unit_id"].to_pylist() == [f"u{unit}"] and part["sums"][0][-1].as_py() == unit


def test_compaction_leaves_a_damaged_file_alone(filled: Folder) -> None:
    before = filled.store.read("predictions")
    filled.store.files.commit("predictions/broken.parquet", b"PAR1 and then nothing")
    compact(filled.store, 0)
    assert names(filled.store) == (1, 1) and filled.store.read("predictions").equals(before)


def test_the_command(filled: Folder, monkeypatch: pytest.MonkeyPatch,
                     capsys: pytest.CaptureFixture[str]) -> None:
    before = filled.store.read("predictions")
    monkeypatch.setattr(sys, "argv", ["prunelib", "compact", "--results", filled.store.location])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 0
    assert "predictions" in capsys.readouterr().out
    assert names(filled.store) == (7, 1) and filled.store.read("predictions").equals(before)


READER = """
import sys
from pathlib import Path
from prunelib.results.query import query
from prunelib.results.storage.store import Store

location, stop = sys.argv[1], Path(sys.argv[2])
last = False
while not last:
    last = stop.exists()
    counts = query(location, "SELECT count(*), count(DISTINCT (unit_id, example)) FROM predictions")
    units = Store.open(location, create=False).done("predictions")
    print(*counts.to_pylist()[0].values(), len(units), flush=True)
"""


@S3_IS_LONG
def test_a_reader_in_another_process_notices_nothing(place: str, tmp_path: Path) -> None:
    folder = Folder(place)
    folder.answers("ig", "1100", unit_id="u")
    rows = folder.rows["predictions", "u"]
    store = folder.store

    def write(unit: int) -> None:
        store.write("predictions", f"u{unit}", [row | {"unit_id": f"u{unit}"} for row in rows])

    write(0)
    stop = tmp_path / "stop"
    command = [sys.executable, "-c", READER, place, str(stop)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as reader:
        assert reader.stdout
        reader.stdout.readline()
        until = time.monotonic() + 3
        unit = 0
        while time.monotonic() < until:
            unit += 1
            write(unit)
            write(unit // 2)  # again
            if unit % 5 == 0:
                compact(store)
        stop.touch()
        seen = [tuple(map(int, line.split())) for line in reader.stdout]
    assert reader.returncode == 0
    assert len(seen) >= 2 and seen == sorted(seen)
    assert all(count == distinct and units * 4 >= count for count, distinct, units in seen)
    assert seen[-1] == (4 * (unit + 1), 4 * (unit + 1), unit + 1)
