"""SQL over a results folder: an in-memory DuckDB that can read nothing but the results.

DuckDB itself never opens a file: pyarrow reads the files that were there when the folder was
opened, and file access, extensions and settings are locked before any SQL of a user runs. That
keeps a query from doing harm by accident; it is no sandbox for hostile users (DuckDB's own
advice is to isolate those by the operating system). A query takes at most three quarters of the
memory and puts nothing on disk; it is stopped by Ctrl-C, by a timeout, or by ``interrupt()`` of its
connection.
"""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from prunelib.errors import UserError, one_line
from prunelib.interventions.ablation import BASELINE
from prunelib.interventions.base import Intervention
from prunelib.interventions.registry import intervention_of
from prunelib.recipe.load import stored_recipe
from prunelib.recipe.model import ModelSpec
from prunelib.recipe.recipe import Recipe
from prunelib.results.schemas import OF_UNITS, TABLES, description
from prunelib.results.storage.files import reason
from prunelib.results.storage.store import Store
from prunelib.results.views.registry import VIEWS
from prunelib.results.views.sql_functions import add_functions

# Last comes the setting that forbids all further ones. A folder for what does not fit into memory
# would stay open to SQL, for reading and writing, so there is none.
_LOCK = (
    "SET TimeZone='UTC'",
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
#: What stands for the revision of a model that is no commit.
_NOT_ON_THE_HUB = ("local", "shipped")
# Weights and revision of a model in each run, the latest first.
_VERSIONS = """
SELECT m.weights_digest, m.revision FROM models m
LEFT JOIN run_units u ON u.unit_id = m.unit_id AND u.model = m.model
LEFT JOIN runs r ON r.run = u.run
WHERE m.model = $1 ORDER BY r.started DESC NULLS LAST, m.revision
"""
_FOUND = """
SELECT intervention, any_value(kind), any_value(content) FROM interventions
WHERE model = $1 AND starts_with(intervention, $2) AND intervention <> $3 GROUP BY intervention
"""
# Recipes of the runs that have an intervention of a model, the latest first.
_RECIPES = """
SELECT resolved FROM runs WHERE run IN (
    SELECT u.run FROM interventions i JOIN run_units u ON u.unit_id = i.unit_id
    AND u.model = i.model WHERE i.model = $1 AND i.intervention = $2)
ORDER BY started DESC, run
"""


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


@dataclass(frozen=True)
class StoredIntervention:
    """An intervention of finished runs, and how its model was given to them.

    Attributes:
        model: the model's id in recipes.
        weights_digest: of the model, which may have changed since.
        revision: its commit on the hub, ``None`` for models from elsewhere.
        recipes: of the runs that have the intervention, with every default filled in and every data
            set at its commit, the latest first; without those that this version cannot read.
    """

    model: str
    intervention: Intervention
    weights_digest: str
    revision: str | None
    recipes: tuple[Recipe, ...]

    @property
    def spec(self) -> ModelSpec:
        """What the latest recipe says of the model."""
        given = (spec for recipe in self.recipes for spec in recipe.models if spec.id == self.model)
        return next(given, ModelSpec(id=self.model))


def open_results(path: Path | str) -> duckdb.DuckDBPyConnection:
    """A connection that sees the tables and views of a results folder as of now.

    Raises:
        UserError: the folder is missing, holds no results or those of another version.
    """
    store = Store.open(path, create=False)
    try:
        contents = {table: store.dataset(table) for table in TABLES}
    except OSError as error:
        raise UserError(f"cannot read {path}: {reason(error)}") from error
    store.warn()
    try:
        return _connect(contents)
    except duckdb.Error as error:
        if "KeyboardInterrupt" in str(error):  # while DuckDB asked a file how long it is
            raise KeyboardInterrupt from error
        raise


def query(path: Path | str, sql: str, timeout: float = 0) -> pa.Table:
    """Result of one SELECT (or EXPLAIN, DESCRIBE, SUMMARIZE, SHOW) on a results folder.

    ``timeout``: seconds after which it is given up; 0 for never.

    Raises:
        UserError: as :func:`open_results`, the SQL is wrong or is anything else, or the time is
            over.
    """
    with open_results(path) as con:
        if not timeout:
            return run_query(con, sql)
        done, late = threading.Event(), threading.Event()

        def stop() -> None:
            if not done.wait(timeout):
                late.set()
                while not done.wait(0.2):  # one before the query begins would be lost
                    con.interrupt()

        threading.Thread(target=stop, daemon=True).start()
        try:
            return run_query(con, sql)
        except UserError as error:
            if late.is_set() and isinstance(error.__cause__, duckdb.InterruptException):
                raise UserError(f"no answer within {timeout:g} s") from error
            raise
        finally:
            done.set()


def run_query(con: duckdb.DuckDBPyConnection, sql: str) -> pa.Table:
    """As :func:`query`, on a connection of :func:`open_results`."""
    try:
        statements = con.extract_statements(sql)
        if len(statements) != 1:
            raise UserError(f"one SQL statement at a time, not {len(statements)}")
        if statements[0].type not in (duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN):
            raise UserError(f"results are read-only: SELECT, not {statements[0].type.name}")
        return con.sql(sql).to_arrow_table()
    except (duckdb.Error, pa.ArrowException) as error:
        if "KeyboardInterrupt" in str(error):  # while DuckDB asked a file how long it is
            raise KeyboardInterrupt from error
        raise UserError(_first_lines(error)) from error
    except RuntimeError as error:
        if "interrupted" in str(error):  # how DuckDB passes Ctrl-C on
            raise KeyboardInterrupt from error
        raise


def find_intervention(path: Path | str, model: str, digest: str) -> StoredIntervention:
    """What was done to a model, by the beginning of its digest; the untouched model is not meant.

    Raises:
        UserError: there is none, or more than one; the chosen ones are named. Or what is stored
            does not have the digest under which it is stored.
    """
    with open_results(path) as con:
        found = con.execute(_FOUND, [model, digest, BASELINE.digest]).fetchall()
        versions = con.execute(_VERSIONS, [model]).fetchall()
        chosen = con.execute("SELECT DISTINCT intervention FROM interventions WHERE model = $1 "
                             "AND role = 'chosen' AND intervention <> $2",
                             [model, BASELINE.digest]).fetchall()
        recipes = [row[0] for intervention, *_ in found[:1]
                   for row in con.execute(_RECIPES, [model, intervention]).fetchall()]
    if not versions:
        raise UserError(f"{path} has no results of model '{model}'")
    if len({weights for weights, _ in versions}) > 1:
        raise UserError(f"{path} has results of several versions of model '{model}'")
    if digest and not found and BASELINE.digest.startswith(digest):
        raise UserError(f"'{digest}' is the untouched model '{model}': nothing is switched off")
    if len(found) != 1:
        what = "several interventions begin" if found else "no intervention begins"
        known = ", ".join(sorted(row[0][:12] for row in chosen)) or "none"
        raise UserError(f"of model '{model}' {what} with '{digest}'; chosen: {known}")
    weights, revision = versions[0]
    return StoredIntervention(
        model=model,
        intervention=_intervention(path, *found[0]),
        weights_digest=weights,
        revision=None if revision in _NOT_ON_THE_HUB else revision,
        recipes=tuple(filter(None, map(stored_recipe, recipes))),
    )


def _intervention(path: Path | str, digest: str, kind: str, content: str) -> Intervention:
    """What a row of ``interventions`` holds, which must have the digest that the row says."""
    try:
        found = intervention_of(kind, json.loads(content))
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path}: intervention {digest} cannot be read: {one_line(error)}"
                        ) from error
    if found.digest != digest:
        raise UserError(f"{path}: intervention {digest} is not what its digest says, which is of "
                        "damaged results or another version of prunelib")
    return found


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


def _connect(contents: dict[str, Any]) -> duckdb.DuckDBPyConnection:
    # Python variables must not be reachable by their name from SQL.
    con = duckdb.connect(":memory:", config={"python_enable_replacements": "false"})
    for table, schema in TABLES.items():
        rows = contents.get(table, schema.remove_metadata().empty_table())
        con.register(f"_written_{table}" if table in OF_UNITS else table, rows)
    con.execute(_NAMES)
    for table in sorted(OF_UNITS):
        con.execute(_UNDER_EVERY_NAME.format(table=table))
    add_functions(con)
    for view in VIEWS:
        con.execute(f"CREATE VIEW {view.name} AS {view.sql}")
    for setting in _LOCK:
        con.execute(setting)
    return con


def _first_lines(error: BaseException) -> str:
    """DuckDB's message without the blank-line-separated hints that follow, on one line."""
    head = str(error).strip().split("\n\n")[0]
    return " ".join(head.split())
