"""Which file holds the current rows of a unit.

A unit is first written to ``UNIT.parquet``. Writing it again makes a new file with a higher
version, ``UNIT.1-TOKEN.parquet``; no file is ever written to again. Compaction copies units into
``merged/LEVEL-TOKEN.parquet``, a file with its own manifest: its footer lists the units, their
versions and their numbers of rows, in the order of its rows. So one commit makes the rows and the
manifest visible.

The rule for readers: of all that claim to hold a unit, the highest version counts; of equal
versions the highest level, where unit files have level 0; then the greatest name. Hence a unit
that is in a merged file and still in its own file counts once, a unit that was written again
after it was merged counts as written last, and two compactions at once do no harm.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterable
from typing import NamedTuple

import pyarrow as pa

MERGED = "merged"
_METADATA = b"prunelib_units"
_UNIT_FILE = re.compile(r"([0-9a-z-]+)(?:\.(\d+)-([0-9a-f]{32}))?\.parquet")
_MERGED_FILE = re.compile(r"(\d+)-[0-9a-f]{32}\.parquet")


class Version(NamedTuple):
    """How often a unit was written before; the token tells two writers at once apart."""

    number: int = 0
    token: str = ""


class Piece(NamedTuple):
    """The rows of a unit: a whole file, or ``rows`` rows of a merged file from row ``start``.

    The order of pieces is the rule above. ``rows`` of a unit file is not known: -1.
    """

    version: Version
    level: int
    name: str
    start: int = 0
    rows: int = -1


def joined(pieces: Iterable[Piece]) -> list[Piece]:
    """``pieces`` with those that follow each other in one merged file made one."""
    found: list[Piece] = []
    for piece in pieces:
        last = found[-1] if found else None
        follows = last and last.name == piece.name and last.start + last.rows == piece.start
        if last and last.level and follows:
            found[-1] = last._replace(rows=last.rows + piece.rows)
        else:
            found.append(piece)
    return found


#: The version of a unit's first file.
FIRST = Version()


def unit_file(unit_id: str, version: Version = FIRST) -> str:
    """Name of the file of a version of a unit."""
    suffix = f".{version.number}-{version.token}" if version.number else ""
    return f"{unit_id}{suffix}.parquet"


def next_version(versions: Iterable[Version]) -> Version:
    """A version above all of ``versions`` that nobody else can come by."""
    return Version(1 + max(version.number for version in versions), uuid.uuid4().hex)


def unit_pieces(names: Iterable[str]) -> list[tuple[str, Piece]]:
    """Units and their pieces, from the names in the folder of a table; other names are skipped."""
    found = []
    for name in names:
        match = _UNIT_FILE.fullmatch(name)
        if match:
            version = Version(int(match[2]), match[3]) if match[2] else FIRST
            found.append((match[1], Piece(version, 0, name)))
    return found


def merged_file(level: int) -> str:
    """A new name for a merged file, below the folder of its table."""
    return f"{MERGED}/{level}-{uuid.uuid4().hex}.parquet"


def merged_level(name: str) -> int | None:
    """Level of a merged file by its name in the folder ``merged``; None if it is none."""
    match = _MERGED_FILE.fullmatch(name)
    return int(match[1]) if match else None


class Manifest(NamedTuple):
    """What a merged file holds: unit → piece; ``full`` if later compactions leave it alone."""

    pieces: dict[str, Piece]
    full: bool


def with_manifest(schema: pa.Schema, units: list[tuple[str, Version, int]], full: bool
                  ) -> pa.Schema:
    """``schema`` for a merged file that holds ``units`` (id, version, rows) in this order."""
    text = json.dumps({"full": full, "units": [[unit, *version, rows]
                                               for unit, version, rows in units]})
    return schema.with_metadata({**(schema.metadata or {}), _METADATA: text.encode()})


def read_manifest(name: str, level: int, metadata: dict[bytes, bytes]) -> Manifest:
    """Manifest of the merged file ``name``, from the metadata of its footer."""
    content = json.loads(metadata[_METADATA])
    pieces: dict[str, Piece] = {}
    start = 0
    for unit_id, number, token, rows in content["units"]:
        pieces[unit_id] = Piece(Version(number, token), level, name, start, rows)
        start += rows
    return Manifest(pieces, content["full"])
