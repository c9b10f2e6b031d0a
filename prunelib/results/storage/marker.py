"""Which schema version the results in a place have: the marker says it, or else the files do."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from prunelib.errors import UserError
from prunelib.identity import digest
from prunelib.results.columns import SCHEMA_VERSION
from prunelib.results.schemas import TABLES
from prunelib.results.storage.files import Files, passing
from prunelib.results.storage.manifest import MERGED
from prunelib.results.storage.seal import fault

MARKER = "prunelib-results.json"
#: Table of schema version 1 that is called ``interventions`` now.
_FORMER_TABLE = "ablations"
#: What reading something else than a file ends in.
_NO_FILE = {errno.EISDIR, errno.ELOOP, errno.ENOLINK, errno.EIO}


#: Files of a table that are asked for their version, until one tells.
_TRIED = 3


def write_marker(files: Files) -> None:
    """Write the marker of this schema version."""
    content = {"schema_version": SCHEMA_VERSION, "check": _check(SCHEMA_VERSION)}
    files.commit(MARKER, (json.dumps(content) + "\n").encode())


def marker_damage(files: Files) -> str | None:
    """What is wrong with the marker, in words that follow its name; ``None`` if nothing is."""
    try:
        _marked(files)
    except FileNotFoundError:
        return "is missing"
    except (_DamagedError, NotADirectoryError) as error:
        return str(error)
    return None


def check_version(files: Files, location: Path | str) -> None:
    """Raise :class:`UserError` if there are results of another schema version."""
    version = _version(files)
    if version not in (None, SCHEMA_VERSION):
        raise UserError(
            f"{location} holds results of schema version {version}, which this prunelib (version "
            f"{SCHEMA_VERSION}) cannot read or add to: run the recipe again into a new folder"
        )


class _DamagedError(Exception):
    pass


def _marked(files: Files) -> int:
    """The version that the marker says, which has a checksum since version 3."""
    try:
        found = json.loads(files.read(MARKER))
        version, check = int(found["schema_version"]), found.get("check")
    except OSError as error:
        if error.errno not in _NO_FILE:
            raise
        raise _DamagedError("is no file") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _DamagedError("is not what prunelib wrote") from error
    if check not in (None, _check(version)):
        raise _DamagedError("is not as it was written: its checksum does not match")
    return version


def _check(version: int) -> str:
    return digest("marker", version)


def _version(files: Files) -> int | None:
    """Schema version of the results in a place, ``None`` where there are none."""
    if _parquet_names(files, _FORMER_TABLE):
        return 1
    try:
        return _marked(files)
    except (FileNotFoundError, NotADirectoryError, _DamagedError):
        pass
    found = {_footer_version(files, table) for table in TABLES} - {None}
    return next(iter(found - {SCHEMA_VERSION} or found), None)


def _footer_version(files: Files, table: str) -> int | None:
    """Schema version of the first file of a table that tells; ``None`` without one."""
    for folder in (table, f"{table}/{MERGED}"):
        for name in _parquet_names(files, folder)[:_TRIED]:
            path = f"{folder}/{name}"
            try:
                content = files.read(path)
                if fault(path, content) is None:
                    return SCHEMA_VERSION
                schema = pq.read_schema(pa.BufferReader(content))
                found = int((schema.metadata or {})[b"schema_version"])
            except (OSError, pa.ArrowException, KeyError, ValueError):
                continue  # a damaged or foreign file says nothing about the others
            if found != SCHEMA_VERSION:  # else it is damaged
                return found
    return None


def _parquet_names(files: Files, folder: str) -> list[str]:
    try:
        return sorted(name for name in files.list(folder) if name.endswith(".parquet"))
    except OSError as error:
        if passing(error):
            raise
        return []  # a folder that cannot be read says nothing about the others
