"""Compaction: the rows of many unit files copied into few merged files, and dead files removed.

Writers and readers go on meanwhile, and any number of compactions may run at once: a merged file
counts from its commit on, with all its units, and nothing else changes (the rule of
:mod:`prunelib.results.storage.manifest`). A file is dead once none of its rows count. Dead files
are removed by a later compaction, when the merged files that replaced them are a day old: whoever
opened the results before may still read them until then.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa

from prunelib.errors import UserError
from prunelib.results.schemas import TABLES
from prunelib.results.storage.files import patiently
from prunelib.results.storage.manifest import (
    Manifest,
    Piece,
    merged_file,
    with_manifest,
)
from prunelib.results.storage.rows import parquet
from prunelib.results.storage.seal import sealed
from prunelib.results.storage.store import Store

#: Uncompressed bytes from which on a merged file is full. A compaction holds one in memory.
_FULL = 256 << 20
#: Seconds for which a file stays that is not needed any more.
DAY = 24 * 3600.0
#: Units that are read at a time.
_BATCH = 200


@dataclass(frozen=True)
class Compacted:
    """What a compaction did to a table: units copied, merged files made, dead files."""

    table: str
    units: int
    made: int
    removed: int
    kept: int


def compact(store: Store, grace: float = DAY) -> list[Compacted]:
    """Merge the files of every table, then remove what died at least ``grace`` seconds ago.

    Killed at any moment it leaves correct results, and running it again finishes the work.

    Returns:
        one entry per table that had something to merge or dead files.

    Raises:
        UserError: the place cannot be written for longer than may pass.
    """
    found = []
    for table in TABLES:
        made, sources = 0, _sources(store, table)
        try:
            for batch in _batches(store, table, sources):
                _merge(store, table, batch)
                made += 1
            removed, kept = _remove_dead(store, table, grace)
        except (OSError, pa.ArrowException) as error:
            text = " ".join(str(error).split())
            raise UserError(f"cannot compact {table} in {store.location}: {text}") from error
        if made or removed or kept:
            found.append(Compacted(table, len(sources), made, removed, kept))
    store.warn()
    return found


def _sources(store: Store, table: str) -> list[tuple[str, Piece]]:
    """Units to merge and their pieces, in order of the units; none if all is merged already."""
    current = store.current(table)
    live = Counter(piece.name for piece in current.values())
    settled: dict[str, Manifest] = {}
    small = 0
    for manifest in store.manifests(table):
        name = _name(manifest)
        if live.get(name) == len(manifest.pieces):
            settled[name] = manifest
            small += not manifest.full
    if live.keys() - settled.keys() or small > 1:
        settled = {name: manifest for name, manifest in settled.items() if manifest.full}
    return sorted((unit, piece) for unit, piece in current.items() if piece.name not in settled)


@dataclass
class _Batch:
    """What goes into one merged file."""

    units: list[tuple[str, Piece, int]]
    content: list[pa.Table]
    full: bool


def _batches(store: Store, table: str, sources: list[tuple[str, Piece]]) -> Iterator[_Batch]:
    batch = _Batch([], [], full=False)
    size = 0
    for start in range(0, len(sources), _BATCH):
        some = sources[start : start + _BATCH]
        contents = store.tables(table, [piece for _, piece in some])
        for (unit_id, piece), content in zip(some, contents, strict=True):
            batch.units.append((unit_id, piece, len(content)))
            batch.content.append(content)
            size += content.nbytes
            if size >= _FULL:
                batch.full = True
                yield batch
                batch, size = _Batch([], [], full=False), 0
    if batch.units:
        yield batch


def _merge(store: Store, table: str, batch: _Batch) -> None:
    """Commit a merged file with the rows of a batch. It outranks all that it was made from."""
    units = [(unit_id, piece.version, rows) for unit_id, piece, rows in batch.units]
    schema = with_manifest(TABLES[table], units, batch.full)
    name = f"{table}/{merged_file(1 + max(piece.level for _, piece, _ in batch.units))}"
    rows = pa.concat_tables(batch.content).cast(schema).combine_chunks()
    content = sealed(name, parquet(table, rows))
    patiently(lambda: store.files.commit(name, content), store.location)


def _remove_dead(store: Store, table: str, grace: float) -> tuple[int, int]:
    """Remove dead files; how many went and how many have to wait. Damaged ones stay."""
    holders: dict[str, list[str]] = defaultdict(list)  # file → units that it holds
    for unit_id, piece in store.unit_pieces(table):
        holders[piece.name].append(unit_id)
    for manifest in store.manifests(table):
        holders[_name(manifest)] += manifest.pieces
    current = store.current(table)
    live = {piece.name for piece in current.values()}
    ages: dict[str, float] = {}
    removed = kept = 0
    for name in holders.keys() - live:
        winners = {current.get(unit_id) for unit_id in holders[name]}
        for winner in filter(None, winners):
            if winner.name not in ages:
                ages[winner.name] = store.files.age(f"{table}/{winner.name}")
        # The first file of a unit says that it is done; only a merged file says so as well.
        if all(winner and winner.level and ages[winner.name] >= grace for winner in winners):
            store.files.delete(f"{table}/{name}")
            removed += 1
        else:
            kept += 1
    return removed, kept


def _name(manifest: Manifest) -> str:
    return next(iter(manifest.pieces.values())).name
