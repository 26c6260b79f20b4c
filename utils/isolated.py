"""Work on many items in processes of their own: one that crashes, or is killed, costs the item that it worked on."""

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.connection import Connection, wait
from typing import TypeVar

from utils.errors import UserError, first_line

Item, Result = TypeVar("Item"), TypeVar("Result")
_NOTHING = object()


class CrashedError(Exception):
    """A process ended amid an item, or came to an error that nobody foresaw. Its text says how."""


class _Worker:
    def __init__(self, begin: Callable[[], Callable[[Item], Result]]):
        context = multiprocessing.get_context("spawn")  # a fork would inherit threads' locks
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(begin, theirs), daemon=True)
        with _without_interrupts():  # which it could only take while it loads
            self.process.start()
        theirs.close()
        self.item: Item | None = None

    def give(self, item: Item, first_try: bool = True) -> None:
        self.item, self.first_try = item, first_try
        with contextlib.suppress(OSError):  # it is gone: `take` tells
            self.pipe.send(item)

    def take(self) -> Result | Exception:
        """What it made of its item. Raises UserError, which is no fault of the item."""
        try:
            result = self.pipe.recv()
        except (EOFError, OSError):
            self.process.join()
            return CrashedError(_how_ended(self.process.exitcode))
        if isinstance(result, UserError):
            raise result
        return result

    def stop(self) -> None:
        """Ends it, and the programs that it runs."""
        self.pipe.close()
        if self.process.is_alive():
            with contextlib.suppress(OSError, AttributeError):  # Windows has no process groups
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.kill()
        self.process.join()


def run_isolated(
    begin: Callable[[], Callable[[Item], Result]], items: Iterable[Item], jobs: int
) -> Iterator[tuple[Item, Result | CrashedError]]:
    """Gives each item, as soon as it is done, with its result, or with CrashedError where there is none.

    What crashed is tried once more, as it may have been for want of memory that others have freed since.
    begin: runs once in each process, which is a fresh interpreter, and returns the work. Both must be picklable.
    jobs: processes at once. Raises UserError that the work raises.
    """
    waiting = iter(items)
    workers: list[_Worker] = []
    try:
        for item in waiting:
            workers.append(_Worker(begin))
            workers[-1].give(item)
            if len(workers) == jobs:
                break
        while workers:
            ready = wait([worker.pipe for worker in workers])
            for worker in [worker for worker in workers if worker.pipe in ready]:
                item, result = worker.item, worker.take()
                crashed = isinstance(result, CrashedError)
                if crashed:
                    worker.stop()
                    workers.remove(worker)
                if crashed and worker.first_try:
                    workers.append(_Worker(begin))
                    workers[-1].give(item, first_try=False)
                    continue
                following = next(waiting, _NOTHING)
                if following is _NOTHING and not crashed:
                    worker.stop()
                    workers.remove(worker)
                elif following is not _NOTHING:
                    if crashed:
                        workers.append(worker := _Worker(begin))
                    worker.give(following)  # before anyone looks at the result: no process need wait for that
                yield item, result
    finally:
        for worker in workers:
            worker.stop()


def _serve(begin: Callable, pipe: Connection) -> None:
    """What a process does: items in, results out, until nobody gives any more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C means the main process, which then ends this one
    if hasattr(os, "setsid"):
        os.setsid()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    work = None
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):  # the main process is gone
        while True:
            item = pipe.recv()
            try:
                work = work or begin()
                result = work(item)
            except UserError as error:
                result = error
            except Exception as error:
                # Nobody foresaw it; it may be for want of memory, and the next item a smaller one.
                result = CrashedError(f"{type(error).__name__}: {first_line(error)}")
            pipe.send(result)


def _end_with_parent() -> None:
    """Ends this process, and the programs that it runs, when the main process is gone."""
    multiprocessing.parent_process().join()
    if hasattr(os, "killpg"):
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


@contextlib.contextmanager
def _without_interrupts() -> Iterator[None]:
    """In this context Ctrl-C waits; what is started in it never sees it."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _how_ended(status: int | None) -> str:
    if status is not None and status < 0:
        name = signal.Signals(-status).name
        memory = ", perhaps for want of memory" if name == "SIGKILL" else ""
        return f"the process that worked on it was killed by {name}{memory}"
    return f"the process that worked on it ended with status {status}"
