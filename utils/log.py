"""The log of a run, on the screen and in a file."""

import logging
import sys
from pathlib import Path


class _LogFile(logging.FileHandler):
    """A log file that is given up, with one line on stderr, when it cannot be written. The run continues."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 (overrides logging's name)
        error = sys.exc_info()[1]
        self.setLevel(sys.maxsize)  # rejects all further records
        self.stream = None  # and has nothing to flush at exit
        print(f"{self.baseFilename}: cannot be written ({error}); the run continues without it", file=sys.stderr)


def make_log(path: Path) -> logging.Logger:
    """A new logger that prints to stdout and appends to a file."""
    log = logging.Logger("self_mm", logging.INFO)
    to_file = _LogFile(path, encoding="utf-8")
    to_file.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    log.addHandler(to_file)
    log.addHandler(logging.StreamHandler(sys.stdout))
    return log
