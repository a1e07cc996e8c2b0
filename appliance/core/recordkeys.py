"""Record keys of the object layer: text into ordered bytes and back.

Owns the key space of a contract's partition and of the bucket name registry:

===============================================  =====================================
``b/<bucket>``                                    bucket
``f/<bucket>``                                    which claim of the name is spent (see ``objects``)
``o/<bucket>/<key>\\x00\\x01<order>``               one version of an object
``m/<bucket>/<key>``                              says that the key's null version is in parts
``u/<bucket>/<key>\\x00\\x01<upload>``              unfinished upload
``p/<bucket>/<upload><number>``                   part; stays where it is when the upload finishes
``bucket-name/<bucket>`` (system partition)       which contract has the name
===============================================  =====================================

A NUL in a key is written ``\\x00\\xff``, so that bytewise order of records is bytewise order of the
keys' UTF-8 and a key's versions lie together: ``a`` < ``a\\x00b`` < ``a/``. Orders sort newest
first; the null version of a bucket that never had versioning has the one order that sorts last.
Bucket names have no slash, so a bucket's range has no other bucket's record.
"""

from __future__ import annotations

import base64
from typing import Final

END_OF_KEY: Final = b"\x00\x01"
AFTER_KEY: Final = b"\x00\x02"
NULL_ORDER: Final = b"\xff"
ORDER_BYTES: Final = 8
UPLOAD_ID_BYTES: Final = 24
_ESCAPED_NUL: Final = b"\x00\xff"
_OF_OBJECTS: Final = {
    b"o": "an object",
    b"m": "a mark of an object",
    b"u": "an unfinished upload",
    b"p": "a part of an object",
}


def escape(text: str) -> bytes:
    """A key, or a part of one, as it stands in record keys."""
    encoded = text.encode("utf-8")
    return encoded.replace(b"\x00", _ESCAPED_NUL) if b"\x00" in encoded else encoded


def unescape(escaped: bytes) -> str:
    """The text of an escaped key."""
    if b"\x00" in escaped:
        escaped = escaped.replace(_ESCAPED_NUL, b"\x00")
    return escaped.decode("utf-8")


def after_prefix(prefix: bytes) -> bytes:
    """The first key that sorts behind every key starting with ``prefix``.

    Keys are escaped UTF-8, which has no 0xff but after a NUL, so there is always one.
    """
    stripped = prefix.rstrip(b"\xff")
    assert stripped, "a prefix has a byte that can be raised"
    return stripped[:-1] + bytes((stripped[-1] + 1,))


def bucket_key(bucket: str) -> bytes:
    """Where a bucket's record is."""
    return b"b/" + bucket.encode("ascii")


def fence_key(bucket: str) -> bytes:
    """Where it says which claim of a name is spent."""
    return b"f/" + bucket.encode("ascii")


def registry_key(bucket: str) -> bytes:
    """Where the registry says whose name this is."""
    return b"bucket-name/" + bucket.encode("ascii")


def order_of_version(version_id: str) -> bytes | None:
    """The order a version id stands for; None when it is no version id."""
    if version_id == "null":
        return NULL_ORDER
    try:
        order = bytes.fromhex(version_id)
    except ValueError:
        return None
    return order if len(order) == ORDER_BYTES else None


def upload_of_id(upload_id: str) -> bytes | None:
    """The raw upload a client's upload id stands for; None when it is none of ours."""
    try:
        upload = base64.urlsafe_b64decode(upload_id.encode("ascii"))
    except (ValueError, UnicodeEncodeError):
        return None
    return upload if upload and id_of_upload(upload) == upload_id else None


def id_of_upload(upload: bytes) -> str:
    """A raw upload as clients see it. Its length needs no padding."""
    return (
        base64.urlsafe_b64encode(upload).decode("ascii") if len(upload) == UPLOAD_ID_BYTES else ""
    )


def object_root(bucket: str) -> bytes:
    """What all object records of a bucket start with."""
    return b"o/" + bucket.encode("ascii") + b"/"


def object_key(bucket: str, key: str, order: bytes = NULL_ORDER) -> bytes:
    """Where a version is; by default the null version's slot."""
    return object_root(bucket) + escape(key) + END_OF_KEY + order


def versions_range(bucket: str, key: str) -> tuple[bytes, bytes]:
    """All versions of one key."""
    start = object_root(bucket) + escape(key)
    return start + END_OF_KEY, start + AFTER_KEY


def parts_mark_key(bucket: str, key: str) -> bytes:
    """Where it says that a key's null version is in parts."""
    return b"m/" + bucket.encode("ascii") + b"/" + escape(key)


def upload_root(bucket: str) -> bytes:
    """What all unfinished uploads of a bucket start with."""
    return b"u/" + bucket.encode("ascii") + b"/"


def upload_key(bucket: str, key: str, upload: bytes) -> bytes:
    """Where an unfinished upload is."""
    return upload_root(bucket) + escape(key) + END_OF_KEY + upload


def part_root(bucket: str) -> bytes:
    """What all parts of a bucket start with."""
    return b"p/" + bucket.encode("ascii") + b"/"


def part_key(bucket: str, upload: bytes, number: int) -> bytes:
    """Where a part is."""
    return part_root(bucket) + upload + number.to_bytes(2, "big")


def parts_range(bucket: str, upload: bytes, first: int = 0) -> tuple[bytes, bytes]:
    """All parts of an upload from number ``first`` on."""
    start = part_root(bucket) + upload
    return start + first.to_bytes(2, "big"), start + b"\xff\xff"


def key_of_record(record_key: bytes, root_bytes: int) -> str:
    """The client's key in a record key, behind a root of so many bytes."""
    return unescape(record_key[root_bytes : record_key.find(END_OF_KEY, root_bytes)])


def part_number(record_key: bytes) -> int:
    """The number in a part's record key."""
    return int.from_bytes(record_key[-2:], "big")


def masked_name(partition: str, record_key: bytes, version: int = 0) -> str:
    """What a record is, for people who may not see what customers call their objects: its bucket,
    its contract, and the record's number, which says nothing and by which an export names it.
    ``version`` 0: not known."""
    kind, _, rest = record_key.partition(b"/")
    bucket, slash, tail = rest.partition(b"/")
    what = "a record"
    if kind in {b"b", b"f"} and bucket and not slash:
        what = f"bucket {_bucket(bucket)}"
    elif kind in _OF_OBJECTS and slash:
        what = f"{_OF_OBJECTS[kind]} in bucket {_bucket(bucket)}"
        if kind == b"p" and len(tail) > UPLOAD_ID_BYTES:
            what = f"part {part_number(record_key)} of an object in bucket {_bucket(bucket)}"
    where = f"contract {partition}"
    return f"{what} ({where}, record {version:x})" if version else f"{what} ({where})"


def _bucket(name: bytes) -> str:
    return name.decode("ascii", "backslashreplace")
