"""What a run's numbers come from."""

import importlib.metadata
import subprocess
import sys
from pathlib import Path


def versions() -> str:
    """Versions of Python and of the packages that the numbers depend on, as one line."""
    packages = ("torch", "transformers", "numpy")
    found = [f"python {sys.version.split()[0]}"]
    return " ".join(found + [f"{name} {importlib.metadata.version(name)}" for name in packages])


def commit() -> str:
    """The commit of this repository, with '+' where files differ from it; '' outside a git checkout."""

    def git(*words: str) -> str:
        here = Path(__file__).resolve().parent
        return subprocess.run(["git", *words], cwd=here, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return git("rev-parse", "--short=10", "HEAD") + ("+" if git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.CalledProcessError):
        return ""
