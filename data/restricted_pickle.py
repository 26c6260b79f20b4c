"""Reads a pickle that may come from anyone: arrays, numbers, text and containers, and nothing that could run code.

A pickle is a program that may name any function and call it. Here it can name only what rebuilds a numpy array or
scalar, as numpy 1 and numpy 2 write them, and a set; all else is refused by name.
"""

import hashlib
import pickle
from pathlib import Path
from typing import BinaryIO

import numpy as np

from utils.functions import UserError


class _ArrayType:
    """Stands for the class numpy.ndarray in a pickle, which names it but must not call it."""


def _empty_array(subtype: type, shape: tuple, dtype: object) -> np.ndarray:
    """The array that a pickle then fills; numpy always writes it with shape (0,)."""
    if subtype is not _ArrayType or tuple(shape) != (0,):
        raise ValueError("an array that numpy didn't write")
    return np.empty((0,), dtype=np.dtype("b"))


def _scalar(dtype: np.dtype, value: bytes) -> np.generic:
    return np.frombuffer(value, dtype=dtype, count=1)[0]


def _array_from_buffer(buffer: bytes, dtype: np.dtype, shape: tuple, order: str) -> np.ndarray:
    return np.frombuffer(buffer, dtype=dtype).reshape(shape, order=order)


def _latin1_bytes(text: str, encoding: str) -> bytes:
    """How protocols before 3 write bytes."""
    if encoding != "latin1":
        raise ValueError(f"bytes in encoding {encoding!r}")
    return text.encode("latin1")


_ADMITTED = {
    ("numpy", "ndarray"): _ArrayType,
    ("numpy", "dtype"): np.dtype,
    ("_codecs", "encode"): _latin1_bytes,
    **{(core, "_reconstruct"): _empty_array for core in ("numpy.core.multiarray", "numpy._core.multiarray")},
    **{(core, "scalar"): _scalar for core in ("numpy.core.multiarray", "numpy._core.multiarray")},
    **{(core, "_frombuffer"): _array_from_buffer for core in ("numpy.core.numeric", "numpy._core.numeric")},
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

    def __init__(self, file: BinaryIO):
        self._file = file
        self.sha1 = hashlib.sha1()

    def read(self, size: int = -1) -> bytes:
        return self._hashed(self._file.read(size))

    def readline(self) -> bytes:
        return self._hashed(self._file.readline())

    def readinto(self, buffer: memoryview) -> int:
        count = self._file.readinto(buffer)
        self.sha1.update(memoryview(buffer)[:count])
        return count

    def finish(self) -> str:
        while self.read(1 << 20):
            pass
        return self.sha1.hexdigest()

    def _hashed(self, data: bytes) -> bytes:
        self.sha1.update(data)
        return data


def load_pickle(path: Path) -> tuple[object, str]:
    """The content of a pickle, and the file's SHA-1.

    Raises UserError for a file that can't be read, is no pickle, or asks for anything but arrays and plain values.
    """
    try:
        with open(path, "rb") as file:
            reader = _HashingReader(file)
            content = _Unpickler(reader, encoding="latin1").load()
            return content, reader.finish()
    except _RefusedError as refused:
        raise UserError(
            f"{path}: refused: the pickle asks for {refused}, and a feature file needs only numpy arrays and builtin "
            "containers; a file that asks for more can run code. Get it from where the authors published it"
        ) from None
    except OSError as error:
        raise UserError(f"{path}: can't be read: {error.strerror}") from None
    except Exception as error:  # a damaged pickle can fail in any way at all
        raise UserError(f"{path}: not a feature pickle, or damaged ({type(error).__name__}: {error})") from None
