"""The data files of a checkpoint and their sizes, from its index; without TensorFlow.

`model.ckpt.index` is a sorted table in LevelDB's format. Its values are small protocol buffers:
one of the whole checkpoint under the empty key, and one for each tensor.
"""

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

TABLE_END = bytes.fromhex("57fb808b247547db")  # the last bytes of each such table
FOOTER = 48  # bytes: where two blocks are, padding, TABLE_END
MOST = 1 << 24  # bytes of an index; that of 345M has 10,399
NUM_SHARDS, SHARD_ID, OFFSET, SIZE = 1, 3, 4, 5  # fields of the protocol buffers
VARINT, BYTES, FIXED_SIZES = 0, 2, {1: 8, 5: 4}  # kinds of fields; sizes in bytes


def data_files(index: Path) -> dict[Path, int]:
    """The data files that belong to an index, and how many bytes each has.

    Raises: ValueError if the file is not a complete index; OSError.
    """
    entries = dict(_entries(index))
    shards = entries.pop(b"", {}).get(NUM_SHARDS, 0)
    if not 0 < shards < 100_000 or not entries:
        raise ValueError("it lists no tensors")
    sizes: dict[int, int] = defaultdict(int)
    for entry in entries.values():
        shard, end = entry.get(SHARD_ID, 0), entry.get(OFFSET, 0) + entry.get(SIZE, 0)
        sizes[shard] = max(sizes[shard], end)
    prefix = index.name.removesuffix(".index")
    return {
        index.with_name(f"{prefix}.data-{shard:05d}-of-{shards:05d}"): sizes[shard]
        for shard in range(shards)
    }


def is_complete(index: Path) -> bool:
    """Whether all data files of an index are there, in full length."""
    try:
        return all(path.stat().st_size >= size for path, size in data_files(index).items())
    except (OSError, ValueError):
        return False


def _entries(index: Path) -> Iterator[tuple[bytes, dict[int, int]]]:
    if index.stat().st_size > MOST:
        raise ValueError("it is too large for an index")
    table = index.read_bytes()
    if len(table) < FOOTER or not table.endswith(TABLE_END):
        raise ValueError("it is not a complete index")
    try:
        _, _, at = _place(table, len(table) - FOOTER)
        start, size, _ = _place(table, at)
        for _, where in _block(table, start, size):
            start, size, _ = _place(where, 0)
            for key, value in _block(table, start, size):
                yield key, _fields(value)
    except LookupError:
        raise ValueError("it is damaged") from None


def _place(data: bytes, at: int) -> tuple[int, int, int]:
    """Where a block starts, its size, and the place after these two numbers."""
    start, at = _varint(data, at)
    size, at = _varint(data, at)
    return start, size, at


def _block(table: bytes, start: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values of a block of a table."""
    if table[start + size] != 0:
        raise ValueError("it is compressed")
    block = table[start : start + size]
    # Its end lists places to start reading from; a reader of the whole block needs none of them.
    end, at, key = len(block) - 4 - 4 * int.from_bytes(block[-4:], "little"), 0, b""
    while at < end:
        shared, at = _varint(block, at)
        added, at = _varint(block, at)
        length, at = _varint(block, at)
        key = key[:shared] + block[at : at + added]
        at += added
        yield key, block[at : at + length]
        at += length


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A number of seven bits a byte, and the place after it. Raises: IndexError."""
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at
        if shift > 63:
            raise ValueError("it holds a number that is too large")


def _fields(message: bytes) -> dict[int, int]:
    """The whole-number fields of a protocol buffer; others are skipped. Raises: LookupError."""
    found, at = {}, 0
    while at < len(message):
        tag, at = _varint(message, at)
        kind = tag & 7
        if kind == VARINT:
            found[tag >> 3], at = _varint(message, at)
        elif kind == BYTES:
            length, at = _varint(message, at)
            at += length
        else:
            at += FIXED_SIZES[kind]
    return found
