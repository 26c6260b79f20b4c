"""Reads a TensorFlow checkpoint without TensorFlow: NAME.index, and its shards NAME.data-00000-of-00001.

The index is a sorted-string table, as LevelDB has them. From its end on: a footer says where the index block is; its
entries say where the data blocks are; their entries are tensors' names, each with a protobuf message (BundleEntryProto) of
the tensor's type and shape, and of its place in a shard. The name "" stands for the whole (BundleHeaderProto). Blocks and
tensors have a checksum, CRC-32C. No size or place that a file states is believed before it is compared with what is there.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from math import prod
from pathlib import Path

import numpy as np

from utils.errors import UserError

MOST = 1 << 20  # bytes of an index; BERT-large's, with its optimizer's variables, has 0.1 MB
LONGEST = 500  # bytes of a name
FOOTER = 48  # bytes
MAGIC = 0xDB4775248B80FB57.to_bytes(8, "little")
# TensorFlow's number of a type -> safetensors' name of it, and numpy's, which has no bfloat16.
DTYPES = {1: ("F32", np.dtype("<f4")), 14: ("BF16", np.dtype("<u2")), 19: ("F16", np.dtype("<f2"))}

POLYNOMIAL = 0x82F63B78  # of CRC-32C; its highest power is the lowest bit
ALL_ONES = bytes.fromhex("54641f64")  # take a register of zeros to the ones that CRC-32C begins with
LANES = 1 << 14  # 32-bit words that are taken in at a time
BITS = np.arange(32, dtype=np.uint32)[:, None]


@dataclass(frozen=True)
class Entry:
    """A tensor that is there, all of it."""

    name: str
    shape: tuple[int, ...]
    dtype: str  # F32, BF16 or F16
    numbers: np.dtype
    data: np.ndarray  # (bytes,) uint8, in the file
    shard: Path
    checksum: int

    def read(self) -> np.ndarray:
        """The values, (*shape,), as they lie in the file; BF16 as uint16. Raises UserError where they are damaged."""
        if _masked(crc32c(self.data)) != self.checksum:
            raise UserError(
                f"{self.shard}: {self.name} is damaged: its checksum differs; download or copy the file anew"
            )
        return self.data.view(self.numbers).reshape(self.shape)


class TensorBundle:
    """A checkpoint's tensors, by name. Its shards are mapped, not held in memory."""

    def __init__(self, index: Path):
        """index: NAME.index. Raises UserError where it is none, is damaged, or of a kind that isn't read here."""
        self.index = index
        self._shards: dict[Path, np.ndarray] = {}
        try:
            if not index.is_file():  # reading a pipe could wait forever
                raise ValueError("there is no such file")
            if index.stat().st_size > MOST:
                raise ValueError("it is larger than any BERT's")
            self._messages = dict(_table(index.read_bytes()))
            if b"" not in self._messages:
                raise ValueError("it has no header")
            header = _message(self._messages.pop(b""))
            if _number(header, 2) != 0:
                raise ValueError("it is of a big-endian machine")
            self._shard_count = _number(header, 1)
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise UserError(
                f"{index}: not the index of a TensorFlow checkpoint, or damaged ({reason}); download or copy it anew"
            ) from None

    @property
    def nbytes(self) -> int:
        """Of the shards that the entries so far lie in."""
        return sum(map(len, self._shards.values()))

    def __contains__(self, name: str) -> bool:
        return name.encode() in self._messages

    def entry(self, name: str) -> Entry:
        """A tensor that the bundle contains. Raises UserError where it isn't all there, or is of a kind not read here."""
        try:
            message = _message(self._messages[name.encode()])
            if (7, 2) in message:
                raise ValueError("is stored in slices (a partitioned variable); save it as a whole")
            dtype = _number(message, 1)
            if dtype not in DTYPES:
                raise ValueError(
                    f"is of TensorFlow's type {dtype}; expected float32 (1), bfloat16 (14) or float16 (19)"
                )
            kind, numbers = DTYPES[dtype]
            dimensions = _message(b"".join(message.get((2, 2), []))).get((2, 2), [])
            shape = tuple(_number(_message(dimension), 1) for dimension in dimensions)
            shard, offset, size = (_number(message, field) for field in (3, 4, 5))
            if len(shape) > 8 or size != prod(shape) * numbers.itemsize or shard >= self._shard_count:
                raise ValueError("is described by numbers that don't agree; download or copy the index anew")
        except ValueError as error:
            raise UserError(f"{self.index}: {name} {error}") from None
        path = self.index.with_suffix(f".data-{shard:05d}-of-{self._shard_count:05d}")
        data = self._shard(path)
        if offset + size > len(data):
            raise UserError(
                f"{path}: has {len(data)} bytes, too few: {name} ends at {offset + size}; download or copy the file anew"
            )
        return Entry(name, shape, kind, numbers, data[offset : offset + size], path, _number(message, 6, kind=5))

    def _shard(self, path: Path) -> np.ndarray:
        """The bytes of a shard, (bytes,) uint8."""
        if path not in self._shards:
            try:
                empty = path.stat().st_size == 0  # and can't be mapped
                self._shards[path] = np.empty(0, np.uint8) if empty else np.asarray(np.memmap(path, np.uint8, "r"))
            except OSError as error:
                raise UserError(
                    f"{path}: can't be read ({error.strerror}); it belongs beside {self.index.name}, from the same download"
                ) from None
        return self._shards[path]


def crc32c(data: np.ndarray) -> int:
    """CRC-32C of bytes, (bytes,) uint8; some 900 MB/s.

    A CRC is linear over GF(2): so each of LANES words may gather, in its own register, every LANES-th word from it on. A
    register must pass over the words between with each step, which a table tells for each of its halves. In the end, the
    registers are a message of LANES words with the same CRC. Zeros in front change nothing.
    """
    row = 4 * LANES
    unit = row if len(data) >= row else 4
    start = len(data) % row
    head = ALL_ONES + data[:start].tobytes()
    words = np.frombuffer(head.rjust(-(-len(head) // unit) * unit, b"\0"), "<u4")
    if unit == row:
        registers = np.zeros(LANES, np.uint32)
        for further in chain(words.reshape(-1, LANES), data[start:].view("<u4").reshape(-1, LANES)):
            registers = LOW[registers & 0xFFFF] ^ HIGH[registers >> 16] ^ further
        words = registers
    for passing in PASSING:  # 1, 2, 4, ... words
        if len(words) == 1:
            break
        if len(words) % 2:
            words = np.append(np.uint32(0), words)
        words = _product(passing, words[::2]) ^ words[1::2]
    return int(_product(PASSING[0], words)[0]) ^ 0xFFFFFFFF


def _product(matrix: np.ndarray, registers: np.ndarray) -> np.ndarray:
    """matrix: (32,) uint32, what becomes of each bit. (N,) uint32 -> (N,)."""
    return np.bitwise_xor.reduce((registers >> BITS & 1) * matrix[:, None], axis=0)


def _passing() -> list[np.ndarray]:
    """What becomes of a register's bits when 1, 2, 4, ... LANES words of zeros pass, as matrices."""
    word = np.uint32(1) << BITS[:, 0]
    for _ in range(32):
        word = word >> 1 ^ (word & 1) * np.uint32(POLYNOMIAL)
    matrices = [word]
    while 1 << len(matrices) <= LANES:
        matrices.append(_product(matrices[-1], matrices[-1]))
    return matrices


PASSING = _passing()
LOW = _product(PASSING[-1], np.arange(1 << 16, dtype=np.uint32))
HIGH = _product(PASSING[-1], np.arange(1 << 16, dtype=np.uint32) << 16)


def _masked(crc: int) -> int:
    """A CRC as it is stored, so that what holds CRCs can itself be checked by one."""
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _table(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The names and values of a sorted-string table. Raises ValueError where it is none."""
    if len(data) < FOOTER or not data.endswith(MAGIC):
        raise ValueError("it doesn't end as one")
    footer = _Reader(data[-FOOTER:])
    footer.varint(), footer.varint()  # a block of which TensorFlow makes no use
    body = data[:-FOOTER]
    end, last = 0, None
    for _, place in _block(body, footer.varint(), footer.varint()):
        reader = _Reader(place)
        start, size = reader.varint(), reader.varint()
        if start < end:
            raise ValueError("its blocks overlap")
        end = start + size
        for name, value in _block(body, start, size):
            if last is not None and name <= last:
                raise ValueError("its names are in no order")
            last = name
            yield name, value


def _block(body: bytes, start: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    """The names and values of a block. Each name begins as the one before, to a length that is stated."""
    end = start + size
    if size < 4 or end + 5 > len(body):
        raise ValueError("a block lies beyond its end")
    checksum = int.from_bytes(body[end + 1 : end + 5], "little")
    if checksum != _masked(crc32c(np.frombuffer(body[start : end + 1], np.uint8))):
        raise ValueError("a block's checksum differs")
    if body[end] != 0:
        raise ValueError("it is compressed, as TensorFlow writes none")
    starts = int.from_bytes(body[end - 4 : end], "little")  # where whole names stand, for a binary search
    if 4 * starts > size - 4:
        raise ValueError("a block is too small")
    reader = _Reader(body[start : end - 4 - 4 * starts])
    name = b""
    while reader.left:
        kept, added, length = reader.varint(), reader.varint(), reader.varint()
        if kept > len(name) or kept + added > LONGEST:
            raise ValueError("a name is longer than any BERT's")
        name = name[:kept] + reader.take(added)
        yield name, reader.take(length)


class _Reader:
    """Reads bytes from the front. Raises ValueError where they end too early."""

    def __init__(self, data: bytes):
        self._data, self._at = data, 0

    @property
    def left(self) -> int:
        return len(self._data) - self._at

    def take(self, count: int) -> bytes:
        if count > self.left:
            raise ValueError("a part of it is cut short")
        self._at += count
        return self._data[self._at - count : self._at]

    def varint(self) -> int:
        """A number from 0 to below 2**70: seven bits in a byte, the lowest first."""
        value = 0
        for shift in range(0, 70, 7):
            (byte,) = self.take(1)
            value |= (byte & 127) << shift
            if byte < 128:
                return value
        raise ValueError("a number has more than ten bytes")


def _message(data: bytes) -> dict[tuple[int, int], list]:
    """The fields of a protobuf message: (field's number, wire type) -> values. Raises ValueError where it is none."""
    fields = defaultdict(list)
    reader = _Reader(data)
    while reader.left:
        field, kind = divmod(reader.varint(), 8)
        if kind == 0:
            value = reader.varint()
        elif kind == 2:
            value = reader.take(reader.varint())
        elif kind in (1, 5):
            value = int.from_bytes(reader.take(8 if kind == 1 else 4), "little")
        else:
            raise ValueError("a part of it is no protobuf message")
        fields[field, kind].append(value)
    return dict(fields)


def _number(message: dict, field: int, kind: int = 0) -> int:
    """0 where it isn't there: so protobuf writes it."""
    return message.get((field, kind), [0])[-1]
