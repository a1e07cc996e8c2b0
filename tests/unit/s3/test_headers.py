"""Headers in and out: attributes, dates, copy sources, checksums, counts, tokens."""

from __future__ import annotations

import base64
import email.header
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.core.checksums import ChecksumAlgorithm, ChecksumKind
from appliance.core.errors import S3Error
from appliance.s3.checksum_headers import declared_checksum, requested_checksum
from appliance.s3.conditions import delete_condition
from appliance.s3.copy import copy_source
from appliance.s3.dates import http_time, iso_time, parse_http_time
from appliance.s3.encryption import check_read_encryption
from appliance.s3.metadata import (
    check_write_headers,
    content_headers,
    request_attributes,
    response_overrides,
    wire_value,
)
from appliance.s3.parameters import integer, part_number, position_of, token_of
from tests.unit.s3.asking import ask

_MOMENT_NS = 1_700_000_000_123_456_789


def test_dates_out() -> None:
    assert iso_time(_MOMENT_NS) == "2023-11-14T22:13:20.123Z"
    assert http_time(_MOMENT_NS) == "Tue, 14 Nov 2023 22:13:20 GMT"


@pytest.mark.parametrize(
    "text",
    [
        "Tue, 14 Nov 2023 22:13:20 GMT",
        "Tuesday, 14-Nov-23 22:13:20 GMT",
        "Tue Nov 14 22:13:20 2023",
        "2023-11-14T22:13:20Z",
        "2023-11-14T22:13:20.999Z",
        "Wed, 15 Nov 2023 07:13:20 +0900",
    ],
)
def test_dates_in(text: str) -> None:
    assert parse_http_time(text) == 1_700_000_000 * 10**9


@given(st.text())
def test_no_text_breaks_the_date_parser(text: str) -> None:
    found = parse_http_time(text)
    assert found is None or isinstance(found, int)


@pytest.mark.parametrize("text", [None, "", "soon", "99", "Tue, 14 Nov 99999 22:13:20 GMT"])
def test_unreadable_dates_are_none(text: str | None) -> None:
    assert parse_http_time(text) is None


@pytest.mark.parametrize(
    ("sent", "stored"),
    [
        ("aws-chunked", None),
        ("aws-chunked,gzip", "gzip"),
        ("gzip, aws-chunked", "gzip"),
        ("AWS-Chunked", None),
        ("gzip", "gzip"),
        ("gzip,br", "gzip,br"),
        ("deflate, gzip", "deflate, gzip"),
        ("deflate,aws-chunked, gzip", "deflate, gzip"),
        ("aws-chunked, aws-chunked", None),
    ],
)
def test_aws_chunked_is_no_content_encoding(sent: str, stored: str | None) -> None:
    request, _ = ask("PUT", "/b/k", {"Content-Encoding": sent})
    assert content_headers(request).get("content-encoding") == stored


def test_attributes_take_what_is_stored() -> None:
    request, _ = ask(
        "PUT",
        "/b/k",
        {
            "Content-Type": "text/plain",
            "Cache-Control": "no-cache",
            "X-Amz-Meta-Colour": "red",
            "x-amz-storage-class": "STANDARD_IA",
            "Authorization": "secret",
        },
    )
    attributes = request_attributes(request, {"t": "v"})
    assert attributes.content_type == "text/plain"
    assert attributes.headers == {"cache-control": "no-cache"}
    assert attributes.metadata == {"colour": "red"}
    assert attributes.tags == {"t": "v"}
    assert attributes.storage_class == "STANDARD_IA"


def test_metadata_beyond_ascii_goes_out_as_encoded_words() -> None:
    as_sent = "会社".encode().decode("latin-1")
    (raw, charset), *rest = email.header.decode_header(wire_value(as_sent))
    assert not rest
    assert isinstance(raw, bytes)
    assert raw.decode(charset or "ascii") == "会社"
    assert wire_value("plain") == "plain"
    assert wire_value("caf\xe9") == "caf\xe9", "bytes that are no UTF-8 go out as they came"


CUSTOMER = "x-amz-server-side-encryption-customer-"
CUSTOMER_KEY = {
    f"{CUSTOMER}algorithm": "AES256",
    f"{CUSTOMER}key": base64.b64encode(b"k" * 32).decode(),
    f"{CUSTOMER}key-md5": base64.b64encode(hashlib.md5(b"k" * 32).digest()).decode(),
}


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({"x-amz-server-side-encryption": "aws:kms"}, "NotImplemented"),
        ({"x-amz-server-side-encryption": "rot13"}, "InvalidArgument"),
        (CUSTOMER_KEY, "NotImplemented"),
        ({**CUSTOMER_KEY, f"{CUSTOMER}algorithm": ""}, "InvalidArgument"),
        ({**CUSTOMER_KEY, f"{CUSTOMER}algorithm": "DES"}, "InvalidEncryptionAlgorithmError"),
        ({**CUSTOMER_KEY, f"{CUSTOMER}key": "short"}, "InvalidArgument"),
        ({**CUSTOMER_KEY, f"{CUSTOMER}key": "c2hvcnQ="}, "InvalidArgument"),
        ({**CUSTOMER_KEY, f"{CUSTOMER}key-md5": ""}, "InvalidArgument"),
        ({**CUSTOMER_KEY, f"{CUSTOMER}key-md5": "AAAA"}, "InvalidArgument"),
        (
            {
                "x-amz-server-side-encryption": "AES256",
                "x-amz-server-side-encryption-customer-key": "k",
            },
            "InvalidArgument",
        ),
        (
            {"x-amz-copy-source-server-side-encryption-customer-key": "x"},
            "InvalidArgument",
        ),
        (
            {
                "x-amz-server-side-encryption": "AES256",
                "x-amz-server-side-encryption-aws-kms-key-id": "k",
            },
            "InvalidArgument",
        ),
        ({"x-amz-object-lock-mode": "COMPLIANCE"}, "InvalidRequest"),
        ({"x-amz-object-lock-legal-hold": "ON"}, "InvalidRequest"),
    ],
)
def test_what_a_write_cannot_have_is_refused(headers: dict[str, str], code: str) -> None:
    with pytest.raises(S3Error) as raised:
        check_write_headers(ask("PUT", "/b/k", headers)[0])
    assert raised.value.code == code


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"x-amz-server-side-encryption": "AES256"},
    ],
)
def test_what_is_so_anyway_is_accepted(headers: dict[str, str]) -> None:
    check_write_headers(ask("PUT", "/b/k", headers)[0])


def test_keys_need_a_secure_connection() -> None:
    request, _ = ask("PUT", "/b/k", CUSTOMER_KEY)
    request.secure = False
    with pytest.raises(S3Error, match="secure connection") as raised:
        check_write_headers(request)
    assert raised.value.code == "InvalidRequest"


def test_reads_do_not_choose_the_encryption() -> None:
    check_read_encryption(ask("GET", "/b/k")[0])
    for headers in ({"x-amz-server-side-encryption": "AES256"}, {f"{CUSTOMER}key": "x"}):
        with pytest.raises(S3Error) as raised:
            check_read_encryption(ask("GET", "/b/k", headers)[0])
        assert raised.value.code == "InvalidArgument"


@pytest.mark.parametrize("name", ["GLACIER", "DEEP_ARCHIVE", "gold", "standard"])
def test_storage_classes_that_cannot_be_kept_are_refused(name: str) -> None:
    request, _ = ask("PUT", "/b/k", {"x-amz-storage-class": name})
    with pytest.raises(S3Error) as raised:
        request_attributes(request, {})
    assert raised.value.code == "InvalidStorageClass"


def test_overrides_are_for_signed_reads_without_line_ends() -> None:
    target = "/b/k?response-content-type=text%2Fplain&response-expires=x&other=1"
    request, _ = ask("GET", target)
    assert response_overrides(request) == {"Content-Type": "text/plain", "Expires": "x"}
    anonymous, _ = ask("GET", target, caller=None)
    with pytest.raises(S3Error) as raised:
        response_overrides(anonymous)
    assert raised.value.code == "InvalidRequest"
    split, _ = ask("GET", "/b/k?response-content-type=a%0D%0AX-Evil:1")
    with pytest.raises(S3Error) as raised:
        response_overrides(split)
    assert raised.value.code == "InvalidArgument"


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("b/k", ("b", "k", None)),
        ("/b/k", ("b", "k", None)),
        ("b/a%20b%2Bc", ("b", "a b+c", None)),
        ("b%2Fa/b", ("b", "a/b", None)),
        ("b/a+b", ("b", "a+b", None)),
        ("b//k/", ("b", "/k/", None)),
        ("b/k?versionId=null", ("b", "k", "null")),
        ("b/what%3FversionId=no", ("b", "what?versionId=no", None)),
        ("b/why?", ("b", "why?", None)),
        ("b/%E6%97%A5", ("b", "日", None)),
        ("b/" + "日".encode().decode("latin-1"), ("b", "日", None)),
    ],
)
def test_copy_sources(header: str, expected: tuple[str, str, str | None]) -> None:
    source = copy_source(ask("PUT", "/d/k", {"x-amz-copy-source": header})[0])
    assert (source.bucket, source.key, source.version_id) == expected


@pytest.mark.parametrize("header", ["", "/", "b", "b/", "/b", "b/k?versionId=", "b/%FF"])
def test_sources_that_are_none_are_refused(header: str) -> None:
    with pytest.raises(S3Error) as raised:
        copy_source(ask("PUT", "/d/k", {"x-amz-copy-source": header})[0])
    assert raised.value.code == "InvalidArgument"


@given(st.text(st.characters(min_codepoint=32, max_codepoint=255), max_size=40))
def test_no_copy_source_breaks_the_parser(header: str) -> None:
    try:
        source = copy_source(ask("PUT", "/d/k", {"x-amz-copy-source": header})[0])
    except S3Error as error:
        assert error.code in {"InvalidArgument", "NotImplemented"}
    else:
        assert source.bucket
        assert source.key


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, None),
        (
            {"x-amz-checksum-algorithm": "crc32"},
            (ChecksumAlgorithm.CRC32, ChecksumKind.COMPOSITE),
        ),
        (
            {"x-amz-checksum-algorithm": "CRC64NVME"},
            (ChecksumAlgorithm.CRC64NVME, ChecksumKind.FULL_OBJECT),
        ),
        (
            {"x-amz-checksum-algorithm": "CRC32C", "x-amz-checksum-type": "FULL_OBJECT"},
            (ChecksumAlgorithm.CRC32C, ChecksumKind.FULL_OBJECT),
        ),
    ],
)
def test_checksums_of_uploads(
    headers: dict[str, str], expected: tuple[ChecksumAlgorithm, ChecksumKind] | None
) -> None:
    assert requested_checksum(ask("POST", "/b/k?uploads", headers)[0]) == expected


@pytest.mark.parametrize(
    "headers",
    [
        {"x-amz-checksum-algorithm": "MD4"},
        {"x-amz-checksum-type": "COMPOSITE"},
        {"x-amz-checksum-algorithm": "SHA256", "x-amz-checksum-type": "FULL_OBJECT"},
        {"x-amz-checksum-algorithm": "CRC64NVME", "x-amz-checksum-type": "COMPOSITE"},
        {"x-amz-checksum-algorithm": "CRC32", "x-amz-checksum-type": "HALF"},
    ],
)
def test_checksums_that_do_not_exist_are_refused(headers: dict[str, str]) -> None:
    with pytest.raises(S3Error) as raised:
        requested_checksum(ask("POST", "/b/k?uploads", headers)[0])
    assert raised.value.code == "InvalidRequest"


def test_two_declared_checksums_are_refused() -> None:
    headers = {"x-amz-checksum-crc32": "AAAAAA==", "x-amz-checksum-crc32c": "AAAAAA=="}
    with pytest.raises(S3Error):
        declared_checksum(ask("POST", "/b/k?uploadId=1", headers)[0])


@pytest.mark.parametrize(
    ("query", "expected"),
    [("", 1000), ("max-keys=", 1000), ("max-keys=0", 0), ("max-keys=5000", 1000)],
)
def test_counts(query: str, expected: int) -> None:
    assert integer(ask("GET", f"/b?{query}")[0], "max-keys", 1000, 1000) == expected


@pytest.mark.parametrize("text", ["-1", "x", "1.5", "9" * 30, "%D9%A1", "--1", "-", "2147483648"])
def test_counts_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(S3Error) as raised:
        integer(ask("GET", f"/b?max-keys={text}")[0], "max-keys", 1000, 1000)
    assert raised.value.code == "InvalidArgument"


@pytest.mark.parametrize("text", ["0", "10001", "-1", "", "one", "9" * 30])
def test_part_numbers_outside_are_refused(text: str) -> None:
    with pytest.raises(S3Error) as raised:
        part_number(ask("GET", f"/b/k?partNumber={text}")[0])
    assert raised.value.code == "InvalidArgument"


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_tokens_come_back(position: str) -> None:
    assert position_of(token_of(position)) == position


@given(st.text(max_size=30))
def test_foreign_tokens_are_refused(token: str) -> None:
    try:
        assert token_of(position_of(token)) == token
    except S3Error as error:
        assert error.code == "InvalidArgument"


def test_delete_conditions_must_be_readable() -> None:
    request, _ = ask("DELETE", "/b/k", {"x-amz-if-match-size": "5", "If-Match": '"e"'})
    found = delete_condition(request)
    assert (found.if_match, found.if_match_size_bytes) == ('"e"', 5)
    for headers in (
        {"x-amz-if-match-size": "-5"},
        {"x-amz-if-match-last-modified-time": "once"},
    ):
        with pytest.raises(S3Error):
            delete_condition(ask("DELETE", "/b/k", headers)[0])
