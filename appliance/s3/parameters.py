"""Query parameters of listings and of object versions.

Owns their reading: counts with their bounds, the encoding type, continuation tokens. Refuses what
AWS refuses, with ``InvalidArgument`` naming the parameter. Invariant: a token is opaque to clients
and resumes exactly behind what was listed.
"""

from __future__ import annotations

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable
from typing import Final

from appliance.core.errors import S3Error
from appliance.s3.request import Request
from appliance.s3.xml import escape, url_encoded

KEYS_MAX: Final = 1000
PART_NUMBER_MAX: Final = 10_000
_INTEGER_MAX: Final = 2**31 - 1
_INTEGER: Final = re.compile("-?[0-9]{1,19}")
_TOKEN_VERSION: Final = b"1"


def invalid_argument(name: str, value: str, message: str) -> S3Error:
    """``InvalidArgument`` with the argument's name and value."""
    return S3Error(
        "InvalidArgument", message, fields={"ArgumentName": name, "ArgumentValue": value}
    )


def integer(request: Request, name: str, default: int, maximum: int = _INTEGER_MAX) -> int:
    """A count from 0; larger than ``maximum`` is ``maximum``, absent or empty is ``default``."""
    text = request.query.get(name)
    if not text:
        return default
    if _INTEGER.fullmatch(text) is None:
        message = f"Provided {name} not an integer or within integer range"
        raise invalid_argument(name, text, message)
    number = int(text)
    if not 0 <= number <= _INTEGER_MAX:
        message = f"Argument {name} must be an integer between 0 and {_INTEGER_MAX}"
        raise invalid_argument(name, text, message)
    return min(number, maximum)


def key_encoding(request: Request) -> tuple[Callable[[str], str], str]:
    """How keys are written, and the ``EncodingType`` element."""
    kind = request.query.get("encoding-type")
    if not kind:
        return escape, ""
    if kind.lower() != "url":
        message = "Invalid Encoding Method specified in Request"
        raise invalid_argument("encoding-type", kind, message)
    return url_encoded, "<EncodingType>url</EncodingType>"


def token_of(position: str) -> str:
    """The continuation token that resumes behind ``position``."""
    return urlsafe_b64encode(_TOKEN_VERSION + position.encode()).decode().rstrip("=")


def position_of(token: str) -> str:
    """The position in a token; raises ``InvalidArgument`` for one we did not make."""
    try:
        raw = urlsafe_b64decode(token.encode("ascii") + b"=" * (-len(token) % 4))
        if raw[:1] != _TOKEN_VERSION or token_of(raw[1:].decode()) != token:
            raise ValueError(token)
        return raw[1:].decode()
    except ValueError as error:
        message = "The continuation token provided is incorrect"
        raise S3Error(
            "InvalidArgument", message, fields={"ArgumentName": "continuation-token"}
        ) from error


def version_of(request: Request) -> str | None:
    """The ``versionId`` asked for; raises ``InvalidArgument`` for an empty one."""
    version = request.query.get("versionId")
    if version == "":
        message = "Version id cannot be the empty string"
        raise invalid_argument("versionId", "", message)
    return version


def part_number(request: Request) -> int | None:
    """The ``partNumber`` asked for, None where it is absent. Raises ``InvalidArgument``."""
    text = request.query.get("partNumber")
    if text is None:
        return None
    if text.isascii() and text.isdigit() and 1 <= int(text[:9]) <= PART_NUMBER_MAX:
        return int(text)
    message = f"Part number must be an integer between 1 and {PART_NUMBER_MAX}, inclusive"
    raise invalid_argument("partNumber", text, message)


def required_part_number(request: Request) -> int:
    """The ``partNumber`` of an upload; raises ``InvalidArgument``."""
    number = part_number(request)
    if number is None:
        raise invalid_argument("partNumber", "", "An uploadId needs a partNumber with it.")
    return number
