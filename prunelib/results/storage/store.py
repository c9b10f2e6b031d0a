"""The store: one Parquet file per table and unit of work, on a disk or on object storage.

A unit is done if and only if its rows are there and every bit is as it was written
(:mod:`prunelib.results.storage.intact`). They appear whole or not at all: a file is committed in
one step (:mod:`prunelib.results.storage.files`) and never changed afterwards.
Compaction (:mod:`prunelib.results.storage.compaction`) copies the rows of many units into few
files; which file counts is the rule of :mod:`prunelib.results.storage.manifest`.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import re
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from prunelib.errors import UserError
from prunelib.results.arrow import to_table
from prunelib.results.schemas import OF_UNITS, TABLES
from prunelib.results.storage.files import Files, open_files, patiently, reason
from prunelib.results.storage.intact import Damage, Intact, in_threads
from prunelib.results.storage.manifest import (
    MERGED,
    Manifest,
    Piece,
    joined,
    next_version,
    unit_file,
    unit_pieces,
)
from prunelib.results.storage.marker import MARKER, check_version, marker_damage, write_marker
from prunelib.results.storage.rows import fitted, parquet, rows_of_pieces
from prunelib.results.storage.seal import fault, sealed

if TYPE_CHECKING:
    import pyarrow.dataset as ds

logger = logging.getLogger(__name__)
T = TypeVar("T")

#: Folder of the results that damaged files are moved to.
ASIDE = "damaged"
_UNIT_ID = re.compile(r"[0-9a-z-]+")  # no dot and no slash: nothing can leave the folder
#: Bytes of a table's files up to which it is read as a whole when it is opened.
_SMALL = 16 << 20
#: Times that a folder is listed again because files went away while they were read.
_LOOKS = 20


class NoResultsError(UserError):
    """There is nothing yet where results were looked for."""


class Store:
    """Reads and writes the tables at a location. Use :meth:`open` to check the place first.

    Any number of processes may write and read at the same time. Of two that write the same unit
    one wins; the content is the same, since the id digests all that determines it.
    """

    def __init__(self, files: Files, decode: bool = False) -> None:
        """``decode``: damage is looked for in every row as well, not by checksums alone."""
        self.files = files
        self._intact = Intact(files, decode)

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
            check_version(store.files, location)
            if create:
                store._create()
                return store
            empty = not any(store._holds(table) for table in TABLES)
        except OSError as error:
            raise UserError(f"cannot {verb} {location}: {reason(error)}") from error
        if empty:
            what = "holds no results" if store.files.exists("") else "is not a folder"
            raise NoResultsError(
                f"{location} {what}: give the folder that a run wrote its results to")
        return store

    def _create(self) -> None:
        self.files.prepare()
        if marker_damage(self.files):
            if self.files.exists(MARKER):
                self._move_aside(MARKER)
            write_marker(self.files)
        for table in TABLES:
            self.files.tidy(table)
            self.files.tidy(f"{table}/{MERGED}")
        self.files.tidy("")

    def _holds(self, table: str) -> bool:
        """Whether there are files of units, whole or not."""
        listed = self._intact.listed(table, table)
        return bool(unit_pieces(listed) or self._intact.listed(table, f"{table}/{MERGED}"))

    def damage(self) -> list[Damage]:
        """Files of units that do not count. Every file is read that was not yet."""
        def look() -> None:
            for table in TABLES:
                self.unit_pieces(table)
                self.manifests(table)

        patiently(look, self.location)
        return self.known_damage

    @property
    def known_damage(self) -> list[Damage]:
        """The same, of tables that were looked at."""
        return self._intact.damage

    def warn(self) -> None:
        """Say in one line that there is damage, if there is any in tables that were looked at."""
        if damage := self.known_damage:
            logger.warning("%d damaged files do not count: prunelib verify %s lists them",
                           len(damage), self.location)

    @property
    def file_count(self) -> int:
        """Files of units that were looked at, whole or not."""
        return self._intact.count

    def has(self, table: str, unit_id: str) -> bool:
        """Whether the unit's rows are there and whole."""
        name = _path(table, unit_id)

        def look() -> bool:
            if self._intact.has(table, unit_file(unit_id), unit_id):
                return True
            if self.files.exists(name):  # damaged: there may be other files with its rows
                return unit_id in self.current(table)
            # A unit's first file goes only when a merged file has its rows.
            return any(unit_id in manifest.pieces for manifest in self.manifests(table))

        return patiently(look, self.location)

    def done(self, table: str) -> set[str]:
        """Ids of all units with rows in a table, all of whose files are read once."""
        return patiently(lambda: set(self.current(table)), self.location)

    def current(self, table: str) -> dict[str, Piece]:
        """Unit → the piece that holds its rows, as of now. Files that cannot count are not read."""
        def look() -> dict[str, Piece]:
            # Unit files are listed first: what disappears in between was merged before.
            listed = self._intact.listed(_known(table), table)
            best: dict[str, Piece] = {}
            for manifest in self._intact.manifests(table):
                _keep_best(best, manifest.pieces.items())
            _keep_best(best, self._intact.units(table, listed, best))
            return best

        return _again(look)

    def unit_pieces(self, table: str) -> list[tuple[str, Piece]]:
        """Units and pieces of a table's unit files."""
        return _again(lambda: self._intact.units(
            table, self._intact.listed(_known(table), table), {}))

    def manifests(self, table: str) -> list[Manifest]:
        """Manifests of a table's merged files. Each is read once: merged files never change."""
        return _again(lambda: self._intact.manifests(_known(table)))

    def write(self, table: str, unit_id: str, rows: list[dict[str, Any]] | pa.Table) -> str:
        """Commit a unit's rows; they count instead of those of an earlier attempt.

        What may pass by itself (a full disk, a server that does not answer) is tried again for
        ten minutes, with one line of warning; so it is in :meth:`read` and :meth:`done`.

        Returns the name of the file below the location. Raises ``ValueError`` for rows that do
        not fit the schema (every column must be named, nulls only where the schema allows them)
        and ``OSError`` if the place refuses; nothing is visible then.
        """
        _path(table, unit_id)
        found = to_table(table, rows)
        if table in OF_UNITS and (others := set(found["unit_id"].to_pylist()) - {unit_id}):
            raise ValueError(f"rows of unit {min(others)} as those of {unit_id}")
        content = parquet(table, found)

        def commit() -> str:
            name = f"{table}/{self._new_file(table, unit_id)}"
            self.files.commit(name, sealed(name, content))
            return name

        return patiently(commit, self.location)

    def _new_file(self, table: str, unit_id: str) -> str:
        """Name for the next version of a unit; a first file that is damaged is replaced."""
        first = unit_file(unit_id)
        versions = [manifest.pieces[unit_id].version for manifest in self.manifests(table)
                    if unit_id in manifest.pieces]
        for found in self.known_damage:
            # It may be whole, and its rows would outrank those of a file that knows nothing of it.
            if found.denied and found.file.startswith(f"{table}/{MERGED}"):
                raise PermissionError(errno.EACCES, "may not be read", found.file)
        # A first file goes when it is merged; later ones may have come since.
        if versions or self.files.exists(f"{table}/{first}"):
            listed = unit_pieces(self.files.list(table))
            own = [piece for unit, piece in listed if unit == unit_id]
            if versions or len(own) > 1 or self._intact.has(table, first, unit_id):
                versions += [piece.version for piece in own]
        return unit_file(unit_id, next_version(versions)) if versions else first

    def set_aside(self, damage: Iterable[Damage]) -> None:
        """Move damaged files out of the way, into the folder ``damaged``.

        Others may do so at the same time, or write a damaged unit again: what is whole by now
        stays.
        """
        for name, table, unit in ((found.file, found.table, found.unit) for found in damage):
            if self._whole(name, name) or not (moved := self._move_aside(name)):
                continue
            if self._whole(name, moved):
                self.files.move(moved, name)
            elif unit and name == _path(table, unit) and unit in self.current(table):
                # Without a first file only merged files are asked whether the unit is done.
                self._copy_first(table, unit)

    def _whole(self, name: str, place: str) -> bool:
        """Whether there is in a place what belongs to file ``name``, as it was written."""
        try:
            return fault(name, self.files.read(place)) is None
        except OSError:
            return False

    def _copy_first(self, table: str, unit_id: str) -> None:
        """Write the rows of a unit's later file to its first one."""
        name = _path(table, unit_id)
        rows = self.read(table, [unit_id])
        patiently(lambda: self.files.commit(name, sealed(name, parquet(table, rows))),
                  self.location)

    def _move_aside(self, name: str) -> str | None:
        """The new name of a file that was moved; ``None`` if somebody else did so."""
        new = f"{ASIDE}/{name}.{uuid.uuid4().hex}"
        try:
            patiently(lambda: self.files.move(name, new), self.location)
        except FileNotFoundError:
            return None
        return new

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
        none = pa.Table.from_batches([], schema)
        return pa.concat_tables(tables).cast(schema) if tables else none

    def tables(self, table: str, pieces: list[Piece], columns: Sequence[str] | None = None
               ) -> list[pa.Table]:
        """Rows of each of ``pieces``, with all columns or these.

        Every file is read once, of merged ones only what counts.
        """
        by_file: dict[str, list[Piece]] = defaultdict(list)
        for piece in pieces:
            by_file[piece.name].append(piece)
        unit_files = [name for name, (first, *_) in by_file.items() if first.level == 0]
        found: dict[Piece, pa.Table] = {}
        for name, content in self._unit_rows(table, unit_files, columns).items():
            found[by_file[name][0]] = content
        for name, wanted in by_file.items():
            if wanted[0].level:
                found.update(self._merged_rows(table, name, wanted, columns))
        return [found[piece] for piece in pieces]

    def _unit_rows(self, table: str, names: list[str], columns: Sequence[str] | None
                   ) -> dict[str, pa.Table]:
        """Rows of unit files, read in parallel."""
        schema = pa.schema([TABLES[table].field(name) for name in columns or TABLES[table].names])

        def rows(name: str) -> pa.Table:
            path = f"{table}/{name}"
            content = self.files.read(path)
            if fault(path, content) is not None:  # since it was looked at: look again
                self._intact.forget()
                raise OSError(errno.ESTALE, "changed while it was read", path)
            found = pq.ParquetFile(pa.BufferReader(content), page_checksum_verification=True
                                   ).read(columns)
            return fitted(found, schema)

        return dict(zip(names, in_threads(rows, names), strict=True))

    def _merged_rows(self, table: str, name: str, pieces: list[Piece],
                     columns: Sequence[str] | None) -> dict[Piece, pa.Table]:
        """Rows of pieces of one merged file."""
        path = self.files.path(f"{table}/{name}")
        with pq.ParquetFile(path, filesystem=self.files.filesystem,
                            page_checksum_verification=True) as file:
            found = rows_of_pieces(file, pieces, columns)
        schema = pa.schema([TABLES[table].field(name) for name in columns or TABLES[table].names])
        return {piece: fitted(rows, schema) for piece, rows in found.items()}

    def dataset(self, table: str, current: dict[str, Piece]) -> ds.Dataset | pa.Table:
        """Rows of units of a table, for engines that choose columns and rows while they read.

        ``current``: the units and their pieces, as :meth:`current` gave them. The files of a large
        table are opened when they are needed: they stay for as long as compaction leaves them,
        which is a day.
        """
        live: dict[str, list[Piece]] = defaultdict(list)
        for piece in current.values():
            live[piece.name].append(piece)
        if sum(self._intact.sizes[f"{table}/{name}"] for name in live) <= _SMALL:
            found = self.rows(table, [piece for _, piece in sorted(current.items())])
            return found.replace_schema_metadata(None)
        outdated: list[Piece] = []  # pieces of merged files that also hold rows which do not count
        for manifest in self.manifests(table):
            name = next(iter(manifest.pieces.values())).name
            if name in live and len(live[name]) < len(manifest.pieces):
                outdated += live.pop(name)
        rest = self.rows(table, outdated).replace_schema_metadata(None)
        paths = [self.files.path(f"{table}/{name}") for name in sorted(live)]
        if not paths:
            return rest
        import pyarrow.dataset as ds

        return ds.dataset([self._scan(table, paths), ds.dataset(rest)])

    def _scan(self, table: str, paths: list[str]) -> ds.Dataset:
        import pyarrow.dataset as ds  # imports pandas, which takes longer than all the rest

        options = ds.ParquetFragmentScanOptions(page_checksum_verification=True)
        return ds.dataset(paths, schema=TABLES[table].remove_metadata(),
                          format=ds.ParquetFileFormat(default_fragment_scan_options=options),
                          filesystem=self.files.filesystem)


def _keep_best(best: dict[str, Piece], pieces: Iterable[tuple[str, Piece]]) -> None:
    for unit_id, piece in pieces:
        if unit_id not in best or piece > best[unit_id]:
            best[unit_id] = piece


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


def _again(look: Callable[[], T]) -> T:
    """``look()``, again if a file went away between listing and reading: it was merged."""
    for _ in range(_LOOKS):
        with contextlib.suppress(FileNotFoundError):
            return look()
    return look()
