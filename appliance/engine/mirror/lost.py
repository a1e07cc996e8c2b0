"""What exactly is lost when a part of the log is bad on every drive: records, by partition and key.

Owns the search for names: in the index, which knows whose living records lay there, and in the bad
bytes themselves, because what came after the index is nowhere else. Refuses nothing: a name is
reported as far as it can be read. Changes nothing.

Committer thread only.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Final, NamedTuple

from appliance.core.errors import Damaged, DriveFault
from appliance.core.recordkeys import masked_name
from appliance.engine.mirror.accepted import Loss
from appliance.engine.mirror.format import RECORD_HEADER_BYTES, Kind, peek_record
from appliance.engine.mirror.index import Index
from appliance.engine.mirror.member import Member

NAMES_MAX: Final = 1000
"""How many are told one by one."""
LOOK_BYTES_MAX: Final = 8 * 1024 * 1024
"""Of one lost part, several times what a batch may have."""
_PIECE_BYTES: Final = 1024 * 1024
_SOMETHING: Final = re.compile(rb"[^\0]")


class LostRecord(NamedTuple):
    """A record that was in the lost part. Of a ``deletion`` the older record may turn up again."""

    partition: str
    key: bytes
    deletion: bool = False
    version: int = 0

    def words(self) -> str:
        """For an operator, who may not see what customers call their objects."""
        name = masked_name(self.partition, self.key, self.version)
        return f"the deletion of {name}" if self.deletion else name


def name_losses(
    losses: Iterable[Loss], index: Index, members: Mapping[str, Member]
) -> list[LostRecord]:
    """Every record known to have been in the lost parts, sorted."""
    found: set[LostRecord] = set()
    for loss in sorted(set(losses)):
        found.update(_from_index(loss, index))
        for member in members.values():
            found.update(_from_bytes(loss, member))
    return sorted(found)


def _from_index(loss: Loss, index: Index) -> Iterator[LostRecord]:
    """Current records that lie there. A bad index only makes the list shorter."""
    try:
        for partition, record in index.in_segment(loss.segment, loss.generation):
            end = record.location.offset + record.location.length
            if not loss.length or loss.offset < end <= loss.offset + loss.length:
                yield LostRecord(partition, record.key, version=record.version)
    except (Damaged, DriveFault):
        return


def _from_bytes(loss: Loss, member: Member) -> Iterator[LostRecord]:
    """Records tell where they lie themselves, so that they are found behind any damage."""
    data = _read(loss, member)
    at = 0
    while at < len(data):
        peeked = peek_record(data, at, loss.offset + at)
        if peeked is None:
            # Behind what cannot be read records go on at any byte, but for the zeros of padding.
            written = _SOMETHING.search(data, at + 1)
            if written is None:
                return
            at = max(at + 1, written.start() - RECORD_HEADER_BYTES)
            continue
        if peeked.kind in {Kind.PUT, Kind.DELETE, Kind.MOVE}:
            name = peeked.partition.decode(errors="backslashreplace")
            yield LostRecord(name, peeked.key, peeked.kind is Kind.DELETE, peeked.version)
        at += peeked.length


def _read(loss: Loss, member: Member) -> bytes:
    """What the drive has of the part; what cannot be read is zeros."""
    wanted = min(loss.length or LOOK_BYTES_MAX, LOOK_BYTES_MAX)
    parts: list[bytes] = []
    for offset in range(loss.offset, loss.offset + wanted, _PIECE_BYTES):
        length = min(_PIECE_BYTES, loss.offset + wanted - offset)
        try:
            piece = member.log.read_raw(loss.segment, offset, length)
        except Damaged:
            break  # the segment is not there at all
        except DriveFault:
            parts.append(bytes(length))
            continue
        parts.append(piece)
        if len(piece) < length:
            break
    return b"".join(parts)
