"""Who is asking: Signature Version 4 in headers and queries, checked against the key store.

Owns the choice of mechanism, the clock rules (skew, expiry) and a short cache of credentials.
Refuses with the code AWS uses in each case. Invariant: ``request.caller`` is set only after the
signature over the raw request was verified with that caller's secret; a request that presents
nothing is anonymous, one that presents something wrong is refused.

Reference: AWS S3 API Reference, "Authenticating Requests", "Error responses".
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final

from appliance.core import sigv4
from appliance.core.errors import S3Error, Unreachable
from appliance.core.ports import Clock, Credential, KeyStore
from appliance.core.sigv4 import Presented, Signing
from appliance.objects.model import Caller
from appliance.s3.body import UNVERIFIED, Payload
from appliance.s3.dates import iso_time, parse_http_time
from appliance.s3.limits import FrontLimits
from appliance.s3.request import Request

_NS_PER_S: Final = 1_000_000_000
_STREAMING: Final = {
    "STREAMING-AWS4-HMAC-SHA256-PAYLOAD": (True, False),
    "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER": (True, True),
    "STREAMING-UNSIGNED-PAYLOAD-TRAILER": (False, True),
}
_NEED_NOT_BE_SIGNED: Final = frozenset(
    # The first is part of what is signed by its value, the second by the string to sign; browsers
    # and proxies add the last ones, and nothing reads them.
    {"x-amz-content-sha256", "x-amz-date", "x-amz-user-agent", "x-amz-cf-id"}
)
_HEX_DIGITS: Final = frozenset("0123456789abcdefABCDEF")
_OTHER_MECHANISM: Final = (
    "The authorization mechanism you have provided is not supported. Please use AWS4-HMAC-SHA256."
)
_NO_DATE: Final = "AWS authentication requires a valid Date or x-amz-date header"


@dataclass(frozen=True, slots=True)
class _Known:
    """A credential and the caller made of it; both None for a key that does not exist."""

    credential: Credential | None
    caller: Caller | None
    fetched_s: float


class Credentials:
    """The key store behind a cache of a few seconds. One fetch at a time for each key.

    While the key store cannot be reached a known credential stays good for ``credential_stale_s``:
    a restart of the control role must not refuse requests.
    """

    def __init__(self, keys: KeyStore, clock: Clock, limits: FrontLimits) -> None:
        self._keys: Final = keys
        self._clock: Final = clock
        self._limits: Final = limits
        self._known: dict[str, _Known] = {}
        self._fetches: dict[str, asyncio.Task[_Known]] = {}

    def cached(self, access_key: str) -> _Known | None:
        """What is known and fresh; None means ``fetch``."""
        known = self._known.get(access_key)
        if known is None:
            return None
        if self._clock.monotonic_s() - known.fetched_s > self._limits.credential_cache_s:
            return None
        return known

    async def fetch(self, access_key: str) -> _Known:
        """Ask the key store. Raises ``Unreachable`` or ``Unavailable`` when it is away."""
        task = self._fetches.get(access_key)
        if task is None:
            task = asyncio.create_task(self._fetch(access_key), name="credential")
            self._fetches[access_key] = task
            task.add_done_callback(lambda _: self._fetches.pop(access_key, None))
        # One client's disconnect must not fail the others that wait for the same key.
        return await asyncio.shield(task)

    async def _fetch(self, access_key: str) -> _Known:
        try:
            credential = await self._keys.credential(access_key)
        except Unreachable:
            known = self._known.get(access_key)
            now_s = self._clock.monotonic_s()
            if known is None or now_s - known.fetched_s > self._limits.credential_stale_s:
                raise
            return known
        caller = None
        if credential is not None:
            caller = Caller(
                credential.user_id,
                credential.display_name,
                credential.contract,
                credential.bucket_prefix,
            )
        known = _Known(credential, caller, self._clock.monotonic_s())
        self._known.pop(access_key, None)
        self._known[access_key] = known
        if len(self._known) > self._limits.credential_cache_entries:
            del self._known[next(iter(self._known))]
        return known


class Authenticator:
    """Authenticates requests for one region."""

    def __init__(self, keys: KeyStore, *, clock: Clock, region: str, limits: FrontLimits) -> None:
        self._credentials: Final = Credentials(keys, clock, limits)
        self._clock: Final = clock
        self._region: Final = region
        self._limits: Final = limits

    async def authenticate(self, request: Request) -> Payload:
        """Set ``caller`` and ``access_key`` of a request and tell how its body is to be verified.

        Raises ``S3Error``, and ``Unreachable`` when the key store is away.
        """
        if request.method == "OPTIONS":
            # A preflight carries no credentials; the signature in its URL is for what it announces.
            return UNVERIFIED
        headers = request.headers.by_lower_name
        query = request.query
        authorization = headers.get("authorization")
        if "X-Amz-Algorithm" in query or "X-Amz-Signature" in query:
            if authorization:
                raise S3Error("InvalidArgument", _one_mechanism(), fields=_argument(authorization))
            presented = sigv4.parse_presigned(query)
            sigv4.check_scope(presented, self._region)
            self._check_expiry(presented)
            content = headers.get("x-amz-content-sha256") or query.get("X-Amz-Content-Sha256")
            hash_text = content or sigv4.UNSIGNED_PAYLOAD
            token = query.get("X-Amz-Security-Token")
        elif authorization:
            presented = self._from_header(authorization, headers)
            sigv4.check_scope(presented, self._region)
            self._check_skew(presented)
            content = headers.get("x-amz-content-sha256")
            if content is None:
                message = "Missing required header for this request: x-amz-content-sha256"
                raise S3Error("InvalidRequest", message)
            hash_text = content
            token = headers.get("x-amz-security-token")
        else:
            if "AWSAccessKeyId" in query and "Signature" in query:
                raise S3Error("InvalidRequest", _OTHER_MECHANISM)
            return payload_of(headers, headers.get("x-amz-content-sha256"), None)
        if token:
            raise S3Error("InvalidToken")
        key = await self._verify(request, presented, hash_text)
        if content is None or content == sigv4.UNSIGNED_PAYLOAD:
            return UNVERIFIED if "x-amz-trailer" not in headers else payload_of(headers, None, None)
        return payload_of(headers, content, (key, presented))

    def _from_header(self, authorization: str, headers: Mapping[str, str]) -> Presented:
        if not authorization.startswith(sigv4.ALGORITHM):
            if authorization.startswith("AWS4-ECDSA-P256-SHA256"):
                raise S3Error("InvalidRequest", _OTHER_MECHANISM)
            if authorization.startswith("AWS ") and ":" in authorization:
                raise S3Error("InvalidRequest", _OTHER_MECHANISM)
            raise S3Error(
                "InvalidArgument", "Unsupported Authorization Type", fields=_argument(authorization)
            )
        amz_date = headers.get("x-amz-date")
        if amz_date is None:
            date_ns = parse_http_time(headers.get("date"))
            if date_ns is None:
                raise S3Error("AccessDenied", _NO_DATE)
            amz_date = datetime.fromtimestamp(date_ns // _NS_PER_S, UTC).strftime("%Y%m%dT%H%M%SZ")
        return sigv4.parse_authorization(authorization, amz_date)

    def _check_skew(self, presented: Presented) -> None:
        signed_s = _seconds(presented.amz_date)
        if signed_s is None:
            raise S3Error("AccessDenied", _NO_DATE)
        now_ns = self._clock.now_ns()
        if abs(now_ns // _NS_PER_S - signed_s) > self._limits.skew_s:
            raise S3Error(
                "RequestTimeTooSkewed",
                fields={
                    "RequestTime": presented.amz_date,
                    "ServerTime": iso_time(now_ns),
                    "MaxAllowedSkewMilliseconds": str(self._limits.skew_s * 1000),
                },
            )

    def _check_expiry(self, presented: Presented) -> None:
        signed_s = _seconds(presented.amz_date)
        if signed_s is None:
            raise S3Error(
                "AuthorizationQueryParametersError",
                "X-Amz-Date must be in the ISO8601 Long Format \"yyyyMMdd'T'HHmmss'Z'\"",
            )
        assert presented.expires_s is not None
        now_ns = self._clock.now_ns()
        now_s = now_ns // _NS_PER_S
        if now_s < signed_s - self._limits.skew_s:
            raise S3Error(
                "AccessDenied",
                "Request is not valid yet",
                fields={"X-Amz-Date": presented.amz_date, "ServerTime": iso_time(now_ns)},
            )
        expires_at_s = signed_s + presented.expires_s
        if now_s > expires_at_s:
            raise S3Error(
                "AccessDenied",
                "Request has expired",
                fields={
                    "X-Amz-Expires": str(presented.expires_s),
                    "Expires": iso_time(expires_at_s * _NS_PER_S),
                    "ServerTime": iso_time(now_ns),
                },
            )

    async def _verify(self, request: Request, presented: Presented, hash_text: str) -> bytes:
        """Check the signature; gives the signing key. Sets the request's caller."""
        scope = presented.scope
        access_key = scope.access_key
        known = self._credentials.cached(access_key)
        if known is None:
            known = await self._credentials.fetch(access_key)
        credential = known.credential
        if credential is None:
            raise S3Error("InvalidAccessKeyId", fields={"AWSAccessKeyId": access_key})
        headers = request.headers.by_lower_name
        unsigned = sigv4.unsigned_headers(presented, headers, _NEED_NOT_BE_SIGNED)
        if unsigned:
            raise S3Error(
                "AccessDenied",
                "There were headers present in the request which were not signed",
                fields={"HeadersNotSigned": ", ".join(unsigned)},
            )
        key = sigv4.signing_key(credential.secret_key, scope.date, scope.region)
        sigv4.verify(
            presented,
            key,
            method=request.method,
            raw_path=request.raw_path,
            raw_query=request.raw_query,
            query=request.query.pairs,
            headers=headers,
            payload_hash=hash_text,
        )
        if credential.frozen:
            raise S3Error("AccountProblem")
        request.access_key = access_key
        request.caller = known.caller
        return key


def payload_of(
    headers: Mapping[str, str], content: str | None, signed: tuple[bytes, Presented] | None
) -> Payload:
    """How a body is verified, from ``x-amz-content-sha256`` (None: the header was not sent)."""
    if content is None:
        # Clients without a signature have no such header, and chunk their bodies all the same.
        if "x-amz-trailer" in headers and "aws-chunked" in headers.get("content-encoding", ""):
            return Payload(chunked=True, trailing=True)
        return UNVERIFIED
    if content == sigv4.UNSIGNED_PAYLOAD:
        return UNVERIFIED
    if len(content) == 64 and _HEX_DIGITS.issuperset(content):
        return Payload(sha256_hex=content.lower())
    mode = _STREAMING.get(content)
    if mode is None:
        raise S3Error(
            "InvalidArgument",
            "x-amz-content-sha256 must be UNSIGNED-PAYLOAD, STREAMING-AWS4-HMAC-SHA256-PAYLOAD,"
            " or a valid sha256 value.",
            fields={"ArgumentName": "x-amz-content-sha256", "ArgumentValue": content},
        )
    chunks_signed, trailing = mode
    if not chunks_signed:
        return Payload(chunked=True, trailing=trailing)
    if signed is None:
        raise S3Error("InvalidRequest", "A signed body needs a signed request.")
    key, presented = signed
    signing = Signing(key, presented.scope.text, presented.amz_date, presented.signature)
    return Payload(chunked=True, trailing=trailing, signing=signing)


@lru_cache(maxsize=1024)
def _seconds(amz_date: str) -> int | None:
    """``YYYYMMDDTHHMMSSZ`` as seconds since 1970."""
    if len(amz_date) != 16 or not amz_date.isascii():
        return None
    try:
        moment = datetime.strptime(amz_date, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    except ValueError:
        return None
    return int(moment.timestamp())


def _argument(authorization: str) -> dict[str, str]:
    return {"ArgumentName": "Authorization", "ArgumentValue": authorization}


def _one_mechanism() -> str:
    return (
        "Only one auth mechanism allowed; only the X-Amz-Algorithm query parameter, Signature query"
        " string parameter or the Authorization header should be specified"
    )
