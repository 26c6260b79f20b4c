"""Files that are whole at every moment: written beside their place, flushed to the disk, then renamed."""

import contextlib
import errno
import glob
import json
import os
import shutil
import tempfile
import uuid
import zlib
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from utils.errors import UserError, first_line

PATIENCE = 10  # seconds; the worker processes of a run that was killed may hold its lock for half of that


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Gives a name to write a file or a folder under. When the block ends, and all of it is on the disk, it takes its place.

    A kill or a full disk leaves the old one as it was. A folder can't take another's place in one step: the old one is
    first moved to `previous_folder(path)`, where `current_folder` finds it. One process at a time may write: see `exclusive_lock`.
    Raises UserError where the disk refuses.
    """
    clear_leftovers(path)
    work = temp_path(path)
    try:
        yield work
        flush(work)
        if path.is_dir():
            if not work.is_dir():
                raise IsADirectoryError(errno.EISDIR, "it is a folder")
            _move_away(previous_folder(path), path)
            os.replace(path, previous_folder(path))
        os.replace(work, path)
        _sync(path.parent)
        remove(previous_folder(path))
    except Exception as error:
        reason = disk_error(error)
        if reason is None:
            raise
        raise UserError(
            f"{path}: can't be written ({reason}); is the disk full, or the file open in another program? What was there "
            "still is; make room, and say the same command again (run.py: with --resume)"
        ) from None
    finally:
        remove(work)


@contextlib.contextmanager
def exclusive_lock(path: Path, otherwise: str | None = None) -> Iterator[None]:
    """In this context no other process, of any machine, is in the same context for this path.

    It waits for the others; or, with `otherwise`, raises UserError with this text where there is one. The lock is flock's,
    on a file beside the path, which stays: it ends with the process that holds it, and holds between machines where the
    file system says so: NFS 4, and NFS 3 with its lock service; not a mount with nolock or local_lock. Where there is no
    flock at all, filelock may take the file's existence for it.
    """
    lock = FileLock(f"{path}.lock")
    try:
        lock.acquire(timeout=-1 if otherwise is None else PATIENCE)
    except Timeout:
        raise UserError(f"{path}: {otherwise} (if there is none, remove {path.name}.lock)") from None
    except OSError as error:
        raise UserError(f"{path}.lock: can't be locked ({error.strerror}); name a folder on another disk") from None
    try:
        yield
    finally:
        lock.release()


def make_folder(path: Path) -> Path:
    """Makes a folder that results go to. Raises UserError where that can't be."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            return path
    except OSError as error:
        raise UserError(f"{path}: can't write results there ({error.strerror}); name another folder") from None


def check_output(path: Path, *inputs: Path) -> None:
    """Raises UserError for a file that can't be written, or that is one of those to be read."""
    if not path.name or path.is_dir():
        raise UserError(f"{path}: is a folder; name the file to write")
    if path.resolve() in [source.resolve() for source in inputs]:
        raise UserError(f"{path}: is to be read; name another file to write")
    make_folder(path.resolve().parent)


def temp_path(path: Path) -> Path:
    """A name beside a path that nobody else uses."""
    return path.with_name(f"unfinished-{path.name}-{uuid.uuid4().hex[:8]}")


def previous_folder(folder: Path) -> Path:
    """Where a folder is while the next one takes its place."""
    return folder.with_name(f"former-{folder.name}")


def current_folder(folder: Path) -> Path:
    """A folder, or what it was before, where a kill came between the two."""
    return folder if folder.exists() or not previous_folder(folder).exists() else previous_folder(folder)


def clear_leftovers(path: Path) -> None:
    """Removes what killed writers left beside a path. For its only writer."""
    for leftover in path.parent.glob(f"unfinished-{glob.escape(path.name)}-{'[0-9a-f]' * 8}"):
        remove(leftover)
    if path.exists():
        remove(previous_folder(path))


def remove_folder(folder: Path) -> None:
    """Removes a folder, of which a kill must not leave a part under its name. For its only writer."""
    _move_away(previous_folder(folder), folder)
    _move_away(folder, folder)


def _move_away(name: Path, folder: Path) -> None:
    """Frees a name at once: a network's file system may keep parts of a folder as long as somebody reads them.

    What is left goes with the folder's other leftovers.
    """
    if name.exists():
        os.replace(name, gone := temp_path(folder))
        remove(gone)


def remove(path: Path) -> None:
    """Removes a file or a folder, if it is there and can be removed."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()


def flush(path: Path) -> None:
    """Waits until a file, or all of a folder, is on the disk."""
    inside = sorted(path.rglob("*"), reverse=True) if path.is_dir() else []
    for part in [*inside, path]:
        _sync(part)


def checksum(file: Path) -> int:
    """CRC-32 of a file's bytes, against damage."""
    value = 0
    with open(file, "rb") as stream:
        while piece := stream.read(1 << 24):
            value = zlib.crc32(piece, value)
    return value


def write_json(path: Path, values: dict) -> None:
    """Writes an object with a checksum of itself."""
    path.write_text(json.dumps(values | {"checksum": _json_checksum(values)}), encoding="utf-8")


def read_json(path: Path) -> dict:
    """What `write_json` wrote. Raises OSError, or ValueError where it is damaged."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if values.pop("checksum") == _json_checksum(values):
            return values
    except (AttributeError, KeyError, TypeError, RecursionError):
        pass
    raise ValueError(f"{path.name} is damaged: its checksum differs")


def _json_checksum(values: dict) -> int:
    return zlib.crc32(json.dumps(values, sort_keys=True).encode())


def disk_error(error: Exception) -> str | None:
    """What the disk refused, in the system's words; None for an error of another kind. Rust libraries only say it as text."""
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    return first_line(error) if "os error" in str(error) else None


def _sync(path: Path) -> None:
    if os.name == "nt" and path.is_dir():  # Windows has no such thing for folders
        return
    handle = os.open(path, os.O_RDWR if path.is_file() else os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if path.is_file() or error.errno not in (
            errno.EINVAL,
            errno.EBADF,
        ):  # what has no such thing for folders says so
            raise
    finally:
        os.close(handle)
