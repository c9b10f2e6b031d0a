"""Whether a place can be written, before the work whose outcome goes there."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Literal

from prunelib.errors import UserError


def check_folder(folder: Path) -> None:
    """Make a folder if it is not there. Raises :class:`UserError` if it cannot be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except (OSError, ValueError) as error:
        raise UserError(f"cannot write to {folder}: {getattr(error, 'strerror', None) or error}"
                        ) from error


def check_new(path: Path, kind: Literal["folder", "file"] = "folder") -> None:
    """Raise :class:`UserError` if a folder or file is there already or cannot be made."""
    try:
        there = path.exists() or path.is_symlink()
    except (OSError, ValueError) as error:
        raise UserError(f"cannot write to {path}: {getattr(error, 'strerror', None) or error}"
                        ) from error
    if there:
        raise UserError(f"{path} exists: give a new {kind}")
    check_folder(path.parent)
