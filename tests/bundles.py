"""Writes checkpoints in TensorFlow's format, valid or broken, from its description: no code is shared with the reader.

Checksums are left out: the reader ignores them.
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

DTYPES = {"float32": 1, "int64": 9, "uint16": 14, "float16": 19}  # uint16: the bits of bfloat16
DTYPE, SHAPE, SHARD, OFFSET, SIZE, _, SLICES = range(1, 8)  # fields of an entry
SHARDS, ENDIANNESS = 1, 2  # and of the header


def varint(number: int) -> bytes:
    return bytes([number]) if number < 128 else bytes([number & 127 | 128]) + varint(number >> 7)


def message(fields: dict[int, int | bytes | list[bytes]]) -> bytes:
    """A protobuf message. int: a varint; bytes: a message or text; a list: a repeated one."""
    written = b""
    for field, value in fields.items():
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, bytes):
                written += varint(field * 8 + 2) + varint(len(item)) + item
            else:
                written += varint(field * 8) + varint(item)
    return written


def shape_message(shape: Iterable[int]) -> bytes:
    return message({2: [message({1: size}) for size in shape]})


def _block(pairs: list[tuple[bytes, bytes]]) -> bytes:
    """A block and its trailer. Every third name is written completely, the others as their difference from the previous one."""
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
    content += b"".join(number.to_bytes(4, "little") for number in [*(starts or [0]), len(starts or [0])])
    return content + bytes(5)  # not compressed, and no checksum


def table(pairs: list[tuple[bytes, bytes]], names_in_block: int = 10) -> bytes:
    """A sorted-string table."""
    written, places = b"", []
    for start in range(0, len(pairs), names_in_block):
        block = _block(part := pairs[start : start + names_in_block])
        places.append((part[-1][0], varint(len(written)) + varint(len(block) - 5)))
        written += block
    footer = b""
    for block in (_block([]), _block(places)):  # TensorFlow's metaindex is empty
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

    changed: replaces fields of entries, by name; the header's name is "". of_the_table: passed to `table`.
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
        }
        data[shard] += values
    pairs = [
        (name.encode(), message(fields | (changed or {}).get(name, {}))) for name, fields in sorted(entries.items())
    ]
    prefix.with_name(f"{prefix.name}.index").write_bytes(table(pairs, **of_the_table))
    for shard, content in enumerate(data):
        prefix.with_name(f"{prefix.name}.data-{shard:05d}-of-{shards:05d}").write_bytes(content)
