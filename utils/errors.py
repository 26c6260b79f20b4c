"""Errors that users see, and how a program ends: one line for a mistake, and an exit status."""

import argparse
import errno
import os
import sys
import traceback
from collections.abc import Callable
from typing import NoReturn

from utils.signals import Stopped, stop_signals

GPU_IS_FULL = "the GPU's memory is full"  # what the user reads
# How libraries say it.
GPU_ALLOCATION = ("CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED")
CPU_ALLOCATION = "DefaultCPUAllocator: "
LOST_WORKER = (
    "DataLoader worker (pid",
    "Communication with the workers is no longer possible",
    "Pin memory thread exited",
)
DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


class UserError(Exception):
    """Something the user can mend. Its text is one line: what, where, and how to mend it."""

    def __init__(self, message: str):
        super().__init__(_printable(" ".join(message.split("\n"))))


class DivergedError(UserError):
    """A training came to a loss, a gradient or labels that can't be learned from: its hyper-parameters are unfit."""


def first_line(said: object) -> str:
    """The first line of what an error or a file says, fit to be quoted in a message."""
    return _printable(str(said).strip().split("\n")[0][:200])


def _printable(text: str) -> str:
    return "".join(character if character.isprintable() else "?" for character in text)


class Parser(argparse.ArgumentParser):
    """Flags, spelt out; a wrong one is one line, as every mistake is, and not a page of usage."""

    def __init__(self, **settings):
        super().__init__(allow_abbrev=False, **settings)

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; --help lists the flags")


def translate(error: BaseException) -> UserError | None:
    """What an error means to the user; None for a bug.

    Code that it passed through may have added notes, such as what was saved: they end the line. For a full GPU they replace the
    general advice, since they name a value for the flag.
    """
    fact, advice = (str(error), "") if isinstance(error, UserError) else _meaning(error)
    if not fact:
        return None
    notes = getattr(error, "__notes__", [])
    if advice and not (fact == GPU_IS_FULL and notes):
        fact = f"{fact}: {advice}"
    return UserError("; ".join([fact, *notes]))


def _meaning(error: BaseException) -> tuple[str, str]:
    """What a library's error means, and what to do about it; two empty texts for a bug. Most have no type of their own to tell by."""
    said = str(error)
    if type(error).__name__ == "OutOfMemoryError" or any(words in said for words in GPU_ALLOCATION):
        return GPU_IS_FULL, (
            "lower --jobs where they share a GPU, or --max_clips_per_pass (a window has batch_size x update_epochs clips; try "
            "half of that, then a quarter: the gradient stays the same), or choose another GPU with --gpu_ids"
        )
    if isinstance(error, MemoryError) or CPU_ALLOCATION in said:
        return "the machine's memory is full", "lower --jobs, --num_workers or --max_clips_per_pass"
    lost_pipe = isinstance(error, OSError | EOFError) and _passed_through(error, "_try_get_data")  # of a DataLoader
    if lost_pipe or any(words in said for words in LOST_WORKER):
        reason = first_line(error) or type(error).__name__
        return f"a worker process is gone ({reason})", "if memory ran out, --num_workers 0 needs less"
    if getattr(error, "errno", None) in DISK_ERRORS or any(f"os error {number})" in said for number in DISK_ERRORS):
        return f"the disk can't be written ({first_line(error)})", "make room, and give the same command again"
    return "", ""


def _passed_through(error: BaseException, function: str) -> bool:
    return any(frame.name == function for frame in traceback.extract_tb(error.__traceback__))


def run_program(work: Callable[[], int | None], if_stopped: str = "", broken_pipe_status: int = 0) -> int:
    """Calls the work. Returns the exit status: what it returns, or 0; 1 for a bug; 2 for UserError; 130 or 143 after a signal.

    if_stopped: what to tell who stopped it. broken_pipe_status: the status where nobody reads its output on, as after `| head`.
    """
    try:
        with stop_signals():
            return work() or 0
    except Stopped as stop:
        print("; ".join(filter(None, (f"stopped by {stop.name}", if_stopped))), file=sys.stderr)
        return stop.status
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is yet to be flushed
        return broken_pipe_status
    except Exception as error:
        if fault := translate(error):
            print("error:", fault, file=sys.stderr)
            return 2
        # A bug. Uncaught, its traceback would keep worker processes alive, for which Python waits at the end.
        traceback.print_exc()
        return 1
