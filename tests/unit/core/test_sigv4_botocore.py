"""Requests signed by botocore, an independent signer, verify here; changed ones do not."""

from __future__ import annotations

from urllib.parse import quote, unquote, urlsplit

import pytest
from botocore.auth import S3SigV4Auth, S3SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import given
from hypothesis import strategies as st

from appliance.core import sigv4
from appliance.core.errors import S3Error

ACCESS_KEY = "AKIAIOSFODNN7EXAMPLE"
SECRET_KEY = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
REGION = "ap-northeast-1"
CREDENTIALS = Credentials(ACCESS_KEY, SECRET_KEY)

keys = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40)
names = st.from_regex(r"\A[a-z][a-z0-9-]{0,15}\Z")
values = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=30)


def pairs_of(raw_query: str) -> list[tuple[str, str]]:
    pairs = []
    for part in raw_query.split("&") if raw_query else []:
        name, _, value = part.partition("=")
        pairs.append((unquote(name), unquote(value)))
    return pairs


def lower(request: AWSRequest) -> dict[str, str]:
    headers = {name.lower(): str(value).strip(" \t") for name, value in request.headers.items()}
    headers.setdefault("host", urlsplit(request.url).netloc)
    return headers


def check_header(request: AWSRequest, *, method: str | None = None, path: str = "") -> None:
    headers = lower(request)
    split = urlsplit(request.url)
    presented = sigv4.parse_authorization(headers["authorization"], headers["x-amz-date"])
    sigv4.check_scope(presented, REGION)
    assert sigv4.unsigned_headers(presented, headers, frozenset()) == []
    sigv4.verify(
        presented,
        sigv4.signing_key(SECRET_KEY, presented.scope.date, REGION),
        method=method or request.method,
        raw_path=path or split.path,
        query=pairs_of(split.query),
        headers=headers,
        payload_hash=headers["x-amz-content-sha256"],
    )


def signed(
    method: str, url: str, headers: dict[str, str] | None = None, data: bytes = b""
) -> AWSRequest:
    request = AWSRequest(method=method, url=url, headers=headers or {}, data=data)
    S3SigV4Auth(CREDENTIALS, "s3", REGION).add_auth(request)
    return request


@given(key=keys, metadata=st.dictionaries(names, values, max_size=4))
def test_any_key_and_metadata(key: str, metadata: dict[str, str]) -> None:
    headers = {f"x-amz-meta-{name}": value for name, value in metadata.items()}
    url = f"https://s3.example.test/bucket/{quote(key, safe='/~')}"
    check_header(signed("PUT", url, headers, b"content"))


@given(pairs=st.lists(st.tuples(keys, keys), max_size=5))
def test_any_query(pairs: list[tuple[str, str]]) -> None:
    query = "&".join(f"{quote(name, safe='-_.~')}={quote(v, safe='-_.~')}" for name, v in pairs)
    check_header(signed("GET", f"https://s3.example.test/bucket?{query}"))


def test_valueless_query_name() -> None:
    check_header(signed("GET", "https://s3.example.test/bucket?acl"))


@given(key=keys, expires_s=st.integers(1, 604800))
def test_presigned(key: str, expires_s: int) -> None:
    url = f"https://s3.example.test/bucket/{quote(key, safe='/~')}?versionId=a%2Bb"
    request = AWSRequest(method="GET", url=url)
    S3SigV4QueryAuth(CREDENTIALS, "s3", REGION, expires=expires_s).add_auth(request)
    split = urlsplit(request.url)
    pairs = pairs_of(split.query)
    presented = sigv4.parse_presigned(dict(pairs))
    assert presented.expires_s == expires_s
    arguments = {
        "method": "GET",
        "raw_path": split.path,
        "headers": {"host": "s3.example.test"},
        "payload_hash": sigv4.UNSIGNED_PAYLOAD,
    }
    key_bytes = sigv4.signing_key(SECRET_KEY, presented.scope.date, REGION)
    sigv4.verify(presented, key_bytes, query=pairs, **arguments)
    changed = [(name, "other" if name == "versionId" else value) for name, value in pairs]
    with pytest.raises(S3Error):
        sigv4.verify(presented, key_bytes, query=changed, **arguments)


@pytest.mark.parametrize("change", [{"method": "DELETE"}, {"path": "/bucket/other"}])
def test_a_changed_request_does_not_verify(change: dict[str, str]) -> None:
    request = signed("PUT", "https://s3.example.test/bucket/key")
    with pytest.raises(S3Error) as refused:
        check_header(request, **change)
    assert refused.value.code == "SignatureDoesNotMatch"


def test_a_changed_header_does_not_verify() -> None:
    request = signed("PUT", "https://s3.example.test/bucket/key", {"x-amz-meta-a": "1"})
    request.headers.replace_header("x-amz-meta-a", "2")
    with pytest.raises(S3Error):
        check_header(request)


def test_a_path_sent_less_encoded_than_signed_verifies() -> None:
    request = signed("GET", "https://s3.example.test/bucket/a%28b%29%21")
    check_header(request, path="/bucket/a(b)!")


def test_latin_1_metadata_that_botocore_signs_as_utf_8() -> None:
    request = signed("PUT", "https://s3.example.test/bucket/key", {"x-amz-meta-a": "caf\xe9"})
    check_header(request)


def test_spaces_inside_a_value_count_once_and_bytes_of_utf_8_stay() -> None:
    raw = "\u00e0  b \u3000c".encode().decode("latin-1")
    text = sigv4.canonical_request("GET", "/", "", {"a": raw}, "a", "h")
    assert text.split("\n")[3].encode("latin-1").decode() == "a:\u00e0 b \u3000c"
