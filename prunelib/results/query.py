"""SQL over a results folder: an in-memory DuckDB that can read nothing but the results.

DuckDB itself never opens a file: pyarrow reads the files that were there when the folder was
opened, and file access, extensions and settings are locked before any SQL of a user runs. That
keeps a query from doing harm by accident; it is no sandbox for hostile users (DuckDB's own
advice is to isolate those by the operating system). A query takes at most three quarters of the
memory and puts nothing on disk; it is stopped by Ctrl-C, by a timeout, or by ``interrupt()`` of its
connection.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from prunelib.errors import UserError
from prunelib.results.outcomes import SUMMARY
from prunelib.results.schemas import OF_UNITS, TABLES, description
from prunelib.results.storage.files import reason
from prunelib.results.storage.manifest import Piece
from prunelib.results.storage.outcomes import read_outcomes
from prunelib.results.storage.store import Store
from prunelib.results.views.outcome_functions import add_outcomes
from prunelib.results.views.outcomes import Load, Outcomes
from prunelib.results.views.registry import VIEWS
from prunelib.results.views.sql_functions import add_functions

# Last comes the setting that forbids all further ones. A folder for what does not fit into memory
# would stay open to SQL, for reading and writing, so there is none.
_LOCK = (
    "SET TimeZone='UTC'",
    "SET enable_progress_bar=false",  # it would go to standard output, into the answer
    "SET temp_directory=''",
    "SET memory_limit='75%'",
    "SET autoinstall_known_extensions=false",
    "SET autoload_known_extensions=false",
    "SET allow_community_extensions=false",
    "SET enable_external_access=false",
    "SET lock_configuration=true",
)

# A unit does not depend on its model's name: its rows are those of every name that a run gave it.
_NAMES = """
CREATE VIEW _names AS SELECT DISTINCT unit_id, model FROM run_units WHERE model IS NOT NULL
"""
_UNDER_EVERY_NAME = """
CREATE VIEW {table} AS SELECT w.* REPLACE (coalesce(n.model, w.model) AS model)
FROM _written_{table} w LEFT JOIN _names n ON n.unit_id = w.unit_id
"""
#: The summary of predictions (:mod:`prunelib.results.outcomes`), which only views mention.
_PARTS = "_parts"
_EVERYTHING = frozenset([*TABLES, _PARTS, *(view.name for view in VIEWS)])
_WORD, _STRING = re.compile(r"\w+"), re.compile(r"--[^\n]*|'[^']*'")
#: What a view reads, and what it names itself.
_READ = re.compile(r"\b(?:FROM|JOIN)\s+(\w+)")
_OWN = re.compile(r"\b(\w+)(?: *\([\w, ]*\))? AS (?:MATERIALIZED )?\(")
#: SQL with such a word may list tables and views.
_LISTS = re.compile(r"\b(show|duckdb_|information_schema|pg_|pragma_|sqlite_)", re.IGNORECASE)

@dataclass(frozen=True)
class ColumnInfo:
    """A column of a table or view: its name, its SQL type, its meaning."""

    name: str
    type: str
    description: str


@dataclass(frozen=True)
class TableInfo:
    """A table or view (``kind``), with its columns."""

    name: str
    kind: str
    description: str
    columns: tuple[ColumnInfo, ...]


def open_results(*places: Path | str) -> duckdb.DuckDBPyConnection:
    """A connection that sees the tables and views of results folders as of now.

    Several folders are one: a unit that is in two of them counts once, and so does a run.

    Raises:
        UserError: a folder is missing, holds no results or those of another version.
    """
    return _open(places, _EVERYTHING)


def _open(places: Sequence[Path | str], names: frozenset[str]) -> duckdb.DuckDBPyConnection:
    """A connection with these tables and views."""
    contents: dict[str, list[Any]] = defaultdict(list)
    known: dict[str, set[str]] = defaultdict(set)
    answers: list[tuple[Store, dict[str, Piece]]] = []
    for place in places:
        store = Store.open(place, create=False)
        try:
            for table in TABLES:
                if table in names:
                    current = _new(store, table, known[table])
                    contents[table].append(store.dataset(table, current))
            if _PARTS in names:
                answers.append((store, _new(store, "predictions", known[_PARTS])))
        except OSError as error:
            raise UserError(f"cannot read {place}: {reason(error)}") from error
        store.warn()
    try:
        return _connect({table: _together(rows) for table, rows in contents.items()}, names,
                        lambda: read_outcomes(answers))
    except (duckdb.Error, RuntimeError) as error:
        # What DuckDB makes of Ctrl-C: the first while it asks a file how long it is, the second
        # while it reads a view.
        if "KeyboardInterrupt" in str(error) or "interrupted" in str(error):
            raise KeyboardInterrupt from error
        raise


def _new(store: Store, table: str, known: set[str]) -> dict[str, Piece]:
    """What a store has of a table that those before it have not."""
    found = {unit: piece for unit, piece in store.current(table).items() if unit not in known}
    known.update(found)
    return found


def _together(rows: list[Any]) -> Any:
    """Tables or data sets of one schema as one."""
    if all(isinstance(some, pa.Table) for some in rows):
        return pa.concat_tables(rows)
    import pyarrow.dataset as ds

    return ds.dataset([ds.dataset(some) if isinstance(some, pa.Table) else some for some in rows])


def query(places: Path | str | Sequence[Path | str], sql: str, timeout: float = 0) -> pa.Table:
    """Result of one SELECT (or EXPLAIN, DESCRIBE, SUMMARIZE, SHOW) on one or several folders.

    ``timeout``: seconds after which it is given up; 0 for never.

    Raises:
        UserError: as :func:`open_results`, the SQL is wrong or is anything else, or the time is
            over.
    """
    names = _mentioned(sql)
    some = [places] if isinstance(places, Path | str) else places
    try:
        return _query(some, sql, timeout, names)
    except UserError as error:
        if names == _EVERYTHING or not isinstance(error.__cause__, duckdb.CatalogException):
            raise
    return _query(some, sql, timeout, _EVERYTHING)  # it makes names, or says which ones are like it


def _mentioned(sql: str) -> frozenset[str]:
    """The tables and views that SQL may read, by the words in it, and those that these read."""
    found: set[str] = set()
    new = _EVERYTHING & {word.lower() for word in _WORD.findall(sql)}
    if not new or _LISTS.search(sql):
        return _EVERYTHING
    texts = {view.name: _STRING.sub("", view.sql) for view in VIEWS}
    while new:
        found |= new
        read = {name for view in new if (text := texts.get(view))
                for name in {*_READ.findall(text)} - {*_OWN.findall(text)}}
        new = (_EVERYTHING & read) - found
    return frozenset(found)


def _query(places: Sequence[Path | str], sql: str, timeout: float, names: frozenset[str]
           ) -> pa.Table:
    with _open(places, names) as con:
        return run_query(con, sql, timeout)


def run_query(con: duckdb.DuckDBPyConnection, sql: str, timeout: float = 0) -> pa.Table:
    """As :func:`query`, on a connection of :func:`open_results`."""
    try:
        statements = con.extract_statements(sql)
        if len(statements) != 1:
            raise UserError(f"one SQL statement at a time, not {len(statements)}")
        if statements[0].type not in (duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN):
            raise UserError(f"results are read-only: SELECT, not {statements[0].type.name}")
        return _stoppable(con, sql, timeout)
    except (duckdb.Error, pa.ArrowException) as error:
        raise UserError(_first_lines(error)) from error


def _stoppable(con: duckdb.DuckDBPyConnection, sql: str, timeout: float) -> pa.Table:
    """Run SQL in another thread.

    In the main one DuckDB looks for Ctrl-C between two pieces of its work, and a piece may take
    hours.
    """
    with ThreadPoolExecutor(1, "query") as pool:
        running = pool.submit(lambda: con.sql(sql).to_arrow_table())
        try:
            return running.result(timeout or None)
        except TimeoutError:
            raise UserError(f"no answer within {timeout:g} s") from None
        finally:
            while not running.done():  # an interruption before the query begins would be lost
                con.interrupt()
                wait([running], 0.2)


def describe_tables() -> list[TableInfo]:
    """Every table and view with its columns, tables first. Needs no results folder."""
    with _connect({}) as con:
        tables = [
            (name, "table", description(schema), {f.name: description(f) for f in schema})
            for name, schema in TABLES.items()
        ]
        views = [
            (view.name, "view", view.description, view.columns)
            for view in VIEWS
            if not view.name.startswith("_")
        ]
        return [
            TableInfo(name, kind, text, _columns(con, name, meanings))
            for name, kind, text, meanings in tables + views
        ]


def _columns(
    con: duckdb.DuckDBPyConnection, name: str, meanings: dict[str, str]
) -> tuple[ColumnInfo, ...]:
    relation = con.table(name)
    types = zip(relation.columns, relation.types, strict=True)
    return tuple(ColumnInfo(column, str(kind), meanings[column]) for column, kind in types)


def _no_answers() -> tuple[pa.Table, dict[str, pa.Table]]:
    return pa.Table.from_batches([], SUMMARY), {}


def _connect(contents: dict[str, Any], names: frozenset[str] = _EVERYTHING,
             outcomes: Load = _no_answers) -> duckdb.DuckDBPyConnection:
    # Python variables must not be reachable by their name from SQL.
    con = duckdb.connect(":memory:", config={"python_enable_replacements": "false"})
    for table, schema in TABLES.items():
        if table in names | {"run_units"}:
            rows = contents.get(table, pa.Table.from_batches([], schema.remove_metadata()))
            con.register(f"_written_{table}" if table in OF_UNITS else table, rows)
    add_outcomes(con, Outcomes(outcomes))
    con.execute(_NAMES)
    for table in sorted(names & {*OF_UNITS, _PARTS}):
        con.execute(_UNDER_EVERY_NAME.format(table=table))
    add_functions(con)
    for view in VIEWS:
        if view.name in names:
            con.execute(f"CREATE VIEW {view.name} AS {view.sql}")
    for setting in _LOCK:
        con.execute(setting)
    return con


def _first_lines(error: BaseException) -> str:
    """DuckDB's message without the blank-line-separated hints that follow, on one line."""
    head = str(error).strip().split("\n\n")[0]
    return " ".join(head.split())
