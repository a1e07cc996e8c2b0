"""Files of large blobs: their names, their form on a drive, and verified reading.

A blob file is a row of chunks, each with the blob's id, its own number, length and CRC32C in front:
a chunk that was written elsewhere, lost, or changed is told from a good one. There is no header and
no trailer: the record that owns the blob knows its size. Files are never rewritten in place.

Owns the form; refuses nothing by exception: a chunk that does not verify is reported as damaged
(``None``) and the caller asks the other drive. Pure but for the ``File`` it is handed.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from typing import Final, NewType

from awscrt.checksums import crc32c

from appliance.core.ports import Buffer, File

BlobId = NewType("BlobId", bytes)

BLOB_ID_BYTES: Final = 16
CHUNK_BYTES: Final = 64 * 1024
BLOB_DIRECTORY: Final = "blob"
STAGING_DIRECTORY: Final = "staging"

_MAGIC: Final = 0x4B4E4843
_HEADER: Final = struct.Struct("<IIII16s")
_SIGNED: Final = struct.Struct("<III16s")
HEADER_BYTES: Final = _HEADER.size
FRAME_BYTES: Final = HEADER_BYTES + CHUNK_BYTES


def blob_directory(blob_id: bytes) -> str:
    """The directory of a blob's file: 256 of them, so that none grows without bound."""
    return f"{BLOB_DIRECTORY}/{blob_id[0]:02x}"


def blob_path(blob_id: bytes) -> str:
    """Where an adopted blob lies on each drive."""
    return f"{BLOB_DIRECTORY}/{blob_id[0]:02x}/{blob_id.hex()}"


def blob_id_of(name: str) -> bytes:
    """The id a file's name spells; empty for a name that is no blob's."""
    try:
        blob_id = bytes.fromhex(name)
    except ValueError:
        return b""
    return blob_id if len(blob_id) == BLOB_ID_BYTES else b""


def staged_path(gateway: str, blob_id: bytes) -> str:
    """Where a blob lies while it is uploaded."""
    return f"{STAGING_DIRECTORY}/{gateway}/{blob_id.hex()}"


def file_bytes(size_bytes: int) -> int:
    """Length of the file of a blob of ``size_bytes``."""
    full, rest = divmod(size_bytes, CHUNK_BYTES)
    return full * FRAME_BYTES + (HEADER_BYTES + rest if rest else 0)


def blob_bytes(file_size_bytes: int) -> int:
    """Inverse of ``file_bytes``."""
    full, rest = divmod(file_size_bytes, FRAME_BYTES)
    return full * CHUNK_BYTES + max(rest - HEADER_BYTES, 0)


def _seal(blob_id: bytes, number: int, payload: Buffer) -> bytes:
    signed = _SIGNED.pack(_MAGIC, number, len(payload), blob_id)
    crc = crc32c(payload, crc32c(signed))
    return _HEADER.pack(_MAGIC, number, len(payload), crc, blob_id)


def encode_chunks(blob_id: bytes, first: int, data: Buffer) -> bytes:
    """The file's bytes for ``data``, which begins at chunk ``first``. Only the blob's last chunk
    may be shorter than ``CHUNK_BYTES``."""
    view = memoryview(data)
    pieces: list[Buffer] = []
    for number, start in enumerate(range(0, len(view), CHUNK_BYTES), first):
        payload = view[start : start + CHUNK_BYTES]
        pieces.append(_seal(blob_id, number, payload))
        pieces.append(payload)
    return b"".join(pieces)


def encode_chunks_into(
    room: memoryview, blob_id: bytes, first: int, pieces: Iterable[Buffer]
) -> int:
    """``encode_chunks`` of the pieces' bytes, copied once, to ``room``; how many bytes they are."""
    at, number, filled = 0, first, 0

    def seal() -> int:
        body = at + HEADER_BYTES
        room[at:body] = _seal(blob_id, number, room[body : body + filled])
        return body + filled

    for piece in pieces:
        view, start = memoryview(piece), 0
        while start < len(view):
            length = min(CHUNK_BYTES - filled, len(view) - start)
            to = at + HEADER_BYTES + filled
            room[to : to + length] = view[start : start + length]
            start, filled = start + length, filled + length
            if filled == CHUNK_BYTES:
                at, number, filled = seal(), number + 1, 0
    return seal() if filled else at


def cut(pieces: Sequence[Buffer], size: int) -> tuple[list[Buffer], list[Buffer]]:
    """The first ``size`` bytes of the pieces, and the rest."""
    taken: list[Buffer] = []
    for number, piece in enumerate(pieces):
        if len(piece) > size:
            view = memoryview(piece)
            return [*taken, view[:size]], [view[size:], *pieces[number + 1 :]]
        taken.append(piece)
        size -= len(piece)
    return taken, []


def decode_chunks(
    blob_id: bytes, size_bytes: int, first: int, last: int, raw: bytes
) -> list[memoryview] | None:
    """The payloads of chunks [first, last) out of the file's bytes; None if one does not verify."""
    view = memoryview(raw)
    payloads: list[memoryview] = []
    position = 0
    for number in range(first, last):
        length = min(CHUNK_BYTES, size_bytes - number * CHUNK_BYTES)
        end = position + HEADER_BYTES + length
        if end > len(view):
            return None
        payload = view[position + HEADER_BYTES : end]
        if view[position : position + HEADER_BYTES] != _seal(blob_id, number, payload):
            return None
        payloads.append(payload)
        position = end
    return payloads


class ChunkCheck:
    """Verifies a blob's file as its bytes come by, in pieces of any length."""

    def __init__(self, blob_id: bytes, size_bytes: int) -> None:
        self._blob_id = blob_id
        self._size_bytes = size_bytes
        self._count = -(-size_bytes // CHUNK_BYTES)
        self._number = 0
        self._rest = b""

    def take(self, raw: bytes) -> bool:
        """Whether all chunks that are complete with these bytes verify."""
        view = memoryview(self._rest + raw if self._rest else raw)
        at = 0
        while self._number < self._count:
            length = min(CHUNK_BYTES, self._size_bytes - self._number * CHUNK_BYTES)
            end = at + HEADER_BYTES + length
            if end > len(view):
                break
            payload = view[at + HEADER_BYTES : end]
            if view[at : at + HEADER_BYTES] != _seal(self._blob_id, self._number, payload):
                return False
            at, self._number = end, self._number + 1
        self._rest = bytes(view[at:])
        return self._number < self._count or not self._rest

    @property
    def is_complete(self) -> bool:
        """Whether the whole file came by, and nothing else."""
        return self._number == self._count and not self._rest


def read_range(
    file: File, blob_id: bytes, size_bytes: int, start: int, end: int, *, past_cache: bool = False
) -> bytes | None:
    """Bytes [start, end) of the blob, verified; None if a chunk they touch is damaged. Raises
    ``DriveFault``. Callers keep ranges to about a MiB."""
    if start >= end:
        return b""
    first, last = start // CHUNK_BYTES, -(-end // CHUNK_BYTES)
    begin = first * FRAME_BYTES
    stop = min(last * FRAME_BYTES, file_bytes(size_bytes))
    raw = file.read_at(begin, stop - begin, past_cache=past_cache)
    payloads = decode_chunks(blob_id, size_bytes, first, last, raw)
    if payloads is None:
        return None
    payloads[-1] = payloads[-1][: end - (last - 1) * CHUNK_BYTES]
    payloads[0] = payloads[0][start - first * CHUNK_BYTES :]
    return bytes(payloads[0]) if len(payloads) == 1 else b"".join(payloads)


def spans(start: int, end: int, step_bytes: int) -> Iterable[tuple[int, int]]:
    """[start, end) cut at multiples of ``step_bytes``, so that no chunk is read twice."""
    while start < end:
        stop = min((start // step_bytes + 1) * step_bytes, end)
        yield start, stop
        start = stop
