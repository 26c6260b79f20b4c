"""Shared by the fuzz tests: damage to bytes and JSON, and a guard against what a reader must never do.

    @fuzzing.SETTINGS
    @given(data=fuzzing.mutated_bytes(GOOD))
    def test_a_damaged_thing_is_read_or_refused(data):
        with fuzzing.fresh_folder() as folder:
            (folder / "thing").write_bytes(data)
            content = fuzzing.loaded(lambda: read_thing(folder / "thing"), folder)  # None: refused with a UserError
        if content is not None:
            assert something about it

`make fuzz` runs the same tests, in files named test_fuzz*.py, with FUZZ_EXAMPLES examples each.
"""

import contextlib
import copy
import json
import os
import pickletools
import shutil
import signal
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
from hypothesis import HealthCheck, strategies

from utils.errors import UserError

with contextlib.suppress(ImportError):  # not on Windows
    import resource

SECONDS = 10  # more than any of these small files takes
MEMORY = 4 << 30  # bytes that a reader may add
EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", 0))
# Few examples, the same in each run, for stable tests; new ones each time in a long run.
SETTINGS = hypothesis.settings(
    max_examples=EXAMPLES or 60,
    derandomize=not EXAMPLES,
    database=None,
    deadline=None,  # the guard has its own
    suppress_health_check=list(HealthCheck),
)

# Numbers at which sizes and signs overflow, as files store them.
INTERESTING = [
    number.to_bytes(width, order)
    for width in (1, 2, 4, 8)
    for number in {0, 1, (1 << 8 * width - 1) - 1, 1 << 8 * width - 1, (1 << 8 * width) - 1}
    for order in ("little", "big")
]
OPCODES = [opcode.code.encode("latin1") for opcode in pickletools.opcodes]
VALUES = [
    None,
    True,
    -1,
    0,
    1,
    2**31,
    10**12,
    2**64,
    1e308,
    float("nan"),
    "",
    "x",
    "\n",
    "../../x",
    [],
    {},
    [[]],
    {"a": []},
]


@strategies.composite
def mutated_bytes(draw: Callable, data: bytes, pieces: tuple[bytes, ...] = ()) -> bytes:
    """One to three changes to a file's bytes. pieces: further byte strings to write into it, such as opcodes."""
    inserts = strategies.sampled_from([*INTERESTING, *pieces]) | strategies.binary(min_size=1, max_size=8)
    for _ in range(draw(strategies.integers(1, 3))):
        kind = draw(strategies.sampled_from(["flip", "overwrite", "insert", "delete", "repeat", "copy", "cut"]))
        start = draw(strategies.integers(0, max(len(data) - 1, 0)))
        end = min(len(data), start + draw(strategies.integers(1, 16) | strategies.integers(1, 4096)))
        if kind == "flip" and data:
            changed = bytes([data[start] ^ 1 << draw(strategies.integers(0, 7))])
            data = data[:start] + changed + data[start + 1 :]
        elif kind == "overwrite":
            piece = draw(inserts)
            data = data[:start] + piece + data[start + len(piece) :]
        elif kind == "insert":
            data = data[:start] + draw(inserts) + data[start:]
        elif kind == "delete":
            data = data[:start] + data[end:]
        elif kind == "repeat":
            data = data[:start] + data[start:end] * draw(strategies.integers(2, 20)) + data[end:]
        elif kind == "copy":  # from elsewhere in the file
            other = draw(strategies.integers(0, max(len(data) - 1, 0)))
            data = data[:other] + data[start:end] + data[other + (end - start) :]
        elif kind == "cut":
            data = data[:start]
    return data


@strategies.composite
def mutated_pickle(draw: Callable, data: bytes) -> bytes:
    """A pickle with damaged bytes, or with instructions removed, swapped, repeated or inserted."""
    if draw(strategies.booleans()):
        return draw(mutated_bytes(data, tuple(OPCODES)))
    starts = [position for _, _, position in pickletools.genops(data)] + [len(data)]
    instructions = [data[start:end] for start, end in zip(starts, starts[1:], strict=False)]
    places = strategies.integers(0, len(instructions) - 1)
    for _ in range(draw(strategies.integers(1, 3))):
        kind = draw(strategies.sampled_from(["drop", "swap", "repeat", "replace", "insert"]))
        here, there = draw(places), draw(places)
        if kind == "drop":
            instructions[here] = b""
        elif kind == "swap":
            instructions[here], instructions[there] = instructions[there], instructions[here]
        elif kind == "repeat":
            instructions[here] *= draw(strategies.integers(2, 50))
        elif kind == "replace":
            instructions[here] = instructions[there]
        else:
            instructions[here] += draw(strategies.sampled_from(OPCODES)) + draw(strategies.sampled_from(INTERESTING))
    return b"".join(instructions)


@strategies.composite
def mutated_json(draw: Callable, value: object) -> bytes:
    """JSON text with values replaced, removed or added at any depth, or with damaged bytes."""
    if draw(strategies.integers(0, 3)) == 0:
        return draw(mutated_bytes(json.dumps(value).encode()))
    value = copy.deepcopy(value)
    for _ in range(draw(strategies.integers(1, 4))):
        holders = [value, *_containers(value)]
        holder = draw(strategies.sampled_from(holders))
        keys = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
        kind = draw(strategies.sampled_from(["replace", "delete", "add"]))
        new = copy.deepcopy(
            draw(strategies.sampled_from(VALUES) | strategies.integers() | strategies.floats() | strategies.text())
        )
        if kind == "add" or not keys:
            holder.update({draw(strategies.text()): new}) if isinstance(holder, dict) else holder.append(new)
        elif kind == "replace":
            holder[draw(strategies.sampled_from(keys))] = new
        else:
            del holder[draw(strategies.sampled_from(keys))]
    return json.dumps(value).encode()


def _containers(value: object) -> Iterator[dict | list]:
    for item in value.values() if isinstance(value, dict) else value:
        if isinstance(item, dict | list):
            yield item
            yield from _containers(item)


@contextlib.contextmanager
def fresh_folder() -> Iterator[Path]:
    """A folder for one example; tmp_path is one for all examples of a test."""
    folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def loaded(load: Callable[[], object], folder: Path) -> object | None:
    """The result of reading a damaged file, under guard; None if it was refused with a UserError of one line.

    Any other exception fails the test. Counts the outcomes for --hypothesis-show-statistics.
    """
    try:
        with guarded(folder):
            content = load()
    except UserError as error:
        assert len(str(error).splitlines()) == 1 and len(str(error)) < 2000, f"not one line: {error!r}"
        hypothesis.event("refused")
        return None
    hypothesis.event("loaded")
    return content


class ForbiddenError(BaseException):
    """A reader did what no file may make it do. Not an Exception, which the reader would take for a damaged file."""


@contextlib.contextmanager
def guarded(folder: Path) -> Iterator[None]:
    """Fails the block if it takes too long, starts a program, opens a connection, or writes outside the folder."""
    _install()
    _guard.folder, _guard.seen = os.path.realpath(folder), []
    limits = _limit_memory()
    if hasattr(signal, "setitimer"):
        previous = signal.signal(signal.SIGALRM, _too_long)
        signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        with warnings.catch_warnings():
            for kind in (RuntimeWarning, UserWarning):
                warnings.simplefilter("error", kind)  # would be printed next to the one line
            yield
    finally:
        if hasattr(signal, "setitimer"):
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, previous)
        if limits is not None:
            resource.setrlimit(resource.RLIMIT_AS, limits)
        _guard.folder = None
        if _guard.seen:
            raise ForbiddenError(", ".join(_guard.seen))


def _limit_memory() -> tuple[int, int] | None:
    """Bounds the memory of this process, on Linux only. Returns the limits to restore."""
    if not sys.platform.startswith("linux"):
        return None
    limits = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, limits[1]))
    return limits


def _too_long(*_: object) -> None:
    _guard.seen.append(f"more than {SECONDS} seconds")
    raise ForbiddenError(_guard.seen[-1])


class _Guard:
    """An audit hook, active while a folder is set. Python cannot remove audit hooks."""

    folder: str | None = None
    seen: list[str] = []
    installed = False

    FORBIDDEN = (
        "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "os.forkpty", "os.startfile", "subprocess.Popen",
        "pty.spawn", "socket.connect", "socket.getaddrinfo", "socket.bind", "webbrowser.open", "urllib.Request",
        "ctypes.dlopen", "ctypes.call_function", "code.__new__", "builtins.input",
    )  # fmt: skip
    WRITING = (
        "os.mkdir",
        "os.remove",
        "os.rename",
        "os.rmdir",
        "os.link",
        "os.symlink",
        "os.truncate",
        "os.chmod",
        "shutil.rmtree",
    )

    def __call__(self, event: str, arguments: tuple) -> None:
        if self.folder is None:
            return
        if event in self.FORBIDDEN:
            self._refuse(event, arguments)
        elif event == "open":
            path, mode, flags = arguments
            writes = flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
            if writes and not isinstance(path, int):
                self._check_path(event, path)
        elif event in self.WRITING:
            within_rmtree = event in ("os.remove", "os.rmdir") and arguments[1] != -1  # whose folder was checked
            if not within_rmtree:
                self._check_path(event, arguments[0])

    def _check_path(self, event: str, path: object) -> None:
        where = os.path.realpath(os.fsdecode(path))
        if where != os.devnull and not where.startswith(self.folder + os.sep):
            self._refuse(event, (where,))

    def _refuse(self, event: str, arguments: tuple) -> None:
        self.seen.append(f"{event}{arguments}")
        raise ForbiddenError(self.seen[-1])


_guard = _Guard()


def _install() -> None:
    if not _guard.installed:
        sys.addaudithook(_guard)
        _guard.installed = True
