"""Encryption of contents: AES-256-GCM in frames of 64 KiB under a key of their own.

Owns the frame format. Each content (an object, or one part of it) has a random 256-bit *write id*,
new per attempt; its key is HKDF-SHA256(contract key, salt = write id), so a nonce never repeats
under a key. Frame ``n`` is sealed with the nonce (final flag, n) and the write id as associated
data: a frame moved, dropped, repeated, taken from another content, or cut off at the end does not
open. Every content has at least one frame, so that emptiness is sealed too.

Refuses to yield a byte that was not authenticated. Invariant: plaintext frame ``n`` starts at
``n * FRAME_BYTES``; all frames but the last are full.

Reference: NIST SP 800-38D; RFC 5869; the STREAM construction (Hoang et al., 2015).
"""

from __future__ import annotations

import hmac
import struct
from collections.abc import Iterator
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from appliance.core.errors import DataLost
from appliance.core.ports import Buffer

FRAME_BYTES: Final = 64 * 1024
TAG_BYTES: Final = 16
SEALED_FRAME_BYTES: Final = FRAME_BYTES + TAG_BYTES
WRITE_ID_BYTES: Final = 32
CONTRACT_KEY_BYTES: Final = 32
_LABEL: Final = b"appliance content 1"
_EXPAND: Final = _LABEL + b"\x01"
_NONCE: Final = struct.Struct(">IQ")


def content_cipher(contract_key: bytes, write_id: bytes) -> AESGCM:
    """The cipher of one content."""
    assert len(contract_key) == CONTRACT_KEY_BYTES, "contract keys have 256 bits"
    assert len(write_id) == WRITE_ID_BYTES, "write ids have 256 bits"
    # HKDF for one block of output, which is two HMACs: a third of the library's time for it.
    extracted = hmac.digest(write_id, contract_key, "sha256")
    return AESGCM(hmac.digest(extracted, _EXPAND, "sha256"))


def frame_count(size_bytes: int) -> int:
    """How many frames a content of this plaintext size has."""
    return max(1, -(-size_bytes // FRAME_BYTES))


def sealed_size(size_bytes: int) -> int:
    """Bytes that a content of this plaintext size takes when sealed."""
    return size_bytes + TAG_BYTES * frame_count(size_bytes)


def _nonce(number: int, final: bool) -> bytes:
    return _NONCE.pack(1 if final else 0, number)


class Sealer:
    """Seals one content, piece by piece. One thread at a time."""

    def __init__(self, contract_key: bytes, write_id: bytes) -> None:
        self._cipher: Final = content_cipher(contract_key, write_id)
        self._write_id: Final = write_id
        self._number = 0
        self._held = b""
        self._finished = False

    def update(self, data: Buffer) -> bytearray:
        """Take plaintext, give the frames that are certainly not the last."""
        full = max(0, (len(self._held) + len(data) - 1) // FRAME_BYTES)
        sealed = bytearray(full * SEALED_FRAME_BYTES)
        position = 0
        with memoryview(data) as source, memoryview(sealed) as target:
            for index in range(full):
                end = position + FRAME_BYTES - len(self._held)
                piece: Buffer = source[position:end]
                if self._held:
                    piece = b"".join((self._held, piece))
                    self._held = b""
                room = target[index * SEALED_FRAME_BYTES : (index + 1) * SEALED_FRAME_BYTES]
                nonce = _nonce(self._number + index, final=False)
                self._cipher.encrypt_into(nonce, piece, self._write_id, room)
                position = end
            self._held = b"".join((self._held, source[position:]))
        self._number += full
        return sealed

    def finish(self) -> bytes:
        """The last frame."""
        assert not self._finished, "a content is finished once"
        self._finished = True
        return self._cipher.encrypt(_nonce(self._number, final=True), self._held, self._write_id)


def seal(contract_key: bytes, write_id: bytes, data: bytes) -> bytes:
    """A whole small content at once."""
    if len(data) <= FRAME_BYTES:
        cipher = content_cipher(contract_key, write_id)
        return cipher.encrypt(_nonce(0, final=True), data, write_id)
    sealer = Sealer(contract_key, write_id)
    return bytes(sealer.update(data)) + sealer.finish()


class Span:
    """Which sealed bytes answer a plaintext range of a content, and what to trim from them.

    ``sealed_offset`` and ``sealed_length`` are the range to read; ``first_frame`` is the number of
    its first frame.
    """

    __slots__ = ("first_frame", "length", "sealed_length", "sealed_offset", "size_bytes", "skip")

    def __init__(self, size_bytes: int, offset: int, length: int) -> None:
        assert offset >= 0 and length >= 0 and offset + length <= size_bytes, "range inside"
        first = min(offset // FRAME_BYTES, frame_count(size_bytes) - 1)
        last = max(first, (offset + length - 1) // FRAME_BYTES) if length else first
        end = min((last + 1) * FRAME_BYTES, size_bytes) + (last + 1) * TAG_BYTES
        self.size_bytes: Final = size_bytes
        self.first_frame: Final = first
        self.sealed_offset: Final = first * SEALED_FRAME_BYTES
        self.sealed_length: Final = end - self.sealed_offset
        self.skip: Final = offset - first * FRAME_BYTES
        self.length: Final = length


def open_frame(contract_key: bytes, write_id: bytes, span: Span, sealed: bytes) -> bytes:
    """The plaintext of a span that lies in one frame. Raises ``DataLost`` unless it is authentic
    and whole."""
    final = span.first_frame == frame_count(span.size_bytes) - 1
    cipher = content_cipher(contract_key, write_id)
    opened = _opened(cipher, span.first_frame, final, sealed, write_id)
    part = opened[span.skip : span.skip + span.length]
    if len(part) != span.length:
        raise DataLost("a content is shorter than its record says")
    return part


def _opened(cipher: AESGCM, number: int, final: bool, frame: Buffer, write_id: bytes) -> bytes:
    try:
        return cipher.decrypt(_nonce(number, final), frame, write_id)
    except (InvalidTag, ValueError) as error:
        raise DataLost(f"content frame {number} is not authentic") from error


class Opener:
    """Opens the frames of a span, fed with its sealed bytes in pieces of any size.

    One thread at a time. Raises ``DataLost`` for a frame that is not authentic.
    """

    def __init__(self, contract_key: bytes, write_id: bytes, span: Span) -> None:
        self._cipher: Final = content_cipher(contract_key, write_id)
        self._write_id: Final = write_id
        self._last_frame: Final = frame_count(span.size_bytes) - 1
        self._number = span.first_frame
        self._skip = span.skip
        self._wanted = span.length
        self._left = span.sealed_length
        self._held = b""

    def update(self, sealed: Buffer) -> bytes:
        """The plaintext of the frames completed by these bytes, trimmed to the range."""
        self._left -= len(sealed)
        assert self._left >= 0, "more bytes than the span has"
        with memoryview(sealed) as view:
            return self._trim(b"".join(self._frames(view)))

    def _frames(self, sealed: memoryview) -> Iterator[bytes]:
        """The frames that are complete, the last one of the span too; the rest is held."""
        position = 0
        while position < len(sealed):
            end = position + SEALED_FRAME_BYTES - len(self._held)
            frame: Buffer = sealed[position:end]
            if self._held:
                frame, self._held = b"".join((self._held, frame)), b""
            if end > len(sealed) and self._left:
                self._held = bytes(frame)
                return
            yield self._open(frame)
            position = end

    def _open(self, frame: Buffer) -> bytes:
        final = self._number == self._last_frame
        opened = _opened(self._cipher, self._number, final, frame, self._write_id)
        self._number += 1
        return opened

    def _trim(self, opened: bytes) -> bytes:
        if self._skip and opened:
            opened = opened[self._skip :]
            self._skip = 0
        if len(opened) > self._wanted:
            opened = opened[: self._wanted]
        self._wanted -= len(opened)
        return opened

    def finish(self) -> None:
        """Raises ``DataLost`` unless the whole range came."""
        if self._left or self._wanted or self._held:
            raise DataLost("a content is shorter than its record says")
