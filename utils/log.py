"""The log of a run, on the screen and in a file."""

import logging
import sys
from pathlib import Path


class _LogFile(logging.FileHandler):
    """A log file that gives up, with one line, where the disk is full: the run itself may go on."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 (logging's name)
        error = sys.exc_info()[1]
        self.setLevel(sys.maxsize)  # takes no further record
        self.stream = None  # nor flushes this one at the end
        print(f"{self.baseFilename}: can't be written any more ({error}); the run goes on without it", file=sys.stderr)


def make_log(path: Path) -> logging.Logger:
    """A log that writes to the screen and appends to a file."""
    log = logging.getLogger("self_mm")
    log.setLevel(logging.INFO)
    for handler in list(log.handlers):
        log.removeHandler(handler)
        handler.close()
    log.propagate = False
    to_file = _LogFile(path, encoding="utf-8")
    to_file.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    to_screen = logging.StreamHandler(sys.stdout)
    to_screen.setFormatter(logging.Formatter("%(message)s"))
    log.addHandler(to_file)
    log.addHandler(to_screen)
    return log
