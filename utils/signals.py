"""Signals that ask the program to stop: Ctrl-C (SIGINT), SIGTERM, and SIGUSR1, which SLURM can send before a time limit.

They raise Stopped. Where work would be lost they are held back until it can be saved.
"""

import contextlib
import signal
from collections.abc import Callable, Iterator

NAMES = [name for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name)]  # Windows has no SIGUSR1

_holding_back = False
_received: int | None = None


class Stopped(BaseException):
    """A signal asked the program to stop. Like KeyboardInterrupt, no handler of errors takes it for one."""

    def __init__(self, number: int, deferred: bool):
        """deferred: until work was in a state to be saved."""
        self.deferred = deferred
        self.name = signal.Signals(number).name
        self.status = 130 if number == signal.SIGINT else 143
        super().__init__(self.name)


@contextlib.contextmanager
def stop_signals() -> Iterator[None]:
    """In this context the signals raise Stopped. For the main thread."""
    global _received
    _received = None
    before = {name: signal.signal(getattr(signal, name), _handle) for name in NAMES}
    try:
        yield
    finally:
        for name, handler in before.items():
            signal.signal(getattr(signal, name), handler)


@contextlib.contextmanager
def deferred_signals() -> Iterator[None]:
    """In this context a signal waits for `raise_if_stop_requested`, or for the end. A second Ctrl-C before that doesn't."""
    global _holding_back
    _holding_back = True
    try:
        yield
    finally:
        _holding_back = False
    raise_if_stop_requested()


def raise_if_stop_requested(agree: Callable[[int], int] = int) -> None:
    """Raises Stopped where a signal was held back.

    agree: the signal's number here, or 0, -> that of all processes that work together, so that all stop in one place.
    """
    global _received
    if number := agree(_received or 0):
        _received = None
        raise Stopped(number, deferred=True)


def ignore_signals(_worker: int) -> None:
    """For a process that only prepares data: who asks the whole process group to stop means the main one."""
    for name in NAMES:
        signal.signal(getattr(signal, name), signal.SIG_IGN)


def _handle(number: int, _frame: object) -> None:
    global _received
    impatient = number == signal.SIGINT and _received == signal.SIGINT
    if _holding_back and not impatient:
        _received = number
    else:
        raise Stopped(number, deferred=False)
