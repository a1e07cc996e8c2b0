"""What people who may not see customers' names are told of a record."""

from __future__ import annotations

import pytest

from appliance.core.recordkeys import (
    bucket_key,
    fence_key,
    masked_name,
    object_key,
    part_key,
    parts_mark_key,
    registry_key,
    upload_key,
)

UPLOAD = b"/" * 24
SECRET = "merger with /acme\x00.xlsx"


@pytest.mark.parametrize(
    ("key", "words"),
    [
        (object_key("b-1", SECRET), "an object in bucket b-1 (contract c, record 70001)"),
        (
            upload_key("b-1", SECRET, UPLOAD),
            "an unfinished upload in bucket b-1 (contract c, record 70001)",
        ),
        (
            part_key("b-1", UPLOAD, 7),
            "part 7 of an object in bucket b-1 (contract c, record 70001)",
        ),
        (
            parts_mark_key("b-1", SECRET),
            "a mark of an object in bucket b-1 (contract c, record 70001)",
        ),
        (bucket_key("b-1"), "bucket b-1 (contract c, record 70001)"),
        (fence_key("b-1"), "bucket b-1 (contract c, record 70001)"),
        (registry_key("b-1"), "a record (contract c, record 70001)"),
    ],
)
def test_a_record_is_told_by_its_bucket_and_its_number(key: bytes, words: str) -> None:
    assert masked_name("c", key, 0x70001) == words


@pytest.mark.parametrize("cut", range(12))
def test_nothing_of_a_key_is_told_that_is_not_whole(cut: int) -> None:
    key = object_key("b-1", SECRET)
    for damaged in (key[:cut], key[cut:], b"x/" + key, SECRET.encode()[cut:]):
        assert "merger" not in masked_name("c", damaged)


def test_a_number_that_is_not_known_is_left_out() -> None:
    assert masked_name("c", object_key("b", SECRET)) == "an object in bucket b (contract c)"
