"""What statistics need of all predictions of a store, from the summaries in the files' footers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from functools import partial

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from prunelib.results.outcomes import COLUMNS, PROMPT, SUMMARY, noted, summarise
from prunelib.results.storage.files import patiently
from prunelib.results.storage.intact import in_threads
from prunelib.results.storage.manifest import Piece
from prunelib.results.storage.store import Store

_TABLE = "predictions"
#: Units whose rows are read at a time.
_BATCH = 100


def read_outcomes(stores: Sequence[tuple[Store, dict[str, Piece]]]
                  ) -> tuple[pa.Table, dict[str, pa.Table]]:
    """The summary of predictions, and the prompts by the digests that it names.

    Of a list of prompts, which many units may have asked, example and query are read once.
    ``stores``: each with the pieces of the units that count.
    """
    summaries = [pa.Table.from_batches([], SUMMARY)]
    prompts: dict[str, pa.Table] = {}
    for store, current in stores:
        summary = patiently(partial(_summary, store, current), store.location)
        prompts |= patiently(partial(_prompts, store, summary, current, prompts), store.location)
        summaries.append(summary)
    return pa.concat_tables(summaries).combine_chunks(), prompts


def _summary(store: Store, current: dict[str, Piece]) -> pa.Table:
    files: dict[str, list[str]] = defaultdict(list)
    for unit_id, piece in current.items():
        files[piece.name].append(unit_id)

    def footer(name: str) -> pa.Table | None:
        path = store.files.path(f"{_TABLE}/{name}")
        with store.files.filesystem.open_input_file(path) as file:
            return noted(pq.read_metadata(file).metadata)

    found, without = [pa.Table.from_batches([], SUMMARY)], []
    for (_, units), summary in zip(files.items(), in_threads(footer, files), strict=True):
        if summary is None:
            without += units
        else:
            found.append(_of_units(summary, units))
    for _, rows in _rows(store, {unit: current[unit] for unit in without}, COLUMNS):
        found.append(summarise(rows))
    return pa.concat_tables(found)


def _of_units(summary: pa.Table, units: list[str]) -> pa.Table:
    """The summary of a file without units whose rows do not count any more."""
    if len(summary["unit_id"].unique()) <= len(units):
        return summary
    return summary.filter(pc.is_in(summary["unit_id"], pa.array(units)))


def _rows(store: Store, pieces: dict[str, Piece], columns: Sequence[str]
          ) -> Iterator[tuple[str, pa.Table]]:
    """Units and their rows, a batch in memory at a time."""
    units = list(pieces)
    for start in range(0, len(units), _BATCH):
        some = units[start : start + _BATCH]
        yield from zip(some, store.tables(_TABLE, [pieces[unit] for unit in some], columns),
                       strict=True)


def _prompts(store: Store, summary: pa.Table, current: dict[str, Piece], before: Iterable[str]
             ) -> dict[str, pa.Table]:
    """Digest → example and query of its prompts, but for those known ``before``.

    They are read from the first unit that asked them.
    """
    parts: dict[str, list[tuple[str, int]]] = defaultdict(list)
    known = set(before)
    wanted: dict[str, Piece] = {}
    for unit_id, digest, n in zip(*(summary[name].to_pylist()
                                    for name in ("unit_id", "prompts", "n")), strict=True):
        parts[unit_id].append((digest, n))
        if digest not in known:
            known.add(digest)
            wanted[unit_id] = current[unit_id]
    found: dict[str, pa.Table] = {}
    for unit_id, rows in _rows(store, wanted, PROMPT):
        start = 0
        for digest, n in parts[unit_id]:
            found.setdefault(digest, rows.slice(start, n))
            start += n
    return found
