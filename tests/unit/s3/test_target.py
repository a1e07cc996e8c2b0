"""Addresses: any key survives the way into a target and back, anything else is InvalidURI."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.core.errors import S3Error
from appliance.s3.request import Headers
from appliance.s3.target import Domains, decoded, origin_form, parse_query, split_path

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
raw_texts = st.text(st.characters(min_codepoint=33, max_codepoint=255), max_size=40)


@given(bucket=texts.filter(bool), key=texts.filter(bool))
def test_any_key_comes_back(bucket: str, key: str) -> None:
    path = f"/{quote(bucket, safe='')}/{quote(key, safe='/')}"
    assert split_path(path, None) == (bucket, key)
    assert split_path(f"/{quote(key, safe='/')}", bucket) == (bucket, key)


@given(raw=raw_texts)
def test_no_target_breaks_the_parsers(raw: str) -> None:
    for parse in (
        lambda: split_path(f"/{raw}", None),
        lambda: split_path(f"/{raw}", "bucket"),
        lambda: parse_query(raw),
        lambda: origin_form(raw, "host"),
    ):
        try:
            parse()
        except S3Error as error:
            assert error.code == "InvalidURI"


@given(pairs=st.lists(st.tuples(texts.filter(bool), texts), max_size=6))
def test_any_query_comes_back(pairs: list[tuple[str, str]]) -> None:
    raw = "&".join(f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in pairs)
    query = parse_query(raw)
    assert list(query.pairs) == pairs
    for name, value in reversed(pairs):
        assert name in query
        first = next(content for key, content in pairs if key == name)
        assert query[name] == first
        assert value in {content for key, content in query.pairs if key == name}


def test_a_query_is_bounded() -> None:
    assert len(parse_query("&".join(["a"] * 256)).pairs) == 256
    with pytest.raises(S3Error):
        parse_query("&".join(["a"] * 257))


@pytest.mark.parametrize("raw", ["%", "%4", "%zz", "a%", "%%25", "%+1", "% 1", "%\xe91", "\xff"])
def test_what_is_no_encoding(raw: str) -> None:
    with pytest.raises(S3Error) as refused:
        decoded(raw)
    assert refused.value.code == "InvalidURI"


def test_a_longer_domain_goes_before_its_end() -> None:
    domains = Domains(["example.test", "s3.example.test"])
    assert domains.split("a.s3.example.test") == ("a.s3.example.test", "a")
    assert domains.split("s3.example.test") == ("s3.example.test", None)
    assert domains.split("b.example.test:8443") == ("b.example.test", "b")
    assert domains.split("notexample.test") == ("notexample.test", None)


def test_remembered_hosts_are_bounded() -> None:
    domains = Domains(["example.test"])
    for number in range(10_000):
        assert domains.split(f"b{number}.example.test")[1] == f"b{number}"
    assert len(domains._buckets) <= 4096


@given(pairs=st.lists(st.tuples(st.sampled_from(["A", "a", "B-C"]), raw_texts), max_size=5))
def test_headers_join_in_order(pairs: list[tuple[str, str]]) -> None:
    headers = Headers([(name.encode(), value.encode("latin-1")) for name, value in pairs])
    for name in ("A", "a", "b-c", "B-C"):
        values = [value for key, value in pairs if key.lower() == name.lower()]
        assert headers.get(name) == (",".join(values) if values else None)
        assert (name in headers) == bool(values)
    assert headers.size_bytes == sum(len(name) + len(value) for name, value in pairs)
