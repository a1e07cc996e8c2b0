"""Signed requests of any shape: what no SDK would send.

Owns a connection and Signature Version 4 over exactly the target and headers given. The signing is
written here on its own, so that it checks the front's.
"""

from __future__ import annotations

import hashlib
import hmac
import http.client
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Protocol
from xml.etree.ElementTree import Element, fromstring

UNSIGNED = "UNSIGNED-PAYLOAD"
_TIMEOUT_S = 20


class Signer(Protocol):
    """Who signs."""

    @property
    def access_key(self) -> str: ...

    @property
    def secret_key(self) -> str: ...


@dataclass(frozen=True, slots=True)
class RawAnswer:
    """A whole answer; header names are lower-case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def document(self) -> Element:
        """The body as XML, with the namespaces taken off."""
        root = fromstring(self.body)
        for found in root.iter():
            found.tag = found.tag.rpartition("}")[2]
        return root

    @property
    def code(self) -> str:
        """The S3 code of an error document, empty without a body."""
        return self.document.findtext("Code", "") if self.body else ""


class RawClient:
    """One keep-alive connection."""

    def __init__(
        self, address: tuple[str, int], authority: Path, signer: Signer | None, region: str
    ) -> None:
        context = ssl.create_default_context(cafile=str(authority))
        self._connection = http.client.HTTPSConnection(
            *address, context=context, timeout=_TIMEOUT_S
        )
        self.host = f"{address[0]}:{address[1]}"
        self.signer = signer
        self._region = region

    def __enter__(self) -> RawClient:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._connection.close()

    def ask(
        self,
        method: str,
        target: str,
        headers: Mapping[str, str | bytes] | None = None,
        body: bytes = b"",
        *,
        signed: bool = True,
    ) -> RawAnswer:
        """Send ``target`` exactly as it is."""
        sent: dict[str, str | bytes] = {"host": self.host, **(headers or {})}
        sent.setdefault("x-amz-content-sha256", hashlib.sha256(body).hexdigest())
        if body or method in {"PUT", "POST"}:
            sent.setdefault("content-length", str(len(body)))
        if signed and self.signer is not None:
            self._sign(method, target, sent)
        connection = self._connection
        connection.putrequest(method, target, skip_host=True, skip_accept_encoding=True)
        for name, value in sent.items():
            connection.putheader(name, value)
        connection.endheaders(body or None)
        response = connection.getresponse()
        content = response.read()
        found = {name.lower(): value for name, value in response.getheaders()}
        return RawAnswer(response.status, found, content)

    def _sign(self, method: str, target: str, headers: dict[str, str | bytes]) -> None:
        assert self.signer is not None
        moment = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
        headers["x-amz-date"] = moment
        names = sorted(name.lower() for name in headers)
        values = {name.lower(): _text(value).strip() for name, value in headers.items()}
        path, _, query = target.partition("?")
        # By name and then value: "select" comes before "select-type", unlike the joined texts.
        parameters = sorted(part.partition("=")[::2] for part in query.split("&") if part)
        canonical = "\n".join(
            [
                method,
                path,
                "&".join(f"{name}={value}" for name, value in parameters),
                *(f"{name}:{' '.join(values[name].split())}" for name in names),
                "",
                ";".join(names),
                values["x-amz-content-sha256"],
            ]
        )
        scope = f"{moment[:8]}/{self._region}/s3/aws4_request"
        digest = hashlib.sha256(canonical.encode("latin-1")).hexdigest()
        key = f"AWS4{self.signer.secret_key}".encode()
        for part in scope.split("/"):
            key = hmac.digest(key, part.encode(), "sha256")
        text = f"AWS4-HMAC-SHA256\n{moment}\n{scope}\n{digest}"
        signature = hmac.digest(key, text.encode(), "sha256").hex()
        headers["Authorization"] = (
            f"AWS4-HMAC-SHA256 Credential={self.signer.access_key}/{scope},"
            f"SignedHeaders={';'.join(names)},Signature={signature}"
        )


def _text(value: str | bytes) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else value
