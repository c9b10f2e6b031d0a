"""The store: a folder with one Parquet file per table and unit of work, written atomically.

A unit is done if and only if its file is there. A file appears under its name whole or not at
all: it is written under a hidden name in the same directory, flushed to the disk and renamed.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import time
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from prunelib.errors import UserError
from prunelib.results.schemas import SCHEMA_VERSION, TABLES, to_table

MARKER = "prunelib-results.json"
_TEMP = ".tmp-"
_STALE = 3600.0  # seconds: no unit takes that long to write, so nobody is writing it any more
_UNIT_ID = re.compile(r"[0-9a-z-]+")  # no dot and no slash: nothing can leave the folder


class Store:
    """Reads and writes the tables below ``root``. Use :meth:`open` to check the folder first.

    Any number of processes may write at the same time. Two that write the same unit replace
    each other's file; the content is the same, since the id digests all that determines it.
    """

    def __init__(self, root: Path) -> None:
        self.root = Path(root)

    @classmethod
    def open(cls, root: Path | str, create: bool = True) -> Store:
        """The store in ``root``, made if ``create``.

        Raises:
            UserError: the folder cannot be written, was made by another schema version, or
                (without ``create``) is missing or holds no results.
        """
        store = cls(Path(root))
        _check_version(store.root)
        if create:
            try:
                store._create()
            except OSError as error:
                raise UserError(f"cannot write results to {root}: {_reason(error)}") from error
        elif not any(store.done(table) for table in TABLES):
            what = "holds no results" if store.root.is_dir() else "is not a folder"
            raise UserError(f"{root} {what}: give the folder that a run wrote its results to")
        return store

    def _create(self) -> None:
        self.root.mkdir(parents=True, exist_ok=True)
        if not (self.root / MARKER).exists():
            content = json.dumps({"schema_version": SCHEMA_VERSION}) + "\n"
            with _replacing(self.root / MARKER) as handle:
                handle.write(content.encode())
        elif not os.access(self.root, os.W_OK):
            raise PermissionError(13, "permission denied")
        for folder in [self.root, *(self.table_dir(table) for table in TABLES)]:
            _remove_stale(folder)

    def table_dir(self, table: str) -> Path:
        """Directory of a table (``KeyError`` if there is no such table)."""
        if table not in TABLES:
            raise KeyError(table)
        return self.root / table

    def path(self, table: str, unit_id: str) -> Path:
        """File of a unit's rows in a table (``ValueError`` for a malformed id)."""
        if not _UNIT_ID.fullmatch(unit_id):
            raise ValueError(f"unit id {unit_id!r} has characters other than 0-9, a-z and -")
        return self.table_dir(table) / f"{unit_id}.parquet"

    def has(self, table: str, unit_id: str) -> bool:
        """Whether the unit's rows are there."""
        return self.path(table, unit_id).exists()

    def done(self, table: str) -> set[str]:
        """Ids of all units with rows in a table, by one listing of its directory."""
        try:
            with os.scandir(self.table_dir(table)) as entries:
                names = [entry.name for entry in entries]
        except (FileNotFoundError, NotADirectoryError):
            return set()
        stems = (name.removesuffix(".parquet") for name in names if name.endswith(".parquet"))
        return {stem for stem in stems if _UNIT_ID.fullmatch(stem)}

    def write(self, table: str, unit_id: str, rows: list[dict[str, Any]] | pa.Table) -> Path:
        """Commit a unit's rows, replacing those of an earlier attempt.

        Returns the file. Raises ``ValueError`` for rows that do not fit the schema (every column
        must be named, nulls only where the schema allows them) and ``OSError`` if the disk
        refuses; nothing is visible then.
        """
        path = self.path(table, unit_id)
        content = to_table(table, rows)
        path.parent.mkdir(exist_ok=True)
        with _replacing(path) as handle:
            pq.write_table(content, handle, compression="zstd", write_page_checksum=True)
        return path

    def read(self, table: str, unit_ids: Iterable[str] | None = None) -> pa.Table:
        """Rows of a table: those of ``unit_ids`` in that order, or all, ordered by unit id.

        Raises ``FileNotFoundError`` if one of ``unit_ids`` has no rows.
        """
        ids = sorted(self.done(table)) if unit_ids is None else unit_ids
        schema = TABLES[table]
        files = [str(self.path(table, unit_id)) for unit_id in ids]
        if not files:
            return schema.empty_table()
        import pyarrow.dataset as ds  # imports pandas, which takes longer than all the rest

        return ds.dataset(files, schema=schema, format="parquet").to_table().cast(schema)


def _check_version(root: Path) -> None:
    try:
        version = json.loads((root / MARKER).read_text())["schema_version"]
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise UserError(f"cannot read {root}: {_reason(error)}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{root / MARKER} is damaged: use another results folder") from error
    if version != SCHEMA_VERSION:
        raise UserError(
            f"{root} holds results of schema version {version}, this prunelib writes "
            f"{SCHEMA_VERSION}: use another folder or the prunelib that made it"
        )


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[IO[bytes]]:
    """A file that appears at ``path`` when the block ends, and not at all if it raises."""
    temp = path.parent / f"{_TEMP}{uuid.uuid4().hex}"
    try:
        with temp.open("xb") as handle:
            yield handle
            handle.flush()
            os.fsync(handle.fileno())
        temp.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temp.unlink()
        raise
    # Without this a power cut could undo the rename after the unit was reported as done.
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _remove_stale(folder: Path) -> None:
    """Remove what killed writers left behind; a file younger than that may be in use."""
    for temp in folder.glob(f"{_TEMP}*"):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - temp.stat().st_mtime > _STALE:
                temp.unlink()


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
