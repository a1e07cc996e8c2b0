"""Rot: bytes on a medium that are not what was written there."""

from __future__ import annotations

import random

from appliance.engine.mirror.slots import SLOT_BYTES
from tests.crash.images import BLOCK_BYTES, SECTOR_BYTES, Content, Image
from tests.crash.world import IndexFiles

_KINDS = {"log": 6, "blob": 3, "superblock": 2, "losses": 1}


def spoil(image: Image, rng: random.Random) -> tuple[Image, str]:
    """The image with some bytes changed in one file, and that file's kind."""
    path, content = _choose(image, rng)
    if path == "superblock":
        # One slot: the other has the same vote, or the one before it.
        at = rng.randrange(2) * SLOT_BYTES + rng.randrange(200)
        return {**image, path: content.patched(at, _flipped(content, at, rng))}, "superblock"
    return {**image, path: spoil_content(content, rng)}, path.partition("/")[0]


def spoilt_part(image: Image, rng: random.Random) -> tuple[str, int, bytes]:
    """Where in the log or the blobs of a drive other bytes are to be put, and which."""
    inside = {p: c for p, c in image.items() if p.startswith(("log/", "blob/"))}
    path, content = _choose(inside, rng)
    return (path, *_part(content, rng))


def spoil_content(content: Content, rng: random.Random) -> Content:
    """A bit, a sector, a block, or a whole block from elsewhere, as a misdirected write leaves."""
    return content.patched(*_part(content, rng))


def spoil_index(files: IndexFiles, rng: random.Random) -> IndexFiles:
    """The index with one bit flipped somewhere in a file of it, or a page torn: half of it is from
    another place or zeros; or its write-ahead log ends early."""
    name = rng.choice(sorted(name for name, data in files.items() if data))
    data = bytearray(files[name])
    at = rng.randrange(len(data))
    fate = rng.randrange(4 if name.endswith("-wal") else 3)
    if fate < 2:
        data[at] ^= 1 << rng.randrange(8)
    elif fate == 2:
        page = at - at % BLOCK_BYTES
        start = page + rng.choice((0, BLOCK_BYTES // 2))
        source = rng.randrange(0, len(data), BLOCK_BYTES)
        torn = rng.choice(
            (bytes(BLOCK_BYTES // 2), bytes(data[source : source + BLOCK_BYTES // 2]))
        )
        length = min(len(torn), len(data) - start)
        data[start : start + length] = torn[:length]
    else:
        del data[at:]
    return {**files, name: bytes(data)}


def _choose(image: Image, rng: random.Random) -> tuple[str, Content]:
    files = [
        (path, content)
        for path, content in sorted(image.items())
        if content is not None and content.data and path.partition("/")[0] in _KINDS
    ]
    weights = [_KINDS[path.partition("/")[0]] for path, _ in files]
    return rng.choices(files, weights)[0]


def _part(content: Content, rng: random.Random) -> tuple[int, bytes]:
    data = content.data
    blocks = range(0, len(data), BLOCK_BYTES)
    written = [at for at in blocks if data[at : at + 64].strip(b"\0")] or [0]
    at = rng.choice(written)
    fate = rng.randrange(5)
    if fate < 2:
        at = min(at + rng.randrange(BLOCK_BYTES), len(data) - 1)
        return at, _flipped(content, at, rng)
    if fate == 2:
        return at, rng.randbytes(min(SECTOR_BYTES, len(data) - at))
    if fate == 3:
        return at, bytes(min(BLOCK_BYTES, len(data) - at))
    source = rng.choice(written)
    return at, data[source : source + min(BLOCK_BYTES, len(data) - at)]


def _flipped(content: Content, at: int, rng: random.Random) -> bytes:
    return bytes([content.data[at] ^ 1 << rng.randrange(8)])
