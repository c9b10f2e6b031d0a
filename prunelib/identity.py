"""Content digests: the same content has the same name everywhere, whoever computes it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

_SIZE = 16  # bytes; 128 bits leave no practical chance of a collision


def digest(kind: str, content: Any) -> str:
    """Digest of JSON-like ``content`` as 32 hex characters.

    ``kind`` separates domains, so that two things of different kinds never share a digest.
    Keys are sorted, NaN and infinity are refused (``ValueError``): equal content gives equal
    bytes.
    """
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    state = hashlib.blake2b(digest_size=_SIZE, person=kind.encode()[:16])
    state.update(text.encode())
    return state.hexdigest()


def seed_of(*parts: str | int) -> int:
    """A 64-bit seed that depends on ``parts`` alone, so that draws never share a state."""
    return int(digest("seed", list(parts))[:16], 16)


def files_digest(paths: list[Path]) -> str:
    """Digest of the names and bytes of files (a checkpoint, a data file)."""
    state = hashlib.blake2b(digest_size=_SIZE, person=b"files")
    for path in sorted(paths, key=lambda p: p.name):
        state.update(path.name.encode() + b"\0")
        with path.open("rb") as handle:
            while block := handle.read(1 << 22):
                state.update(block)
    return state.hexdigest()
