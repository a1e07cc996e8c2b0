"""Encryption headers: what a request may say about keys.

Owns their names and their checks. Refuses customer and KMS keys, which are not available yet, and
before that every request about them that is wrong in itself. Invariant: a request for protection
that would not be given is never accepted.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from typing import Final

from appliance.core.errors import S3Error
from appliance.s3.parameters import invalid_argument
from appliance.s3.request import Request

ENCRYPTION_HEADERS: Final = {"x-amz-server-side-encryption": "AES256"}
"""Every object is encrypted at rest with keys the appliance holds."""

ALGORITHM: Final = "AES256"
KEY_BYTES: Final = 32
_ENCRYPTION: Final = "server-side-encryption"
_CUSTOMER: Final = f"{_ENCRYPTION}-customer-"
_CUSTOMER_PREFIXES: Final = (f"x-amz-{_CUSTOMER}", f"x-amz-copy-source-{_CUSTOMER}")
_MUST: Final = "Requests specifying Server Side Encryption with Customer provided keys must"


def check_encryption(request: Request) -> None:
    """Accept what is so anyway (``AES256``).

    Raises ``S3Error`` InvalidArgument, InvalidRequest or InvalidEncryptionAlgorithmError for what
    makes no sense, NotImplemented for customer and KMS keys.
    """
    headers = request.headers.by_lower_name
    named = [name for name in headers if _ENCRYPTION in name]
    if not named:
        return
    algorithm = headers.get(f"x-amz-{_ENCRYPTION}")
    if any(_CUSTOMER in name for name in named):
        if algorithm is not None:
            message = "Server Side Encryption with Customer provided key is incompatible with"
            raise S3Error("InvalidArgument", f"{message} the encryption method specified")
        for prefix in _CUSTOMER_PREFIXES:
            if any(name.startswith(prefix) for name in named):
                _check_customer_key(request, prefix)
        raise S3Error("NotImplemented", "Encryption with customer keys is not available.")
    if algorithm in ("aws:kms", "aws:kms:dsse"):
        raise S3Error("NotImplemented", "Encryption with KMS keys is not available.")
    if algorithm != ALGORITHM or len(named) > 1:
        message = "The encryption method specified is not supported"
        raise invalid_argument(named[0], headers[named[0]], message)


def check_read_encryption(request: Request) -> None:
    """As ``check_encryption``, for reads: how an object was encrypted is not theirs to say."""
    name = f"x-amz-{_ENCRYPTION}"
    if name in request.headers:
        message = f"{name} header is not supported for this operation."
        raise invalid_argument(name, request.headers[name], message)
    check_encryption(request)


def _check_customer_key(request: Request, prefix: str) -> None:
    """Refuse a customer's key that is none: algorithm, key and its MD5 belong together."""
    headers = request.headers.by_lower_name
    if not request.secure:
        raise S3Error("InvalidRequest", f"{_MUST} be made over a secure connection.")
    algorithm, key = headers.get(f"{prefix}algorithm"), headers.get(f"{prefix}key")
    md5 = headers.get(f"{prefix}key-md5")
    if not algorithm:
        raise S3Error("InvalidArgument", f"{_MUST} provide a valid encryption algorithm.")
    if algorithm != ALGORITHM:
        raise S3Error("InvalidEncryptionAlgorithmError")
    raw = _decoded(key)
    if raw is None or len(raw) != KEY_BYTES:
        raise S3Error("InvalidArgument", f"{_MUST} provide an appropriate secret key.")
    if not md5:
        message = f"{_MUST} provide the client calculated MD5 of the secret key."
        raise S3Error("InvalidArgument", message)
    if _decoded(md5) != hashlib.md5(raw, usedforsecurity=False).digest():
        message = "The calculated MD5 hash of the key did not match the hash that was provided."
        raise S3Error("InvalidArgument", message)


def _decoded(text: str | None) -> bytes | None:
    try:
        return base64.b64decode(text or "", validate=True) or None
    except (binascii.Error, ValueError):
        return None
