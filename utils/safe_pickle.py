"""Reads a pickle that may come from anyone: arrays, numbers, text and containers, and nothing that could run code.

A pickle is a program that may name any function and call it, and that may ask for any amount of memory or time. Here it
can name only what rebuilds a numpy array or scalar, as numpy 1 and numpy 2 write them, and a set; each of its
instructions costs memory and time in proportion to the bytes that the file spends on it.
"""

import hashlib
import io
import pickle
import struct
from itertools import chain
from pathlib import Path

import numpy as np
from tqdm import tqdm

from utils.errors import UserError, first_line
from utils.pickled_arrays import ADMITTED, DType, fill, is_machine_integer, plain_key
from utils.progress import progress

PIECE = 1 << 20  # bytes; as large as this, an item's size is compared with what the file still holds
DEPTH = 32  # containers within one another; the layout has three

# What a file may grow to. Content may stand in a pickle once and be named many times, so that a short file is a huge one
# as soon as it is copied or printed.
GROWTH, FREE_GROWTH = 16, 16 << 20  # bytes in memory for a byte of the file, and what any file may have


class RefusedError(Exception):
    pass


# Instructions that do no more than push a value, or move and keep those that are there.
_HARMLESS = """
    PROTO STOP MARK POP POP_MARK DUP PUT BINPUT LONG_BINPUT MEMOIZE GET BINGET LONG_BINGET
    NONE NEWTRUE NEWFALSE INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT
    STRING BINSTRING SHORT_BINSTRING UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8 BINBYTES SHORT_BINBYTES BINBYTES8
    EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 EMPTY_LIST LIST EMPTY_DICT EMPTY_SET GLOBAL STACK_GLOBAL
"""


class _Instructions(dict):
    def __missing__(self, code: int) -> None:
        for name in pickle.__all__:
            if getattr(pickle, name) == bytes([code]):
                raise RefusedError(f"the instruction {name}")
        raise ValueError(f"there is no instruction {code}")


class RestrictedUnpickler(pickle._Unpickler):
    """Python's own reader in Python; the one in C takes memory at a pickle's word, for a memo of billions of entries."""

    def __init__(self, reader: "BoundedReader", allowance: int):
        super().__init__(reader, encoding="latin1")
        self._reader = reader
        self._allowance = allowance  # bytes that may yet be copied

    def find_class(self, module: str, name: str) -> object:
        try:
            return ADMITTED[module, name]
        except KeyError:
            raise RefusedError(f"{module}.{name}") from None

    def load_frame(self) -> None:
        self._reader.announce(self._count())  # the file is read in pieces anyway

    def load_bytearray8(self) -> None:
        count = self._count()
        self._reader.announce(count)
        self.append(bytearray(count))
        self._reader.readinto(self.stack[-1])

    def _count(self) -> int:
        return struct.unpack("<Q", self.read(8))[0]

    def load_reduce(self) -> None:
        arguments = self.pop_tuple()
        self.stack[-1] = self.stack[-1](*arguments)  # all that can be called is in ADMITTED

    def load_build(self) -> None:
        state = self.pop_tuple()
        target = self.stack[-1]
        if type(target) is DType:
            target.set_state(state)
        elif type(target) is np.ndarray:
            fill(target, state)
        else:
            raise ValueError("a pickle that changes what isn't an array")

    def pop_tuple(self) -> tuple:
        """What a call or a state is made of. It is copied maybe, and the same can be named many times."""
        items = self.stack.pop()
        if type(items) is not tuple:
            raise ValueError("arguments that aren't a tuple")
        self._allowance -= sum(len(item) for item in items if isinstance(item, str | bytes | bytearray | list | tuple))
        if self._allowance < 0:
            raise ValueError("a pickle that copies the same content again and again")
        return items

    def load_append(self) -> None:
        item = self.stack.pop()
        self._container(list).append(item)

    def load_appends(self) -> None:
        items = self.pop_mark()
        self._container(list).extend(items)

    def load_additems(self) -> None:
        items = self.pop_mark()
        self._container(set).update(map(plain_key, items))

    def load_frozenset(self) -> None:
        items = self.pop_mark()  # first: it puts another list in the place of the one that `append` appends to
        self.append(frozenset(map(plain_key, items)))

    def load_setitem(self) -> None:
        self._set_items([self.stack.pop(-2), self.stack.pop()])

    def load_setitems(self) -> None:
        self._set_items(self.pop_mark())

    def load_dict(self) -> None:
        items = self.pop_mark()
        self.append({})
        self._set_items(items)

    def _set_items(self, items: list) -> None:
        self._container(dict).update(zip(map(plain_key, items[::2]), items[1::2], strict=True))

    def _container(self, kind: type) -> list | set | dict:
        if type(self.stack[-1]) is not kind:
            raise ValueError(f"items for what is no {kind.__name__}")
        return self.stack[-1]

    dispatch = _Instructions(
        {code[0]: pickle._Unpickler.dispatch[code[0]] for code in (getattr(pickle, name) for name in _HARMLESS.split())}
    )
    dispatch |= {pickle.FRAME[0]: load_frame, pickle.BYTEARRAY8[0]: load_bytearray8, pickle.REDUCE[0]: load_reduce}
    dispatch |= {pickle.BUILD[0]: load_build, pickle.APPEND[0]: load_append, pickle.APPENDS[0]: load_appends}
    dispatch |= {pickle.ADDITEMS[0]: load_additems, pickle.FROZENSET[0]: load_frozenset, pickle.DICT[0]: load_dict}
    dispatch |= {pickle.SETITEM[0]: load_setitem, pickle.SETITEMS[0]: load_setitems}


def _measure(value: object, known: dict[int, tuple[int, int]], depth: int = 0) -> tuple[int, int]:
    """The bytes of a value once each text, number and array in it is written out, and how deep its containers go.

    known: what containers, by their id, have been measured before. One that holds itself is too deep.
    """
    if value is None or isinstance(value, float) or is_machine_integer(value):
        return 8, 0
    if isinstance(value, str | bytes | bytearray):
        return 8 + 4 * len(value), 0
    if isinstance(value, np.generic) or (isinstance(value, np.ndarray) and value.dtype.kind != "O"):
        return 8 + value.size * max(8, value.itemsize), 0
    if not isinstance(value, list | tuple | set | frozenset | dict | np.ndarray):
        raise ValueError(f"it holds what is no array, plain value or container, of type {type(value).__name__}")
    if id(value) not in known:
        size = height = 0
        if depth < DEPTH:
            items = chain(value.keys(), value.values()) if isinstance(value, dict) else getattr(value, "flat", value)
            for item in items:
                item_size, item_height = _measure(item, known, depth + 1)
                size, height = size + item_size, max(height, item_height)
        if depth + height >= DEPTH:
            raise ValueError("its containers lie too deep within one another")
        known[id(value)] = size + 8, height + 1
    return known[id(value)]


class _HashedFile(io.RawIOBase):
    """A file that is hashed while it is read, so that a large one is read once: a piece at a time, while that is in the cache."""

    def __init__(self, file: io.RawIOBase, bar: tqdm):
        self._file = file
        self._bar = bar
        self.sha1 = hashlib.sha1()
        self._position = 0

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: memoryview) -> int:
        count = self._file.readinto(piece := memoryview(buffer)[:PIECE])
        self.sha1.update(piece[:count])
        self._bar.update(count)
        self._position += count
        return count


class BoundedReader(io.BufferedReader):
    """Takes no memory for items that are larger than the rest of the file."""

    def __init__(self, raw: _HashedFile, size: int):
        super().__init__(raw, PIECE)
        self._size = size

    def announce(self, count: int) -> None:
        if count > self._size - self.tell():
            raise EOFError("it announces more than it holds")

    def read(self, count: int) -> bytes:
        if count > PIECE:
            self.announce(count)
        return super().read(count)


def load_pickle(path: Path) -> tuple[object, str]:
    """The content of a pickle, and the file's SHA-1.

    The content can be copied, compared and printed at will: its containers are few deep, and written out it takes no more
    than GROWTH times the file. Raises UserError for a file that can't be read, is no pickle, or asks for anything but arrays
    and plain values.
    """
    try:
        size = path.stat().st_size
        allowance = GROWTH * size + FREE_GROWTH
        with open(path, "rb", buffering=0) as file, progress(what=f"reading {path.name}", unit="B", total=size) as bar:
            hashed = _HashedFile(file, bar)
            reader = BoundedReader(hashed, size)
            content = RestrictedUnpickler(reader, allowance).load()
            if _measure(content, {})[0] > allowance:
                raise ValueError("it names the same content again and again")
            while reader.read(PIECE):
                pass
            return content, hashed.sha1.hexdigest()
    except RefusedError as refused:
        raise UserError(
            f"{path}: refused: the pickle asks for {first_line(refused)}, and a feature file needs only numpy arrays and builtin "
            "containers; a file that asks for more can run code. Get it from where the authors published it"
        ) from None
    except OSError as error:
        raise UserError(f"{path}: can't be read: {error.strerror}") from None
    except MemoryError:
        raise UserError(f"{path}: this machine's memory doesn't hold it, or it is damaged") from None
    except Exception as error:  # a damaged pickle can fail in any way at all
        raise UserError(
            f"{path}: not a feature pickle, or damaged ({type(error).__name__}: {first_line(error)})"
        ) from None
