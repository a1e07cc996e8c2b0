"""What buckets and keys may be called.

Owns the rules of names. Refuses with ``S3Error`` (InvalidBucketName, KeyTooLongError). A key is any
non-empty UTF-8 text within its length: it is never a path.

Reference: AWS S3 User Guide, "Bucket naming rules" and "Object key names". Dots are refused unless
allowed, because a wildcard certificate covers one label only.
"""

from __future__ import annotations

import re
from typing import Final

from appliance.core.errors import S3Error

BUCKET_NAME_MIN: Final = 3
BUCKET_NAME_MAX: Final = 63
_PLAIN: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?")
_DOTTED: Final = re.compile(
    r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)*"
)
_ADDRESS: Final = re.compile(r"\d{1,3}(?:\.\d{1,3}){3}")
_RESERVED_STARTS: Final = ("xn--", "sthree-", "amzn-s3-demo-")
_RESERVED_ENDS: Final = ("-s3alias", "--ol-s3", ".mrap", "--x-s3")


def bucket_name_problem(name: str, *, dots_allowed: bool = False) -> str | None:
    """Why ``name`` cannot be a bucket's, as a sentence; None when it can."""
    if not BUCKET_NAME_MIN <= len(name) <= BUCKET_NAME_MAX:
        return f"Bucket names have {BUCKET_NAME_MIN} to {BUCKET_NAME_MAX} characters."
    if "." in name and not dots_allowed:
        return "Bucket names here have no dots, because certificates cover one label only."
    if not (_DOTTED if dots_allowed else _PLAIN).fullmatch(name):
        return "Bucket names have lower-case letters, digits and hyphens, not at the ends."
    if _ADDRESS.fullmatch(name):
        return "Bucket names do not look like an IP address."
    if name.startswith(_RESERVED_STARTS) or name.endswith(_RESERVED_ENDS):
        return "The bucket name uses a reserved prefix or suffix."
    return None


def check_bucket_name(name: str, *, prefix: str = "", dots_allowed: bool = False) -> None:
    """Raises ``S3Error`` unless ``name`` is a legal name for a new bucket of this contract."""
    problem = bucket_name_problem(name, dots_allowed=dots_allowed)
    if problem is None and not name.startswith(prefix):
        problem = f"Bucket names of this contract start with {prefix!r}."
    if problem is not None:
        raise S3Error("InvalidBucketName", problem, fields={"BucketName": name})


def check_key(key: str, *, size_bytes_max: int) -> bytes:
    """The key's UTF-8 bytes. Raises ``S3Error`` when it is empty, too long or no text."""
    try:
        encoded = key.encode("utf-8")
    except UnicodeEncodeError as error:
        raise S3Error("InvalidURI", "The key is not valid UTF-8.") from error
    if not encoded:
        raise S3Error("InvalidArgument", "An object key has at least one character.")
    if len(encoded) > size_bytes_max:
        raise S3Error(
            "KeyTooLongError",
            "Your key is too long",
            fields={"Size": str(len(encoded)), "MaxSizeAllowed": str(size_bytes_max)},
        )
    return encoded
