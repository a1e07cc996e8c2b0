"""What is wrong with a credential, and the code AWS has for it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.core import sigv4
from appliance.core.errors import S3Error

CREDENTIAL = "AKID/20130524/us-east-1/s3/aws4_request"
DATE = "20130524T000000Z"
QUERY = {
    "X-Amz-Algorithm": "AWS4-HMAC-SHA256",
    "X-Amz-Credential": CREDENTIAL,
    "X-Amz-Signature": "0" * 64,
    "X-Amz-Date": DATE,
    "X-Amz-SignedHeaders": "host",
    "X-Amz-Expires": "60",
}


def header(credential: str = CREDENTIAL) -> str:
    return f"AWS4-HMAC-SHA256 Credential={credential}, SignedHeaders=host, Signature=00"


@pytest.mark.parametrize(
    "value",
    [
        "AWS4-HMAC-SHA256",
        "AWS4-HMAC-SHA256 Credential=",
        f"AWS4-HMAC-SHA256 Credential={CREDENTIAL}",
        f"AWS4-HMAC-SHA256 Credential={CREDENTIAL}, SignedHeaders=host",
        f"AWS4-HMAC-SHA256 SignedHeaders=host, Signature=00, Credential={'a' * 300}",
        header("AKID"),
        header("AKID/2013/us-east-1/s3/aws4_request"),
        header("/20130524/us-east-1/s3/aws4_request"),
        header("AKID/2013052\u0664/us-east-1/s3/aws4_request"),
    ],
)
def test_malformed_header(value: str) -> None:
    with pytest.raises(S3Error) as refused:
        sigv4.parse_authorization(value, DATE)
    assert refused.value.code == "AuthorizationHeaderMalformed"


def test_an_access_key_may_hold_slashes() -> None:
    presented = sigv4.parse_authorization(header(f"a/b/{CREDENTIAL}"), DATE)
    assert presented.scope.access_key == "a/b/AKID"


@pytest.mark.parametrize(
    ("credential", "fault"),
    [
        ("AKID/20130524/eu-west-1/s3/aws4_request", "the region 'eu-west-1' is wrong"),
        ("AKID/20130524/us-east-1/ec2/aws4_request", 'incorrect service "ec2"'),
        ("AKID/20130524/us-east-1/s3/aws5_request", 'incorrect terminator "aws5_request"'),
        ("AKID/20130523/us-east-1/s3/aws4_request", 'Invalid credential date "20130523"'),
    ],
)
def test_wrong_scope(credential: str, fault: str) -> None:
    with pytest.raises(S3Error) as refused:
        sigv4.check_scope(sigv4.parse_authorization(header(credential), DATE), "us-east-1")
    assert refused.value.code == "AuthorizationHeaderMalformed"
    assert fault in refused.value.message
    with pytest.raises(S3Error) as refused:
        presented = sigv4.parse_presigned({**QUERY, "X-Amz-Credential": credential})
        sigv4.check_scope(presented, "us-east-1")
    assert refused.value.code == "AuthorizationQueryParametersError"
    assert fault in refused.value.message


def test_a_wrong_region_names_the_right_one() -> None:
    with pytest.raises(S3Error) as refused:
        sigv4.check_scope(sigv4.parse_authorization(header(), DATE), "ap-northeast-1")
    assert refused.value.fields["Region"] == "ap-northeast-1"
    assert refused.value.headers["x-amz-bucket-region"] == "ap-northeast-1"


@pytest.mark.parametrize("name", sorted(QUERY))
def test_each_query_parameter_is_needed(name: str) -> None:
    with pytest.raises(S3Error) as refused:
        sigv4.parse_presigned({key: value for key, value in QUERY.items() if key != name})
    assert refused.value.code == "AuthorizationQueryParametersError"


@pytest.mark.parametrize(
    ("expires", "fault"),
    [
        ("x", "should be a number"),
        ("1.5", "should be a number"),
        ("\u0661", "should be a number"),
        ("-1", "must be positive"),
        ("0", "must be positive"),
        ("00", "must be positive"),
        ("604801", "must be less than a week"),
        ("9" * 5000, "must be less than a week"),
    ],
)
def test_expires_bounds(expires: str, fault: str) -> None:
    with pytest.raises(S3Error, match=fault):
        sigv4.parse_presigned({**QUERY, "X-Amz-Expires": expires})


def test_expires_of_a_second_and_of_a_week() -> None:
    assert sigv4.parse_presigned({**QUERY, "X-Amz-Expires": "604800"}).expires_s == 604800
    assert sigv4.parse_presigned({**QUERY, "X-Amz-Expires": "1"}).expires_s == 1


@pytest.mark.parametrize(
    ("signed_headers", "present", "expected"),
    [
        ("host", ("host",), []),
        ("x-amz-date", ("host", "x-amz-date"), ["host"]),
        ("host", ("host", "x-amz-acl", "range"), ["x-amz-acl"]),
        ("host;x-amz-acl", ("host", "x-amz-acl"), []),
        ("host", ("host", "x-amz-user-agent"), []),
    ],
)
def test_unsigned_headers(
    signed_headers: str, present: tuple[str, ...], expected: list[str]
) -> None:
    scope = sigv4.parse_credential(CREDENTIAL)
    assert scope is not None
    presented = sigv4.Presented(scope, signed_headers, "00", DATE)
    exempt = frozenset({"x-amz-user-agent"})
    assert sigv4.unsigned_headers(presented, dict.fromkeys(present, ""), exempt) == expected


@given(value=st.text(max_size=200))
def test_no_header_breaks_the_parser(value: str) -> None:
    for text in (value, f"AWS4-HMAC-SHA256 {value}", header(value)):
        try:
            presented = sigv4.parse_authorization(text, DATE)
        except S3Error as error:
            assert error.code == "AuthorizationHeaderMalformed"
        else:
            assert presented.scope.access_key


@given(st.dictionaries(st.sampled_from(sorted(QUERY)), st.text(max_size=40)))
def test_no_query_breaks_the_parser(changes: dict[str, str]) -> None:
    try:
        sigv4.parse_presigned({**QUERY, **changes})
    except S3Error as error:
        assert error.code == "AuthorizationQueryParametersError"


def test_secrets_stay_out_of_representations() -> None:
    assert "k" * 8 not in repr(sigv4.Signing(b"k" * 32, "scope", DATE, "00"))
