"""Atomic file writes: a new version is written beside its destination, flushed to disk, then renamed into place."""

import contextlib
import errno
import glob
import os
import shutil
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

from utils.errors import UserError, first_line

LOCK_TIMEOUT = 10  # seconds; the worker processes of a killed run may hold its lock for half of that


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a temporary path for a file or folder. When the block ends, the result is flushed and renamed to `path`.

    A kill or a full disk leaves the old version intact. A folder cannot replace another in one step: the old one is first
    moved to `previous_folder(path)`, where `current_folder` finds it. Only one process at a time may write: see
    `exclusive_lock`. Raises UserError if the disk refuses.
    """
    clear_leftovers(path)
    # In a folder of its own, because some libraries write a temporary file beside their output first.
    folder = path.with_name(f"unfinished-{path.name}-{uuid.uuid4().hex[:8]}")
    work = folder / path.name
    try:
        folder.mkdir()
        yield work
        flush(work)
        if path.is_dir():
            if not work.is_dir():
                raise IsADirectoryError(errno.EISDIR, "it is a folder")
            remove(previous_folder(path))
            rename(path, previous_folder(path))
        rename(work, path)
        _sync(path.parent)
        remove(previous_folder(path))
    except Exception as error:
        if not isinstance(error, OSError) and "os error" not in str(error):  # the latter is a Rust library's
            raise
        reason = getattr(error, "strerror", None) or first_line(error) or type(error).__name__
        cause = "is the disk full, or the file open in another program? The previous version is intact"
        mend = "make room and repeat the command (run.py: with --resume)"
        raise UserError(f"{path}: cannot be written ({reason}); {cause}; {mend}") from None
    finally:
        remove(folder)


def make_at_once(folder: Path, complete: Path, write: Callable[[Path], None]) -> None:
    """Writes a new folder, which appears in one step. Raises OSError if it cannot be made and `complete` doesn't exist."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="unfinished-", dir=folder.parent) as work:
            write(made := Path(work) / folder.name)
            flush(made)
            rename(made, folder)
    except OSError:
        if not complete.exists():  # otherwise another process has just made the same folder
            raise


@contextlib.contextmanager
def exclusive_lock(path: Path, otherwise: str | None = None) -> Iterator[None]:
    """Holds off others, on any machine, that lock a path. Waits or, with `otherwise`, raises UserError (its text)."""
    from filelock import FileLock, Timeout  # here, so that --help and the line about missing packages do without it

    try:  # flock's lock, which ends with its process; for network disks see docs/guarantees.md
        lock = FileLock(f"{path}.lock").acquire(timeout=-1 if otherwise is None else LOCK_TIMEOUT)
    except Timeout:
        raise UserError(f"{path}: {otherwise} (if there is none, remove {path.name}.lock)") from None
    except OSError as error:
        raise UserError(f"{path}.lock: cannot be locked ({error.strerror}); choose a folder on another disk") from None
    with lock:
        yield


def make_folder(path: Path) -> Path:
    """Makes a folder for results. Raises an OSError that `translate` explains if it cannot be written."""
    path.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=path):
        return path


def check_output(path: Path, *inputs: Path) -> None:
    """Raises UserError for an output file that cannot be written or is one of the inputs."""
    if not path.name or path.is_dir():
        raise UserError(f"{path}: is a folder; give the file to write")
    if path.resolve() in [source.resolve() for source in inputs]:
        raise UserError(f"{path}: is an input; write to another file")
    make_folder(path.resolve().parent)


def rename(source: Path, target: Path) -> None:
    """os.replace, on Windows tried again for five seconds, since virus scanners hold fresh files there."""
    for _ in range(50 if os.name == "nt" else 0):
        with contextlib.suppress(PermissionError):
            return os.replace(source, target)
        time.sleep(0.1)
    os.replace(source, target)


def previous_folder(folder: Path) -> Path:
    """Where a folder is kept while its successor is renamed into place."""
    return folder.with_name(f"former-{folder.name}")


def current_folder(folder: Path) -> Path:
    """The folder, or its previous version if a kill interrupted the replacement."""
    return folder if folder.exists() or not previous_folder(folder).exists() else previous_folder(folder)


def clear_leftovers(path: Path) -> None:
    """Removes what killed writers left beside a path. Only for its sole writer."""
    for leftover in path.parent.glob(f"unfinished-{glob.escape(path.name)}-{'[0-9a-f]' * 8}"):
        remove(leftover)
    if path.exists():
        remove(previous_folder(path))


def remove(path: Path) -> None:
    """Removes a file or folder if it exists and can be removed."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()


def flush(path: Path) -> None:
    """Waits until a file, or a folder and its contents, is on disk. Files get the permissions that the umask gives."""
    mode = (path if path.is_dir() else path.parent).stat().st_mode & 0o666  # a new folder's, so it shows the umask
    for part in [*path.rglob("*"), path] if path.is_dir() else [path]:
        if part.is_file():
            with contextlib.suppress(OSError):  # not on every file system
                part.chmod(mode)  # safetensors makes files that only their owner can read
        _sync(part)


def _sync(path: Path) -> None:
    is_file = path.is_file()
    if os.name == "nt" and not is_file:  # Windows cannot flush folders
        return
    handle = os.open(path, os.O_RDWR if is_file else os.O_RDONLY)
    try:
        os.fsync(handle)
        if sys.platform == "darwin":  # where fsync leaves data in the drive's cache
            import fcntl

            with contextlib.suppress(OSError):  # not on every file system
                fcntl.fcntl(handle, fcntl.F_FULLFSYNC)
    except OSError as error:
        if is_file or error.errno not in (errno.EINVAL, errno.EBADF):  # nor can some file systems
            raise
    finally:
        os.close(handle)
