"""The pure rules: names, keys, ranges, conditions, tags, tags of entities, part tables."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.core.conditions import (
    ReadCondition,
    Verdict,
    WriteCondition,
    evaluate_read,
    evaluate_write,
)
from appliance.core.errors import S3Error
from appliance.core.etag import format_etag, multipart_md5, unquote
from appliance.core.names import bucket_name_problem, check_bucket_name, check_key
from appliance.core.partlayout import Run, build_runs, locate, part_span
from appliance.core.ranges import ByteRange, Unsatisfiable, parse_copy_range, parse_range
from appliance.core.recordkeys import (
    AFTER_KEY,
    after_prefix,
    escape,
    id_of_upload,
    key_of_record,
    object_key,
    object_root,
    order_of_version,
    unescape,
    upload_of_id,
)
from appliance.core.tagging import check_tags, parse_tagging

texts = st.text(st.characters(codec="utf-8"), min_size=1, max_size=8)
nasty = st.text(st.sampled_from("a/\x00\x01é\U0010ffff"), min_size=1, max_size=6)
keys = texts | nasty


@given(keys, keys)
def test_records_sort_as_the_keys_do(one: str, other: str) -> None:
    records = [object_key("b", key) for key in (one, other)]
    assert (records[0] < records[1]) == (one.encode() < other.encode())


@given(keys, keys, st.binary(min_size=1, max_size=9), st.binary(min_size=1, max_size=9))
def test_a_keys_versions_lie_together(one: str, other: str, order: bytes, another: bytes) -> None:
    if one == other:
        return
    first, last = object_key("b", one, b"\x00"), object_key("b", one, b"\xff" * 9)
    between = object_key("b", other, order)
    assert not first < between < last
    behind = object_root("b") + escape(one) + AFTER_KEY
    assert object_key("b", one, another) < behind
    assert (between > behind) == (other.encode() > one.encode())


@given(keys, st.binary(min_size=1, max_size=9))
def test_keys_come_back_from_records(key: str, order: bytes) -> None:
    assert unescape(escape(key)) == key
    assert key_of_record(object_key("b", key, order), len(object_root("b"))) == key


@given(keys, keys)
def test_a_prefix_ends_where_its_keys_end(prefix: str, key: str) -> None:
    end = after_prefix(object_root("b") + escape(prefix))
    record = object_key("b", key)
    inside = object_root("b") + escape(prefix) <= record < end
    assert inside == key.encode().startswith(prefix.encode())


def test_ids_of_uploads_and_versions() -> None:
    upload = bytes(range(24))
    assert upload_of_id(id_of_upload(upload)) == upload
    for wrong in ("", "abc", "é", "=" * 32, id_of_upload(upload)[:-1], "a" * 36, "a b" * 10):
        assert upload_of_id(wrong) is None
    assert order_of_version("null") == b"\xff"
    assert order_of_version("00" * 8) == bytes(8)
    assert order_of_version("00" * 7) is None
    assert order_of_version("xyz") is None


@pytest.mark.parametrize("name", ["abc", "a" * 63, "acme-backup-1", "123", "a1-2b", "0ab"])
def test_good_bucket_names(name: str) -> None:
    assert bucket_name_problem(name) is None


@pytest.mark.parametrize(
    "name",
    ["", "ab", "a" * 64, "Abc", "a_b", "-abc", "abc-", "a b", "abc\n", "a.b", "192.168.0.1", "äbc"],
)
def test_bad_bucket_names(name: str) -> None:
    with pytest.raises(S3Error) as caught:
        check_bucket_name(name)
    assert caught.value.code == "InvalidBucketName"


@pytest.mark.parametrize("name", ["xn--abc", "abc-s3alias", "abc--ol-s3", "sthree-abc"])
def test_reserved_bucket_names(name: str) -> None:
    assert "reserved" in (bucket_name_problem(name) or "")


def test_bucket_names_of_a_contract_and_with_dots() -> None:
    check_bucket_name("acme-x", prefix="acme-")
    with pytest.raises(S3Error, match="acme-"):
        check_bucket_name("other-x", prefix="acme-")
    check_bucket_name("a.b-c.d", dots_allowed=True)
    for name in ("a..b", ".ab", "a.-b", "10.0.0.1"):
        assert bucket_name_problem(name, dots_allowed=True)


def test_keys_have_a_length_in_bytes() -> None:
    assert check_key("é" * 512, size_bytes_max=1024) == ("é" * 512).encode()
    for key, code in (("é" * 513, "KeyTooLongError"), ("", "InvalidArgument")):
        with pytest.raises(S3Error) as caught:
            check_key(key, size_bytes_max=1024)
        assert caught.value.code == code
    with pytest.raises(S3Error, match="UTF-8"):
        check_key("\udc80", size_bytes_max=1024)


@pytest.mark.parametrize(
    ("header", "size", "expected"),
    [
        ("bytes=0-4", 10, (0, 5)),
        ("bytes=5-", 10, (5, 5)),
        ("bytes=-3", 10, (7, 3)),
        ("bytes=-30", 10, (0, 10)),
        ("bytes=4-400", 10, (4, 6)),
        (" Bytes = 0-0 ", 10, (0, 1)),
        (None, 10, None),
        ("bytes=5-4", 10, None),
        ("bytes=-", 10, None),
        ("bytes=0-1,3-4", 10, None),
        ("items=0-1", 10, None),
        ("bytes=a-b", 10, None),
        ("bytes=０-1", 10, None),
    ],
)
def test_ranges(header: str | None, size: int, expected: tuple[int, int] | None) -> None:
    found = parse_range(header, size)
    assert found == (None if expected is None else ByteRange(*expected))


@pytest.mark.parametrize(
    ("header", "size"),
    [("bytes=10-", 10), ("bytes=10-20", 10), ("bytes=0-", 0), ("bytes=-5", 0), ("bytes=-0", 10)],
)
def test_ranges_without_a_byte(header: str, size: int) -> None:
    with pytest.raises(Unsatisfiable) as caught:
        parse_range(header, size)
    assert caught.value.size_bytes == size


@given(st.text(max_size=12), st.integers(0, 20))
def test_any_range_header_is_answered(header: str, size: int) -> None:
    try:
        found = parse_range(f"bytes={header}", size)
    except Unsatisfiable:
        return
    if found is not None:
        assert 0 <= found.start < found.start + found.length <= size


def test_copy_ranges() -> None:
    assert parse_copy_range(None, 0) == ByteRange(0, 0)
    assert parse_copy_range("bytes=2-4", 5) == ByteRange(2, 3)
    assert ByteRange(2, 3).content_range(9) == "bytes 2-4/9"
    for wrong in ("0-2", "bytes=0", "bytes=a-b", "bytes=3-", "bytes=-3", "bytes=0-1,3-4"):
        with pytest.raises(S3Error) as caught:
            parse_copy_range(wrong, 5)
        assert caught.value.code == "InvalidArgument"
    with pytest.raises(S3Error) as caught:
        parse_copy_range("bytes=0-5", 5)
    assert caught.value.code == "InvalidRange"


SECOND = 10**9


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        (ReadCondition(), Verdict.OK),
        (ReadCondition(if_match='"e"'), Verdict.OK),
        (ReadCondition(if_match="*"), Verdict.OK),
        (ReadCondition(if_match='"x", W/"e"'), Verdict.OK),
        (ReadCondition(if_match='"x"'), Verdict.PRECONDITION_FAILED),
        (ReadCondition(if_none_match='"e"'), Verdict.NOT_MODIFIED),
        (ReadCondition(if_none_match='"x"'), Verdict.OK),
        (ReadCondition(if_modified_since_ns=100 * SECOND), Verdict.NOT_MODIFIED),
        (ReadCondition(if_modified_since_ns=99 * SECOND), Verdict.OK),
        (ReadCondition(if_unmodified_since_ns=100 * SECOND), Verdict.OK),
        (ReadCondition(if_unmodified_since_ns=99 * SECOND), Verdict.PRECONDITION_FAILED),
        (ReadCondition(if_match='"e"', if_unmodified_since_ns=0), Verdict.OK),
        (ReadCondition(if_none_match='"x"', if_modified_since_ns=200 * SECOND), Verdict.OK),
        (ReadCondition(if_match='"x"', if_none_match='"e"'), Verdict.PRECONDITION_FAILED),
    ],
)
def test_read_conditions(condition: ReadCondition, expected: Verdict) -> None:
    assert evaluate_read(condition, "e", 100 * SECOND + 5) is expected


@pytest.mark.parametrize(
    ("condition", "etag", "allowed"),
    [
        (WriteCondition(if_none_match="*"), None, True),
        (WriteCondition(if_none_match="*"), "e", False),
        (WriteCondition(if_none_match='"x"'), "e", True),
        (WriteCondition(if_none_match="e"), "e", False),
        (WriteCondition(if_match='"e"'), "e", True),
        (WriteCondition(if_match='"x"'), "e", False),
        (WriteCondition(if_match="*"), None, False),
        (WriteCondition(), None, True),
    ],
)
def test_write_conditions(condition: WriteCondition, etag: str | None, allowed: bool) -> None:
    assert (evaluate_write(condition, etag) is Verdict.OK) == allowed


def test_tags() -> None:
    assert check_tags(parse_tagging("a=1&b=x%20y+z&c")) == {"a": "1", "b": "x y z", "c": ""}
    assert check_tags([("名前", "値")]) == {"名前": "値"}
    check_tags([("k" * 128, "v" * 256)] + [(f"k{n}", "") for n in range(9)])
    refused: list[list[tuple[str, str]]] = [
        [("", "v")],
        [("k" * 129, "v")],
        [("k", "v" * 257)],
        [("k", "1"), ("k", "2")],
        [("k<", "v")],
        [(f"k{n}", "") for n in range(11)],
    ]
    for pairs in refused:
        with pytest.raises(S3Error) as caught:
            check_tags(pairs)
        assert caught.value.code == "InvalidTag"
    with pytest.raises(S3Error) as caught:
        parse_tagging("a=%ff")
    assert caught.value.code == "InvalidArgument"


def test_entity_tags() -> None:
    digests = [hashlib.md5(part).digest() for part in (b"a", b"b")]
    assert multipart_md5(digests) == hashlib.md5(b"".join(digests)).digest()
    assert format_etag(bytes(16), 2) == "0" * 32 + "-2"
    assert unquote('"AB"') == unquote("ab") == unquote(" &quot;ab&quot; ") == "ab"


@given(st.lists(st.integers(0, 3), min_size=1, max_size=12), st.data())
def test_part_tables_find_every_byte(sizes: list[int], data: st.DataObject) -> None:
    numbers = sorted(
        data.draw(st.sets(st.integers(1, 30), min_size=len(sizes), max_size=len(sizes)))
    )
    runs = build_runs(zip(numbers, sizes, strict=True))
    whole = [
        (number, index)
        for number, size in zip(numbers, sizes, strict=True)
        for index in range(size)
    ]
    offset = data.draw(st.integers(0, len(whole)))
    length = data.draw(st.integers(0, len(whole) - offset))
    found = [
        (part.number, part.offset + index)
        for part in locate(runs, offset, length)
        for index in range(part.length)
    ]
    assert found == whole[offset : offset + length]
    for position, number in enumerate(numbers):
        assert part_span(runs, number) == (sum(sizes[:position]), sizes[position])
    assert part_span(runs, 31) is None


def test_equal_parts_are_one_run() -> None:
    parts = [(number, 8) for number in range(1, 100)] + [(100, 3)]
    assert build_runs(parts) == [Run(1, 99, 8), Run(100, 1, 3)]
