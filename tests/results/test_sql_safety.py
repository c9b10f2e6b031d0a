"""SQL can read the results and nothing else, and its errors are one line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest
from results_folder import Folder

from prunelib.errors import UserError
from prunelib.results.columns import SCHEMA_VERSION
from prunelib.results.query import describe_tables, open_results, query, run_query
from prunelib.results.schemas import TABLES
from prunelib.results.storage.marker import MARKER
from prunelib.results.views.registry import VIEWS

ROOT = Path(__file__).parents[2]
READS = [
    "FROM read_csv('{secret}')",
    "FROM read_text('{secret}')",
    "FROM read_blob('{secret}')",
    "FROM read_json('{secret}')",
    "FROM read_parquet('{parquet}')",
    "FROM parquet_metadata('{parquet}')",
    "FROM sniff_csv('{secret}')",
    "FROM glob('{folder}/*')",
    "FROM '{secret}'",
    "FROM '{parquet}'",
    "FROM read_text('.tmp/kept.csv')",
    "FROM glob('.tmp/*')",
    "FROM '.tmp/kept.csv'",
    "SELECT getenv('HOME')",
    "SELECT * FROM variable_of_the_caller",
    "SELECT * FROM query('FROM read_csv(''{secret}'')')",
]
STATEMENTS = [
    "COPY interventions TO '{folder}/out.csv'",
    "COPY (SELECT 1) TO '{folder}/out.parquet' (FORMAT parquet)",
    "COPY (SELECT 1) TO '.tmp/kept.csv'",
    "EXPLAIN ANALYZE COPY (SELECT 1) TO '.tmp/kept.csv'",
    "EXPLAIN ANALYZE COPY (SELECT 1) TO '{folder}/out.csv'",
    "CREATE TABLE t AS FROM read_csv('{secret}')",
    "ATTACH '{folder}/other.duckdb'",
    "INSTALL httpfs",
    "LOAD httpfs",
    "SET threads = 1",
    "SET enable_external_access = true",
    "RESET enable_external_access",
    "PRAGMA database_list",
    "PRAGMA enable_external_access = true",
    "EXPORT DATABASE '{folder}/export'",
    "IMPORT DATABASE '{folder}/export'",
    "CALL pragma_version()",
    "DROP VIEW leaderboard",
    "SELECT 1; SELECT 2",
    "",
]


@pytest.fixture(autouse=True)
def default_place_of_duckdb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The folder ``.tmp`` of the current folder, where DuckDB by default puts what is too much."""
    monkeypatch.chdir(tmp_path)
    kept = tmp_path / ".tmp" / "kept.csv"
    kept.parent.mkdir()
    kept.write_text("a,b\n1,2\n")
    yield
    assert kept.read_text() == "a,b\n1,2\n"


@pytest.fixture
def filled(folder: Folder) -> Folder:
    folder.intervention("base", "none", "baseline")
    folder.answers("base", "10")
    folder.write()
    return folder


def spell(sql: str, folder: Folder, tmp_path: Path) -> str:
    secret = tmp_path / "secret.csv"
    secret.write_text("a,b\n1,2\n")
    parquet = Path(folder.root) / "interventions" / "choose.parquet"
    return sql.format(secret=secret, folder=tmp_path, parquet=parquet)


@pytest.mark.parametrize("sql", READS + STATEMENTS)
def test_query_refuses(sql: str, filled: Folder, tmp_path: Path) -> None:
    variable_of_the_caller = pa.table({"a": [1]})
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserError) as caught:
        query(filled.root, spell(sql, filled, tmp_path))
    assert str(caught.value).count("\n") == 0
    assert sorted(p for p in tmp_path.rglob("*") if p.name != "secret.csv") == before
    assert len(variable_of_the_caller) == 1


@pytest.mark.parametrize(
    "sql",
    READS
    + [s for s in STATEMENTS if s.startswith(("COPY", "EXPLAIN", "ATTACH", "INSTALL", "LOAD"))]
    + [s for s in STATEMENTS if s.startswith(("SET", "EXPORT"))]
    + ["CREATE TABLE t AS FROM read_csv('{secret}')", "RESET enable_external_access"],
)
def test_the_connection_itself_is_locked(sql: str, filled: Folder, tmp_path: Path) -> None:
    variable_of_the_caller = pa.table({"a": [1]})
    with open_results(filled.root) as con, pytest.raises(Exception, match="Error"):
        con.execute(spell(sql, filled, tmp_path)).fetchall()
    assert not list(tmp_path.glob("out.*"))
    assert len(variable_of_the_caller) == 1


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT 1 AS a",
        "FROM interventions",
        "WITH a AS (FROM predictions) SELECT count(*) FROM a",
        "DESCRIBE leaderboard",
        "SUMMARIZE interventions",
        "SHOW TABLES",
        "EXPLAIN SELECT 1",
        "SELECT share_interval([share_sums(1, 1)]), sign_flip([flip_sums(1, 1)])",
        "SELECT 1; -- nothing follows",
    ],
)
def test_query_reads(sql: str, filled: Folder) -> None:
    assert query(filled.root, sql).num_rows > 0


@pytest.fixture(scope="module")
def almost_empty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[duckdb.DuckDBPyConnection]:
    """Results with one attempt and nothing else."""
    folder = Folder(tmp_path_factory.mktemp("empty") / "out")
    folder.attempt("u1", "done", 0)
    folder.write({})
    with open_results(folder.root) as con:
        yield con


@pytest.mark.parametrize("table", [*TABLES, *(view.name for view in VIEWS)])
def test_every_table_and_view_answers_when_empty(
    table: str, almost_empty: duckdb.DuckDBPyConnection
) -> None:
    found = run_query(almost_empty, f"FROM {table}")
    assert found.num_rows == (table in ("units", "costs"))


def test_names_that_sql_makes_up_are_found(filled: Folder) -> None:
    assert query(filled.root, "FROM query('FROM leader' || 'board')").num_rows == 1
    assert query(filled.root, "SELECT name FROM (SHOW TABLES)").num_rows > len(TABLES)
    assert query(filled.root, "SELECT * FROM duckdb_views(), runs").num_rows == 0
    with pytest.raises(UserError, match='Did you mean "leaderboard"'):
        query(filled.root, "FROM leaderbord")
    with pytest.raises(UserError, match='Did you mean "leaderboard"'):
        query(filled.root, "FROM runs, leaderbord")


def test_no_progress_is_written_into_the_answer(filled: Folder) -> None:
    shown = query(filled.root, "SELECT current_setting('enable_progress_bar') AS shown")
    assert shown.to_pylist() == [{"shown": False}]


def test_an_answer_loads_nothing_heavy(filled: Folder) -> None:
    code = (
        "import sys, prunelib.results.query as q\n"
        f"assert q.query({str(filled.root)!r}, 'FROM leaderboard').num_rows == 1\n"
        "print([m for m in ('torch', 'ray', 'vllm', 'pandas', 'pydantic') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": str(ROOT)},
                          capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_files_that_appear_later_do_not_disturb_an_open_connection(filled: Folder) -> None:
    with open_results(filled.root) as con:
        filled.store.write("predictions", "later", [
            row | {"unit_id": "later"} for row in filled.rows["predictions", "eval-base"]])
        assert run_query(con, "FROM predictions").num_rows == 2
    assert query(filled.root, "FROM predictions").num_rows == 4


def test_a_file_damaged_behind_our_back_counts_no_more_and_it_is_said(
    filled: Folder, caplog: pytest.LogCaptureFixture
) -> None:
    path = Path(filled.root) / "predictions" / "eval-base.parquet"
    path.write_bytes(path.read_bytes()[:100])
    query(filled.root, "SELECT sum(shots) FROM predictions")
    assert "prunelib verify" in caplog.text


ENDLESS = "SELECT count(*) FROM range(10000000) a, range(1000000) b WHERE a.range * b.range % 7 = 3"


def test_a_query_is_stopped_by_a_timeout_and_by_ctrl_c(filled: Folder) -> None:
    with pytest.raises(UserError, match=r"no answer within 0\.2 s"):
        query(filled.root, ENDLESS, timeout=0.2)
    assert query(filled.root, "SELECT 1 AS a", timeout=60).num_rows == 1
    asked = (  # a process that was started in the background may ignore Ctrl-C
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        f"from prunelib.results.query import query; query({str(filled.root)!r}, {ENDLESS!r})")
    with subprocess.Popen([sys.executable, "-c", asked], stderr=subprocess.PIPE, text=True,
                          env=os.environ | {"PYTHONPATH": str(ROOT)}) as running:
        while running.poll() is None:  # pressed again, should one come before the query begins
            time.sleep(1)
            running.send_signal(signal.SIGINT)
        assert running.stderr and "KeyboardInterrupt" in running.stderr.read()


def test_memory_has_a_limit_and_nothing_goes_to_disk(filled: Folder) -> None:
    asked = "SELECT current_setting('memory_limit'), current_setting('temp_directory')"
    with open_results(filled.root) as con:
        [(limit, place)] = con.execute(asked).fetchall()
    [(unset, _)] = duckdb.connect().execute(asked).fetchall()  # 80% of the memory
    assert place == "" and limit != unset


def test_wrong_sql_says_what_is_wrong(filled: Folder) -> None:
    with pytest.raises(UserError, match='"acuracy" not found'):
        query(filled.root, "SELECT acuracy FROM leaderboard")
    with pytest.raises(UserError, match="syntax error"):
        query(filled.root, "SELEC 1")


def test_folders_without_results(tmp_path: Path, folder: Folder) -> None:
    with pytest.raises(UserError, match="is not a folder"):
        open_results(tmp_path / "missing")
    with pytest.raises(UserError, match="holds no results"):
        open_results(folder.root)
    (folder.root / MARKER).write_text(json.dumps({"schema_version": SCHEMA_VERSION + 1}))
    with pytest.raises(UserError, match=f"schema version {SCHEMA_VERSION + 1}"):
        open_results(folder.root)


def test_tables_are_described_down_to_the_column() -> None:
    described = {info.name: info for info in describe_tables()}
    assert list(described)[: len(TABLES)] == list(TABLES)
    assert described["leaderboard"].kind == "view"
    assert not any(name.startswith("_") for name in described)
    for info in described.values():
        assert info.description
        assert all(c.name and c.type and c.description for c in info.columns)
    for view in VIEWS:
        if view.name in described:
            names = tuple(c.name for c in described[view.name].columns)
            assert names == tuple(view.columns), view.name
    assert ("run", "VARCHAR") in [(c.name, c.type) for c in described["grid"].columns]


def test_importing_results_loads_nothing_heavy() -> None:
    code = (
        "import sys, prunelib.results.query, prunelib.scoring.statistics\n"
        "print([m for m in ('torch', 'ray', 'vllm', 'scipy', 'pandas') if m in sys.modules])"
    )
    env = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
