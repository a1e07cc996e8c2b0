"""Refusals: the table, what engine errors become, and the document."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree.ElementTree import fromstring

import pytest
from hypothesis import given
from hypothesis import strategies as st

import appliance
from appliance.core.errors import (
    ApplianceError,
    Conflict,
    DataLost,
    DriveFault,
    LimitExceeded,
    MembershipChanged,
    NoSpace,
    NotFound,
    ReadOnly,
    S3Error,
    Unavailable,
    Unreachable,
)
from appliance.s3.errors import TABLE, message_of, rendered, status_of, translated

SOURCES = Path(appliance.__file__).parent


@pytest.mark.parametrize(
    ("error", "code", "status", "retry_after"),
    [
        (LimitExceeded(b"bytes", 1), "QuotaExceeded", 403, None),
        (NoSpace("full"), "ServiceUnavailable", 503, "60"),
        (ReadOnly("resync", 7), "ServiceUnavailable", 503, "7"),
        (Unavailable("away", 0), "ServiceUnavailable", 503, "1"),
        (MembershipChanged("again"), "SlowDown", 503, "1"),
        (Conflict(b"key"), "SlowDown", 503, "1"),
        (Unreachable("control"), "ServiceUnavailable", 503, "1"),
        (NotFound("contract key"), "AllAccessDisabled", 403, None),
        (DataLost("gone"), "InternalError", 500, None),
        (DriveFault("d", "read", 5), "InternalError", 500, None),
    ],
)
def test_engine_errors_tell_clients_whether_to_retry(
    error: ApplianceError, code: str, status: int, retry_after: str | None
) -> None:
    refusal = translated(error)
    assert (refusal.code, status_of(refusal.code)) == (code, status)
    assert refusal.headers.get("Retry-After") == retry_after


def test_lost_data_has_words_of_its_own() -> None:
    assert "cannot be read" in message_of(translated(DataLost("x")))
    assert message_of(translated(DataLost("x"))) != message_of(translated(DriveFault("d", "r", 5)))


def test_engine_words_do_not_reach_clients() -> None:
    for error in (Conflict(b"secret"), LimitExceeded(b"secret", 5), ReadOnly("secret")):
        refusal = translated(error)
        document = rendered(refusal, resource="/b", request_id="r", host_id="h")
        assert b"secret" not in document


def test_every_entry_has_a_status_and_a_message() -> None:
    for code, (status, message) in TABLE.items():
        assert 300 <= status <= 599, code
        assert message, code
    assert status_of("NoSuchThingInTheTable") == 400


def test_every_code_the_front_raises_is_in_the_table() -> None:
    raised = {
        (path.name, code)
        for package in ("core", "objects", "s3")
        for path in (SOURCES / package).glob("*.py")
        for code in re.findall(r'S3Error\(\s*"(\w+)"', path.read_text())
    }
    assert len(raised) > 50
    assert [(name, code) for name, code in sorted(raised) if code not in TABLE] == []


def test_document_carries_the_fields_in_order() -> None:
    error = S3Error("InvalidArgument", "bad", fields={"ArgumentName": "max-keys"})
    document = fromstring(rendered(error, resource="/b/k", request_id="R1", host_id="H1"))
    assert [(child.tag, child.text) for child in document] == [
        ("Code", "InvalidArgument"),
        ("Message", "bad"),
        ("ArgumentName", "max-keys"),
        ("Resource", "/b/k"),
        ("RequestId", "R1"),
        ("HostId", "H1"),
    ]


@given(st.text(), st.text(), st.text())
def test_document_is_well_formed_whatever_came_in(resource: str, message: str, field: str) -> None:
    error = S3Error("NoSuchKey", message, fields={"Key": field})
    document = fromstring(rendered(error, resource=resource, request_id="R", host_id="H"))
    assert document.findtext("Code") == "NoSuchKey"
    assert document.findtext("RequestId") == "R"
