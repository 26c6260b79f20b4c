"""Signals that stop the program: Ctrl-C (SIGINT), SIGTERM, and SIGUSR1, which SLURM can send before a time limit."""

import contextlib
import signal
from collections.abc import Callable, Iterator

SIGNALS = [number for number in signal.Signals if number.name in ("SIGINT", "SIGTERM", "SIGUSR1")]  # Windows lacks one

_deferring = False
_pending: int | None = None


class Stopped(BaseException):
    """A signal asked the program to stop. Like KeyboardInterrupt, `except Exception` doesn't catch it."""

    def __init__(self, number: int, deferred: bool):
        self.name, self.deferred = signal.Signals(number).name, deferred  # deferred: the work can be saved
        self.status = 130 if number == signal.SIGINT else 143


@contextlib.contextmanager
def stop_signals() -> Iterator[None]:
    """Makes the signals raise Stopped in this context. For the main thread."""
    global _pending
    _pending = None
    handlers = {number: signal.signal(number, _handle) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def deferred_signals() -> Iterator[None]:
    """Defers signals, for work to be saved, to `raise_if_stop_requested` or the end. A second Ctrl-C stops at once."""
    global _deferring
    _deferring = True
    try:
        yield
    finally:
        _deferring = False
    raise_if_stop_requested()


def raise_if_stop_requested(agree: Callable[[int], int] = int) -> None:
    """Raises Stopped if a signal is pending. agree: maps its number (0: none) to that on which all ranks agree."""
    global _pending
    if number := agree(_pending or 0):
        _pending = None
        raise Stopped(number, deferred=True)


def ignore_signals(_worker: int) -> None:
    """For a data worker: a signal to the whole process group is meant for the main process."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def _handle(number: int, _frame: object) -> None:
    global _pending
    second_interrupt = number == signal.SIGINT and _pending == signal.SIGINT
    if _deferring and not second_interrupt:
        _pending = number
    else:
        raise Stopped(number, deferred=False)
