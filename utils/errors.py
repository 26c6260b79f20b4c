"""Errors that users see, and how a program exits: one line for a mistake, and an exit status."""

import argparse
import errno
import io
import os
import re
import sys
import traceback
from collections.abc import Callable
from typing import NoReturn

from utils.signals import Stopped, stop_signals

GPU_IS_FULL = "the GPU is out of memory"
# Libraries' messages that have no exception type of their own.
GPU_ALLOCATION = ("CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED")
LOST_WORKER = ("DataLoader worker (pid", "Communication with the workers is no longer", "Pin memory thread exited")
PASSWORD = re.compile(r"(://[^\s:/]*:)\S*(?=@)|([?&][^\s=&]*(?:pass|word)[^\s=&]*=)[^\s&]*")  # in a URL


class UserError(Exception):
    """An error that the user can fix. Its text is one line: what, where, and how to fix it."""

    def __init__(self, message: str):
        super().__init__(printable(" ".join(message.split("\n"))))


class DivergedError(UserError):
    """Training diverged: a non-finite loss, gradient or label, or a class without clips."""


def complain(message: str) -> None:
    """Prints a line on stderr, if that is still possible."""
    try:
        print(printable(message), file=sys.stderr)
    except OSError:
        discard(sys.stderr)


def warn(message: str) -> None:
    """Complains about something that is probably not meant."""
    complain(f"warning: {message}")


def first_line(text: object) -> str:
    """The first line of an error or of text from a file, safe to quote in a message."""
    return printable(str(text).strip().split("\n")[0][:10_000])[:200]  # in this order, to cut through no password


def printable(text: str) -> str:
    """Text from files, flags or libraries in one line, without passwords, that neither moves nor colours a terminal."""
    # Chinese texts and web pages have spaces of their own.
    plain = without_passwords(text).replace("\u3000", " ").replace("\xa0", " ")
    return "".join(character if character.isprintable() else "?" for character in plain)


def without_passwords(text: str) -> str:
    return PASSWORD.sub(lambda match: f"{match[1] or match[2]}***", text)


def csv_text(text: str) -> str:
    """Text from files for a CSV: a leading quote keeps spreadsheets from taking it for a formula."""
    return "'" * text.startswith(("=", "+", "-", "@")) + printable(text)


class Parser(argparse.ArgumentParser):
    """Flags without abbreviations; a wrong one is a UserError instead of a page of usage."""

    def __init__(self, **settings):
        super().__init__(allow_abbrev=False, **settings)

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; --help lists the flags")


def at_least(least: float, kind: type = int, most: float = float("inf")) -> Callable[[str], float]:
    """An argparse type: numbers from least to most."""

    def parse(text: str) -> float:
        if least <= (value := kind(text)) <= most:
            return value
        upper = "or more" if most == float("inf") else f"to {most}"
        raise argparse.ArgumentTypeError(f"{text}: expected {least} {upper}")

    parse.__name__ = kind.__name__  # argparse names it: "invalid int value"
    return parse


def translate(error: BaseException) -> UserError | None:
    """The error as users should read it, with the notes added on the way up, such as what was saved; None for a bug."""
    fact, advice = (str(error), "") if isinstance(error, UserError) else _explain(error)
    if not fact:
        return None
    notes = getattr(error, "__notes__", [])
    if advice and not (fact == GPU_IS_FULL and notes):  # these notes suggest a value for the flag
        fact = f"{fact}: {advice}"
    return UserError("; ".join([fact, *notes]))


def _explain(error: BaseException) -> tuple[str, str]:
    """The cause of a library's error, and advice; two empty strings for a bug."""
    message = str(error)
    if type(error).__name__ == "OutOfMemoryError" or any(text in message for text in GPU_ALLOCATION):
        return GPU_IS_FULL, (
            "lower --jobs if they share a GPU, or --max_clips_per_pass (a window has batch_size x update_epochs clips; try "
            "half of that, then a quarter: the gradient stays the same), or choose another GPU with --gpu_ids"
        )
    if isinstance(error, MemoryError) or "DefaultCPUAllocator: " in message:
        advice = "process fewer clips at once (run.py: --jobs, --num_workers, --max_clips_per_pass)"
        return "this machine is out of memory", advice
    missing = (isinstance(error, ModuleNotFoundError) and error.name) or "."
    if "." not in missing and missing not in sys.stdlib_module_names:  # a dot: a mistake in our own imports
        return f"{missing} is not installed in {sys.prefix}", "pip install -r requirements.txt"
    frames = traceback.extract_tb(error.__traceback__)
    lost_pipe = isinstance(error, OSError | EOFError) and any(frame.name == "_try_get_data" for frame in frames)
    if lost_pipe or any(text in message for text in LOST_WORKER):
        reason = first_line(error) or type(error).__name__
        return f"a data worker died ({reason})", "if memory ran out, use --num_workers 0"
    in_rust = re.search(r"os error (\d+)\)", message)
    number = int(in_rust[1]) if in_rust else getattr(error, "errno", None)
    if number in (errno.ENOSPC, errno.EDQUOT):
        return f"cannot write to disk ({first_line(error)})", "make room and repeat the command"
    if in_rust or getattr(error, "filename", None) is not None:
        flags = "--cache_dir, --log_dir, --model_save_dir, --res_save_dir, SELF_MM_DATA"
        return first_line(error), f"check its permissions, or choose another place ({flags})"
    return "", ""


def discard(stream: io.TextIOBase) -> None:
    """Swallows all that is still to be written to a stream that takes no more."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def run_program(work: Callable[[], int | None], if_stopped: str = "", broken_pipe_status: int = 0) -> int:
    """Calls `work`. Returns the exit status: its result, or 0; 1 for a bug; 2 for UserError; 130 or 143 after a signal.

    if_stopped: advice after a signal. broken_pipe_status: if the reader of the output has gone, as after `| head`.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # None if it is closed
            # Windows would write a pipe or file in another encoding. Elsewhere, for characters that the console lacks.
            stream.reconfigure(encoding="utf-8" if os.name == "nt" else None, errors="backslashreplace")
    status = 0
    try:
        with stop_signals():
            status = work() or 0
            print(end="", flush=True)
            return status
    except Stopped as stop:
        complain("; ".join(filter(None, (f"stopped by {stop.name}", if_stopped))))
        return stop.status
    except BrokenPipeError:
        return status or broken_pipe_status
    except Exception as error:
        if fault := translate(error):
            complain(f"error: {fault}")
            return 2
        # A bug. If uncaught, its traceback would keep worker processes alive, and Python would wait for them.
        for line in traceback.format_exc().splitlines():
            complain(line)
        return 1
    finally:
        try:
            print(end="", flush=True)
        except OSError:
            discard(sys.stdout)
