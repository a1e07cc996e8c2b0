"""One hash over all a member holds, for comparing the copies of a mirror.

Owns what counts as a member's content: every batch of its log, and every blob file. What lies past
the log's end, behind a batch up to its block's end, or in free segments does not. Reads everything;
for tests, resync and the scrub.
"""

from __future__ import annotations

import hashlib
from typing import Final

from appliance.core.ports import Volume
from appliance.engine.mirror.blob import BLOB_DIRECTORY
from appliance.engine.mirror.format import BATCH_HEADER_BYTES
from appliance.engine.mirror.log import Damage
from appliance.engine.mirror.member import Member

COPY_BYTES: Final = 1024 * 1024


def digest(member: Member) -> str:
    """Hexadecimal. Raises ``DriveFault``. The log must not be written meanwhile."""
    found = hashlib.sha256()
    scan = member.log.scan()
    for batch in scan:
        if isinstance(batch, Damage):
            found.update(b"damage in segment %d" % batch.segment)
        else:
            found.update(batch.data[: BATCH_HEADER_BYTES + batch.header.payload_bytes])
    for state in scan.table.states():
        found.update(b"%d %d;" % (state.segment, state.generation))
    _add_blobs(found, member.volume)
    return found.hexdigest()


def _add_blobs(found: hashlib._Hash, volume: Volume) -> None:
    if volume.stat(BLOB_DIRECTORY) is None:
        return
    for directory in volume.names(BLOB_DIRECTORY):
        for name in volume.names(f"{BLOB_DIRECTORY}/{directory}"):
            path = f"{BLOB_DIRECTORY}/{directory}/{name}"
            file = volume.open(path)
            try:
                size = file.size_bytes()
                found.update(b"%s %d;" % (path.encode(), size))
                for offset in range(0, size, COPY_BYTES):
                    found.update(file.read_at(offset, COPY_BYTES, past_cache=True))
            finally:
                file.close()
