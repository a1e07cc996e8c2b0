"""Documents in and out."""

from __future__ import annotations

from xml.etree.ElementTree import fromstring

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.core.errors import S3Error
from appliance.s3.xml import (
    DOCUMENT_BYTES_MAX,
    NAMESPACE,
    document,
    element,
    escape,
    parse,
    url_encoded,
)

_BOMB = b"""<?xml version="1.0"?><!DOCTYPE Delete [<!ENTITY a "aaaaaaaaaa">
<!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]><Delete><Object><Key>&b;</Key></Object></Delete>"""
_FILE = b"""<!DOCTYPE Delete [<!ENTITY a SYSTEM "file:///etc/passwd">]><Delete>&a;</Delete>"""


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"Delete",
        b"<Delete>",
        b"<Other/>",
        b"<Delete/><Delete/>",
        b"\xff\xfe\x00",
        b'<?xml version="1.0" encoding="no-such"?><Delete/>',
        b'<?xml version="1.0" encoding="utf-7"?><Delete/>',
        b'<?xml version="1.0" encoding="shift_jis"?><Delete/>',
        b"<Delete>\x00</Delete>",
        b"<Delete>&unknown;</Delete>",
        _BOMB,
        _FILE,
        b"<Delete>" + b" " * DOCUMENT_BYTES_MAX + b"</Delete>",
    ],
)
def test_malformed_documents_are_malformed_xml(body: bytes) -> None:
    with pytest.raises(S3Error) as raised:
        parse(body, "Delete")
    assert raised.value.code == "MalformedXML"


@given(st.binary(max_size=200))
def test_no_bytes_break_the_parser(body: bytes) -> None:
    for candidate in (body, b"<Delete>" + body + b"</Delete>"):
        try:
            assert parse(candidate, "Delete").name == "Delete"
        except S3Error as error:
            assert error.code == "MalformedXML"


@given(st.text(max_size=50))
def test_no_text_breaks_the_parser(body: str) -> None:
    try:
        parse(f"<Delete><Key>{body}</Key></Delete>".encode("utf-8", "replace"), "Delete")
    except S3Error as error:
        assert error.code == "MalformedXML"


def test_deep_nesting_is_harmless() -> None:
    deep = b"<Delete>" + b"<a>" * 200_000 + b"</a>" * 200_000 + b"</Delete>"
    assert parse(deep, "Delete").optional("Quiet") is None


@pytest.mark.parametrize("prefix", ["", f' xmlns="{NAMESPACE}"', ' xmlns="urn:something-else"'])
def test_namespaces_are_ignored(prefix: str) -> None:
    parsed = parse(f"<Tagging{prefix}><TagSet> x </TagSet></Tagging>".encode(), "Tagging")
    assert parsed.required("TagSet") == "x"
    assert parsed.exact("TagSet") == " x "


def test_an_element_given_twice_is_refused() -> None:
    parsed = parse(b"<A><B>1</B><B>2</B></A>", "A")
    for reading in (parsed.optional, parsed.required, parsed.exact, lambda _: parsed.texts()):
        with pytest.raises(S3Error):
            reading("B")
    with pytest.raises(S3Error):
        parsed.required("Absent")


def test_control_characters_become_references() -> None:
    assert escape('a\x01\r&<>"') == "a&#x1;&#xd;&amp;&lt;&gt;&quot;"
    assert escape("plain 日本") == "plain 日本"


_XML_CHARACTERS = st.characters(
    exclude_categories=("Cs", "Cc"), exclude_characters="\ufffe\uffff"
) | st.sampled_from("\t\n\r\"&<>'")


@given(st.text(_XML_CHARACTERS))
def test_text_comes_back_as_it_went(text: str) -> None:
    written = document("Answer", element("Key", text))
    assert fromstring(written).findtext(f"{{{NAMESPACE}}}Key") == text


def test_url_encoding_writes_spaces_as_percent_and_keeps_slashes() -> None:
    assert url_encoded("a b/ü+~*") == "a%20b/%C3%BC%2B~%2A"
    assert url_encoded("a/b-c_d.e~f") == "a/b-c_d.e~f"
    assert url_encoded("\x01") == "%01"
