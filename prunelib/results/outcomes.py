"""What statistics need of answers: which prompts a unit asked, and which it got right.

A file of ``predictions`` keeps a summary of its rows in its footer, so that a view on millions of
answers reads a few bits of each. It is made when the file is; of a file without one, which an older
version wrote, it is made of the rows when they are read. It cannot disagree with them: both are
under the checksum of the file.

A summary has a row for each *part*: answers that follow each other in the table, have all of
:data:`KEY` in common and are in the order of their examples, each once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from prunelib.results.schemas import TABLES

#: What the answers of a part have in common: columns of ``predictions``.
KEY = ("unit_id", "model", "engine", "intervention", "task", "split", "purpose", "shots", "seed",
       "repeat", "format")
#: The columns that tell the prompts of a part apart.
PROMPT = ("example", "query")
#: The columns that a summary is made of.
COLUMNS = (*KEY, *PROMPT, "correct", "copied", "error")
#: Of each part its key, how many answers it has, a digest of their examples and queries, and a bit
#: for each answer, packed: is it right, is it a copying error, is it missing because of an error?
SUMMARY = pa.schema([
    *(pa.field(name, TABLES["predictions"].field(name).type) for name in KEY),
    ("n", pa.int64()), ("prompts", pa.string()), ("right", pa.binary()), ("copied", pa.binary()),
    ("failed", pa.binary())])
#: Under this name it is in the footer; another format of it needs another name.
_METADATA = b"prunelib_outcomes_1"


def summarise(rows: pa.Table) -> pa.Table:
    """The summary of rows of ``predictions``. A missing answer is neither right nor copied."""
    failed = np.asarray(rows["error"].is_valid())
    right = np.asarray(rows["correct"]) & ~failed
    copied = np.asarray(rows["copied"]) & ~failed
    starts = _starts(rows)
    pieces = list(zip(starts, [*starts[1:], len(rows)], strict=True)) if len(rows) else []
    columns = [rows[name].take(pa.array(starts)) for name in KEY]
    columns += [
        pa.array([stop - start for start, stop in pieces], pa.int64()),
        pa.array([_digest(rows.select(PROMPT).slice(start, stop - start))
                  for start, stop in pieces], pa.string()),
        *(pa.array([np.packbits(bits[start:stop]).tobytes() for start, stop in pieces],
                   pa.binary()) for bits in (right, copied, failed))]
    return pa.Table.from_arrays(columns, schema=SUMMARY)


def _starts(rows: pa.Table) -> NDArray[np.int64]:
    """Places where a part begins."""
    example = np.asarray(rows["example"])
    new = np.ones(len(rows), bool)
    new[1:] = example[1:] <= example[:-1]
    for name in KEY:
        column = rows[name].combine_chunks()
        new[1:] |= np.asarray(pc.not_equal(column[1:], column[:-1]))
    return np.flatnonzero(new)


def _digest(prompts: pa.Table) -> str:
    state = hashlib.sha256(np.asarray(prompts["example"], np.int32).tobytes())
    for query in prompts["query"].to_pylist():
        text = query.encode()
        state.update(len(text).to_bytes(4, "little") + text)
    return state.hexdigest()[:32]


def notes(rows: pa.Table) -> dict[bytes, bytes]:
    """The summary of rows of ``predictions`` as an entry of a footer."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, SUMMARY) as writer:
        writer.write_table(summarise(rows).combine_chunks())
    return {_METADATA: bytes(sink.getvalue())}


def noted(metadata: Mapping[bytes, bytes] | None) -> pa.Table | None:
    """The summary in a footer; ``None`` if there is none."""
    found = (metadata or {}).get(_METADATA)
    return None if found is None else pa.ipc.open_stream(found).read_all()
