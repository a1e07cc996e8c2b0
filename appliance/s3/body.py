"""Request bodies: from the bytes of a connection to verified pieces of an object.

Owns every way a body comes: plain, with its SHA-256, and ``aws-chunked`` signed or not, with or
without trailers. Refuses a body that is shorter or longer than announced, whose hash or chunk
signature is wrong, or that announced no length at all (``MissingContentLength``). Invariant: the
final ``b""`` is handed out only after everything that was read has been verified; pieces before it
may still be under verification in a thread, so a consumer must not make them visible.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
from collections.abc import Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from appliance.core.checksums import ChecksumAlgorithm, decode
from appliance.core.chunked import ChunkedDecoder, ChunkEnd, Event, Trailer, announced_trailers
from appliance.core.errors import InvalidInput, S3Error
from appliance.core.sigv4 import ChunkChain, Signing
from appliance.objects.model import Declared
from appliance.s3.limits import FrontLimits
from appliance.s3.request import Wire

if TYPE_CHECKING:
    from hashlib import _Hash

_ALGORITHMS: Final = {algorithm.header: algorithm for algorithm in ChecksumAlgorithm}


@dataclass(frozen=True, slots=True)
class Payload:
    """What the client said in ``x-amz-content-sha256``, checked by the authentication.

    ``sha256_hex`` is empty unless the whole body's hash is signed; ``chunked`` is aws-chunked;
    ``signing`` is set where its chunks are signed; ``trailing`` allows trailers.
    """

    sha256_hex: str = ""
    chunked: bool = False
    trailing: bool = False
    signing: Signing | None = None


UNVERIFIED: Final = Payload()


class UnannouncedBody:
    """The body of a request that announced none: nothing to read, and no object to make of it."""

    size_bytes: int | None = None
    checksum_algorithm: ChecksumAlgorithm | None = None

    async def read(self) -> bytes:
        raise S3Error("MissingContentLength")

    def declared(self) -> Declared:
        return Declared()


NO_BODY: Final = UnannouncedBody()


class RequestBody:
    """A body as ``objects.model.Body`` wants it. One task reads it, once."""

    __slots__ = (
        "_algorithm_header",
        "_begun",
        "_chain",
        "_content_length",
        "_decoder",
        "_ended",
        "_executor",
        "_hash",
        "_headers",
        "_limits",
        "_md5",
        "_pending",
        "_received",
        "_sha256_hex",
        "_trailing",
        "_wire",
        "checksum_algorithm",
        "size_bytes",
    )

    def __init__(
        self,
        wire: Wire,
        headers: Mapping[str, str],
        payload: Payload,
        limits: FrontLimits,
        executor: Executor | None,
    ) -> None:
        self._wire = wire
        self._headers = headers
        self._limits = limits
        self._executor = executor
        self._begun = False
        self._ended = False
        self._received = 0
        self._md5: bytes | None = None
        self._pending: asyncio.Future[None] | None = None
        length = headers.get("content-length")
        self._content_length = None if length is None else int(length)
        self._sha256_hex = payload.sha256_hex
        self._decoder: ChunkedDecoder | None = None
        self._chain: ChunkChain | None = None
        self._trailing = payload.trailing
        self.size_bytes: int | None = self._content_length
        self._algorithm_header = ""
        self.checksum_algorithm: ChecksumAlgorithm | None = None
        if payload.chunked:
            self._decode(payload)
        self._hash: _Hash | None = (
            hashlib.sha256() if self._sha256_hex or self._chain is not None else None
        )
        self._find_checksum()

    def _decode(self, payload: Payload) -> None:
        decoded_length = self._headers.get("x-amz-decoded-content-length")
        if decoded_length is None:
            raise S3Error(
                "MissingContentLength", "You must provide the x-amz-decoded-content-length header."
            )
        if not (decoded_length.isascii() and decoded_length.isdigit() and len(decoded_length) < 20):
            raise S3Error(
                "InvalidArgument",
                "x-amz-decoded-content-length must be a non-negative number.",
                fields={
                    "ArgumentName": "x-amz-decoded-content-length",
                    "ArgumentValue": decoded_length,
                },
            )
        self.size_bytes = int(decoded_length)
        announced = frozenset[str]()
        if payload.trailing:
            announced = announced_trailers(self._headers.get("x-amz-trailer"))
        self._decoder = ChunkedDecoder(
            size_bytes=self.size_bytes, signed=payload.signing is not None, announced=announced
        )
        if payload.signing is not None:
            self._chain = ChunkChain(payload.signing)

    def _find_checksum(self) -> None:
        """Which of the five checksums is declared; raises ``InvalidRequest`` for more than one."""
        headers = self._headers
        found = [name for name in _ALGORITHMS if name in headers]
        if self._trailing:
            for name in announced_trailers(headers.get("x-amz-trailer")):
                if name not in _ALGORITHMS:
                    raise S3Error(
                        "InvalidRequest",
                        "The value specified in the x-amz-trailer header is not supported",
                    )
                found.append(name)
        if len(found) > 1:
            raise S3Error(
                "InvalidRequest",
                "Expecting a single x-amz-checksum- header. Multiple checksum Types are not"
                " allowed.",
            )
        if found:
            self._algorithm_header = found[0]
            self.checksum_algorithm = _ALGORITHMS[found[0]]

    def disclaim_checksum(self) -> None:
        """Before reading: the checksum header is of something else than this body (the object that
        a CompleteMultipartUpload makes)."""
        self._algorithm_header = ""
        self.checksum_algorithm = None

    def declared(self) -> Declared:
        """What the client declared; the trailer's part is there only after the end."""
        algorithm = self.checksum_algorithm
        if algorithm is None:
            return Declared(self._md5)
        return Declared(self._md5, (algorithm, self._checksum_value()))

    def _checksum_value(self) -> str:
        name = self._algorithm_header
        value = self._headers.get(name)
        if value is None and self._decoder is not None:
            value = self._decoder.trailers.get(name)
        return value or ""

    async def read(self) -> bytes:
        """The next piece, of about ``piece_bytes``; ``b""`` once all is read and verified."""
        if not self._begun:
            self._begin()
        await self._settle()
        if self._ended:
            return b""
        pieces: list[bytes] = []
        events: list[Event] = []
        total = 0
        while total < self._limits.piece_bytes:
            raw = await self._receive()
            if not raw:
                self._ended = True
                break
            if self._decoder is None:
                pieces.append(raw)
                total += len(raw)
            else:
                fed = self._decoder.feed(raw)
                events += fed
                total += sum([len(event) for event in fed if isinstance(event, memoryview)])
        if self._decoder is not None:
            piece = b"".join([event for event in events if isinstance(event, memoryview)])
        else:
            piece = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        await self._verify(piece, events)
        if self._ended:
            await self._settle()
            self._finish()
        return piece

    def _begin(self) -> None:
        """Check what was declared before the client is told to send anything."""
        self._begun = True
        md5 = self._headers.get("content-md5")
        if md5 is not None:
            try:
                self._md5 = base64.b64decode(md5, validate=True)
            except (binascii.Error, ValueError) as error:
                raise S3Error("InvalidDigest") from error
            if len(self._md5) != 16:
                raise S3Error("InvalidDigest")
        if self._algorithm_header in self._headers:
            self._check_checksum_form()

    def _check_checksum_form(self) -> None:
        assert self.checksum_algorithm is not None
        try:
            decode(self.checksum_algorithm, self._checksum_value())
        except InvalidInput as error:
            name = self._algorithm_header
            where = "header" if name in self._headers else "trailing header"
            # What is no digest of the algorithm cannot be the content's.
            raise S3Error("BadDigest", f"Value for {name} {where} is invalid.") from error

    async def _receive(self) -> bytes:
        expected = self._content_length
        if expected is not None and self._received == expected and self._received:
            return b""
        raw = await self._wire.receive()
        self._received += len(raw)
        if expected is not None and (
            self._received > expected or (not raw and self._received < expected)
        ):
            raise S3Error("IncompleteBody")
        return raw

    async def _verify(self, piece: bytes, events: list[Event]) -> None:
        """Hash what was read: at once when it is little, else in a thread while the consumer works
        on the same piece. The next ``read`` waits for it."""
        if self._hash is None:
            return
        if len(piece) < self._limits.hash_in_thread_bytes or self._executor is None:
            self._hash_piece(piece, events)
            return
        loop = asyncio.get_running_loop()
        self._pending = loop.run_in_executor(self._executor, self._hash_piece, piece, events)
        # A consumer that gives up never comes back for the outcome.
        self._pending.add_done_callback(_retrieve)

    def _hash_piece(self, piece: bytes, events: list[Event]) -> None:
        assert self._hash is not None
        if self._chain is None:
            self._hash.update(piece)
            return
        for event in events:
            if isinstance(event, memoryview):
                self._hash.update(event)
            elif isinstance(event, ChunkEnd):
                self._chain.chunk(self._hash.hexdigest(), event.signature)
                self._hash = hashlib.sha256()
            else:
                assert isinstance(event, Trailer)
                self._chain.trailer(event.canonical, event.signature)

    async def _settle(self) -> None:
        if self._pending is not None:
            pending, self._pending = self._pending, None
            await pending

    def _finish(self) -> None:
        if self._decoder is not None:
            self._decoder.finish()
            if self.checksum_algorithm is not None:
                self._check_checksum_form()
        if self._sha256_hex and self._hash is not None:
            computed = self._hash.hexdigest()
            if computed != self._sha256_hex:
                raise S3Error(
                    "XAmzContentSHA256Mismatch",
                    fields={
                        "ClientComputedContentSHA256": self._sha256_hex,
                        "S3ComputedContentSHA256": computed,
                    },
                )


def _retrieve(future: asyncio.Future[None]) -> None:
    if not future.cancelled():
        future.exception()
