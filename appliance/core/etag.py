"""Entity tags: MD5 of the bytes, or MD5 of the parts' MD5s with their count.

Pure. Tags are handled unquoted; quotes belong to the wire.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable


def format_etag(md5: bytes, parts: int = 0) -> str:
    """The tag of an object with this digest, uploaded in so many parts (0: in one)."""
    return f"{md5.hex()}-{parts}" if parts else md5.hex()


def multipart_md5(digests: Iterable[bytes]) -> bytes:
    """The digest of the parts' digests, in order."""
    return hashlib.md5(b"".join(digests), usedforsecurity=False).digest()


def unquote(etag: str) -> str:
    """The tag as stored: clients send it with quotes, without, and as a character entity."""
    return etag.strip().replace("&quot;", "").strip('"').lower()
