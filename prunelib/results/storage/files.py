"""Whole files by name, on a local disk: listed, read, committed in one step, deleted.

The store knows nothing of disks and buckets beyond :class:`Files`. On a disk, a file is written
under a hidden name in its folder, flushed and renamed; :mod:`prunelib.results.storage.s3` is the
same on object storage.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import re
import stat
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, TypeVar

from prunelib.errors import UserError

logger = logging.getLogger(__name__)
T = TypeVar("T")

#: What may pass by itself: a full, read-only or unreachable disk, an S3 that does not answer.
_PASSING = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ESTALE, errno.EAGAIN}
#: Seconds between two tries to write at most, and in all.
_LONGEST_WAIT, _PATIENCE = 30.0, 600.0
_TEMP = ".tmp-"
_STALE = 3600.0  # seconds: no file takes that long to write, so nobody is writing it any more
_SCHEME = re.compile(r"([a-z][a-z0-9+.-]*):/")


class Files(Protocol):
    """What the store asks of the place where it is. Names are relative, with ``/``.

    All methods raise ``OSError`` if the place refuses, with an ``errno`` where it is known.
    """

    #: What another process passes to :func:`open_files` to get the same place.
    location: str

    @property
    def filesystem(self) -> Any:
        """The place as a ``pyarrow.fs.FileSystem``, for readers of columns and rows."""
        ...

    def path(self, name: str) -> str:
        """Name of a file in ``filesystem``."""
        ...

    def list(self, folder: str) -> dict[str, str]:
        """What is in a folder: name, without the folder → a stamp that changes with the file.

        Empty if there is no such folder, ``NotADirectoryError`` if it is something else.
        """
        ...

    def read(self, name: str) -> bytes:
        """Content of a file; ``FileNotFoundError`` if there is nothing of that name."""
        ...

    def commit(self, name: str, content: bytes) -> None:
        """Make the file ``name``, or replace it, for good. Others see all of it or nothing."""
        ...

    def delete(self, name: str) -> None:
        """Remove a file, if it is there."""
        ...

    def move(self, name: str, new: str) -> None:
        """Give a file another name; ``FileNotFoundError`` if there is none."""
        ...

    def exists(self, name: str) -> bool:
        """Whether there is such a file or folder."""
        ...

    def age(self, name: str) -> float:
        """Seconds since the file was written; ``FileNotFoundError`` if there is none."""
        ...

    def prepare(self) -> None:
        """Make the place if it is missing; an ``OSError`` if nothing can be written there."""
        ...

    def tidy(self, folder: str) -> None:
        """Remove what killed writers left in a folder."""
        ...


def open_files(location: str | Path) -> Files:
    """The files at a local path or at ``s3://bucket/prefix``; touches neither.

    Raises :class:`UserError` for a location of another kind.
    """
    scheme = _SCHEME.match(str(location))
    if scheme is None:
        return LocalFiles(Path(location))
    if isinstance(location, Path):
        raise UserError(f"{location} as a Path has lost a slash: give the location as a text")
    if scheme[1] != "s3":
        raise UserError(f"cannot keep results at {location}: a folder or s3://bucket/prefix, "
                        f"not {scheme[1]}://")
    from prunelib.results.storage.s3 import S3Files

    return S3Files(location)


def reason(error: OSError) -> str:
    """What the system said, without paths and numbers."""
    text = error.strerror or str(error)
    return text[:1].lower() + text[1:]


def passing(error: OSError) -> bool:
    """Whether what cannot be read now may be readable later. Of a single file, EIO is for good."""
    return error.errno in _PASSING - {errno.EIO}


def patiently(act: Callable[[], T], location: str) -> T:
    """``act()``, again and again while it fails for reasons that may pass."""
    import tenacity

    def warn(state: tenacity.RetryCallState) -> None:
        if state.attempt_number == 1 and state.outcome is not None:
            logger.warning("cannot reach %s (%s): trying again for up to %.0f minutes",
                           location, state.outcome.exception(), _PATIENCE / 60)

    tries = tenacity.Retrying(
        retry=tenacity.retry_if_exception(
            lambda error: isinstance(error, OSError) and error.errno in _PASSING
        ),
        wait=tenacity.wait_exponential(max=_LONGEST_WAIT),
        stop=tenacity.stop_after_delay(_PATIENCE),
        before_sleep=warn,
        reraise=True,
    )
    return tries(act)


class LocalFiles:
    """Files below a folder of a local or network disk."""

    def __init__(self, root: Path) -> None:
        self.location = str(root.absolute())
        self._lasting: set[str] = set()  # folders that a power cut cannot take any more

    @property
    def filesystem(self) -> Any:
        from pyarrow.fs import LocalFileSystem

        return LocalFileSystem()

    def path(self, name: str) -> str:
        return f"{self.location}/{name}"

    def list(self, folder: str) -> dict[str, str]:
        try:
            with os.scandir(self.path(folder)) as entries:
                return {entry.name: _stamp(entry) for entry in entries}
        except FileNotFoundError:
            if folder and os.path.lexists(self.path(folder)):  # a link to nothing
                raise NotADirectoryError(errno.ENOTDIR, "not a folder") from None
            return {}

    def read(self, name: str) -> bytes:
        path = self.path(name)
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # a pipe would never answer
        except FileNotFoundError:
            if os.path.lexists(path):
                raise OSError(errno.ENOLINK, "link to a file that is not there") from None
            raise
        with open(descriptor, "rb") as handle:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise OSError(errno.EISDIR, "not a file")
            return handle.read()

    def commit(self, name: str, content: bytes) -> None:
        path = self.path(name)
        folder = os.path.dirname(path)
        if folder != self.location:
            self._make_folder(folder)
        # A new name for every try: what a failed fsync has left of a file cannot be flushed again.
        temp = f"{folder}/{_TEMP}{uuid.uuid4().hex}"
        try:
            _write(temp, content)
            os.replace(temp, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temp)
            raise
        # Without this a power cut could undo the rename after the unit was reported as done.
        _sync_folder(folder)

    def _make_folder(self, path: str) -> None:
        """Make a folder and those above it, each for good before anything is put into it."""
        if path in self._lasting:
            return
        above = os.path.dirname(path)
        try:
            os.mkdir(path)
        except FileExistsError:  # its maker may have died, or not yet come to the next line
            pass
        except FileNotFoundError:
            self._make_folder(above)
            os.mkdir(path)
        _sync_folder(above)
        self._lasting.add(path)

    def delete(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path(name))

    def move(self, name: str, new: str) -> None:
        folder, target = os.path.dirname(self.path(name)), self.path(new)
        self._make_folder(os.path.dirname(target))
        os.rename(self.path(name), target)
        _sync_folder(os.path.dirname(target))
        _sync_folder(folder)

    def exists(self, name: str) -> bool:
        try:
            os.lstat(self.path(name))
        except (FileNotFoundError, NotADirectoryError):
            return False
        return True

    def age(self, name: str) -> float:
        return time.time() - os.stat(self.path(name)).st_mtime

    def prepare(self) -> None:
        if not self.exists(""):
            self._make_folder(self.location.rstrip("/"))
        if not stat.S_ISDIR(os.stat(self.location).st_mode):
            raise NotADirectoryError(20, "not a directory")
        if not os.access(self.location, os.W_OK):
            raise PermissionError(13, "permission denied")

    def tidy(self, folder: str) -> None:
        """Remove what killed writers left; a file younger than an hour may be in use."""
        with contextlib.suppress(OSError):  # whoever writes there will say what is wrong
            for name in self.list(folder):
                path = f"{folder}/{name}"
                if name.startswith(_TEMP) and self.age(path) > _STALE:
                    os.unlink(self.path(path))


def _stamp(entry: os.DirEntry[str]) -> str:
    """Size, time and place of a file; of a link, those of what it links to."""
    try:
        found = entry.stat()
    except OSError:  # a link to nothing or to itself, or a file that is gone
        return ""
    return f"{found.st_size} {found.st_mtime_ns} {found.st_ino}"


def _write(path: str, content: bytes) -> None:
    """Write a new file and flush it to the disk."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        rest = memoryview(content)
        while rest:
            rest = rest[os.write(descriptor, rest) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_folder(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
