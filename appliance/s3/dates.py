"""Dates in S3 headers and documents.

Owns RFC 1123 out, and the three HTTP date forms (RFC 9110 section 5.6.7) plus ISO 8601 in. Refuses
nothing: a date nobody can read is None, and a condition on it is as if it was not sent.
"""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache
from time import gmtime, strftime
from typing import Final

_NS_PER_S: Final = 1_000_000_000
_DAYS: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS: Final = "JanFebMarAprMayJunJulAugSepOctNovDec"


@lru_cache(maxsize=4096)
def _iso_second(second: int) -> str:
    return strftime("%Y-%m-%dT%H:%M:%S.", gmtime(second))


def iso_time(time_ns: int) -> str:
    """ISO 8601 with milliseconds, UTC: dates inside documents."""
    milliseconds = time_ns // 1_000_000
    return f"{_iso_second(milliseconds // 1000)}{milliseconds % 1000:03d}Z"


@lru_cache(maxsize=4096)
def _http_second(second: int) -> str:
    # Not strftime: day and month names must not follow the locale.
    moment = gmtime(second)
    month = _MONTHS[moment.tm_mon * 3 - 3 : moment.tm_mon * 3]
    return (
        f"{_DAYS[moment.tm_wday]}, {moment.tm_mday:02d} {month} {moment.tm_year:04d} "
        f"{moment.tm_hour:02d}:{moment.tm_min:02d}:{moment.tm_sec:02d} GMT"
    )


def http_time(time_ns: int) -> str:
    """RFC 1123, whole seconds: dates in headers."""
    return _http_second(time_ns // _NS_PER_S)


def parse_http_time(text: str | None) -> int | None:
    """Nanoseconds since 1970 of a header's date, None for none or an unreadable one."""
    if not text:
        return None
    text = text.strip()
    try:
        moment = parsedate_to_datetime(text)
    except (TypeError, ValueError, IndexError, OverflowError):
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    try:
        return int(moment.timestamp()) * _NS_PER_S
    except (OverflowError, ValueError):
        return None
