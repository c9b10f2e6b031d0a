"""Ctrl-C and SIGTERM during a run: it ends in order, and the second one ends it at once."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def stopping(hard: bool = False) -> Iterator[None]:
    """What is done in here ends with ``KeyboardInterrupt`` at a signal; ``hard``: the process does.

    It is no class of its own, since Ray, while it waits, passes on this one alone: any other is
    kept until the wait is over and comes out as a ``SystemError``. Signals reach the main thread
    of a process only; elsewhere this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def at_once(_number: int, _frame: FrameType | None) -> None:
        os._exit(130)

    def in_order(_number: int, _frame: FrameType | None) -> None:
        for number in _SIGNALS:
            signal.signal(number, at_once)
        raise KeyboardInterrupt

    before = {number: signal.signal(number, at_once if hard else in_order) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
