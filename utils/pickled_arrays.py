"""What a pickle may name to rebuild numpy's arrays and scalars, and sets: stand-ins that check what they are given.

numpy's own trust a pickle: with sizes, with the flags that tell numbers from pointers.
"""

import math
import re
import sys

import numpy as np

MOST_AXES = 64  # numpy's own limit
LONGEST_KEY = 1000  # characters; two that are equal are compared anew each time that one is looked up


class DType:
    """Stands for numpy.dtype. A real one takes any state from a pickle, such as that of pointers without their flags."""

    def __init__(self, name: str, align: bool = False, copy: bool = True):
        if align not in (False, True) or copy not in (False, True):
            raise ValueError("an array's type that numpy didn't write")
        if not re.fullmatch(r"b1|[iu][1248]|f[248]|c8|c16|O8?|[SU]\d{1,9}", name):
            raise ValueError("an array of another type than numbers, text and objects")
        self._native = np.dtype(name)
        self.dtype: np.dtype | None = None  # until its state is set, which comes right behind it

    def set_state(self, state: tuple) -> None:
        version, byte_order, subdtype, names, fields, itemsize, alignment, flags = state[:8]
        if (version, len(state)) not in ((3, 8), (4, 9)) or self.dtype is not None:
            raise ValueError("an array's type that numpy didn't write")
        if (subdtype, names, fields) != (None, None, None):
            raise ValueError("a structured array")
        sizes = (self._native.itemsize,) if self._native.kind in "SU" else (-1, self._native.itemsize)
        if alignment not in (-1, self._native.alignment):
            raise ValueError("an array's type with another one's alignment")
        # Older numpy writes no flags for text. Compared one by one: what a pickle gives may take any time to hash.
        if itemsize not in sizes or (flags != self._native.flags and (flags != 0 or self._native.kind == "O")):
            raise ValueError("an array's type with another one's size or flags")
        if byte_order not in ("<", ">", "|", "="):
            raise ValueError("an array's type without byte order")
        self.dtype = self._native.newbyteorder(byte_order)

    def plain(self) -> np.dtype:
        if self.dtype is None:
            raise ValueError("an array's type without its state")
        return self.dtype


def _array_type() -> None:
    """The class numpy.ndarray, which pickles name but don't call."""
    raise ValueError("an array made by hand")


def _empty_array(subtype: object, shape: tuple, code: bytes | str) -> np.ndarray:
    """The array that a pickle then fills; numpy always writes it with shape (0,) and the code of int8."""
    if subtype is not _array_type or not _is_shape(shape) or shape != (0,) or code not in ("b", b"b"):
        raise ValueError("an array that numpy didn't write")
    return np.empty((0,), dtype=np.int8)


def _is_unfilled(value: object) -> bool:
    return isinstance(value, np.ndarray) and value.shape == (0,) and value.dtype == np.int8


def fill(array: np.ndarray, state: tuple) -> None:
    """Gives an array its content, checked: numpy trusts the length of a list of objects."""
    version, shape, dtype, is_fortran, data = state
    dtype = dtype.plain()
    if not _is_unfilled(array) or not _is_shape(shape) or is_fortran not in (False, True):
        raise ValueError("an array that numpy didn't write")
    if dtype.kind == "O":
        complete = type(data) is list and len(data) == math.prod(shape)
        # Python frees an array within an array by recursion, and enough of them end the process.
        if complete and any(
            isinstance(item, np.ndarray) and (item.dtype == dtype or _is_unfilled(item)) for item in data
        ):
            raise ValueError("an array of arrays of objects")
    else:
        data = data.encode("latin1") if isinstance(data, str) else data  # as Python 2 wrote it
        complete = type(data) is bytes and dtype.itemsize and len(data) == math.prod(shape) * dtype.itemsize
    if not complete:
        raise ValueError("an array whose shape and data differ in size")
    _check_characters(data, dtype)
    array.__setstate__((version, shape, dtype, is_fortran, data))


def is_size(value: object) -> bool:
    return type(value) is int and 0 <= value < 1 << 40


def _is_shape(value: object) -> bool:
    return type(value) is tuple and len(value) <= MOST_AXES and all(map(is_size, value))


def _check_characters(data: bytes | bytearray | list, dtype: np.dtype) -> None:
    """Raises for text with numbers that are no characters: Python fails inside where it meets them."""
    if dtype.kind == "U":
        characters = np.frombuffer(data, dtype=np.dtype(np.uint32).newbyteorder(dtype.byteorder))
        if characters.max(initial=0) > sys.maxunicode:
            raise ValueError("text with other characters than there are")


def _scalar(dtype: DType, value: bytes = b"") -> np.generic:
    plain = dtype.plain()
    value = value.encode("latin1") if isinstance(value, str) else value
    if type(value) is not bytes:
        raise ValueError("a number that isn't made of bytes")
    return np.frombuffer(value, dtype=plain, count=1)[0] if plain.itemsize else plain.type()


def _array_from_buffer(
    buffer: bytes | bytearray, dtype: DType, shape: tuple, order: str, axes: tuple | None = None
) -> np.ndarray:
    _check_characters(buffer, dtype.plain())
    array = np.frombuffer(buffer, dtype=dtype.plain())
    if order == "K" and axes is not None:  # neither C nor Fortran: numpy 2 writes how the axes lie in memory
        return array.reshape(shape).transpose(axes)
    return array.reshape(shape, order=order)


def _latin1_bytes(text: str, encoding: str) -> bytes:
    """How protocols before 3 write bytes."""
    if type(text) is not str or encoding != "latin1":
        raise ValueError("bytes in another encoding than latin1")
    return text.encode("latin1")


def _empty_bytes() -> bytes:
    """How protocols before 3 write b"". With an argument, bytes could ask for any amount of memory."""
    return b""


def _set(members: list) -> set:
    if type(members) is not list:
        raise ValueError("a set that isn't made of a list")
    return set(map(plain_key, members))


def plain_key(value: object) -> object:
    """A key of a dict or member of a set: a short text or plain number, for others can take any time to hash or compare."""
    is_short = isinstance(value, str | bytes) and len(value) <= LONGEST_KEY
    if is_short or value is None or isinstance(value, float | np.integer) or is_machine_integer(value):
        return value
    raise ValueError(f"a key of type {type(value).__name__} that is no short text or number")


def is_machine_integer(value: object) -> bool:
    return isinstance(value, int) and value.bit_length() <= 64


ADMITTED = {
    ("numpy", "ndarray"): _array_type,
    ("numpy", "dtype"): DType,
    ("_codecs", "encode"): _latin1_bytes,
    **{(core, "_reconstruct"): _empty_array for core in ("numpy.core.multiarray", "numpy._core.multiarray")},
    **{(core, "scalar"): _scalar for core in ("numpy.core.multiarray", "numpy._core.multiarray")},
    **{(core, "_frombuffer"): _array_from_buffer for core in ("numpy.core.numeric", "numpy._core.numeric")},
    **{(builtins, "bytes"): _empty_bytes for builtins in ("builtins", "__builtin__")},
    **{(builtins, "set"): _set for builtins in ("builtins", "__builtin__")},
    **{(builtins, "frozenset"): lambda members: frozenset(_set(members)) for builtins in ("builtins", "__builtin__")},
}
