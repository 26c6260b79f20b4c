"""The log of a run, on the screen and in a file."""

import logging
import sys
from pathlib import Path

from utils.errors import complain, discard, printable
from utils.files import make_folder


class _UntilItFails(logging.StreamHandler):
    """Gives up, with one line on stderr, when its screen or file cannot be written. The run continues."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 (overrides logging's name)
        discard(self.stream)
        complain(f"{self.stream.name}: cannot be written ({sys.exc_info()[1]}); the run continues without it")

    def format(self, record: logging.LogRecord) -> str:
        return "\n".join(map(printable, super().format(record).split("\n")))


def make_log(path: Path) -> logging.Logger:
    """A new logger that appends to a file and prints to stdout, details (debug) aside."""
    log = logging.Logger("self_mm", logging.DEBUG)
    make_folder(path.parent)
    log.addHandler(to_file := _UntilItFails(open(path, "a", encoding="utf-8")))
    to_file.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    if sys.stdout is not None:  # as when the caller closed it
        log.addHandler(to_screen := _UntilItFails(sys.stdout))
        to_screen.setLevel(logging.INFO)
    return log
