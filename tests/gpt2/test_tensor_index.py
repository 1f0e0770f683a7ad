"""The index of a checkpoint, read without TensorFlow."""

import random

import pytest
from conftest import ROOT, shared

from gpt2 import tensor_index
from gpt2.download.released_files import DATA, INDEX

EMBEDDED = ROOT / "models" / "1M"


def test_gives_the_length_of_the_data_file():
    size = (EMBEDDED / DATA).stat().st_size
    assert tensor_index.data_files(EMBEDDED / INDEX) == {EMBEDDED / DATA: size}
    gpt2 = shared("gpt2")
    assert tensor_index.data_files(gpt2 / INDEX) == {gpt2 / DATA: 497759232}


def test_reads_a_checkpoint_in_several_files(tmp_path):
    """As TensorFlow writes it where variables lie on several devices."""
    header = b"\x00\x00\x02\x08\x02"  # of two data files
    first = b"\x00\x01\x04a\x20\x00\x28\x05"  # tensor a: 5 bytes from 0
    second = b"\x00\x01\x06b\x18\x01\x20\x03\x28\x04"  # tensor b: 4 bytes from 3 in file 1
    block = header + first + second + b"\x00\x00\x00\x00\x01\x00\x00\x00"
    where = b"\x00\x01\x02z" + bytes([0, len(block)]) + b"\x00\x00\x00\x00\x01\x00\x00\x00"
    table = block + bytes(5) + where + bytes(5)
    footer = bytes([0, 0, len(block) + 5, len(where)]).ljust(40, b"\x00")
    index = tmp_path / "model-7.index"
    index.write_bytes(table + footer + tensor_index.TABLE_END)
    files = [tmp_path / f"model-7.data-0000{i}-of-00002" for i in range(2)]
    assert tensor_index.data_files(index) == {files[0]: 5, files[1]: 7}
    files[0].write_bytes(bytes(5))
    assert not tensor_index.is_complete(index)
    files[1].write_bytes(bytes(7))
    assert tensor_index.is_complete(index)
    files[1].write_bytes(bytes(6))
    assert not tensor_index.is_complete(index)


@pytest.mark.parametrize("content", [b"", b"x" * 100, bytes(40) + tensor_index.TABLE_END])
def test_other_files_are_refused(tmp_path, content):
    index = tmp_path / INDEX
    index.write_bytes(content)
    with pytest.raises(ValueError):
        tensor_index.data_files(index)
    assert not tensor_index.is_complete(index)


def test_damaged_index_raises_nothing_but_value_error(tmp_path):
    whole, index, draw = (EMBEDDED / INDEX).read_bytes(), tmp_path / INDEX, random.Random(1)
    for count in [1, 2, 3, 10, 100] * 100:
        damaged = bytearray(whole)
        for _ in range(count):
            damaged[draw.randrange(len(whole) - 8)] = draw.randrange(256)
        index.write_bytes(damaged)
        tensor_index.is_complete(index)
