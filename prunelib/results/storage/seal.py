"""The checksum of a whole file, kept inside it, between its rows and its footer.

Parquet's own checksums cover the content of pages only. A bit that flips in a page's header, in
the footer or in its statistics changes numbers unnoticed. So every file has 16 bytes more, just
before its footer, where Parquet leaves room: a digest of everything else in the file, of the
schema version and of the file's name below the results. Other readers of Parquet see no
difference. A file that was damaged, cut short, moved or renamed, or that something else wrote, does
not have the digest that it should.
"""

from __future__ import annotations

import hashlib

from prunelib.results.columns import SCHEMA_VERSION

_MAGIC = b"PAR1"
_END = 8  # bytes after the footer: its length and the magic number
_SIZE = 16


def sealed(name: str, content: bytes) -> bytes:
    """The bytes of a Parquet file with the digest that it has as file ``name``."""
    footer = _footer(content)
    if footer is None:
        raise ValueError("no Parquet file")
    rows, rest = content[:footer], content[footer:]
    return b"".join((rows, _digest(name, rows, rest), rest))


def fault(name: str, content: bytes) -> str | None:
    """What is wrong with the content of file ``name``; ``None`` if every bit is as written."""
    if not content:
        return "is empty"
    footer = _footer(content)
    if footer is None or footer < _SIZE + len(_MAGIC):
        return "is cut short, or no Parquet file"
    view = memoryview(content)
    start = footer - _SIZE
    if view[start:footer] != _digest(name, view[:start], view[footer:]):
        return "is not as it was written under this name: its checksum does not match"
    return None


def _footer(content: bytes) -> int | None:
    """Where the footer begins."""
    if len(content) < _END + len(_MAGIC) or not content.endswith(_MAGIC):
        return None
    start = len(content) - _END - int.from_bytes(content[-_END:-4], "little")
    return start if start >= len(_MAGIC) else None


def _digest(name: str, *parts: bytes | memoryview) -> bytes:
    state = hashlib.sha256(f"{SCHEMA_VERSION} {name}\0".encode())  # the fastest on today's CPUs
    for part in parts:
        state.update(part)
    return state.digest()[:_SIZE]
