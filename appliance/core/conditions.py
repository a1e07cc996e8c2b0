"""Conditional requests: what If-Match and its kin say about a stored object.

Owns the order of precedence. Pure; the atomicity of conditional writes comes from the engine's
expectations, which are derived from the same decision.

Reference: RFC 9110 section 13.2.2; AWS S3 "Conditional reads" and "Conditional writes".
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final

SECOND_NS: Final = 1_000_000_000


class Verdict(enum.Enum):
    """What the conditions allow."""

    OK = "ok"
    NOT_MODIFIED = "not modified"
    PRECONDITION_FAILED = "precondition failed"


@dataclass(frozen=True, slots=True)
class ReadCondition:
    """The four headers of a conditional read or copy source; header values as sent."""

    if_match: str | None = None
    if_none_match: str | None = None
    if_modified_since_ns: int | None = None
    if_unmodified_since_ns: int | None = None


@dataclass(frozen=True, slots=True)
class WriteCondition:
    """The headers of a conditional write; header values as sent (``*`` or entity tags).

    ``if_match_modified_ns`` and ``if_match_size_bytes`` exist for deletes only.
    """

    if_match: str | None = None
    if_none_match: str | None = None
    if_match_modified_ns: int | None = None
    if_match_size_bytes: int | None = None


UNCONDITIONAL: Final = WriteCondition()


def matches(header: str, etag: str) -> bool:
    """Whether an If-Match style header names ``etag`` (unquoted) or is ``*``.

    Weak tags compare by their value and quotes are optional, because clients send both.
    """
    for item in header.split(","):
        tag = item.strip().removeprefix("W/").strip('"')
        if tag in ("*", etag):
            return True
    return False


def evaluate_read(condition: ReadCondition, etag: str, modified_ns: int) -> Verdict:
    """The verdict on an existing object. Times compare by whole seconds, as in HTTP dates."""
    modified_s = modified_ns // SECOND_NS
    since_ns, until_ns = condition.if_modified_since_ns, condition.if_unmodified_since_ns
    if condition.if_match is not None:
        refused = not matches(condition.if_match, etag)
    else:
        refused = until_ns is not None and modified_s > until_ns // SECOND_NS
    if refused:
        return Verdict.PRECONDITION_FAILED
    if condition.if_none_match is not None:
        unchanged = matches(condition.if_none_match, etag)
    else:
        unchanged = since_ns is not None and modified_s <= since_ns // SECOND_NS
    return Verdict.NOT_MODIFIED if unchanged else Verdict.OK


def evaluate_write(condition: WriteCondition, etag: str | None) -> Verdict:
    """The verdict on replacing what is there now: its ``etag``, or None when there is nothing.

    An absent object fails any If-Match and passes any If-None-Match.
    """
    if condition.if_match is not None and (etag is None or not matches(condition.if_match, etag)):
        return Verdict.PRECONDITION_FAILED
    unwanted = condition.if_none_match
    if unwanted is not None and etag is not None and matches(unwanted, etag):
        return Verdict.PRECONDITION_FAILED
    return Verdict.OK


def evaluate_delete(
    condition: WriteCondition, etag: str, modified_ns: int, size_bytes: int
) -> Verdict:
    """The verdict on deleting an existing object."""
    if condition.if_match is not None and not matches(condition.if_match, etag):
        return Verdict.PRECONDITION_FAILED
    wanted_ns = condition.if_match_modified_ns
    if wanted_ns is not None and wanted_ns // SECOND_NS != modified_ns // SECOND_NS:
        return Verdict.PRECONDITION_FAILED
    if condition.if_match_size_bytes not in (None, size_bytes):
        return Verdict.PRECONDITION_FAILED
    return Verdict.OK
