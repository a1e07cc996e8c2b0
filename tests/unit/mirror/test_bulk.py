"""Framing, direct and cached I/O: what large blobs are written through, small ones read from."""

from __future__ import annotations

import mmap
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.core.errors import DriveFault
from appliance.engine.mirror.blob import CHUNK_BYTES, cut, encode_chunks, encode_chunks_into
from appliance.system.files import BLOCK_BYTES, DirectoryVolume

BLOB = bytes(range(16))


@given(st.lists(st.integers(0, CHUNK_BYTES + 3), max_size=6), st.integers(0, 9))
def test_pieces_are_framed_as_their_bytes_would_be(sizes: list[int], first: int) -> None:
    pieces = [os.urandom(size) for size in sizes]
    expected = encode_chunks(BLOB, first, b"".join(pieces))
    room = memoryview(bytearray(len(expected) + 7))
    assert encode_chunks_into(room, BLOB, first, pieces) == len(expected)
    assert room[: len(expected)] == expected
    assert bytes(room[len(expected) :]) == bytes(7)


@given(st.lists(st.binary(max_size=5), max_size=6), st.data())
def test_a_cut_loses_nothing(pieces: list[bytes], data: st.DataObject) -> None:
    whole = b"".join(pieces)
    size = data.draw(st.integers(0, len(whole)))
    head, tail = cut(pieces, size)
    assert (b"".join(head), b"".join(tail)) == (whole[:size], whole[size:])


@pytest.mark.parametrize("aligned", [True, False])
def test_a_direct_file_takes_whole_blocks_from_any_memory(tmp_path: Path, aligned: bool) -> None:
    volume = DirectoryVolume(tmp_path, "a")
    content = os.urandom(3 * BLOCK_BYTES)
    with mmap.mmap(-1, 4 * BLOCK_BYTES) as memory:
        start = 0 if aligned else 1
        memory[start : start + len(content)] = content
        file = volume.open("f", write=True, create=True, direct=True)
        with memoryview(memory) as view, view[start : start + len(content)] as part:
            file.write_at(BLOCK_BYTES, part)
    if volume.is_direct:
        with pytest.raises(DriveFault):
            file.write_at(0, b"less than a block")
    file.truncate(BLOCK_BYTES + 5000)
    file.flush()
    assert (tmp_path / "f").read_bytes() == bytes(BLOCK_BYTES) + content[:5000]
    file.close()
    volume.close()


def test_what_was_read_is_in_memory_and_what_is_not_there_is_not(tmp_path: Path) -> None:
    volume = DirectoryVolume(tmp_path, "a")
    (tmp_path / "f").write_bytes(b"0123456789")
    file = volume.open("f")
    assert file.read_at(0, 10) == b"0123456789"
    assert file.read_cached(2, 5) in (b"23456", None)  # not every file system can tell
    assert file.read_cached(8, 5) is None
    file.close()
    assert file.read_cached(2, 5) is None
    volume.close()
