"""Loads a pickle from an untrusted source: numpy arrays, numbers, text and plain containers, never code.

A pickle is a program that may call any function it can name. Here it can name only stand-ins for what numpy and the standard
containers need. The stand-in for an array records its arguments; once the pickle has ended, numpy functions that check sizes
make the array. A hostile file can still exhaust memory, time or the stack: no code runs and nothing is written.
"""

import hashlib
import pickle
import re
from pathlib import Path

import numpy as np

from utils.errors import UserError, first_line
from utils.progress import progress

LEAVES = (type(None), str, bytes, bytearray, int, float, set, frozenset, np.generic, np.ndarray)

TORCH_FILE = "is a file of torch.save; save .numpy() arrays with pickle.dump instead"
FORMATS = {  # what the file starts with -> what it is, and what to do
    rb"\x1f\x8b": "is a gzip file; unpack it with gunzip",
    rb"version https://git-lfs": "is a Git LFS pointer, not the file itself; fetch it with `git lfs pull`",
    rb"\s*<(!doctype )?html": "is a web page, not the file itself; download it again",
    rb"\x80\x02\x8a\nl\xfc\x9cF\xf9": TORCH_FILE,  # before torch 1.6
    rb"PK\x03\x04.{26}[^/]*/data\.pkl": TORCH_FILE,
    rb"PK\x03\x04": "is a zip file; unpack it",
}


class _DType:
    """Stands in for numpy.dtype, whose __setstate__ lets a file pass numbers off as pointers."""

    def __init__(self, name: str, align: bool = False, copy: bool = True):
        if not re.fullmatch(r"b1|[iu][1248]|f[248]|c8|c16|O8?|[SU]\d{1,7}", name):
            raise ValueError(f"unsupported array type {first_line(name)}")
        self.dtype = np.dtype(name)

    def __setstate__(self, state: tuple) -> None:
        _version, byte_order, *_implied_by_name = state
        self.dtype = self.dtype.newbyteorder(byte_order)


class _Array:
    """Stands in for numpy.ndarray, whose __setstate__ trusts the sizes in a file."""

    def __init__(self, *arguments: object):
        # Data, type, shape, order and maybe axes, from protocol 5; older protocols give them to __setstate__.
        self.arguments, self.array = arguments, None

    def __setstate__(self, state: tuple) -> None:
        _version, shape, dtype, is_fortran, data = state
        self.arguments = data, dtype, shape, "F" if is_fortran else "C"

    def build(self) -> np.ndarray:
        """The array, the same at each call. Raises ValueError or TypeError if its data, type and shape do not fit together."""
        if self.array is None:
            data, dtype, shape, order, *axes = self.arguments
            if dtype.dtype.kind == "O":
                array = np.fromiter([_build_arrays(item) for item in data], object)
            else:
                array = np.frombuffer(_as_bytes(data), dtype.dtype)
                array = array.astype(array.dtype.newbyteorder("="), copy=False)
            if array.dtype.kind == "U":
                array.tolist()  # raises if a value is not a character
            # Protocol 5 gives the axes' order in memory if it is neither C's nor Fortran's.
            in_memory = order == "K" and axes
            self.array = array.reshape(shape).transpose(*axes) if in_memory else array.reshape(shape, order=order)
        return self.array


def _scalar(dtype: _DType, data: bytes = b"") -> np.generic:
    return np.frombuffer(_as_bytes(data), dtype.dtype, count=1)[0] if dtype.dtype.itemsize else dtype.dtype.type()


def _as_bytes(data: bytes | bytearray | str) -> bytes | bytearray:
    return data.encode("latin1") if isinstance(data, str) else data  # text: written by Python 2


ADMITTED = {
    ("numpy", "ndarray"): lambda: None,  # an argument of _reconstruct, not called
    ("numpy", "dtype"): _DType,
    ("_codecs", "encode"): lambda text, encoding: text.encode("latin1"),  # bytes, before protocol 3
    ("collections", "OrderedDict"): lambda items=(): dict(items),
    ("collections", "defaultdict"): lambda factory=None: {},
}
for core in ("numpy.core", "numpy._core"):  # numpy 1 and 2
    ADMITTED[f"{core}.multiarray", "_reconstruct"] = lambda subtype, shape, code: _Array()
    ADMITTED[f"{core}.multiarray", "scalar"] = _scalar
    ADMITTED[f"{core}.numeric", "_frombuffer"] = _Array
for builtins in ("builtins", "__builtin__"):  # Python 3 and 2
    ADMITTED |= {(builtins, "bytes"): lambda: b"", (builtins, "set"): set, (builtins, "frozenset"): frozenset}
    ADMITTED |= {(builtins, factory): lambda: None for factory in ("dict", "float", "int", "list")}  # of a defaultdict


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> object:
        if (module, name) not in ADMITTED:
            what = f"refused: the pickle asks for {module}.{name}, which could run code; download it again from its authors"
            if (package := module.partition(".")[0]) in ("torch", "pandas"):
                what = f"holds {package} objects; save their .numpy() or .to_numpy() arrays instead"
            raise UserError(what)
        stand_in = ADMITTED[module, name]
        # A pickle can set attributes of all that it names: this function is thrown away with it.
        return lambda *arguments: stand_in(*arguments)


def _build_arrays(value: object) -> object:
    """The value with arrays in place of their stand-ins. Lists and dicts are changed in place."""
    if isinstance(value, _Array):
        return value.build()
    if isinstance(value, tuple):
        return tuple(_build_arrays(item) for item in value)
    if isinstance(value, list):
        value[:] = [_build_arrays(item) for item in value]
    elif isinstance(value, dict):
        value.update({key: _build_arrays(item) for key, item in value.items()})
    elif not isinstance(value, LEAVES) or (isinstance(value, int) and value.bit_length() > 64):
        raise ValueError(f"unexpected {type(value).__name__}")
    return value


def load_pickle(path: Path) -> tuple[object, str]:
    """A pickle's content and SHA-1. Raises UserError if it is damaged or asks for more than arrays and plain values."""
    try:
        with open(path, "rb") as file, progress(desc=f"reading {path.name}", unit="file", total=1) as bar:
            for pattern, message in FORMATS.items():
                if re.match(pattern, file.peek(512)[:512], re.DOTALL | re.IGNORECASE):
                    raise UserError(message)
            content = _build_arrays(_Unpickler(file, encoding="latin1").load())
            file.seek(0)
            bar.update()
            return content, hashlib.file_digest(file, "sha1").hexdigest()
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    except Exception as error:  # a damaged pickle can fail in any way
        reason = f"{type(error).__name__}: {first_line(error)}"
        problem = f"not a feature pickle, damaged, or too large for memory ({reason})"
        raise UserError(f"{path}: {problem}; download it again") from None
