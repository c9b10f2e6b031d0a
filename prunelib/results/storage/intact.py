"""Which files of a place are whole: each is read and its checksum compared before its rows count.

A file that is not whole does not count, and takes nothing else down; :attr:`Intact.damage` says
what was found.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from prunelib.errors import one_line
from prunelib.results.outcomes import noted, summarise
from prunelib.results.schemas import OF_UNITS, TABLES
from prunelib.results.storage.files import Files, passing, reason
from prunelib.results.storage.manifest import (
    MERGED,
    Manifest,
    Piece,
    merged_level,
    read_manifest,
    unit_pieces,
)
from prunelib.results.storage.seal import fault

Item = TypeVar("Item")
Out = TypeVar("Out")

#: Files that are read at a time.
_THREADS = 16


@dataclass(frozen=True)
class Damage:
    """A file that does not count.

    Attributes:
        file: its name below the results; a folder's, if that cannot be read.
        table: the table that it is in; empty for the marker.
        unit: the unit whose rows it should hold; ``None`` where there are many or none.
        what: what is wrong with it, in a few words that follow its name.
        denied: whether it may be whole, and merely may not be read by this user.
    """

    file: str
    table: str
    unit: str | None
    what: str
    denied: bool = False


class Intact:
    """Looks at files, and remembers those that are whole for as long as they are the same."""

    def __init__(self, files: Files, decode: bool = False) -> None:
        """With ``decode`` every row is read too, and must be of its table and its unit."""
        self._files, self._decode = files, decode
        self._seen: dict[str, tuple[str, Damage | Manifest | None]] = {}
        #: Folders that could not be listed.
        self._folders: dict[str, Damage] = {}
        #: Bytes of each file that was read.
        self.sizes: dict[str, int] = {}

    @property
    def count(self) -> int:
        """Files that were looked at and are still there."""
        return len(self._seen)

    @property
    def damage(self) -> list[Damage]:
        """What was found so far and is still there."""
        found = [result for _, result in self._seen.values() if isinstance(result, Damage)]
        return sorted([*self._folders.values(), *found], key=lambda damage: damage.file)

    def forget(self) -> None:
        """Read every file again, even those that seem unchanged."""
        self._seen.clear()

    def units(self, table: str, listed: dict[str, str], best: Mapping[str, Piece]
              ) -> list[tuple[str, Piece]]:
        """Units and pieces of the unit files of a listing that are whole.

        A file whose unit has a better piece in ``best`` is not looked at.
        """
        pieces = [(unit, piece) for unit, piece in unit_pieces(listed)
                  if unit not in best or piece > best[unit]]
        names = {piece.name: unit for unit, piece in pieces}
        self._look(table, table, listed, names, names.get)
        return [(unit, piece) for unit, piece in pieces
                if self._seen[f"{table}/{piece.name}"][1] is None]

    def manifests(self, table: str) -> list[Manifest]:
        """Manifests of the merged files that are whole."""
        folder = f"{table}/{MERGED}"
        listed = {name: stamp for name, stamp in self.listed(table, folder).items()
                  if merged_level(name) is not None}
        self._look(table, folder, listed, listed, lambda _: None)
        found = [self._seen[f"{folder}/{name}"][1] for name in sorted(listed)]
        return [result for result in found if isinstance(result, Manifest)]

    def has(self, table: str, name: str, unit: str) -> bool:
        """Whether a unit file is there and whole; it is read, whatever is remembered."""
        try:
            return self._check(table, f"{table}/{name}", unit) is None
        except FileNotFoundError:
            return False

    def listed(self, table: str, folder: str) -> dict[str, str]:
        """Names and stamps in a folder; none in one that cannot be listed, which is damage."""
        self._folders.pop(folder, None)
        if table in self._folders:
            return {}
        try:
            return self._files.list(folder)
        except OSError as error:
            if error.errno not in (errno.ELOOP, errno.ENOTDIR, errno.EACCES, errno.EPERM):
                raise
            self._folders[folder] = _unreadable(table, folder, None, error)
            return {}

    def _look(self, table: str, folder: str, listed: dict[str, str], names: Iterable[str],
              unit_of: Callable[[str], str | None]) -> None:
        """Check which of ``names`` are new or have changed; what is not listed is forgotten.

        Raises ``FileNotFoundError`` if a file went away meanwhile.
        """
        for name in [name for name in self._seen if name.rpartition("/")[0] == folder]:
            if name.rpartition("/")[2] not in listed:
                del self._seen[name]
        new = [name for name in names
               if not listed[name] or self._seen.get(f"{folder}/{name}", ("",))[0] != listed[name]]

        def check(name: str) -> Damage | Manifest | None:
            return self._check(table, f"{folder}/{name}", unit_of(name))

        for name, found in zip(new, in_threads(check, new), strict=True):
            # Damage is looked at again each time: it may be mended, with the same size and time.
            stamp = "" if isinstance(found, Damage) else listed[name]
            self._seen[f"{folder}/{name}"] = (stamp, found)

    def _check(self, table: str, name: str, unit: str | None) -> Damage | Manifest | None:
        try:
            content = self._files.read(name)
        except OSError as error:
            if isinstance(error, FileNotFoundError) or passing(error):
                raise
            return _unreadable(table, name, unit, error)
        self.sizes[name] = len(content)
        if what := fault(name, content):
            return Damage(name, table, unit, what)
        found = None
        if unit is None:
            base = name.removeprefix(f"{table}/")
            level = merged_level(base.removeprefix(f"{MERGED}/"))
            footer = pq.read_metadata(pa.BufferReader(content))
            found = read_manifest(base, level or 0, footer.metadata)
        if self._decode:
            units = [(unit, -1)] if unit else [
                (unit, piece.rows) for unit, piece in found.pieces.items()] if found else []
            if what := contradiction(table, content, units):
                return Damage(name, table, unit, what)
        return found


def contradiction(table: str, content: bytes, units: list[tuple[str, int]]) -> str | None:
    """What is wrong with the rows of a file of a table; ``None`` if nothing is.

    ``units`` are those whose rows it holds, one after the other, and their numbers of rows (-1:
    any).
    """
    try:
        rows = pq.read_table(pa.BufferReader(content), page_checksum_verification=True)
    except (OSError, pa.ArrowException) as error:
        return f"cannot be decoded: {one_line(error)}"
    if not rows.schema.equals(TABLES[table]):
        return f"has other columns than the table {table}"
    summary = noted(pq.read_metadata(pa.BufferReader(content)).metadata)
    if summary is not None and not summary.equals(summarise(rows)):
        return "has a summary that is not of its rows"
    if sum(count for _, count in units if count > 0) > len(rows):
        return "has fewer rows than it says"
    start = 0
    for unit, count in units if table in OF_UNITS else ():
        part = rows["unit_id"].slice(start, None if count < 0 else count)
        if others := set(part.unique().to_pylist()) - {unit}:
            return f"holds rows of unit {min(others)} as those of {unit}"
        start += len(part)
    return None


def in_threads(act: Callable[[Item], Out], items: Iterable[Item]) -> list[Out]:
    """``act`` of each item: many at a time, since a file far away is mostly waited for."""
    with ThreadPoolExecutor(_THREADS) as threads:
        return list(threads.map(act, items))


def _unreadable(table: str, name: str, unit: str | None, error: OSError) -> Damage:
    denied = error.errno in (errno.EACCES, errno.EPERM, None)
    return Damage(name, table, unit, f"cannot be read: {reason(error)}", denied)
