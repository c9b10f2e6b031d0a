"""A DuckDB file with all that results hold, for programs that know nothing of prunelib.

It is a copy. Views that stay views would read files that compaction removes and that a later run
adds to, without the rule of which rows count; and what computes intervals and tests is Python,
which a DuckDB file cannot hold.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from pathlib import Path

import duckdb

from prunelib.errors import UserError
from prunelib.results.query import describe_tables, open_results


def write_catalog(places: Sequence[Path | str], out: Path) -> int:
    """Write every table and view of some results, as of now, as tables of a new DuckDB file.

    Tables and columns have their meanings as comments.

    Returns:
        how many tables.

    Raises:
        UserError: as :func:`open_results`, or the file cannot be written.
    """
    part = out.with_name(f".{out.name}.{uuid.uuid4().hex}")
    described = describe_tables()
    with open_results(*places) as results:
        try:
            with duckdb.connect(str(part)) as catalog:
                for info in described:
                    rows = results.sql(f'FROM "{info.name}"').to_arrow_reader()
                    catalog.register("_rows", rows)
                    catalog.execute(f'CREATE TABLE "{info.name}" AS FROM _rows')
                    catalog.unregister("_rows")
                    kind = "a copy of the view" if info.kind == "view" else "a copy of the table"
                    _comment(catalog, f'TABLE "{info.name}"', f"{info.description} ({kind})")
                    for column in info.columns:
                        _comment(catalog, f'COLUMN "{info.name}"."{column.name}"',
                                 column.description)
            part.replace(out)
        except (OSError, duckdb.IOException) as error:
            raise UserError(f"cannot write {out}: {' '.join(str(error).split())}") from error
        finally:
            part.unlink(missing_ok=True)
    return len(described)


def _comment(catalog: duckdb.DuckDBPyConnection, item: str, text: str) -> None:
    quoted = text.replace("'", "''")
    catalog.execute(f"COMMENT ON {item} IS '{quoted}'")
