"""Tags of objects: their rules and their header form.

Owns the checks; refuses with ``S3Error`` (InvalidTag, InvalidArgument).

Reference: AWS S3 User Guide, "Categorizing your storage using tags".
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping
from typing import Final
from urllib.parse import unquote_plus

from appliance.core.errors import S3Error

_MARKS: Final = frozenset("+-=._:/@ ")
_CATEGORIES: Final = ("L", "Z", "N", "M")


def _legal(text: str) -> bool:
    """Letters, spaces, numbers and ``+ - = . _ : / @``, in any script."""
    return all(
        character in _MARKS or unicodedata.category(character)[0] in _CATEGORIES
        for character in text
    )


def check_tags(
    pairs: Iterable[tuple[str, str]],
    *,
    count_max: int = 10,
    key_characters_max: int = 128,
    value_characters_max: int = 256,
) -> dict[str, str]:
    """The tags as a mapping in the order given. Raises ``S3Error`` InvalidTag."""
    tags: dict[str, str] = {}
    for key, value in pairs:
        if not key or len(key) > key_characters_max or not _legal(key):
            raise S3Error("InvalidTag", "The TagKey you have provided is invalid")
        if len(value) > value_characters_max or not _legal(value):
            raise S3Error("InvalidTag", "The TagValue you have provided is invalid")
        if key in tags:
            raise S3Error("InvalidTag", "Cannot provide multiple Tags with the same key")
        tags[key] = value
    if len(tags) > count_max:
        raise S3Error("InvalidTag", f"There cannot be more than {count_max} tags")
    return tags


def parse_tagging(header: str) -> list[tuple[str, str]]:
    """The pairs of an ``x-amz-tagging`` header (URL query form), unchecked.

    Raises ``S3Error`` InvalidArgument when an escape is no UTF-8.
    """
    pairs = []
    for item in header.split("&"):
        if not item:
            continue
        key, _, value = item.partition("=")
        try:
            pairs.append((unquote_plus(key, errors="strict"), unquote_plus(value, errors="strict")))
        except UnicodeDecodeError as error:
            raise S3Error(
                "InvalidArgument",
                "The header 'x-amz-tagging' shall be encoded as UTF-8 then URLEncoded URL query"
                " parameters without tag name duplicates.",
            ) from error
    return pairs


def same_tags(one: Mapping[str, str], other: Mapping[str, str]) -> bool:
    """Whether two sets say the same, whatever their order."""
    return dict(one) == dict(other)
