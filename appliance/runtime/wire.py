"""What roles say to each other, as bytes: frames, the hello, and errors that keep their class.

Owns the format of the wire and its limits. Refuses a frame above ``FRAME_BYTES_MAX``, anything
that is not ``[kind, id, name, payload]``, and versions it does not understand. Pure: no sockets.

Frame: length as unsigned 32 bits, big endian, then that many bytes of MessagePack.
Invariant: what ``encode`` accepts, ``FrameReader`` gives back; after a ``ProtocolFault`` the
connection is of no further use.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import msgpack

from appliance.core import errors
from appliance.core.errors import ApplianceError, InvalidInput, Unreachable

VERSION: Final = 1
"""What this side speaks. It also understands ``VERSION_MIN``, so that roles are replaced one at a
time: one release speaks N and understands N-1."""
VERSION_MIN: Final = 1

FRAME_BYTES_MAX: Final = 64 * 1024 * 1024
_LENGTH: Final = struct.Struct(">I")
_DEPTH_ITEMS: Final = 4


class Kind(enum.IntEnum):
    """What a frame is."""

    HELLO = 0
    CALL = 1
    REPLY = 2
    ERROR = 3
    NOTIFY = 4


class Frame(NamedTuple):
    """One message. ``name`` is the method of a call or notification, the class of an error, the
    role in a hello; ``id`` pairs a call with its answer."""

    kind: int
    id: int
    name: str
    payload: Any


class ProtocolFault(Exception):
    """The other side broke the protocol; the connection must end. Never leaves ``runtime``."""


def encode(frame: Frame) -> bytes:
    """The frame's bytes. Raises ``InvalidInput`` when it is too large or cannot be packed."""
    try:
        body: bytes = msgpack.packb(frame, use_bin_type=True)
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidInput(f"cannot send {frame.name!r} to another role: {error}") from error
    if len(body) > FRAME_BYTES_MAX:
        raise InvalidInput(
            f"cannot send {frame.name!r} to another role: {len(body)} bytes are more than"
            f" {FRAME_BYTES_MAX}"
        )
    return _LENGTH.pack(len(body)) + body


class FrameReader:
    """Cuts a stream of bytes into frames. One per connection."""

    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Every whole frame so far. Raises ``ProtocolFault`` on what cannot be a frame."""
        if self._rest:
            self._rest += data
            data = bytes(self._rest) if self._whole() else b""
            if not data:
                return
            self._rest = bytearray()
        start, end = 0, len(data)
        while end - start >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(data, start)
            if length > FRAME_BYTES_MAX:
                raise ProtocolFault(f"a frame of {length} bytes is announced")
            body_end = start + _LENGTH.size + length
            if body_end > end:
                break
            yield _decode(memoryview(data)[start + _LENGTH.size : body_end])
            start = body_end
        if start < end:
            self._rest += memoryview(data)[start:]

    def _whole(self) -> bool:
        """Whether the bytes held contain a whole frame; spares a copy per piece of a large one."""
        if len(self._rest) < _LENGTH.size:
            return False
        length = int(_LENGTH.unpack_from(self._rest)[0])
        return length > FRAME_BYTES_MAX or len(self._rest) >= _LENGTH.size + length


def _decode(body: memoryview) -> Frame:
    try:
        parts = msgpack.unpackb(body, raw=False, strict_map_key=False)
    except Exception as error:  # msgpack raises half a dozen unrelated classes on bad bytes
        raise ProtocolFault(f"a frame cannot be unpacked: {error}") from error
    if not isinstance(parts, list) or len(parts) != _DEPTH_ITEMS:
        raise ProtocolFault("a frame is not [kind, id, name, payload]")
    kind, number, name, payload = parts
    if not isinstance(kind, int) or not isinstance(number, int) or not isinstance(name, str):
        raise ProtocolFault("a frame is not [kind, id, name, payload]")
    return Frame(kind, number, name, payload)


@dataclass(frozen=True, slots=True)
class Hello:
    """First frame of either side: its role and the versions it understands."""

    role: str
    lowest: int = VERSION_MIN
    highest: int = VERSION

    def frame(self) -> Frame:
        """The hello as a frame."""
        return Frame(Kind.HELLO, 0, self.role, [self.lowest, self.highest])


def read_hello(frame: Frame) -> Hello:
    """The other side's hello. Raises ``ProtocolFault`` when it is none."""
    if frame.kind != Kind.HELLO:
        raise ProtocolFault("the other side did not begin with its hello")
    versions = frame.payload
    if (
        not isinstance(versions, list)
        or len(versions) != 2
        or not all(isinstance(version, int) for version in versions)
    ):
        raise ProtocolFault("the other side's hello names no versions")
    return Hello(frame.name, versions[0], versions[1])


def agree(ours: Hello, theirs: Hello) -> int:
    """The version both speak: the highest both understand. Raises ``Unreachable`` if there is
    none (two releases that are too far apart run side by side)."""
    version = min(ours.highest, theirs.highest)
    if version < max(ours.lowest, theirs.lowest):
        raise Unreachable(
            f"cannot talk to role {theirs.role!r}: it speaks versions {theirs.lowest} to"
            f" {theirs.highest}, this side {ours.lowest} to {ours.highest}; restart the older one"
        )
    return version


def _classes() -> dict[str, type[ApplianceError]]:
    return {
        name: value
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, ApplianceError)
    }


_ERROR_CLASSES: Final = _classes()


def error_frame(number: int, error: ApplianceError) -> Frame:
    """The frame that answers call ``number`` with an error. A class the tree does not know is sent
    as its nearest known base."""
    known = next(kind for kind in type(error).__mro__ if kind.__name__ in _ERROR_CLASSES)
    return Frame(Kind.ERROR, number, known.__name__, [str(error), dict(vars(error))])


def read_error(frame: Frame) -> ApplianceError:
    """The error a call was answered with: same class, message and fields. One whose class this
    release does not know is an ``ApplianceError`` with the message."""
    kind = _ERROR_CLASSES.get(frame.name, ApplianceError)
    payload = frame.payload
    if not isinstance(payload, list) or len(payload) != 2 or not isinstance(payload[1], dict):
        raise ProtocolFault("an error frame is not [message, fields]")
    error = kind.__new__(kind)
    # The constructors derive the message from fields; going around them keeps both exactly.
    Exception.__init__(error, str(payload[0]))
    for name, value in payload[1].items():
        error.__dict__[str(name)] = value
    return error
