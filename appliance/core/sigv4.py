"""AWS Signature Version 4, the server's half: parsing what a client presents and recomputing it.

Owns the canonical request, the string to sign, signing keys and the chain of chunk signatures.
Refuses malformed credentials and signatures with the code AWS uses for each. Invariant: a signature
covers the bytes as they came (each byte one latin-1 character); nothing is normalised before it is
compared, and comparisons take the same time wherever they differ.

Reference: AWS S3 API Reference, "Authenticating Requests (AWS Signature Version 4)": "Authorization
Header", "Query Parameters", "Transferring Payload in Multiple Chunks", "... with trailing headers".
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, NamedTuple
from urllib.parse import quote, unquote_to_bytes

from appliance.core.errors import S3Error

ALGORITHM: Final = "AWS4-HMAC-SHA256"
SERVICE: Final = "s3"
TERMINATOR: Final = "aws4_request"
EMPTY_SHA256: Final = hashlib.sha256(b"").hexdigest()
UNSIGNED_PAYLOAD: Final = "UNSIGNED-PAYLOAD"
EXPIRES_MAX_S: Final = 7 * 24 * 3600
CREDENTIAL_CHARACTERS_MAX: Final = 256
SIGNED_HEADERS_CHARACTERS_MAX: Final = 4096

_CHUNK_ALGORITHM: Final = "AWS4-HMAC-SHA256-PAYLOAD"
_TRAILER_ALGORITHM: Final = "AWS4-HMAC-SHA256-TRAILER"
_QUERY_NAMES: Final = (
    "X-Amz-Algorithm",
    "X-Amz-Credential",
    "X-Amz-Signature",
    "X-Amz-Date",
    "X-Amz-SignedHeaders",
    "X-Amz-Expires",
)


@dataclass(frozen=True, slots=True)
class Scope:
    """A credential: whose key, and the day, region and service its signing key is good for."""

    access_key: str
    date: str
    region: str
    service: str
    terminator: str
    text: str
    """``date/region/service/terminator``, as it enters the string to sign."""


class Presented(NamedTuple):
    """What a client presents to prove who it is. ``expires_s`` is None for a header."""

    scope: Scope
    signed_headers: str
    signature: str
    amz_date: str
    expires_s: int | None = None


@dataclass(frozen=True, slots=True)
class Signing:
    """What the chunks of a body are verified with; ``seed`` is the request's own signature."""

    key: bytes
    scope: str
    amz_date: str
    seed: str

    def __repr__(self) -> str:
        """Without the key, so that no log line can carry it."""
        return f"Signing({self.scope!r})"


def parse_authorization(value: str, amz_date: str) -> Presented:
    """The parts of an ``Authorization: AWS4-HMAC-SHA256 ...`` header.

    Raises ``AuthorizationHeaderMalformed``.
    """
    found = {
        name: content
        for part in value[len(ALGORITHM) :].split(",")
        for name, _, content in (part.strip().partition("="),)
    }
    missing = [name for name in ("Credential", "SignedHeaders", "Signature") if not found.get(name)]
    if missing:
        raise _malformed(f"missing {', '.join(missing)}")
    scope = parse_credential(found["Credential"])
    if scope is None:
        raise _malformed(
            "the Credential is mal-formed; expecting"
            ' "<YOUR-AKID>/YYYYMMDD/REGION/SERVICE/aws4_request"'
        )
    signed = found["SignedHeaders"]
    if len(signed) > SIGNED_HEADERS_CHARACTERS_MAX:
        raise _malformed("SignedHeaders is too long")
    return Presented(scope, signed, found["Signature"], amz_date)


def parse_presigned(query: Mapping[str, str]) -> Presented:
    """The parts of a presigned request's query.

    Raises ``AuthorizationQueryParametersError``, and ``AccessDenied`` for a validity that is none
    or longer than a week: such a request was never valid.
    """
    if any(not query.get(name) for name in _QUERY_NAMES):
        raise _query_error(
            "Query-string authentication version 4 requires the X-Amz-Algorithm, X-Amz-Credential,"
            " X-Amz-Signature, X-Amz-Date, X-Amz-SignedHeaders, and X-Amz-Expires parameters."
        )
    if query["X-Amz-Algorithm"] != ALGORITHM:
        raise _query_error(f'X-Amz-Algorithm only supports "{ALGORITHM}"')
    scope = parse_credential(query["X-Amz-Credential"])
    if scope is None:
        raise _query_error(
            "Error parsing the X-Amz-Credential parameter; the Credential is mal-formed; expecting"
            ' "<YOUR-AKID>/YYYYMMDD/REGION/SERVICE/aws4_request".'
        )
    signed = query["X-Amz-SignedHeaders"]
    if len(signed) > SIGNED_HEADERS_CHARACTERS_MAX:
        raise _query_error("X-Amz-SignedHeaders is too long")
    expires_s = _parse_expires(query["X-Amz-Expires"])
    return Presented(scope, signed, query["X-Amz-Signature"], query["X-Amz-Date"], expires_s)


def _parse_expires(text: str) -> int:
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdigit()):
        raise _query_error("X-Amz-Expires should be a number")
    if text.startswith("-") or not digits.strip("0"):
        raise S3Error("AccessDenied", "X-Amz-Expires must be positive")
    if len(digits) > 9 or int(digits) > EXPIRES_MAX_S:
        raise S3Error(
            "AccessDenied",
            "X-Amz-Expires must be less than a week (in seconds); that is, the given X-Amz-Expires"
            f" must be less than {EXPIRES_MAX_S} seconds",
        )
    return int(digits)


def parse_credential(text: str) -> Scope | None:
    """``access-key/date/region/service/terminator``; None where it is not of that shape."""
    if len(text) > CREDENTIAL_CHARACTERS_MAX:
        return None
    return _parse_credential(text)


@lru_cache(maxsize=4096)
def _parse_credential(text: str) -> Scope | None:
    # An access key may hold a slash, so the scope is counted from the right.
    parts = text.rsplit("/", 4)
    if len(parts) != 5 or not parts[0]:
        return None
    access_key, date, region, service, terminator = parts
    if len(date) != 8 or not (date.isascii() and date.isdigit()):
        return None
    return Scope(access_key, date, region, service, terminator, "/".join(parts[1:]))


def check_scope(presented: Presented, region: str) -> None:
    """Refuse a credential for another region, service, terminator or day than the request's.

    Raises ``AuthorizationHeaderMalformed`` or ``AuthorizationQueryParametersError``; a wrong
    region names the right one in ``Region`` and ``x-amz-bucket-region``.
    """
    scope = presented.scope
    fields: dict[str, str] = {}
    headers: dict[str, str] = {}
    if scope.region != region:
        fault = f"the region '{scope.region}' is wrong; expecting '{region}'"
        fields["Region"] = headers["x-amz-bucket-region"] = region
    elif scope.service != SERVICE:
        fault = f'incorrect service "{scope.service}". This endpoint belongs to "{SERVICE}".'
    elif scope.terminator != TERMINATOR:
        fault = f'incorrect terminator "{scope.terminator}". This endpoint uses "{TERMINATOR}".'
    elif not presented.amz_date.startswith(scope.date):
        fault = (
            f'Invalid credential date "{scope.date}". This date is not the same as X-Amz-Date:'
            f' "{presented.amz_date[:8]}".'
        )
    else:
        return
    if presented.expires_s is None:
        raise S3Error(
            "AuthorizationHeaderMalformed",
            f"The authorization header is malformed; {fault}",
            fields=fields,
            headers=headers,
        )
    raise S3Error(
        "AuthorizationQueryParametersError",
        f"Error parsing the X-Amz-Credential parameter; {fault}",
        fields=fields,
        headers=headers,
    )


@lru_cache(maxsize=4096)
def signing_key(secret_key: str, date: str, region: str) -> bytes:
    """The key a day's requests in a region are signed with. Cached: it costs four HMACs."""
    key = _hmac(f"AWS4{secret_key}".encode(), date.encode())
    key = _hmac(key, region.encode())
    key = _hmac(key, SERVICE.encode())
    return _hmac(key, TERMINATOR.encode())


def _hmac(key: bytes, message: bytes) -> bytes:
    return hmac.digest(key, message, "sha256")


def canonical_query(pairs: Sequence[tuple[str, str]]) -> str:
    """The decoded parameters encoded anew and sorted, without the signature itself."""
    encoded = [
        (quote(name, safe=""), quote(value, safe=""))
        for name, value in pairs
        if name != "X-Amz-Signature"
    ]
    encoded.sort()
    return "&".join([f"{name}={value}" for name, value in encoded])


def canonical_request(
    method: str,
    path: str,
    query: str,
    headers: Mapping[str, str],
    signed_headers: str,
    payload_hash: str,
) -> str:
    """The text whose hash is signed. ``headers`` by lower-case name, ``query`` canonical."""
    lines = [method, path or "/", query]
    for name in signed_headers.split(";"):
        value = headers.get(name, "")
        if "  " in value:
            # Only spaces: str.split() would also eat bytes of UTF-8 text (0x85, 0xA0).
            value = " ".join([word for word in value.split(" ") if word])
        lines.append(f"{name}:{value}")
    lines.append("")
    lines.append(signed_headers)
    lines.append(payload_hash)
    return "\n".join(lines)


def string_to_sign(amz_date: str, scope: str, canonical: bytes) -> str:
    """Algorithm, date, scope and the hash of the canonical request."""
    return f"{ALGORITHM}\n{amz_date}\n{scope}\n{hashlib.sha256(canonical).hexdigest()}"


def signature(key: bytes, text: str) -> str:
    """The signature of a string to sign, in hex."""
    return hmac.digest(key, text.encode("latin-1"), "sha256").hex()


def verify(
    presented: Presented,
    key: bytes,
    *,
    method: str,
    raw_path: str,
    raw_query: str = "",
    query: Sequence[tuple[str, str]],
    headers: Mapping[str, str],
    payload_hash: str,
) -> None:
    """Recompute the signature over the request as sent; raises ``SignatureDoesNotMatch``.

    The refusal carries what was computed, as AWS does, so that a client's author can compare.
    """
    scope = presented.scope.text
    given = presented.signature.encode("latin-1", "replace")
    computed: list[tuple[bytes, str]] = []
    for path, parameters in _readings(raw_path, raw_query, query):
        canonical = canonical_request(
            method, path, parameters, headers, presented.signed_headers, payload_hash
        )
        forms = [canonical.encode("latin-1")]
        if not canonical.isascii():
            # Signed as UTF-8 but sent as latin-1 (botocore with characters up to U+00FF).
            forms.append(canonical.encode("utf-8"))
        for form in forms:
            text = string_to_sign(presented.amz_date, scope, form)
            if hmac.compare_digest(signature(key, text).encode(), given):
                return
            computed.append((form, text))
    exact, text = computed[0]
    raise S3Error(
        "SignatureDoesNotMatch",
        fields={
            "AWSAccessKeyId": presented.scope.access_key,
            "StringToSign": text,
            "SignatureProvided": presented.signature,
            "StringToSignBytes": _hex_pairs(text.encode("latin-1")),
            "CanonicalRequest": exact.decode("utf-8", "replace"),
            "CanonicalRequestBytes": _hex_pairs(exact),
        },
    )


def _readings(
    raw_path: str, raw_query: str, query: Sequence[tuple[str, str]]
) -> Iterator[tuple[str, str]]:
    """Path and query as AWS reads them, then as some clients in the field sign them."""
    canonical = canonical_query(query) if query else ""
    yield raw_path, canonical
    # SDKs behind some HTTP libraries sign other characters encoded than are sent.
    recoded = quote(unquote_to_bytes(raw_path.encode("latin-1")), safe="/")
    if recoded != raw_path:
        yield recoded, canonical
    # And some sign the query's parts just as they are sent, a plus as a plus.
    parts = [part.partition("=") for part in raw_query.split("&") if part]
    pairs = sorted((name, value) for name, _, value in parts if name != "X-Amz-Signature")
    as_sent = "&".join([f"{name}={value}" for name, value in pairs])
    if as_sent != canonical:
        yield raw_path, as_sent


def _hex_pairs(data: bytes) -> str:
    return data.hex(" ")


def unsigned_headers(
    presented: Presented, headers: Mapping[str, str], exempt: frozenset[str]
) -> list[str]:
    """``host`` and every ``x-amz-*`` header that is present but not signed, less ``exempt``."""
    signed = _names(presented.signed_headers)
    found = [] if "host" in signed else ["host"]
    for name in headers:
        if name.startswith("x-amz-") and name not in signed and name not in exempt:
            found.append(name)
    return found


@lru_cache(maxsize=1024)
def _names(signed_headers: str) -> frozenset[str]:
    return frozenset(signed_headers.split(";"))


class ChunkChain:
    """Verifies the signatures of an ``aws-chunked`` body, each chained to the one before."""

    __slots__ = ("_previous", "_signing")

    def __init__(self, signing: Signing) -> None:
        self._signing = signing
        self._previous = signing.seed

    def chunk(self, sha256_hex: str, presented: str) -> None:
        """The next chunk's hash against its signature; raises ``SignatureDoesNotMatch``."""
        signing = self._signing
        text = (
            f"{_CHUNK_ALGORITHM}\n{signing.amz_date}\n{signing.scope}\n{self._previous}\n"
            f"{EMPTY_SHA256}\n{sha256_hex}"
        )
        self._advance(text, presented)

    def trailer(self, canonical: bytes, presented: str) -> None:
        """The trailer's ``name:value`` lines against its signature."""
        signing = self._signing
        text = (
            f"{_TRAILER_ALGORITHM}\n{signing.amz_date}\n{signing.scope}\n{self._previous}\n"
            f"{hashlib.sha256(canonical).hexdigest()}"
        )
        self._advance(text, presented)

    def _advance(self, text: str, presented: str) -> None:
        expected = signature(self._signing.key, text)
        if not hmac.compare_digest(expected.encode(), presented.encode("latin-1", "replace")):
            raise S3Error(
                "SignatureDoesNotMatch",
                "The signature of a chunk or trailer of the body does not match its content.",
                fields={"StringToSign": text, "SignatureProvided": presented},
            )
        self._previous = expected


def _malformed(fault: str) -> S3Error:
    return S3Error(
        "AuthorizationHeaderMalformed", f"The authorization header is malformed; {fault}."
    )


def _query_error(message: str) -> S3Error:
    return S3Error("AuthorizationQueryParametersError", message)
