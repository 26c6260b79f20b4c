"""Runs a function on many items in worker processes: a crash or a hang costs only the item that caused it."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import as_completed

from data.extractors import ClipError, import_optional
from utils.errors import UserError, first_line
from utils.progress import slow_progress


class CrashedError(ClipError):
    """The worker process died, hung, or raised an unexpected exception."""


def run_isolated(function: Callable, items: Sequence, jobs: int, title="", time_limit=600) -> Iterator[tuple]:
    """Yields each item with its result, or with the ClipError that took its place, in order of completion.

    Function, items, results: picklable. time_limit: seconds for one item. A UserError ends it. No worker outlives it.
    """
    pebble = import_optional("pebble")
    # Forked workers would inherit locks that other threads hold.
    pool = pebble.ProcessPool(jobs, initializer=_start_worker, context=multiprocessing.get_context("spawn"))
    try:
        futures = {pool.schedule(function, (item,), timeout=time_limit): item for item in items}
        for future in slow_progress(as_completed(futures), title, len(futures), unit="clip"):
            error = future.exception()
            if isinstance(error, TimeoutError):
                error = CrashedError(f"not done after {time_limit:g} seconds")
            elif isinstance(error, pebble.ProcessExpired):
                error = CrashedError(f"worker process died: exit code {error.exitcode} (-9: often out of memory)")
            elif isinstance(error, UserError) and not isinstance(error, ClipError):
                raise error
            elif error is not None and not isinstance(error, ClipError):
                error = CrashedError(f"{type(error).__name__}: {first_line(error)}")
            yield futures[future], error or future.result()
    finally:
        pool.stop()
        pool.join()


def _start_worker() -> None:
    """Makes the worker, and the programs it runs, end when the pool stops it or the main process dies."""
    if hasattr(os, "setsid"):  # not on Windows
        os.setsid()
    signal.signal(signal.SIGTERM, _kill_group)
    threading.Thread(target=lambda: _kill_group(multiprocessing.parent_process().join()), daemon=True).start()


def _kill_group(*_: object) -> None:
    if hasattr(os, "killpg"):
        os.killpg(0, signal.SIGKILL)
    os._exit(1)
