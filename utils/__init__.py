"""Metrics, errors, files, devices and other helpers. Imports none of the other folders."""

import sys

if sys.version_info < (3, 11):  # noqa: UP036 (every program imports this before anything that older versions lack)
    print(f"error: {sys.executable} is {sys.version.split()[0]}; use Python 3.11 or later", file=sys.stderr)
    sys.exit(2)
