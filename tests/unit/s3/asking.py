"""Requests without a connection, and what was answered to them.

Owns the recording side of the façade. Invariant: an answer is recorded as the server would send it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from xml.etree.ElementTree import Element, fromstring

from appliance.core.checksums import ChecksumAlgorithm
from appliance.core.ports import Buffer
from appliance.objects.model import Caller, Declared
from appliance.s3.request import Headers, Request
from appliance.s3.target import parse_query, split_path

ALICE = Caller(user_id="alice-id", display_name="Alice", contract="acme")


@dataclass
class Answer:
    """What left, in the order it left."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    length: int | None = None
    body: bytes = b""
    ended: bool = False
    aborted: bool = False
    writes: int = 0
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    sent_head: bool = False

    def head(
        self, status: int, headers: Mapping[str, str], length: int | None, *, bodiless: bool
    ) -> None:
        self.status, self.headers, self.length = status, dict(headers), length

    async def send(self, data: Buffer) -> None:
        self.sent_head = True
        self.body += bytes(data)
        self.writes += 1
        self.changed.set()

    async def end(self) -> None:
        self.ended = True

    def abort(self) -> None:
        self.aborted = True

    @property
    def document(self) -> Element:
        return fromstring(self.body)


class BytesBody:
    """A request body that is all there."""

    def __init__(self, data: bytes = b"", checksum: ChecksumAlgorithm | None = None) -> None:
        self._pieces = [data] if data else []
        self.size_bytes: int | None = len(data)
        self.checksum_algorithm = checksum

    async def read(self) -> bytes:
        return self._pieces.pop() if self._pieces else b""

    def declared(self) -> Declared:
        return Declared()


def ask(
    method: str,
    target: str,
    headers: Mapping[str, str] | None = None,
    body: bytes = b"",
    *,
    caller: Caller | None = ALICE,
) -> tuple[Request, Answer]:
    """A request as a handler sees it, and the answer it will fill."""
    sent = dict(headers or {})
    if body:
        sent.setdefault("content-length", str(len(body)))
    pairs = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in sent.items()]
    answer = Answer()
    request = Request(
        exchange=answer,
        method=method,
        raw_target=target,
        headers=Headers(pairs),
        network="test",
        secure=True,
        remote_address="127.0.0.1",
        request_id="REQUEST",
    )
    request.bucket, request.key = split_path(request.raw_path, None)
    request.query = parse_query(request.raw_query)
    request.caller = caller
    request.body = BytesBody(body)
    return request, answer
