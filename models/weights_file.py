"""Reads a file of torch.save that may come from anyone: a dict of tensors, and nothing that could run code."""

import pickle
import warnings
import zipfile
from pathlib import Path

import torch
from torch import Tensor

from utils.errors import UserError, first_line
from utils.pickled_arrays import is_size, plain_key
from utils.safe_pickle import BoundedReader, RestrictedUnpickler

# Bytes of a number in each kind of storage.
BYTES = {
    "DoubleStorage": 8, "FloatStorage": 4, "HalfStorage": 2, "BFloat16Storage": 2, "LongStorage": 8, "IntStorage": 4,
    "ShortStorage": 2, "CharStorage": 1, "ByteStorage": 1, "BoolStorage": 1,
}  # fmt: skip


def read_weights(path: Path) -> dict[str, Tensor]:
    """The state dict of a .pth. Runs no code from the file. Raises UserError for anything but a dict of tensors."""
    try:
        check_outline(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the pickle's protocol: what is wrong with it has been said
            weights = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for damaged or hostile files
        raise UserError(
            f"{path}: not a file of weights, or damaged ({type(error).__name__}: {first_line(error)})"
        ) from None
    if not isinstance(weights, dict) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in weights.items()
    ):
        raise UserError(f"{path}: expected a state dict (name -> tensor), as torch.save(model.state_dict()) writes")
    return weights


def check_outline(path: Path) -> None:
    """Raises for a file of torch.save that holds more than tensors, or larger ones than the file has bytes for.

    torch.load itself takes memory at a file's word: for storages of announced sizes, for what a zip file has compressed or
    names twice, for what its own functions make of a single number.
    """
    size = path.stat().st_size
    with open(path, "rb", buffering=0) as file:
        if file.read(4) != b"PK\x03\x04":  # by which torch, too, knows its zip files; before 1.6 it wrote none
            file.seek(0)
            reader = BoundedReader(file, size)
            for _number_version_machine in range(3):
                _Outline(reader, size).load()
            (outline := _Outline(reader, size)).load()
            with_content = set(map(plain_key, _Outline(reader, size).load()))
            if with_content != set(outline.storages):  # of others, torch leaves the memory as it was
                raise ValueError("it has not the content of all tensors")
        else:
            archive = zipfile.ZipFile(file)
            if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
                raise ValueError("it is compressed, as torch writes none")
            if sum(member.file_size for member in archive.infolist()) > size:
                raise ValueError("its parts overlap")
            (program,) = (name for name in archive.namelist() if name.endswith("/data.pkl"))
            with archive.open(program) as stream:
                (outline := _Outline(BoundedReader(stream, size), size)).load()
            folder = program.removesuffix(".pkl")
            if any(archive.getinfo(f"{folder}/{key}").file_size != bytes_ for key, bytes_ in outline.storages.items()):
                raise ValueError("its tensors' sizes are not those of its parts")
    if sum(outline.storages.values()) > size:
        raise ValueError("its tensors are larger than the file")


class _Outline(RestrictedUnpickler):
    """Reads how large the tensors of a file are, makes none of them, and refuses all else that a pickle may name."""

    def __init__(self, reader: BoundedReader, size: int):
        super().__init__(reader, size)
        self.storages: dict[str, int] = {}  # bytes

    def find_class(self, module: str, name: str) -> object:
        if module == "torch" and name in BYTES:
            return BYTES[name]
        if (module, name) not in OUTLINED:
            raise ValueError(f"it asks for {module}.{name}")
        return OUTLINED[module, name]

    def load_binpersid(self) -> None:
        """Leaves the storage's number of elements."""
        what, width, key, _location, count, *view = self.pop_tuple()
        if what != "storage" or type(width) is not int or not is_size(count) or view not in ([], [None]):
            raise ValueError("a storage that torch didn't write")
        if self.storages.setdefault(plain_key(key), width * count) != width * count:
            raise ValueError("a storage of two sizes")
        self.append(count)

    def load_build(self) -> None:
        """A state dict has one attribute, the versions of its modules."""
        if list(self.stack.pop()) != ["_metadata"] or type(self.stack[-1]) is not dict:
            raise ValueError("a pickle that changes an object")

    dispatch = RestrictedUnpickler.dispatch | {pickle.BINPERSID[0]: load_binpersid, pickle.BUILD[0]: load_build}


def _tensor(elements: int, offset: int, shape: tuple, strides: tuple, requires_grad: bool, hooks: dict) -> tuple[()]:
    """Raises for a tensor that reaches beyond its storage: torch would make the storage larger."""
    if not all(map(is_size, (elements, offset, *shape, *strides))):
        raise ValueError("a tensor that torch didn't write")
    last = offset + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
    if 0 not in shape and last >= elements:
        raise ValueError("a tensor beyond its storage")
    return ()


def _parameter(tensor: tuple[()], requires_grad: bool, hooks: dict) -> tuple[()]:
    return tensor


OUTLINED = {
    ("collections", "OrderedDict"): lambda: {},
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_parameter"): _parameter,
}
