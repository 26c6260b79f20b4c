"""Writes checkpoints in TensorFlow's format, sound or broken, from its description: nothing is shared with the reader."""

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

DTYPES = {"float32": 1, "int64": 9, "uint16": 14, "float16": 19}  # uint16: the bits of bfloat16
DTYPE, SHAPE, SHARD, OFFSET, SIZE, CRC, SLICES = range(1, 8)  # fields of an entry
SHARDS, ENDIANNESS = 1, 2  # and of the header


def _crc_of_byte(byte: int) -> int:
    for _ in range(8):
        byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
    return byte


TABLE = [_crc_of_byte(byte) for byte in range(256)]


def crc32c(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ TABLE[(crc ^ byte) & 255]
    return crc ^ 0xFFFFFFFF


def masked(crc: int) -> int:
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) % 2**32


def varint(number: int) -> bytes:
    return bytes([number]) if number < 128 else bytes([number & 127 | 128]) + varint(number >> 7)


def message(fields: dict[int, int | bytes | list[bytes]]) -> bytes:
    """A protobuf message. int: a varint, or the checksum's four bytes; bytes: a message or text; a list: a repeated one."""
    written = b""
    for field, value in fields.items():
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, bytes):
                written += varint(field * 8 + 2) + varint(len(item)) + item
            elif field == CRC:
                written += varint(field * 8 + 5) + item.to_bytes(4, "little")
            else:
                written += varint(field * 8) + varint(item)
    return written


def shape_message(shape: Iterable[int]) -> bytes:
    return message({2: [message({1: size}) for size in shape]})


def _block(pairs: list[tuple[bytes, bytes]], spoil: Callable[[bytes], bytes], compression: int) -> bytes:
    """A block and its trailer. Every third name is written whole, the others as what they add to the one before."""
    content, starts, last = b"", [], b""
    for number, (name, value) in enumerate(pairs):
        kept = 0
        if number % 3 == 0:
            starts.append(len(content))
        else:
            while kept < min(len(name), len(last)) and name[kept] == last[kept]:
                kept += 1
        content += varint(kept) + varint(len(name) - kept) + varint(len(value)) + name[kept:] + value
        last = name
    content = spoil(
        content + b"".join(number.to_bytes(4, "little") for number in [*(starts or [0]), len(starts or [0])])
    )
    content += bytes([compression])
    return content + masked(crc32c(content)).to_bytes(4, "little")


def table(
    pairs: list[tuple[bytes, bytes]],
    names_in_block: int = 10,
    spoil: Callable[[bytes], bytes] = bytes,
    compression: int = 0,
) -> bytes:
    """A sorted-string table. spoil: changes each data block's content, before its checksum is taken."""
    written, places = b"", []
    for start in range(0, len(pairs), names_in_block):
        block = _block(part := pairs[start : start + names_in_block], spoil, compression)
        places.append((part[-1][0], varint(len(written)) + varint(len(block) - 5)))
        written += block
    footer = b""
    for block in (_block([], bytes, 0), _block(places, bytes, 0)):  # TensorFlow's metaindex is empty
        footer += varint(len(written)) + varint(len(block) - 5)
        written += block
    return written + footer.ljust(40, b"\0") + bytes.fromhex("57fb808b247547db")


def write_bundle(
    prefix: Path,
    arrays: dict[str, np.ndarray],
    shards: int = 1,
    changed: dict[str, dict] | None = None,
    **of_the_table,
) -> None:
    """Writes PREFIX.index and its shards, among which the arrays take turns.

    changed: fields to be other than they should, of entries by name, of the header by the name "". of_the_table: see there.
    """
    data = [b""] * shards
    entries = {"": {SHARDS: shards, ENDIANNESS: 0, 3: message({1: 1})}}
    for number, name in enumerate(sorted(arrays)):
        values, shard = arrays[name].tobytes(), number % shards
        entries[name] = {
            DTYPE: DTYPES[arrays[name].dtype.name],
            SHAPE: shape_message(arrays[name].shape),
            SHARD: shard,
            OFFSET: len(data[shard]),
            SIZE: len(values),
            CRC: masked(crc32c(values)),
        }
        data[shard] += values
    pairs = [
        (name.encode(), message(fields | (changed or {}).get(name, {}))) for name, fields in sorted(entries.items())
    ]
    prefix.with_name(f"{prefix.name}.index").write_bytes(table(pairs, **of_the_table))
    for shard, content in enumerate(data):
        prefix.with_name(f"{prefix.name}.data-{shard:05d}-of-{shards:05d}").write_bytes(content)
