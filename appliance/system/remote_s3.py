"""Another S3 endpoint, written to as any client does.

Owns signed requests (SigV4) and their retries. Refuses nothing itself: what the endpoint refuses is
``Refused`` with its code and words, what it does not answer is ``Unreachable``. Invariant: bytes go
out once per attempt and are read anew for the next one; what reading them raises comes back as it
was raised.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from html import unescape
from types import TracebackType
from typing import Final, Self
from urllib.parse import quote, urlsplit

import aiohttp
from yarl import URL

from appliance.core.errors import ApplianceError, InvalidInput, Refused, Unreachable
from appliance.core.ports import Clock
from appliance.core.sigv4 import (
    ALGORITHM,
    SERVICE,
    TERMINATOR,
    canonical_query,
    canonical_request,
    signature,
    signing_key,
    string_to_sign,
)

TRIES: Final = 4
RETRY_S: Final = (0.2, 1.0, 5.0)
CONNECT_S: Final = 20.0
SILENT_S: Final = 120.0
UNSIGNED: Final = "UNSIGNED-PAYLOAD"
_AGAIN: Final = frozenset({408, 429, 500, 502, 503, 504})

Body = Callable[[], AsyncIterator[bytes]]
"""Begins the body anew."""


@dataclass(frozen=True, slots=True)
class RemoteAccount:
    """Whom the endpoint knows us as."""

    access_key: str
    secret_key: str
    region: str

    def __repr__(self) -> str:
        """Without the secret, so that no log line can carry it."""
        return f"RemoteAccount({self.access_key!r})"


@dataclass(frozen=True, slots=True)
class Answer:
    """What the endpoint said; header names in lower case."""

    status: int
    headers: Mapping[str, str]
    text: str

    @property
    def code(self) -> str:
        """The S3 error code in the body, or the status."""
        return _element(self.text, "Code") or str(self.status)

    def element(self, name: str) -> str:
        """The text of the first such XML element, empty when there is none."""
        return _element(self.text, name)


class RemoteS3:
    """One endpoint. Used from one event loop, inside ``async with``."""

    def __init__(
        self, endpoint: str, account: RemoteAccount, clock: Clock, *, ca_file: str | None = None
    ) -> None:
        """``endpoint``: ``https://HOST[:PORT]``. Raises ``InvalidInput``, ``Unreachable``."""
        parts = urlsplit(endpoint)
        if parts.scheme not in {"https", "http"} or not parts.hostname:
            raise InvalidInput(f"cannot use {endpoint}: an endpoint is https://HOST or with a port")
        self._host: Final = parts.netloc
        self._base: Final = f"{parts.scheme}://{parts.netloc}"
        self._account: Final = account
        self._clock: Final = clock
        try:
            self._trust: Final = ssl.create_default_context(cafile=ca_file)
        except OSError as error:
            raise Unreachable(f"cannot read the certificates in {ca_file}: {error}") from error
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=SILENT_S)
        self._session = aiohttp.ClientSession(
            timeout=timeout, auto_decompress=False, skip_auto_headers=("Content-Type",)
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def ask(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        body: Body | bytes = b"",
        size_bytes: int = 0,
        allowed: frozenset[int] = frozenset(),
    ) -> Answer:
        """One request, tried again while that may help. ``path``: ``/bucket/key``, not encoded.
        Raises ``Refused`` for an answer that is neither a success nor ``allowed``, ``Unreachable``,
        and what the body raises."""
        for number in range(TRIES):
            try:
                answer = await self._once(
                    method, path, query or {}, headers or {}, body, size_bytes
                )
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                trouble = f"{type(error).__name__}: {error}"
            else:
                if answer.status not in _AGAIN:
                    break
                trouble = answer.code
            if number < len(RETRY_S):
                await asyncio.sleep(RETRY_S[number])
        else:
            raise Unreachable(f"cannot reach {self._base}: {trouble}; tried {TRIES} times")
        if answer.status // 100 == 2 or answer.status in allowed:
            return answer
        silent = "check the credentials" if answer.status == 403 else "no reason given"
        words = answer.element("Message") or silent
        raise Refused(f"{self._base} refused {method} {path}: {answer.code}: {words}")

    async def _once(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        headers: Mapping[str, str],
        body: Body | bytes,
        size_bytes: int,
    ) -> Answer:
        assert self._session is not None, "inside async with"
        signed_path = quote(path, safe="/-_.~")
        text = canonical_query(list(query.items()))
        sent = dict(headers)
        if isinstance(body, bytes):
            payload_hash, length = hashlib.sha256(body).hexdigest(), len(body)
        else:
            payload_hash, length = UNSIGNED, size_bytes
        sent |= self._sign(method, signed_path, text, sent, payload_hash)
        if method not in {"GET", "HEAD"}:
            sent["Content-Length"] = str(length)
        raised: list[ApplianceError] = []
        data = body if isinstance(body, bytes) else _noted(body, raised)
        url = URL(f"{self._base}{signed_path}" + (f"?{text}" if text else ""), encoded=True)
        try:
            async with self._session.request(
                method, url, data=data or None, headers=sent, ssl=self._trust, allow_redirects=False
            ) as response:
                content = (await response.read()).decode("utf-8", "replace")
        except (aiohttp.ClientError, TimeoutError, OSError):
            if raised:
                raise raised[0] from None
            raise
        if raised:
            raise raised[0]
        names = {name.lower(): value for name, value in response.headers.items()}
        return Answer(response.status, names, content)

    def _sign(
        self, method: str, path: str, query: str, headers: Mapping[str, str], payload_hash: str
    ) -> dict[str, str]:
        """The headers that make the request ours."""
        now = datetime.fromtimestamp(self._clock.now_ns() / 1e9, UTC)
        amz_date = now.strftime("%Y%m%dT%H%M%SZ")
        date = amz_date[:8]
        ours = {"Host": self._host, "X-Amz-Date": amz_date, "X-Amz-Content-Sha256": payload_hash}
        # What is signed is the bytes on the wire, which are UTF-8.
        lower = {
            name.lower(): value.strip().encode().decode("latin-1")
            for name, value in {**headers, **ours}.items()
        }
        names = ";".join(sorted(lower))
        canonical = canonical_request(method, path, query, lower, names, payload_hash)
        scope = f"{date}/{self._account.region}/{SERVICE}/{TERMINATOR}"
        text = string_to_sign(amz_date, scope, canonical.encode("latin-1"))
        key = signing_key(self._account.secret_key, date, self._account.region)
        authorization = (
            f"{ALGORITHM} Credential={self._account.access_key}/{scope},"
            f" SignedHeaders={names}, Signature={signature(key, text)}"
        )
        return ours | {"Authorization": authorization}


async def _noted(body: Body, raised: list[ApplianceError]) -> AsyncIterator[bytes]:
    """The body; what it raises is noted, for the HTTP client tells only that it broke off."""
    try:
        async for piece in body():
            yield piece
    except ApplianceError as error:
        raised.append(error)
        raise


def _element(text: str, name: str) -> str:
    found = re.search(rf"<{name}>([^<]*)</{name}>", text)
    return "" if found is None else unescape(found[1])
