"""Reads a pickle that may come from anyone: arrays, numbers, text and containers, and nothing that could run code.

A pickle is a program that may name any function and call it. Here it can name only what rebuilds a numpy array or
scalar, as numpy 1 and numpy 2 write them, and a set; all else is refused by name.
"""

import hashlib
import math
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import numpy as np
from tqdm import tqdm

from utils.functions import UserError
from utils.progress import progress

PIECE = 1 << 20  # bytes


class _DType:
    """Stands for numpy.dtype. A real one takes any state from a pickle, such as that of pointers without their flags."""

    def __init__(self, name: str, align: bool = False, copy: bool = True):
        self.dtype = np.dtype(name) if isinstance(name, str) else None

    def __setstate__(self, state: tuple) -> None:
        _version, byte_order, *structure = state[:5]
        if structure != [None, None, None]:
            raise ValueError("a structured array")
        if byte_order in ("<", ">"):
            self.dtype = self.plain().newbyteorder(byte_order)

    def plain(self) -> np.dtype:
        if self.dtype is None or self.dtype.kind not in "biufcSUO" or self.dtype.subdtype is not None:
            raise ValueError(f"an array of {self.dtype}")
        return self.dtype


class _Array(np.ndarray):
    """An array that checks what a pickle fills it with: numpy itself trusts the length of a list of objects."""

    def __setstate__(self, state: tuple) -> None:
        version, shape, dtype, is_fortran, data = state
        dtype = dtype.plain()
        if any(type(size) is not int or size < 0 for size in shape):
            raise ValueError(f"an array of shape {shape}")
        if dtype.kind == "O":
            complete = type(data) is list and len(data) == math.prod(shape)
        else:
            data = data.encode("latin1") if isinstance(data, str) else data  # as Python 2 wrote it
            complete = type(data) is bytes and len(data) == math.prod(shape) * dtype.itemsize
        if not complete:
            raise ValueError(f"an array of shape {shape} with other data")
        super().__setstate__((version, tuple(shape), dtype, bool(is_fortran), data))


class _Admitted:
    """A function under the name that a pickle knows it by. A pickle can call it, and change nothing about it."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable):
        object.__setattr__(self, "_function", function)

    def __setattr__(self, name: str, value: object) -> None:
        raise ValueError(f"a pickle that sets {name}")

    def __call__(self, *arguments: object) -> object:
        return self._function(*arguments)


def _array_type() -> None:
    """The class numpy.ndarray, which pickles name but don't call."""
    raise ValueError("an array made by hand")


def _empty_array(subtype: object, shape: tuple, dtype: object) -> np.ndarray:
    """The array that a pickle then fills; numpy always writes it with shape (0,)."""
    if subtype is not _ADMITTED["numpy", "ndarray"] or tuple(shape) != (0,):
        raise ValueError("an array that numpy didn't write")
    return _Array((0,), dtype=np.int8)


def _scalar(dtype: _DType, value: bytes = b"") -> np.generic:
    plain = dtype.plain()
    value = value.encode("latin1") if isinstance(value, str) else value
    return np.frombuffer(value, dtype=plain, count=1)[0] if plain.itemsize else plain.type()


def _array_from_buffer(buffer: bytes, dtype: _DType, shape: tuple, order: str) -> np.ndarray:
    return np.frombuffer(buffer, dtype=dtype.plain()).reshape(shape, order=order)


def _latin1_bytes(text: str, encoding: str) -> bytes:
    """How protocols before 3 write bytes."""
    if encoding != "latin1":
        raise ValueError(f"bytes in encoding {encoding!r}")
    return text.encode("latin1")


def _empty_bytes() -> bytes:
    """How protocols before 3 write b"". With an argument, bytes could ask for any amount of memory."""
    return b""


_ADMITTED = {
    ("numpy", "ndarray"): _Admitted(_array_type),
    ("numpy", "dtype"): _Admitted(_DType),
    ("_codecs", "encode"): _Admitted(_latin1_bytes),
    **{(core, "_reconstruct"): _Admitted(_empty_array) for core in ("numpy.core.multiarray", "numpy._core.multiarray")},
    **{(core, "scalar"): _Admitted(_scalar) for core in ("numpy.core.multiarray", "numpy._core.multiarray")},
    **{(core, "_frombuffer"): _Admitted(_array_from_buffer) for core in ("numpy.core.numeric", "numpy._core.numeric")},
    **{(builtins, "bytes"): _Admitted(_empty_bytes) for builtins in ("builtins", "__builtin__")},
    **{(builtins, kind.__name__): kind for builtins in ("builtins", "__builtin__") for kind in (set, frozenset)},
}


class _RefusedError(Exception):
    pass


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> object:
        try:
            return _ADMITTED[module, name]
        except KeyError:
            raise _RefusedError(f"{module}.{name}") from None


class _HashingReader:
    """A file that is hashed while it is read, so that a large one is read once."""

    def __init__(self, file: BinaryIO, bar: tqdm):
        self._file = file
        self._bar = bar
        self.sha1 = hashlib.sha1()

    def read(self, size: int = -1) -> bytes:
        return self._hashed(self._file.read(size))

    def readline(self) -> bytes:
        return self._hashed(self._file.readline())

    def readinto(self, buffer: memoryview) -> int:
        """Fills the buffer, with an array of gigabytes maybe: a piece at a time, so that it is hashed while in the cache."""
        count = 0
        while got := self._file.readinto(piece := memoryview(buffer)[count : count + PIECE]):
            self._hashed(piece[:got])
            count += got
        return count

    def finish(self) -> str:
        while self.read(PIECE):
            pass
        return self.sha1.hexdigest()

    def _hashed(self, data: bytes | memoryview) -> bytes | memoryview:
        self.sha1.update(data)
        self._bar.update(len(data))
        return data


def load_pickle(path: Path) -> tuple[object, str]:
    """The content of a pickle, and the file's SHA-1.

    Raises UserError for a file that can't be read, is no pickle, or asks for anything but arrays and plain values.
    """
    try:
        size = path.stat().st_size
        with open(path, "rb") as file, progress(what=f"reading {path.name}", unit="B", total=size) as bar:
            reader = _HashingReader(file, bar)
            content = _Unpickler(reader, encoding="latin1").load()
            return content, reader.finish()
    except _RefusedError as refused:
        raise UserError(
            f"{path}: refused: the pickle asks for {refused}, and a feature file needs only numpy arrays and builtin "
            "containers; a file that asks for more can run code. Get it from where the authors published it"
        ) from None
    except OSError as error:
        raise UserError(f"{path}: can't be read: {error.strerror}") from None
    except MemoryError:
        raise UserError(f"{path}: this machine's memory doesn't hold it, or it is damaged") from None
    except Exception as error:  # a damaged pickle can fail in any way at all
        raise UserError(f"{path}: not a feature pickle, or damaged ({type(error).__name__}: {error})") from None
