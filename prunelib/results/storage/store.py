"""The store: one Parquet file per table and unit of work, on a disk or on object storage.

A unit is done if and only if its rows are there. They appear whole or not at all: a file is
committed in one step (:mod:`prunelib.results.storage.files`) and never changed afterwards.
Compaction (:mod:`prunelib.results.storage.compaction`) copies the rows of many units into few
files; which file counts is the rule of :mod:`prunelib.results.storage.manifest`.
"""

from __future__ import annotations

import errno
import json
import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from prunelib.errors import UserError
from prunelib.results.arrow import to_table
from prunelib.results.schemas import SCHEMA_VERSION, TABLES
from prunelib.results.storage.files import Files, open_files, patiently, reason
from prunelib.results.storage.manifest import (
    MERGED,
    Manifest,
    Piece,
    joined,
    merged_level,
    next_version,
    read_manifest,
    unit_file,
    unit_pieces,
)

if TYPE_CHECKING:
    import pyarrow.dataset as ds

MARKER = "prunelib-results.json"
#: Table of schema version 1 that is called ``interventions`` now.
_FORMER_TABLE = "ablations"
_UNIT_ID = re.compile(r"[0-9a-z-]+")  # no dot and no slash: nothing can leave the folder
#: Bytes of a row group, uncompressed: what reading one unit of a merged file costs at least.
_ROW_GROUP = 16 << 20


class Store:
    """Reads and writes the tables at a location. Use :meth:`open` to check the place first.

    Any number of processes may write and read at the same time. Of two that write the same unit
    one wins; the content is the same, since the id digests all that determines it.
    """

    def __init__(self, files: Files) -> None:
        self.files = files
        self._manifests: dict[tuple[str, str], Manifest] = {}

    @property
    def location(self) -> str:
        """What another process passes to :meth:`open`: an absolute path or a URL."""
        return self.files.location

    @classmethod
    def open(cls, location: Path | str, create: bool = True) -> Store:
        """The store at a local path or at ``s3://bucket/prefix``, made if ``create``.

        Raises:
            UserError: the place cannot be written, was made by another schema version, or
                (without ``create``) is missing or holds no results.
        """
        store = cls(open_files(location))
        verb = "write results to" if create else "read results from"
        try:
            _check_version(store.files, location)
            if create:
                store._create()
                return store
            empty = not any(store.done(table) for table in TABLES)
        except OSError as error:
            raise UserError(f"cannot {verb} {location}: {reason(error)}") from error
        if empty:
            what = "holds no results" if store.files.exists("") else "is not a folder"
            raise UserError(f"{location} {what}: give the folder that a run wrote its results to")
        return store

    def _create(self) -> None:
        self.files.prepare()
        if not self.files.exists(MARKER):
            content = json.dumps({"schema_version": SCHEMA_VERSION}) + "\n"
            self.files.commit(MARKER, content.encode())
        for table in TABLES:
            self.files.tidy(table)
            self.files.tidy(f"{table}/{MERGED}")
        self.files.tidy("")

    def has(self, table: str, unit_id: str) -> bool:
        """Whether the unit's rows are there."""
        # A unit's first file goes only when a merged file has its rows.
        return self.files.exists(_path(table, unit_id)) or any(
            unit_id in manifest.pieces for manifest in self.manifests(table)
        )

    def done(self, table: str) -> set[str]:
        """Ids of all units with rows in a table; opens no file but new merged ones."""

        def look() -> set[str]:
            found = {unit_id for unit_id, _ in unit_pieces(self._listed(table))}
            return found.union(*(manifest.pieces for manifest in self.manifests(table)))

        return patiently(look, self.location)

    def current(self, table: str) -> dict[str, Piece]:
        """Unit → the piece that holds its rows, as of now."""
        # Unit files are listed first: what disappears in between was merged before.
        best: dict[str, Piece] = {}
        listed = unit_pieces(self._listed(table))
        for manifest in self.manifests(table):
            listed += manifest.pieces.items()
        for unit_id, piece in listed:
            if unit_id not in best or piece > best[unit_id]:
                best[unit_id] = piece
        return best

    def manifests(self, table: str) -> list[Manifest]:
        """Manifests of a table's merged files. Each is read once: merged files never change."""
        found = []
        for name in self.files.list(f"{_known(table)}/{MERGED}"):
            level = merged_level(name)
            if level is None:
                continue
            key = (table, f"{MERGED}/{name}")
            if key not in self._manifests:
                path = self.files.path(f"{table}/{MERGED}/{name}")
                try:
                    footer = pq.read_metadata(path, filesystem=self.files.filesystem)
                except FileNotFoundError:  # merged again and removed since it was listed
                    return self.manifests(table)
                self._manifests[key] = read_manifest(key[1], level, footer.metadata)
            found.append(self._manifests[key])
        return found

    def write(self, table: str, unit_id: str, rows: list[dict[str, Any]] | pa.Table) -> str:
        """Commit a unit's rows; they count instead of those of an earlier attempt.

        What may pass by itself (a full disk, a server that does not answer) is tried again for
        ten minutes, with one line of warning; so it is in :meth:`read` and :meth:`done`.

        Returns the name of the file below the location. Raises ``ValueError`` for rows that do
        not fit the schema (every column must be named, nulls only where the schema allows them)
        and ``OSError`` if the place refuses; nothing is visible then.
        """
        _path(table, unit_id)
        content = parquet(to_table(table, rows))

        def commit() -> str:
            name = f"{table}/{self._new_file(table, unit_id)}"
            self.files.commit(name, content)
            return name

        return patiently(commit, self.location)

    def _new_file(self, table: str, unit_id: str) -> str:
        """Name for the next version of a unit."""
        if not self.has(table, unit_id):
            return unit_file(unit_id)
        listed = unit_pieces(self._listed(table))
        versions = [piece.version for unit, piece in listed if unit == unit_id]
        for manifest in self.manifests(table):
            if unit_id in manifest.pieces:
                versions.append(manifest.pieces[unit_id].version)
        return unit_file(unit_id, next_version(versions))

    def read(self, table: str, unit_ids: Iterable[str] | None = None) -> pa.Table:
        """Rows of a table: those of ``unit_ids`` in that order, or all, ordered by unit id.

        Raises ``FileNotFoundError`` if one of ``unit_ids`` has no rows.
        """
        wanted = None if unit_ids is None else list(unit_ids)

        def look() -> pa.Table:
            current = self.current(table)
            ids = sorted(current) if wanted is None else wanted
            for unit_id in ids:
                if unit_id not in current:
                    raise FileNotFoundError(errno.ENOENT, f"no rows in {table}", unit_id)
            return self.rows(table, [current[unit_id] for unit_id in ids])

        return patiently(look, self.location)

    def rows(self, table: str, pieces: list[Piece]) -> pa.Table:
        """Rows of ``pieces``, in that order."""
        schema = TABLES[table]
        tables = self.tables(table, joined(pieces))
        return pa.concat_tables(tables).cast(schema) if tables else schema.empty_table()

    def tables(self, table: str, pieces: list[Piece]) -> list[pa.Table]:
        """Rows of each of ``pieces``. Every file is read once, of merged ones only what counts."""
        by_file: dict[str, list[Piece]] = defaultdict(list)
        for piece in pieces:
            by_file[piece.name].append(piece)
        unit_files = [name for name, (first, *_) in by_file.items() if first.level == 0]
        found: dict[Piece, pa.Table] = {}
        for name, content in self._unit_rows(table, unit_files).items():
            found[by_file[name][0]] = content
        for name, wanted in by_file.items():
            if wanted[0].level:
                found.update(self._merged_rows(table, name, wanted))
        return [found[piece] for piece in pieces]

    def _unit_rows(self, table: str, names: list[str]) -> dict[str, pa.Table]:
        """Rows of unit files, read in parallel."""
        if not names:
            return {}
        paths = {self.files.path(f"{table}/{name}"): name for name in names}
        schema = TABLES[table].remove_metadata()
        batches: dict[str, list[pa.RecordBatch]] = {name: [] for name in names}
        columns = [*schema.names, "__filename"]
        for batch in self._scan(table, list(paths)).to_batches(columns=columns):
            if len(batch):  # a batch is of one file
                name = paths[batch["__filename"][0].as_py()]
                batches[name].append(batch.select(schema.names))
        return {name: pa.Table.from_batches(found, schema) for name, found in batches.items()}

    def _merged_rows(self, table: str, name: str, pieces: list[Piece]) -> dict[Piece, pa.Table]:
        """Rows of pieces of one merged file."""
        path = self.files.path(f"{table}/{name}")
        with pq.ParquetFile(path, filesystem=self.files.filesystem) as file:
            sizes = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
            first = min(piece.start for piece in pieces)
            last = max(piece.start + piece.rows for piece in pieces)
            groups, skipped, end = [], 0, 0
            for group, size in enumerate(sizes):
                end += size
                if end <= first:
                    skipped = end
                elif end - size < last:
                    groups.append(group)
            content = file.read_row_groups(groups)
        content = content.replace_schema_metadata(None)
        return {piece: content.slice(max(0, piece.start - skipped), piece.rows)
                for piece in pieces}

    def dataset(self, table: str) -> ds.Dataset | pa.Table:
        """The table as of now, for engines that choose columns and rows while they read.

        The files are opened when they are needed: they stay for as long as compaction leaves
        them, which is a day.
        """
        current = self.current(table)
        live: dict[str, list[Piece]] = defaultdict(list)
        for piece in current.values():
            live[piece.name].append(piece)
        outdated: list[Piece] = []  # pieces of merged files that also hold rows which do not count
        for manifest in self.manifests(table):
            name = next(iter(manifest.pieces.values())).name
            if name in live and len(live[name]) < len(manifest.pieces):
                outdated += live.pop(name)
        schema = TABLES[table].remove_metadata()
        rest = self.rows(table, outdated).replace_schema_metadata(None) if outdated else None
        paths = [self.files.path(f"{table}/{name}") for name in sorted(live)]
        if not paths:
            return schema.empty_table() if rest is None else rest
        import pyarrow.dataset as ds

        whole = self._scan(table, paths)
        return whole if rest is None else ds.dataset([whole, ds.dataset(rest)])

    def _scan(self, table: str, paths: list[str]) -> ds.Dataset:
        import pyarrow.dataset as ds  # imports pandas, which takes longer than all the rest

        return ds.dataset(paths, schema=TABLES[table].remove_metadata(), format="parquet",
                          filesystem=self.files.filesystem)

    def _listed(self, table: str) -> list[str]:
        return self.files.list(_known(table))


def parquet(content: pa.Table) -> bytes:
    """A table as the bytes of a Parquet file."""
    sink = pa.BufferOutputStream()
    rows = _ROW_GROUP * len(content) // max(1, content.nbytes)
    pq.write_table(content, sink, compression="zstd", write_page_checksum=True,
                   row_group_size=max(1, rows))
    return bytes(sink.getvalue())


def _known(table: str) -> str:
    """``table`` itself; ``KeyError`` if there is no such table."""
    if table not in TABLES:
        raise KeyError(table)
    return table


def _path(table: str, unit_id: str) -> str:
    """Name of a unit's first file; ``ValueError`` for a malformed id."""
    if not _UNIT_ID.fullmatch(unit_id):
        raise ValueError(f"unit id {unit_id!r} has characters other than 0-9, a-z and -")
    return f"{_known(table)}/{unit_file(unit_id)}"


def _check_version(files: Files, location: Path | str) -> None:
    """Raise :class:`UserError` if there are results of another schema version."""
    version = _version(files, location)
    if version not in (None, SCHEMA_VERSION):
        raise UserError(
            f"{location} holds results of schema version {version}, which this prunelib (version "
            f"{SCHEMA_VERSION}) cannot read or add to: run the recipe again into a new folder"
        )


def _version(files: Files, location: Path | str) -> int | None:
    """Schema version of the results in a place, ``None`` where there are none.

    The marker says it; where it was lost, the footer of one file of each table.
    """
    if files.exists(_FORMER_TABLE):
        return 1
    try:
        return int(json.loads(files.read(MARKER))["schema_version"])
    except (FileNotFoundError, NotADirectoryError):
        pass
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{location}: {MARKER} is damaged: use another results folder") from error
    found = {_footer_version(files, table) for table in TABLES} - {None}
    return next(iter(found - {SCHEMA_VERSION} or found), None)


def _footer_version(files: Files, table: str) -> int | None:
    """Schema version of the first file of a table; ``None`` without a file that tells."""
    for folder in (table, f"{table}/{MERGED}"):
        names = sorted(name for name in files.list(folder) if name.endswith(".parquet"))
        if names:
            try:
                schema = pq.read_schema(files.path(f"{folder}/{names[0]}"),
                                        filesystem=files.filesystem)
                return int((schema.metadata or {})[b"schema_version"])
            except (OSError, pa.ArrowException, KeyError, ValueError):
                return None  # a damaged or foreign file says nothing about the others
    return None
