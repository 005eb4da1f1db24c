"""Signals that end a training between two steps, with its state saved."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Generator
from types import FrameType


@contextlib.contextmanager
def stop_signals() -> Generator[threading.Event]:
    """Turn the first Ctrl-C or SIGTERM into a wish to stop; the second one acts at once.

    After the block a wish becomes what the signal means: KeyboardInterrupt, or exit code 143.
    """
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked  # only the main thread may catch signals
        return
    came: list[int] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def note(number: int, _: FrameType | None) -> None:
        came.append(number)
        asked.set()
        for each, handler in before.items():
            signal.signal(each, handler)

    for number in before:
        signal.signal(number, note)
    try:
        yield asked
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
    if came == [signal.SIGTERM]:
        sys.exit(128 + signal.SIGTERM)
