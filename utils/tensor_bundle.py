"""Reads a TensorFlow checkpoint without TensorFlow: NAME.index and its shards, NAME.data-00000-of-00001.

The index is a sorted-string table as in LevelDB. A footer locates the index block, whose entries locate the data blocks; their
entries map tensor names to protobuf messages (BundleEntryProto) with a tensor's type, shape and position in a shard. The empty
name maps to the header (BundleHeaderProto). Blocks are not compressed; checksums are not verified.
"""

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from utils.errors import UserError, first_line

MAGIC = 0xDB4775248B80FB57.to_bytes(8, "little")
# TensorFlow's number of a type -> numpy's type, or one of the same size for bfloat16, which numpy lacks; torch's type.
DTYPES = {1: ("<f4", torch.float32), 14: ("<i2", torch.bfloat16), 19: ("<f2", torch.float16)}
# Fields of the header and of an entry.
SHARD_COUNT = 1
DTYPE, SHAPE, SHARD, OFFSET, SIZE, SLICES = 1, 2, 3, 4, 5, 7


class TensorBundle:
    """The tensors of a checkpoint, by name. Shapes are known at once; values are mapped from the shards."""

    def __init__(self, index: Path):
        """index: NAME.index. Raises UserError if it is damaged or not the index of a TensorFlow checkpoint."""
        self.index = index
        try:
            # Names of slices are not UTF-8.
            self._entries = {name.decode("latin1"): _Message(value) for name, value in _table(index.read_bytes())}
            self._shards = self._entries.pop("").number(SHARD_COUNT)
            self.shapes = {name: entry.shape() for name, entry in self._entries.items()}
        except (ValueError, LookupError, TypeError) as error:
            reason = f"damaged, or not the index of a TensorFlow checkpoint ({first_line(error)})"
            raise UserError(f"{index}: {reason}; download it again") from None

    def read(self, name: str) -> Tensor:
        """A tensor, mapped. Raises UserError if its type is not supported or its shard lacks it."""
        entry = self._entries[name]
        if SLICES in entry or entry.number(DTYPE) not in DTYPES:
            raise UserError(f"{self.index}: {name}: expected float32, float16 or bfloat16, not stored in slices")
        numpy_type, torch_type = DTYPES[entry.number(DTYPE)]
        path = self.index.with_suffix(f".data-{entry.number(SHARD):05d}-of-{self._shards:05d}")
        offset, size = entry.number(OFFSET), entry.number(SIZE)
        try:
            # mode "c": torch wants writable memory; nothing is written to the file.
            data = np.asarray(np.memmap(path, np.uint8, "c"))[offset : offset + size]
            return torch.from_numpy(data.view(numpy_type).reshape(self.shapes[name])).view(torch_type)
        except (OSError, ValueError, OverflowError) as error:
            raise UserError(f"{path}: cannot read {name} ({first_line(error)}); download it again") from None


def _table(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The names and values of a sorted-string table. Raises ValueError if it is damaged."""
    if not data.endswith(MAGIC):
        raise ValueError("wrong magic number")
    footer = _Reader(data[-48:])
    _metaindex = footer.varint(), footer.varint()
    for _, position in _block(data, footer):
        yield from _block(data, _Reader(position))


def _block(data: bytes, position: "_Reader") -> Iterator[tuple[bytes, bytes]]:
    """The names and values of a block. Only the part of a name that differs from the previous name is stored."""
    start, size = position.varint(), position.varint()
    block = data[start : start + size]
    restarts = int.from_bytes(block[-4:], "little")  # 4-byte offsets of complete names, for binary search
    entries = block[: -4 - 4 * restarts]
    reader, name = _Reader(entries), b""
    while reader.tell() < len(entries):
        kept, added, length = reader.varint(), reader.varint(), reader.varint()
        name = name[:kept] + reader.take(added)
        yield name, reader.take(length)


class _Reader(io.BytesIO):
    def take(self, count: int) -> bytes:
        if len(taken := self.read(count)) != count:
            raise ValueError("cut short")
        return taken

    def varint(self) -> int:
        """A number of seven bits per byte, the lowest first; the highest bit of a byte is set if another follows."""
        value = shift = 0
        while (byte := self.take(1)[0]) & 128:
            value, shift = value | (byte & 127) << shift, shift + 7
        return value | byte << shift


class _Message(dict):
    """A protobuf message: field number -> list of its numbers and byte strings. Raises ValueError if it is damaged."""

    def __init__(self, data: bytes):
        reader = _Reader(data)
        while reader.tell() < len(data):
            field, kind = divmod(reader.varint(), 8)
            if kind == 0:
                value = reader.varint()
            elif kind in (2, 5):
                value = reader.take(reader.varint() if kind == 2 else 4)
            else:
                raise ValueError("not a protobuf message")
            self.setdefault(field, []).append(value)

    def number(self, field: int) -> int:
        """A number; protobuf leaves out zeros."""
        return int(self.get(field, [0])[-1])

    def shape(self) -> tuple[int, ...]:
        sizes = _Message(b"".join(self.get(SHAPE, []))).get(2, [])
        return tuple(_Message(size).number(1) for size in sizes)
