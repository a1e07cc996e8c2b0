"""Walking a bucket's records in key order, with everything under a common prefix taken as one.

Owns the loop all listings share: large scan steps, and a jump behind each common prefix instead of
reading what is under it. Works on escaped bytes throughout; text is made only of what is returned.

Invariant: records and prefixes come in ascending order, no key is missed that lived during the
whole walk, and ``truncated`` is true only if there is at least one more to come.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from appliance.core.errors import S3Error
from appliance.core.recordkeys import AFTER_KEY, END_OF_KEY, after_prefix, escape, unescape
from appliance.engine.interface import Engine, Partition, Record

STEP_MAX: Final = 1001
"""A full page, and the one behind it that says whether there is more: one scan."""
STEP_AFTER_JUMP: Final = 64
SAME_KEY_MAX: Final = 16


@dataclass(slots=True)
class Walked:
    """What a walk found. ``last_prefix`` is set when a common prefix came last."""

    records: list[Record] = field(default_factory=list)
    prefixes: list[str] = field(default_factory=list)
    truncated: bool = False
    last_prefix: str | None = None


def encoded(text: str, name: str) -> bytes:
    """A listing parameter as escaped bytes. Raises ``S3Error`` when it is no text."""
    try:
        return escape(text)
    except UnicodeEncodeError as error:
        raise S3Error(
            "InvalidArgument", f"{name} is not valid UTF-8", fields={"ArgumentName": name}
        ) from error


class Walk:
    """One walk below ``root``: keys that start with ``prefix``, rolled up at ``delimiter``."""

    def __init__(
        self, engine: Engine, partition: Partition, root: bytes, prefix: str, delimiter: str
    ) -> None:
        self._engine: Final = engine
        self._partition: Final = partition
        self._root: Final = root
        self._lower: Final = root + encoded(prefix, "prefix")
        self._delimiter: Final = encoded(delimiter, "delimiter")
        self._end: Final = after_prefix(self._lower)
        self._position = self._lower
        self._current_key: bytes | None = None

    def resume_behind(self, marker: str, order: bytes | None = None) -> None:
        """Start behind a key (all its records, or up to ``order``), or behind everything below it
        when it is itself a common prefix of this walk."""
        escaped = self._root + encoded(marker, "marker")
        common = self._common(escaped, len(escaped))
        if common is not None and len(common) == len(escaped):
            position = after_prefix(common)
        elif order is None:
            position = escaped + AFTER_KEY
        else:
            position = escaped + END_OF_KEY + order + b"\x00"
        self._position = max(self._lower, position)

    def _common(self, record_key: bytes, key_end: int) -> bytes | None:
        """The record key's part up to and with the first delimiter behind the prefix."""
        if not self._delimiter:
            return None
        cut = record_key.find(self._delimiter, len(self._lower), key_end)
        return None if cut < 0 else record_key[: cut + len(self._delimiter)]

    async def page(
        self, limit: int, visible: Callable[[Record], bool], *, first_of_key: bool
    ) -> Walked:
        """Up to ``limit`` records and prefixes. With ``first_of_key`` only a key's first record is
        asked about; the others never show."""
        walked = Walked()
        step = min(limit + 1, STEP_AFTER_JUMP * 4 if self._delimiter else STEP_MAX)
        while limit > 0 and self._position < self._end:
            records = await self._engine.scan(
                self._partition, self._position, self._end, step, blobs=False
            )
            jumped = self._take(records, walked, limit, visible, first_of_key)
            if walked.truncated or (len(records) < step and not jumped):
                break
            step = STEP_AFTER_JUMP if jumped else min(step * 4, STEP_MAX)
        return walked

    def _take(
        self,
        records: Sequence[Record],
        walked: Walked,
        limit: int,
        visible: Callable[[Record], bool],
        first_of_key: bool,
    ) -> bool:
        """Take in one scan's records; whether the position jumped beyond the last of them."""
        root_bytes, delimiter = len(self._root), self._delimiter
        left = limit - len(walked.records) - len(walked.prefixes)
        index, count, same = 0, len(records), 0
        while index < count:
            record = records[index]
            index += 1
            record_key = record.key
            key_end = record_key.find(END_OF_KEY, root_bytes)
            if first_of_key:
                key = record_key[:key_end]
                if key == self._current_key:
                    same += 1
                    if same > SAME_KEY_MAX:
                        self._position, same = key + AFTER_KEY, 0
                        index = bisect_left(records, self._position, index, key=_key)
                        if index == count:
                            return True
                    continue
                self._current_key, same = key, 0
            if not visible(record):
                continue
            common = self._common(record_key, key_end) if delimiter else None
            if left == 0:
                walked.truncated = True
                return False
            left -= 1
            if common is None:
                walked.records.append(record)
                walked.last_prefix = None
                continue
            walked.last_prefix = unescape(common[root_bytes:])
            walked.prefixes.append(walked.last_prefix)
            self._position = after_prefix(common)
            index = bisect_left(records, self._position, index, key=_key)
            if index == count:
                return True
        if records:
            self._position = max(self._position, records[-1].key + b"\x00")
        return False


def _key(record: Record) -> bytes:
    return record.key
