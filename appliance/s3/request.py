"""The façade: everything a handler may know of a request and do about its answer.

Owns the parsed request (raw target, headers, query, bucket and key), its body and the rules of an
answer: a HEAD, 204 or 304 never carries a body, an announced length is kept exactly, and a request
whose body was left unread is answered with ``Connection: close`` (or drained, when little is left).
Refuses to answer twice. Nothing of the HTTP server underneath leaks through here: it stands behind
``Exchange``, which a test replaces with a list.

Handlers refuse by raising ``S3Error``; the gateway renders it. A handler returns only after its
answer is complete: the gateway ends a streamed one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, Protocol, TypeVar, overload

from appliance.core.checksums import encode, hasher
from appliance.core.errors import S3Error
from appliance.core.ports import Buffer
from appliance.objects.model import Body, Caller

Default = TypeVar("Default")
NO_HEADERS: Final[Mapping[str, str]] = {}
_BODILESS_STATUSES: Final = frozenset({204, 304})


class Headers(Mapping[str, str]):
    """Request headers: names in any case, values as sent (each byte one latin-1 character).

    A header sent several times reads as one value joined with ``,`` in the order of arrival, which
    is also what a signature covers. Iteration yields lower-case names.
    """

    __slots__ = ("_values", "size_bytes")

    def __init__(self, pairs: Sequence[tuple[bytes, bytes]] = ()) -> None:
        values: dict[str, str] = {}
        size = 0
        for raw_name, raw_value in pairs:
            size += len(raw_name) + len(raw_value)
            name = raw_name.decode("latin-1").lower()
            value = raw_value.decode("latin-1")
            values[name] = f"{values[name]},{value}" if name in values else value
        self._values = values
        self.size_bytes: Final = size
        """Of all names and values as sent."""

    def __getitem__(self, name: str) -> str:
        return self._values[name.lower()]

    @overload
    def get(self, name: str, /) -> str | None: ...

    @overload
    def get(self, name: str, /, default: str | Default) -> str | Default: ...

    def get(self, name: str, /, default: object = None) -> object:
        """The value, ``default`` where the header was not sent."""
        return self._values.get(name.lower(), default)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name.lower() in self._values

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    @property
    def by_lower_name(self) -> Mapping[str, str]:
        """The values under their lower-case names, without a call per look-up."""
        return self._values


class Query(Mapping[str, str]):
    """Query parameters, percent-decoded once; a name without ``=`` has the value ``""``.

    As a mapping it answers with the first value of a name; ``pairs`` has all in the order sent.
    """

    __slots__ = ("_first", "pairs")

    def __init__(self, pairs: Sequence[tuple[str, str]] = ()) -> None:
        self.pairs: Final = pairs
        first: dict[str, str] = {}
        for name, value in pairs:
            first.setdefault(name, value)
        self._first = first

    def __getitem__(self, name: str) -> str:
        return self._first[name]

    def __contains__(self, name: object) -> bool:
        return name in self._first

    def __iter__(self) -> Iterator[str]:
        return iter(self._first)

    def __len__(self) -> int:
        return len(self._first)


NO_QUERY: Final = Query()


class Exchange(Protocol):
    """One request's side of a connection. The server implements it; one task at a time.

    Every method raises ``ConnectionError`` once the client is gone and ``S3Error`` with
    ``RequestTimeout`` when the client stalls past its deadline.
    """

    def head(
        self, status: int, headers: Mapping[str, str], length: int | None, *, bodiless: bool
    ) -> None:
        """Keep status line and headers, to leave with the first bytes of the body. ``length``
        None streams (chunked, or until the connection closes for HTTP/1.0)."""
        ...

    async def send(self, data: Buffer) -> None:
        """Body bytes, after ``head``; waits while the client reads slowly."""
        ...

    async def end(self) -> None:
        """The answer is complete."""
        ...

    def abort(self) -> None:
        """Cut the connection, so that a half-sent answer cannot look whole."""
        ...


class Wire(Protocol):
    """The raw body of a request and its traffic."""

    @property
    def bytes_in(self) -> int: ...

    @property
    def bytes_out(self) -> int: ...

    async def receive(self) -> bytes:
        """The next bytes of the body as framed by HTTP, ``b""`` at its end.

        Raises ``S3Error`` (``RequestTimeout``, ``IncompleteBody``) when they do not come. The first
        call tells a client that waits for it to go on.
        """
        ...


class Request:
    """One S3 request, authenticated when a handler sees it."""

    __slots__ = (
        "_ended",
        "_exchange",
        "_left",
        "_started",
        "access_key",
        "body",
        "bucket",
        "caller",
        "code",
        "headers",
        "host",
        "host_id",
        "key",
        "method",
        "network",
        "objection",
        "operation",
        "query",
        "raw_path",
        "raw_query",
        "raw_target",
        "remote_address",
        "request_id",
        "secure",
        "status",
        "virtual_hosted",
        "wire",
    )

    def __init__(
        self,
        *,
        exchange: Exchange,
        method: str,
        raw_target: str,
        headers: Headers,
        network: str,
        secure: bool,
        remote_address: str,
        request_id: str,
        host_id: str = "",
    ) -> None:
        self._exchange = exchange
        self._started = False
        self._ended = False
        self._left: int | None = 0
        self.method = method
        self.raw_target = raw_target
        """The request target exactly as sent, one latin-1 character for each byte."""
        self.raw_path, _, self.raw_query = raw_target.partition("?")
        self.headers = headers
        self.network = network
        """The name of the network whose listener the request came in by."""
        self.secure = secure
        """Whether the request came over TLS."""
        self.remote_address = remote_address
        self.request_id = request_id
        self.host_id = host_id
        """The ``x-amz-id-2`` of every answer and error document."""
        self.host = ""
        """The name the client used, lower case, without a port."""
        self.bucket: str | None = None
        self.key: str | None = None
        """Opaque: the decoded path behind the bucket with every ``//``, ``.`` and ``..`` kept."""
        self.virtual_hosted = False
        self.query: Query = NO_QUERY
        self.caller: Caller | None = None
        """None: anonymous."""
        self.access_key = ""
        """The access key that signed, for access records; empty when anonymous."""
        self.body: Body
        self.objection: S3Error | None = None
        """What the HTTP layer found wrong; the gateway answers with it and nothing else."""
        self.wire: Wire | None = None
        """Where the gateway reads the raw body and counts bytes; no business of a handler."""
        self.operation = ""
        """Set by the router to the AWS operation name; lands in the access record."""
        self.status = 0
        self.code = ""
        """The S3 code of the refusal that was sent, empty for a success."""

    @property
    def started(self) -> bool:
        """Whether an answer was begun: from then on an error can only cut the connection."""
        return self._started

    @property
    def body_announced(self) -> bool:
        """Whether a Content-Length (maybe 0) or a chunked body was announced at all."""
        values = self.headers.by_lower_name
        return "content-length" in values or "transfer-encoding" in values

    @property
    def origin(self) -> str:
        """``https://name:port`` as the client reached us: for ``Location`` in answers."""
        scheme = "https" if self.secure else "http"
        return f"{scheme}://{self.headers.get('host') or self.host}"

    async def read_body(self, limit_bytes: int) -> bytes:
        """The whole body, verified against its signature, Content-MD5 and checksum.

        Raises ``MaxMessageLengthExceeded`` beyond ``limit_bytes``, before reading when the length
        was announced, and what ``Body.read`` raises. No body at all is ``b""``.
        """
        if not self.body_announced:
            return b""
        body = self.body
        total = body.size_bytes or 0
        pieces: list[bytes] = []
        while total <= limit_bytes:
            piece = await body.read()
            if not piece:
                break
            pieces.append(piece)
            total = max(total, sum(map(len, pieces)))
        else:
            limit = {"MaxMessageLengthBytes": str(limit_bytes)}
            raise S3Error("MaxMessageLengthExceeded", fields=limit)
        whole = b"".join(pieces)
        _verify(whole, body)
        return whole

    async def reply(
        self, status: int, headers: Mapping[str, str] = NO_HEADERS, body: Buffer = b""
    ) -> None:
        """The whole answer at once. Header values are latin-1 (or else leave as UTF-8).

        On a HEAD the body is dropped; a ``Content-Length`` among ``headers`` then stands.
        """
        await self.start(status, headers, len(body))
        if body:
            await self.write(body)
        await self.finish()

    async def start(
        self, status: int, headers: Mapping[str, str] = NO_HEADERS, length: int | None = None
    ) -> None:
        """Begin a streamed answer of ``length`` bytes; None where the length is not known."""
        assert not self._started, "a request is answered once"
        bodiless = self.method == "HEAD" or status in _BODILESS_STATUSES
        self._exchange.head(status, headers, length, bodiless=bodiless)
        self._started = True
        self.status = status
        self._left = 0 if bodiless else length

    async def write(self, data: Buffer) -> None:
        """The next bytes of the answer; waits while the client reads slowly.

        Raises ``ConnectionError`` when the client is gone. On a HEAD it does nothing.
        """
        if self.method == "HEAD" or self.status in _BODILESS_STATUSES:
            return
        if self._left is not None:
            self._left -= len(data)
            assert self._left >= 0, "more was written than announced"
        await self._exchange.send(data)

    async def flush(self) -> None:
        """Send status line and headers now: for an answer whose body takes its time."""
        await self._exchange.send(b"")

    async def finish(self) -> None:
        """End the answer; idempotent. An answer shorter than announced cuts the connection."""
        if self._ended or not self._started:
            return
        self._ended = True
        if self._left:
            self._exchange.abort()
            raise ConnectionError("the answer ended before its announced length")
        await self._exchange.end()

    def abort(self) -> None:
        """Cut the connection: the only honest end of an answer that failed half way."""
        self._ended = True
        self._exchange.abort()


def _verify(whole: bytes, body: Body) -> None:
    """Compare a small body with what the client declared of it. Raises ``BadDigest``."""
    declared = body.declared()
    md5 = declared.md5
    if md5 is not None and hashlib.md5(whole, usedforsecurity=False).digest() != md5:
        raise S3Error("BadDigest")
    if declared.checksum is not None:
        algorithm, value = declared.checksum
        digest = hasher(algorithm)
        digest.update(whole)
        if encode(digest.digest()) != value:
            raise S3Error("BadDigest")
