"""A disk that fails: every call of the system that the store makes is counted, and one goes wrong.

``Disk`` stands in for ``os`` in :mod:`prunelib.results.storage.files`. At its n-th call it raises
an error, kills the process (``crash``: acts as if), or pulls the plug. After the latter it shows
what a disk may hold: only half of the content that was not flushed (``data``), and none of the
changes of names in folders that were not flushed (``names``).
"""

from __future__ import annotations

import errno
import os
import shutil
import signal
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

CHANGES = ("open", "write", "fsync", "replace", "unlink", "mkdir")
CALLS = (*CHANGES, "scandir", "stat", "lstat", "access", "close")


class Killed(BaseException):
    """The process ends here: nothing that runs afterwards may matter."""


class Disk:
    """``os``, whose ``at``-th call fails as ``fault`` says: error, kill, crash, power-data,
    power-names.

    Only calls that change something are counted, unless the fault is ``error``. ``seen`` is the
    number of calls so far.
    """

    def __init__(self, fault: str, at: int, code: int = errno.EACCES) -> None:
        self.fault, self.at, self.code = fault, at, code
        self.seen = 0
        self.dead = False
        self._paths: dict[int, str] = {}
        self._unflushed: dict[int, str] = {}  # inode → path
        self._undo: dict[str, list[Callable[[], Any]]] = defaultdict(list)  # by folder

    def __getattr__(self, name: str) -> Any:
        value = getattr(os, name)
        if name not in CALLS:
            return value

        def call(*arguments: Any) -> Any:
            if self.dead:
                raise Killed
            if name in CHANGES or self.fault == "error":
                self.seen += 1
                if self.seen == self.at:
                    self._fail(name, arguments)
            undo = getattr(self, f"_before_{name}", lambda *_: None)(*arguments)
            result = value(*arguments)
            getattr(self, f"_after_{name}", lambda *_: None)(result, undo, *arguments)
            return result

        return call

    def _fail(self, name: str, arguments: tuple[Any, ...]) -> None:
        if name == "write":  # half of it is done
            descriptor, content = arguments
            os.write(descriptor, content[: len(content) // 2])
        if self.fault == "error":
            raise OSError(self.code, "injected")
        if self.fault == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        self.dead = True
        if self.fault == "power-names":
            for changes in self._undo.values():
                for change in reversed(changes):
                    change()
        for inode, path in self._unflushed.items() if self.fault != "crash" else ():
            if Path(path).exists() and Path(path).stat().st_ino == inode:
                os.truncate(path, Path(path).stat().st_size // 2)
        raise Killed

    def _after_open(self, descriptor: int, _: Any, path: str, flags: int, *mode: int) -> None:
        self._paths[descriptor] = path
        if flags & os.O_CREAT:
            self._unflushed[os.fstat(descriptor).st_ino] = path
            self._undo[str(Path(path).parent)].append(lambda: Path(path).unlink(missing_ok=True))

    def _after_fsync(self, _: None, __: Any, descriptor: int) -> None:
        self._unflushed.pop(os.fstat(descriptor).st_ino, None)
        self._undo.pop(self._paths[descriptor], None)

    def _before_replace(self, source: str, target: str) -> Callable[[], Any]:
        old = Path(target).read_bytes() if Path(target).exists() else None
        inode = Path(source).stat().st_ino
        if inode in self._unflushed:
            self._unflushed[inode] = target
        return lambda: Path(target).unlink() if old is None else Path(target).write_bytes(old)

    def _before_unlink(self, path: str) -> Callable[[], Any]:
        old = Path(path).read_bytes()
        return lambda: Path(path).write_bytes(old)

    def _remember(self, _: None, undo: Callable[[], Any], path: str, *__: str) -> None:
        self._undo[str(Path(path).parent)].append(undo)

    _after_replace = _after_unlink = _remember

    def _after_mkdir(self, _: None, __: Any, path: str) -> None:
        self._undo[str(Path(path).parent)].append(lambda: shutil.rmtree(path, ignore_errors=True))
