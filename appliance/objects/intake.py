"""Taking in a body: read, hashed once, sealed and written in one pass.

Owns the pipeline. A small body is done on the loop; a large one in pieces, each by one call of the
hashing executor (MD5, checksums and encryption together), while the loop reads the next piece and
writes the one before. Refuses a body that is too large or not what the client declared.

Invariant: ``take`` returns only when every byte is in a finished blob and the declarations held; on
any failure, cancellation included, the blob is forgotten.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from appliance.core.checksums import ChecksumAlgorithm, encode, hasher
from appliance.core.errors import S3Error
from appliance.core.frames import WRITE_ID_BYTES, Sealer, seal, sealed_size
from appliance.engine.interface import BlobWriter, FinishedBlob
from appliance.objects.context import Context
from appliance.objects.model import Body, Declared


@dataclass(frozen=True, slots=True)
class Taken:
    """A body that is stored and not yet owned by a record."""

    size_bytes: int
    md5: bytes
    digests: Sequence[tuple[ChecksumAlgorithm, bytes]]
    write_id: bytes
    blob: FinishedBlob


class _Digests:
    """The MD5 and the wanted checksums of one body. One thread at a time."""

    def __init__(self, algorithms: Sequence[ChecksumAlgorithm]) -> None:
        self._md5 = hashlib.md5(usedforsecurity=False)
        self._hashers = [(algorithm, hasher(algorithm)) for algorithm in algorithms]

    def update(self, data: bytes) -> None:
        self._md5.update(data)
        for _, checksum in self._hashers:
            checksum.update(data)

    @property
    def md5(self) -> bytes:
        return self._md5.digest()

    @property
    def checksums(self) -> list[tuple[ChecksumAlgorithm, bytes]]:
        return [(algorithm, checksum.digest()) for algorithm, checksum in self._hashers]


class Intake:
    """Takes one body."""

    def __init__(
        self,
        context: Context,
        contract_key: bytes,
        algorithms: Sequence[ChecksumAlgorithm],
        size_bytes_max: int,
    ) -> None:
        self._context: Final = context
        self._contract_key: Final = contract_key
        self._write_id: Final = context.entropy.token(WRITE_ID_BYTES)
        self._digests: Final = _Digests(algorithms)
        self._size_bytes_max: Final = size_bytes_max
        self._size_bytes = 0
        self._ended = False

    async def take(self, body: Body) -> Taken:
        """Store the whole body. Raises ``S3Error`` (EntityTooLarge, BadDigest, whatever the body
        raises) and what the engine's blob writer raises."""
        check_size(body.size_bytes, self._size_bytes_max)
        limits = self._context.limits
        first = await self._gather(body, limits.inline_body_bytes)
        if self._ended:
            return await self._take_small(body, b"".join(first))
        return await self._take_large(body, first)

    async def _gather(self, body: Body, more_than_bytes: int) -> list[bytes]:
        """Pieces of the body until they are more than so many bytes, or it ends."""
        pieces: list[bytes] = []
        gathered = 0
        while gathered <= more_than_bytes:
            piece = await body.read()
            if not piece:
                self._ended = True
                break
            gathered += len(piece)
            pieces.append(piece)
        self._size_bytes += gathered
        check_size(self._size_bytes, self._size_bytes_max)
        return pieces

    async def _take_small(self, body: Body, data: bytes) -> Taken:
        self._digests.update(data)
        self._check(body.declared())
        sealed = seal(self._contract_key, self._write_id, data)
        writer = self._context.engine.blob_writer(len(sealed))
        try:
            await writer.write(sealed)
            return self._taken(await writer.finish())
        except BaseException:
            await writer.abort()
            raise

    async def _take_large(self, body: Body, pieces: list[bytes]) -> Taken:
        known = body.size_bytes
        size_bytes = None if known is None else sealed_size(known)
        writer = self._context.engine.blob_writer(size_bytes)
        try:
            await self._pump(body, pieces, writer)
            self._check(body.declared())
            return self._taken(await writer.finish())
        except BaseException:
            await writer.abort()
            raise

    async def _pump(self, body: Body, pieces: list[bytes], writer: BlobWriter) -> None:
        """Hash and seal piece n in the executor while piece n + 1 is read and n - 1 written."""
        loop = asyncio.get_running_loop()
        sealer = Sealer(self._contract_key, self._write_id)
        executor = self._context.hashing

        def work(parts: list[bytes], last: bool) -> list[bytes | bytearray]:
            data = parts[0] if len(parts) == 1 else b"".join(parts)
            self._digests.update(data)
            sealed: list[bytes | bytearray] = [sealer.update(data)]
            if last:
                sealed.append(sealer.finish())
            return sealed

        ready: list[bytes | bytearray] = []
        while True:
            last = self._ended
            working = loop.run_in_executor(executor, work, pieces, last)
            try:
                for sealed in ready:
                    if sealed:
                        await writer.write(sealed)
                pieces = [] if last else await self._gather(body, self._context.limits.piece_bytes)
            finally:
                # The executor's call owns the hashers until it is back, whatever happened here.
                ready = await working
            if last:
                break
        for sealed in ready:
            if sealed:
                await writer.write(sealed)

    def _check(self, declared: Declared) -> None:
        """Compare with what the client said. Raises ``S3Error`` BadDigest."""
        if declared.md5 is not None and declared.md5 != self._digests.md5:
            raise S3Error(
                "BadDigest",
                "The Content-MD5 you specified did not match what we received.",
                fields={
                    "ExpectedDigest": base64.b64encode(declared.md5).decode("ascii"),
                    "CalculatedDigest": base64.b64encode(self._digests.md5).decode("ascii"),
                },
            )
        if declared.checksum is not None:
            algorithm, value = declared.checksum
            digest = dict(self._digests.checksums).get(algorithm)
            if digest is None or encode(digest) != value:
                raise S3Error(
                    "BadDigest",
                    f"The {algorithm.value} you specified did not match the calculated checksum.",
                )

    def _taken(self, blob: FinishedBlob) -> Taken:
        return Taken(
            self._size_bytes, self._digests.md5, self._digests.checksums, self._write_id, blob
        )


def check_size(size_bytes: int | None, size_bytes_max: int) -> None:
    """Raises ``S3Error`` EntityTooLarge."""
    if size_bytes is not None and size_bytes > size_bytes_max:
        raise S3Error(
            "EntityTooLarge",
            "Your proposed upload exceeds the maximum allowed size",
            fields={"ProposedSize": str(size_bytes), "MaxSizeAllowed": str(size_bytes_max)},
        )
