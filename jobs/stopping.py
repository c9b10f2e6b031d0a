"""Ctrl-C and SIGTERM during a run: it ends in order, and the second one ends it at once."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
#: Seconds after which a run that goes on in spite of a signal is interrupted once more.
_AGAIN = 15.0


@contextmanager
def stopping(hard: bool = False) -> Iterator[None]:
    """What is done in here ends with ``KeyboardInterrupt`` at a signal; ``hard``: the process does.

    It is no class of its own, since Ray, while it waits, passes on this one alone: any other is
    kept until the wait is over and comes out as a ``SystemError``. Python drops what is raised in a
    destructor or a callback, so it is raised again and again for as long as this goes on.
    Signals reach the main thread of a process only; elsewhere this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def at_once(_number: int, _frame: FrameType | None) -> None:
        os._exit(130)

    def in_order(_number: int, _frame: FrameType | None) -> None:
        for number in _SIGNALS:
            signal.signal(number, at_once)
        signal.setitimer(signal.ITIMER_REAL, _AGAIN, _AGAIN)
        raise KeyboardInterrupt

    before = {number: signal.signal(number, at_once if hard else in_order) for number in _SIGNALS}
    before[signal.SIGALRM] = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in before.items():
            signal.signal(number, handler)
