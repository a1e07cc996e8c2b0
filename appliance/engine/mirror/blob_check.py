"""The blob files of one drive, held against an index made from its log.

Owns finding what is missing, cut short, does not verify, or belongs to nobody. Repairs nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from appliance.core.errors import DriveFault
from appliance.core.ports import Progress, Volume
from appliance.engine.mirror.blob import (
    BLOB_DIRECTORY,
    blob_bytes,
    blob_id_of,
    blob_path,
    file_bytes,
    read_range,
    spans,
)
from appliance.engine.mirror.index_reader import Reads

PAGE: Final = 1000
READ_BYTES: Final = 1024 * 1024


@dataclass(slots=True)
class BlobFindings:
    """By blob id. ``bad`` says why a file that should be there is no good; ``missing`` and
    ``wrong_size`` count the two plain reasons among them."""

    owned: int = 0
    owned_bytes: int = 0
    missing: int = 0
    wrong_size: int = 0
    bad: dict[bytes, str] = field(default_factory=dict)
    orphans: int = 0
    orphan_bytes: int = 0


def look_at_blobs(volume: Volume, index: Reads) -> BlobFindings:
    """Names and sizes alone. Raises ``DriveFault``, ``Damaged`` (the index)."""
    found = BlobFindings()
    for blob_id, size_bytes in owned_blobs(index):
        found.owned += 1
        found.owned_bytes += size_bytes
        _look(volume, blob_id, size_bytes, found)
    _orphans(volume, index, found)
    return found


def verify_blobs(volume: Volume, index: Reads, progress: Progress) -> BlobFindings:
    """Every chunk of every owned file, past the page cache. Progress is in bytes of blobs. Raises
    ``Damaged`` (the index); a file that cannot be read is a finding."""
    found = BlobFindings()
    total = sum(size_bytes for _, size_bytes in owned_blobs(index))
    for blob_id, size_bytes in owned_blobs(index):
        found.owned += 1
        found.owned_bytes += size_bytes
        try:
            if _look(volume, blob_id, size_bytes, found):
                _verify(volume, blob_id, size_bytes, found)
        except DriveFault as fault:
            found.bad[blob_id] = str(fault)
        progress(found.owned_bytes, total)
    _orphans(volume, index, found)
    return found


def owned_blobs(index: Reads) -> Iterator[tuple[bytes, int]]:
    """(blob id, size in bytes) of every file blob that has an owner, by id."""
    after = b""
    while page := index.blob_ids(after, PAGE):
        yield from page
        after = page[-1][0]


def _look(volume: Volume, blob_id: bytes, size_bytes: int, found: BlobFindings) -> bool:
    """Whether there is a file of the right length."""
    stat = volume.stat(blob_path(blob_id))
    if stat is None:
        found.missing += 1
        found.bad[blob_id] = "its file is missing"
    elif stat.size_bytes != file_bytes(size_bytes):
        found.wrong_size += 1
        found.bad[blob_id] = (
            f"its file has {stat.size_bytes} bytes instead of {file_bytes(size_bytes)}"
        )
    else:
        return True
    return False


def _verify(volume: Volume, blob_id: bytes, size_bytes: int, found: BlobFindings) -> None:
    file = volume.open(blob_path(blob_id))
    try:
        for start, end in spans(0, size_bytes, READ_BYTES):
            if read_range(file, blob_id, size_bytes, start, end, past_cache=True) is None:
                found.bad[blob_id] = f"bytes {start} to {end} of {size_bytes} do not verify"
                return
    finally:
        file.close()


def _orphans(volume: Volume, index: Reads, found: BlobFindings) -> None:
    """Files that no living record owns."""
    if volume.stat(BLOB_DIRECTORY) is None:
        return
    for directory in volume.names(BLOB_DIRECTORY):
        path = f"{BLOB_DIRECTORY}/{directory}"
        stat = volume.stat(path)
        if stat is None or not stat.is_directory:
            continue
        for name in volume.names(path):
            blob_id = blob_id_of(name)
            if blob_id and index.owner(blob_id) is not None:
                continue
            stat = volume.stat(f"{path}/{name}")
            found.orphans += 1
            found.orphan_bytes += 0 if stat is None else blob_bytes(stat.size_bytes)
