"""The ``aws-chunked`` encoding of a body, taken apart as its bytes arrive.

Owns the framing: chunk headers, chunk data, trailers. Refuses anything not of that form, more or
fewer bytes than ``x-amz-decoded-content-length`` announced, trailers that were not announced, and
lines without an end. Verifies no signature: it hands out what there is to verify, in order.
Invariant: memory held between two calls is one unfinished line and the trailers, both bounded;
how the bytes were cut on the way never changes what comes out.

Reference: AWS S3 API Reference, "Transferring Payload in Multiple Chunks (Chunked Upload)" and
"Including Trailing Headers (Chunked Upload)".
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

from appliance.core.errors import S3Error

LINE_BYTES_MAX: Final = 1024
TRAILERS_MAX: Final = 16
SIZE_DIGITS_MAX: Final = 16
TRAILER_SIGNATURE: Final = "x-amz-trailer-signature"

_HEX_DIGITS: Final = b"0123456789abcdefABCDEF"
_CHUNK_SIGNATURE: Final = b"chunk-signature="
_SIGNATURE_CHARACTERS: Final = 64


@dataclass(frozen=True, slots=True)
class ChunkEnd:
    """A chunk's data is complete (the last one has none); ``signature`` is empty if unsigned."""

    signature: str


@dataclass(frozen=True, slots=True)
class Trailer:
    """The trailers, as the client signed them (``name:value`` lines) and its signature of them."""

    canonical: bytes
    signature: str


Event: TypeAlias = memoryview | ChunkEnd | Trailer


class _State(enum.Enum):
    SIZE = enum.auto()
    DATA = enum.auto()
    DATA_END = enum.auto()
    TRAILERS = enum.auto()
    ENDED = enum.auto()


class ChunkedDecoder:
    """One body. ``announced`` are the names in ``x-amz-trailer``, lower case.

    ``feed`` gives the events of the bytes it took; data events are views into what was fed. After
    an ``S3Error`` the decoder is of no further use.
    """

    __slots__ = (
        "_announced",
        "_gap_seen",
        "_left",
        "_line",
        "_signature",
        "_signed",
        "_size_left",
        "_state",
        "_trailer_signed",
        "_trailers",
    )

    def __init__(self, *, size_bytes: int, signed: bool, announced: frozenset[str]) -> None:
        self._signed: Final = signed
        self._announced: Final = announced
        self._size_left = size_bytes
        self._state = _State.SIZE
        self._line = bytearray()
        self._left = 0
        self._signature = ""
        self._trailers: dict[str, str] = {}
        self._trailer_signed = False
        self._gap_seen = False

    @property
    def ended(self) -> bool:
        """Whether the last byte of the encoding was seen."""
        return self._state is _State.ENDED

    @property
    def trailers(self) -> Mapping[str, str]:
        """The trailers by lower-case name; complete once ``ended``."""
        return self._trailers

    def feed(self, data: bytes) -> list[Event]:
        """Take the next bytes of any number.

        Raises ``InvalidRequest``, ``IncompleteBody`` or ``MalformedTrailerError``.
        """
        events: list[Event] = []
        view = memoryview(data)
        position = 0
        end = len(data)
        while position < end:
            if self._state is _State.DATA:
                taken = min(self._left, end - position)
                events.append(view[position : position + taken])
                position += taken
                self._left -= taken
                if self._left == 0:
                    self._state = _State.DATA_END
            elif self._state is _State.ENDED:
                raise S3Error("InvalidRequest", "There are bytes behind the end of the body.")
            else:
                line_end = data.find(b"\n", position)
                stop = end if line_end < 0 else line_end + 1
                if len(self._line) + stop - position > LINE_BYTES_MAX:
                    raise _malformed("a line is too long")
                self._line += view[position:stop]
                position = stop
                if line_end >= 0:
                    line, self._line = bytes(self._line), bytearray()
                    self._take_line(line, events)
        return events

    def finish(self) -> None:
        """No more bytes will come; raises ``IncompleteBody`` unless the encoding is complete.

        Clients that leave off the very last line end are complete all the same.
        """
        if (
            self._state is _State.TRAILERS
            and bytes(self._line) in {b"", b"\r"}
            and not self._waiting()
        ):
            self._state = _State.ENDED
        if self._state is not _State.ENDED:
            raise S3Error("IncompleteBody", "The body ended inside its chunked encoding.")

    def _take_line(self, line: bytes, events: list[Event]) -> None:
        if self._state is _State.SIZE:
            self._take_size(line, events)
        elif self._state is _State.DATA_END:
            if line != b"\r\n":
                raise _malformed("a chunk is longer than its size")
            events.append(ChunkEnd(self._signature))
            self._state = _State.SIZE
        else:
            self._take_trailer(line, events)

    def _take_size(self, line: bytes, events: list[Event]) -> None:
        if not line.endswith(b"\r\n"):
            raise _malformed("a chunk header does not end with CR LF")
        digits, _, extension = line[:-2].partition(b";")
        digits = digits.rstrip(b" ")
        if not 0 < len(digits) <= SIZE_DIGITS_MAX or digits.translate(None, _HEX_DIGITS):
            raise _malformed("a chunk size is not a hexadecimal number")
        self._signature = self._signature_of(extension) if self._signed else ""
        size = int(digits, 16)
        if size > self._size_left:
            raise S3Error(
                "IncompleteBody",
                "The body is longer than the x-amz-decoded-content-length header announced.",
            )
        self._size_left -= size
        if size:
            self._left = size
            self._state = _State.DATA
            return
        if self._size_left:
            raise S3Error(
                "IncompleteBody",
                "The body is shorter than the x-amz-decoded-content-length header announced.",
            )
        events.append(ChunkEnd(self._signature))
        self._state = _State.TRAILERS

    def _signature_of(self, extension: bytes) -> str:
        given = extension.strip(b" ")
        signature = given[len(_CHUNK_SIGNATURE) :]
        if (
            not given.startswith(_CHUNK_SIGNATURE)
            or len(signature) != _SIGNATURE_CHARACTERS
            or signature.translate(None, _HEX_DIGITS)
        ):
            raise _malformed("a chunk has no signature")
        return signature.decode("ascii")

    def _waiting(self) -> bool:
        """Whether something that was announced is still to come in the trailer."""
        if self._signed and self._announced and not self._trailer_signed:
            return True
        return not self._announced <= self._trailers.keys()

    def _take_trailer(self, line: bytes, events: list[Event]) -> None:
        text = line.strip(b"\r\n \t").decode("latin-1")
        if not text:
            if not self._waiting():
                self._state = _State.ENDED
            elif self._signed and self._trailers and not self._gap_seen:
                # Some clients send an empty line between the trailers and their signature.
                self._gap_seen = True
            else:
                raise _malformed_trailer()
            return
        name, colon, value = text.partition(":")
        name = name.strip().lower()
        value = value.strip()
        if not colon or self._trailer_signed:
            raise _malformed_trailer()
        if name == TRAILER_SIGNATURE and self._signed and self._announced <= self._trailers.keys():
            lines = "".join([f"{key}:{content}\n" for key, content in self._trailers.items()])
            events.append(Trailer(lines.encode("latin-1"), value))
            self._trailer_signed = True
            return
        if name not in self._announced or name in self._trailers:
            raise _malformed_trailer()
        self._trailers[name] = value


def announced_trailers(header: str | None) -> frozenset[str]:
    """The names in ``x-amz-trailer``. Raises ``InvalidRequest`` for more than allowed."""
    if not header:
        return frozenset()
    names = frozenset(name.strip().lower() for name in header.split(",")) - {""}
    if len(names) > TRAILERS_MAX:
        raise S3Error("InvalidRequest", "The x-amz-trailer header names too many trailers.")
    return names


def _malformed(fault: str) -> S3Error:
    return S3Error("InvalidRequest", f"The aws-chunked body is malformed: {fault}.")


def _malformed_trailer() -> S3Error:
    return S3Error(
        "MalformedTrailerError",
        "The request contained trailing data that was not well-formed or did not conform to our"
        " published schema.",
    )
