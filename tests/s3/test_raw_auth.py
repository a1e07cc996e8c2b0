"""Who may ask: every way a request can be signed wrongly, on a socket, with AWS's code for it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from urllib.parse import urlsplit

import pytest
from botocore.auth import S3SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from appliance.core.errors import Unreachable
from tests.s3.front_door import (
    ACCESS_KEY,
    DOMAIN,
    REGION,
    SECRET_KEY,
    Answer,
    Front,
    front,
    request_bytes,
    signed_headers,
    signed_request,
    some_keys,
)

MINUTE_S = 60


@pytest.fixture
def running() -> Iterator[Front]:
    with front() as one:
        yield one


def presigned_target(
    target: str = "/bucket/key", *, expires_s: int = 60, region: str = REGION, method: str = "GET"
) -> str:
    request = AWSRequest(method=method, url=f"http://{DOMAIN}{target}")
    credentials = Credentials(ACCESS_KEY, SECRET_KEY)
    S3SigV4QueryAuth(credentials, "s3", region, expires=expires_s).add_auth(request)
    split = urlsplit(request.url)
    return f"{split.path}?{split.query}"


def ask(running: Front, headers: Mapping[str, str], target: str = "/bucket/key") -> Answer:
    return running.connect().ask(request_bytes("GET", target, headers))


def test_nothing_presented_is_anonymous(running: Front) -> None:
    assert ask(running, {}).seen["caller"] is None
    assert ask(running, {"Authorization": ""}).seen["caller"] is None


def test_a_good_signature_is_its_caller(running: Front) -> None:
    seen = running.connect().ask(signed_request("GET", "/bucket/key?list-type=2&prefix=a%20b")).seen
    assert seen["caller"] == "user-1"


def test_a_good_presigned_request_is_its_caller(running: Front) -> None:
    assert ask(running, {}, presigned_target()).seen["caller"] == "user-1"
    target = presigned_target("/bucket/a%20b?versionId=x%2By&response-content-type=text%2Fplain")
    assert ask(running, {}, target).seen["caller"] == "user-1"


@pytest.mark.parametrize(
    ("authorization", "status", "code"),
    [
        ("Basic dTpw", 400, "InvalidArgument"),
        ("AWS HAHAHA", 400, "InvalidArgument"),
        ("AWS AKID:c2lnbmF0dXJl", 400, "InvalidRequest"),
        ("AWS4-ECDSA-P256-SHA256 Credential=a", 400, "InvalidRequest"),
        ("AWS4-HMAC-SHA256 nonsense", 400, "AuthorizationHeaderMalformed"),
    ],
)
def test_other_authorizations(running: Front, authorization: str, status: int, code: str) -> None:
    headers = signed_headers("GET", "/bucket/key") | {"Authorization": authorization}
    answer = ask(running, headers)
    assert (answer.status, answer.code) == (status, code)


def test_signature_version_2_in_the_query(running: Front) -> None:
    answer = ask(running, {}, "/bucket/key?AWSAccessKeyId=a&Signature=b&Expires=1")
    assert (answer.status, answer.code) == (400, "InvalidRequest")


def test_unknown_key(running: Front) -> None:
    answer = running.connect().ask(signed_request("GET", "/", access_key="AKIAUNKNOWN"))
    assert (answer.status, answer.code) == (403, "InvalidAccessKeyId")
    assert answer.error("AWSAccessKeyId") == "AKIAUNKNOWN"


def test_wrong_secret(running: Front) -> None:
    answer = running.connect().ask(signed_request("GET", "/", secret_key="other"))
    assert (answer.status, answer.code) == (403, "SignatureDoesNotMatch")
    assert answer.error("StringToSign").startswith("AWS4-HMAC-SHA256\n")
    assert answer.error("SignatureProvided")
    assert answer.error("CanonicalRequest").startswith("GET\n/\n")


def test_wrong_region_names_the_right_one(running: Front) -> None:
    answer = running.connect().ask(signed_request("GET", "/", region="eu-west-1"))
    assert (answer.status, answer.code) == (400, "AuthorizationHeaderMalformed")
    assert answer.error("Region") == REGION
    assert answer.headers["x-amz-bucket-region"] == REGION
    answer = ask(running, {}, presigned_target(region="eu-west-1"))
    assert (answer.status, answer.code) == (400, "AuthorizationQueryParametersError")
    assert answer.error("Region") == REGION


@pytest.mark.parametrize("minutes", [-16, 16])
def test_skewed_clocks(running: Front, minutes: int) -> None:
    running.clock.shift_s = minutes * MINUTE_S
    answer = running.connect().ask(signed_request("GET", "/"))
    assert (answer.status, answer.code) == (403, "RequestTimeTooSkewed")
    assert answer.error("MaxAllowedSkewMilliseconds") == "900000"
    assert answer.error("ServerTime").endswith("Z")
    assert len(answer.error("RequestTime")) == 16


@pytest.mark.parametrize("minutes", [-14, 14])
def test_clocks_that_differ_a_little(running: Front, minutes: int) -> None:
    running.clock.shift_s = minutes * MINUTE_S
    assert running.connect().ask(signed_request("GET", "/")).status == 200


def test_presigned_requests_expire(running: Front) -> None:
    target = presigned_target(expires_s=3600)
    running.clock.shift_s = 50 * MINUTE_S
    assert ask(running, {}, target).status == 200
    running.clock.shift_s = 61 * MINUTE_S
    answer = ask(running, {}, target)
    assert (answer.status, answer.code) == (403, "AccessDenied")
    assert answer.error("Message") == "Request has expired"
    assert answer.error("X-Amz-Expires") == "3600"
    running.clock.shift_s = -20 * MINUTE_S
    assert ask(running, {}, target).code == "AccessDenied"


@pytest.mark.parametrize("date", [None, "", "yesterday", "20130524T000000", "2013-05-24"])
def test_a_date_nobody_can_read(running: Front, date: str | None) -> None:
    headers = signed_headers("GET", "/bucket/key")
    del headers["X-Amz-Date"]
    if date is not None:
        headers["X-Amz-Date"] = date
    answer = ask(running, headers)
    assert answer.code in {"AccessDenied", "AuthorizationHeaderMalformed"}
    assert answer.status in {400, 403}


def test_both_mechanisms_at_once(running: Front) -> None:
    answer = ask(running, signed_headers("GET", "/bucket/key"), presigned_target())
    assert (answer.status, answer.code) == (400, "InvalidArgument")


@pytest.mark.parametrize("name", ["X-Amz-Meta-A", "x-amz-acl", "x-amz-copy-source"])
def test_amz_headers_must_be_signed(running: Front, name: str) -> None:
    answer = ask(running, signed_headers("GET", "/bucket/key") | {name: "1"})
    assert (answer.status, answer.code) == (403, "AccessDenied")
    assert answer.error("HeadersNotSigned") == name.lower()
    assert ask(running, {name: "1"}, presigned_target()).code == "AccessDenied"


def test_temporary_tokens_are_not_ours(running: Front) -> None:
    headers = signed_headers("GET", "/bucket/key", {"x-amz-security-token": "token"})
    assert ask(running, headers).code == "InvalidToken"


def test_the_content_hash_is_needed(running: Front) -> None:
    headers = signed_headers("GET", "/bucket/key")
    del headers["X-Amz-Content-SHA256"]
    answer = ask(running, headers)
    assert (answer.status, answer.code) == (400, "InvalidRequest")
    headers = signed_headers("GET", "/bucket/key", {"X-Amz-Content-SHA256": "nonsense"})
    answer = ask(running, headers)
    assert (answer.status, answer.code) == (400, "InvalidArgument")
    assert answer.error("ArgumentValue") == "nonsense"


def test_metadata_with_spaces_and_every_byte(running: Front) -> None:
    headers = {"x-amz-meta-a": "caf\xe9  x", "x-amz-meta-b": "  a   b  "}
    seen = running.connect().ask(signed_request("PUT", "/bucket/key", headers, b"")).seen
    assert seen["headers"]["x-amz-meta-a"] == "caf\xe9  x"


def test_a_header_sent_twice_is_signed_joined(running: Front) -> None:
    headers = signed_headers("GET", "/bucket/key", {"x-amz-meta-a": "1,2"})
    data = request_bytes("GET", "/bucket/key", headers)
    twice = data.replace(b"x-amz-meta-a: 1,2", b"x-amz-meta-a: 1\r\nX-Amz-Meta-A: 2")
    assert twice != data
    assert running.connect().ask(twice).seen["headers"]["x-amz-meta-a"] == "1,2"


def test_credentials_are_cached_for_a_few_seconds(running: Front) -> None:
    for _ in range(3):
        assert running.connect().ask(signed_request("GET", "/")).status == 200
    assert running.keys.asked == 1
    known = running.keys.credentials[ACCESS_KEY]
    running.keys.credentials[ACCESS_KEY] = replace(known, frozen=True)
    running.clock.shift_s = 6
    answer = running.connect().ask(signed_request("GET", "/"))
    assert (answer.status, answer.code) == (403, "AccountProblem")
    del running.keys.credentials[ACCESS_KEY]
    running.clock.shift_s = 12
    assert running.connect().ask(signed_request("GET", "/")).code == "InvalidAccessKeyId"
    assert running.keys.asked == 3


def test_a_known_key_survives_an_absent_key_store(running: Front) -> None:
    assert running.connect().ask(signed_request("GET", "/")).status == 200
    running.keys.fault = Unreachable("the control role is restarting")
    running.clock.shift_s = 60
    assert running.connect().ask(signed_request("GET", "/")).status == 200
    running.clock.shift_s = 400
    answer = running.connect().ask(signed_request("GET", "/"))
    assert (answer.status, answer.code) == (503, "ServiceUnavailable")
    assert answer.headers["retry-after"] == "1"


def test_an_unknown_key_while_the_key_store_is_away() -> None:
    keys = some_keys()
    keys.fault = Unreachable("the control role is restarting")
    with front(keys=keys) as running:
        assert running.connect().ask(signed_request("GET", "/")).status == 503


def test_the_body_is_compared_with_its_signed_hash(running: Front) -> None:
    client = running.connect()
    data = signed_request("PUT", "/bucket/key", {}, b"content")
    assert client.ask(data).seen["sha256"] == hashlib.sha256(b"content").hexdigest()
    answer = client.ask(data.removesuffix(b"content") + b"CONTENT")
    assert (answer.status, answer.code) == (400, "XAmzContentSHA256Mismatch")
    assert answer.error("ClientComputedContentSHA256") == hashlib.sha256(b"content").hexdigest()
    assert answer.error("S3ComputedContentSHA256") == hashlib.sha256(b"CONTENT").hexdigest()
    assert client.ask(data).status == 200


def test_a_large_body_is_hashed_beside_the_loop(running: Front) -> None:
    body = bytes(range(256)) * 8192
    data = signed_request("PUT", "/bucket/key", {}, body)
    seen = running.connect().ask(data).seen
    assert (seen["size"], seen["sha256"]) == (len(body), hashlib.sha256(body).hexdigest())
    assert seen["largest"] <= 1024 * 1024
    assert running.connect().ask(data[:-1] + b"?").code == "XAmzContentSHA256Mismatch"
