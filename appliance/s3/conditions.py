"""Conditional headers of reads, writes and copies.

Owns their names. An unreadable date is no condition on a read, and refused on a delete. What they
decide is ``core.conditions``.
"""

from __future__ import annotations

from typing import Final

from appliance.core.conditions import ReadCondition, WriteCondition
from appliance.objects.model import NO_CONDITION
from appliance.s3.dates import parse_http_time
from appliance.s3.parameters import invalid_argument
from appliance.s3.request import Request

_READ_HEADERS: Final = frozenset(
    {"if-match", "if-none-match", "if-modified-since", "if-unmodified-since"}
)


def read_condition(request: Request, prefix: str = "") -> ReadCondition:
    """The condition of a read, or with ``prefix`` ``x-amz-copy-source-`` of a copy's source."""
    values = request.headers.by_lower_name
    if not prefix and _READ_HEADERS.isdisjoint(values):
        return NO_CONDITION
    get = values.get
    return ReadCondition(
        if_match=get(f"{prefix}if-match"),
        if_none_match=get(f"{prefix}if-none-match"),
        if_modified_since_ns=parse_http_time(get(f"{prefix}if-modified-since")),
        if_unmodified_since_ns=parse_http_time(get(f"{prefix}if-unmodified-since")),
    )


def write_condition(request: Request) -> WriteCondition:
    """The condition of a write; entity tags and ``*``."""
    get = request.headers.get
    return WriteCondition(if_match=get("if-match"), if_none_match=get("if-none-match"))


def delete_condition(request: Request) -> WriteCondition:
    """The condition of a delete: also by date and size. Raises ``InvalidArgument``."""
    get = request.headers.get
    modified = get("x-amz-if-match-last-modified-time")
    size = get("x-amz-if-match-size")
    modified_ns = parse_http_time(modified)
    if modified and modified_ns is None:
        raise invalid_argument("x-amz-if-match-last-modified-time", modified, "Not a date")
    if size and not (size.isascii() and size.isdigit()):
        raise invalid_argument("x-amz-if-match-size", size, "Not a size in bytes")
    return WriteCondition(
        if_match=get("if-match"),
        if_match_modified_ns=modified_ns,
        if_match_size_bytes=int(size[:19]) if size else None,
    )
