"""Errors that users see, and what a program on the command line owes to who calls it: one line for a mistake, and an exit status."""

import argparse
import os
import sys
import traceback
from collections.abc import Callable
from typing import NoReturn

from utils.signals import Stopped, stop_signals


class UserError(Exception):
    """Something the user can mend. Its text is one line: what, where, and how to mend it."""

    def __init__(self, message: str):
        super().__init__(_printable(" ".join(message.split("\n"))))


class DivergedError(UserError):
    """A training came to a loss, a gradient or labels that can't be learned from: its hyper-parameters are unfit."""


def brief(said: object) -> str:
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


def run_program(work: Callable[[], int | None], once_stopped: str = "") -> int:
    """Calls the work. Returns the exit status: what it returns, or 0; 1 for a bug; 2 for UserError; 130 or 143 after a signal.

    once_stopped: what to tell who stopped it.
    """
    try:
        with stop_signals():
            return work() or 0
    except UserError as error:
        print("error:", error, file=sys.stderr)
        return 2
    except Stopped as stop:
        print("; ".join(filter(None, (f"stopped by {stop.name}", once_stopped))), file=sys.stderr)
        return stop.status
    except BrokenPipeError:  # nobody reads on, as after `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is yet to be flushed
        return 0
    except Exception:
        traceback.print_exc()
        return 1
