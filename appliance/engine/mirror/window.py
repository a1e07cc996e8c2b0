"""A sliding view of a segment for whoever reads it from end to end.

Owns the pieces it is read in, and what is made of blocks that cannot be read. Refuses a drive with
more than a few of those. Invariant: a block that cannot be read, or that the file was cut
short of, is zeros, which verify as nothing; a batch that is whole but for its padding is whole.
"""

from __future__ import annotations

from typing import Final

from appliance.core.errors import DriveFault
from appliance.core.ports import File
from appliance.engine.mirror.format import BLOCK_BYTES

BAD_BLOCKS_MAX: Final = 16
"""In one scan; a drive with more is not one bad spot but failing."""


class Window:
    """Reads a segment in large pieces past the page cache. A block that cannot be read becomes
    zeros, which verify as nothing; more than a few mean that the drive, not a block, is bad."""

    def __init__(
        self,
        file: File,
        segment: int,
        size_bytes: int,
        bad_blocks: set[tuple[int, int]],
        piece_bytes: int,
    ) -> None:
        self._file = file
        self._segment = segment
        self._size_bytes = size_bytes
        self._piece_bytes = piece_bytes
        self._start = 0
        self._data = b""
        self._bad_blocks = bad_blocks

    def read(self, offset: int, length: int) -> bytes:
        """Shorter only at the segment's end."""
        at = offset - self._start
        if at < 0 or at + length > len(self._data):
            self._start = offset
            self._data = self._fill(offset, max(length, self._piece_bytes))
            at = 0
        return self._data[at : at + length]

    def _fill(self, offset: int, length: int) -> bytes:
        length = max(0, min(length, self._size_bytes - offset))
        try:
            return self._file.read_at(offset, length, past_cache=True).ljust(length, b"\0")
        except DriveFault as fault:
            if not fault.is_bad_spot:
                raise
        return b"".join(
            self._block(at, min(BLOCK_BYTES, offset + length - at))
            for at in range(offset, offset + length, BLOCK_BYTES)
        )

    def _block(self, offset: int, length: int) -> bytes:
        try:
            return self._file.read_at(offset, length, past_cache=True).ljust(length, b"\0")
        except DriveFault as fault:
            self._bad_blocks.add((self._segment, offset))
            if not fault.is_bad_spot or len(self._bad_blocks) > BAD_BLOCKS_MAX:
                raise
            return bytes(length)
