"""The bytes of a log segment's copies around the place a scrub stands at.

Owns what was read of the copies and not passed yet, and the read of what follows, which is on its
way meanwhile. Refuses nothing: of a copy that is too short there are fewer bytes. Invariant: bytes
are not copied to be joined, but for a batch that lies in two pieces.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Set
from typing import Final, NamedTuple

from appliance.core.ports import File
from appliance.engine.mirror.scrub_kit import PIECE_BYTES, Ahead, Kit


class _Piece(NamedTuple):
    """What was read of each drive at one place."""

    offset: int
    length: int
    copies: Mapping[str, bytes]

    @property
    def end(self) -> int:
        return self.offset + self.length


class Window:
    """Bytes of ``files``, one of each drive, before ``end``."""

    def __init__(self, kit: Kit, files: Mapping[str, File], end: int) -> None:
        self.files: Final = files
        self.end: Final = end
        self._kit = kit
        self._pieces: deque[_Piece] = deque()
        self._ahead: Ahead | None = None

    def drop(self) -> None:
        """Whatever is wanted next is read anew."""
        self._pieces.clear()

    def fill(self, drives: Set[str], offset: int, length: int) -> None:
        """Have the bytes of these drives at a place no earlier than the last one. Raises what
        ``Kit.read`` does."""
        while self._pieces and self._pieces[0].end <= offset:
            self._pieces.popleft()
        if self._is_there(drives, offset, length):
            return
        ahead, self._ahead = self._ahead, None
        if ahead is not None:
            copies = ahead.result()
            self._pieces.append(_Piece(ahead.offset, ahead.length, copies))
        if not self._leads(drives, offset):
            self._pieces.clear()
        step = PIECE_BYTES * self._kit.depth
        files = {drive: self.files[drive] for drive in sorted(drives)}
        at = self._pieces[-1].end if self._pieces else offset
        if at < offset + length:
            wanted = min(max(offset + length - at, step), self.end - at)
            self._pieces.append(_Piece(at, wanted, self._kit.read(files, at, wanted)))
            at += wanted
        if self._kit.depth > 1 and at < self.end:
            self._ahead = self._kit.read_ahead(files, at, min(step, self.end - at))

    def slice(self, drive: str, offset: int, length: int) -> bytes:
        """A drive's bytes of what was filled."""
        parts = []
        for piece in self._pieces:
            at = offset - piece.offset
            if 0 <= at < piece.length and length:
                taken = min(length, piece.length - at)
                parts.append(piece.copies[drive][at : at + taken])
                offset, length = offset + taken, length - taken
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _is_there(self, drives: Set[str], offset: int, length: int) -> bool:
        return self._leads(drives, offset) and self._pieces[-1].end >= offset + length

    def _leads(self, drives: Set[str], offset: int) -> bool:
        """Whether the pieces begin at a place or before it, follow one another without a gap, and
        are of exactly these drives."""
        expected = self._pieces[0].offset if self._pieces else offset + 1
        if expected > offset:
            return False
        for piece in self._pieces:
            if piece.offset != expected or piece.copies.keys() != drives:
                return False
            expected = piece.end
        return True
