"""From a request's raw target and host to bucket, key and query.

Owns how addresses are read: path style and virtual-host style by the configured domains. Refuses
targets that are not origin-form (or absolute-form naming the same host), percent-encodings that
are none, and names that are not UTF-8: ``InvalidURI``. Invariant: a key is the decoded rest of the
path and nothing else; ``//``, ``.``, ``..``, ``+``, ``%2F`` and slashes at either end stay.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final
from urllib.parse import unquote_to_bytes

from appliance.core.errors import S3Error
from appliance.s3.request import NO_QUERY, Query

_HOSTS_REMEMBERED: Final = 4096
_QUERY_PARAMETERS_MAX: Final = 256


class Domains:
    """The names this front serves; ``bucket.domain`` is virtual-host style."""

    __slots__ = ("_buckets", "_suffixes", "names")

    def __init__(self, names: Sequence[str] = ()) -> None:
        self.names: Final = tuple(name.lower().strip(".") for name in names)
        # Longest first: with both served, a.s3.example belongs to s3.example, not to example.
        self._suffixes = sorted((f".{name}" for name in self.names), key=len, reverse=True)
        self._buckets: dict[str, tuple[str, str | None]] = {}

    def split(self, host: str) -> tuple[str, str | None]:
        """The host's name (lower case, no port) and the bucket in it, None for path style."""
        known = self._buckets.get(host)
        if known is None:
            known = self._split(host)
            if len(self._buckets) >= _HOSTS_REMEMBERED:
                self._buckets.clear()
            self._buckets[host] = known
        return known

    def _split(self, host: str) -> tuple[str, str | None]:
        name = host.lower()
        if name.startswith("["):
            return name.partition("]")[0] + "]", None
        name = name.partition(":")[0].rstrip(".")
        if name in self.names:
            return name, None
        for suffix in self._suffixes:
            if name.endswith(suffix):
                return name, name[: -len(suffix)]
        return name, None


def origin_form(raw_target: str, host: str) -> str:
    """The target as path and query, whatever form it was sent in (RFC 9112, section 3.2).

    Raises ``InvalidURI``: an absolute target must name the host of the ``Host`` header, because
    that one is signed.
    """
    if raw_target.startswith("/"):
        return raw_target
    scheme, separator, rest = raw_target.partition("://")
    if not separator or scheme.lower() not in {"http", "https"}:
        raise S3Error("InvalidURI")
    authority, slash, behind = rest.partition("/")
    if "?" in authority:
        authority, slash, behind = rest.partition("?")
    if authority.lower() != host.lower():
        raise S3Error("InvalidURI", "The request target names another host than the Host header.")
    return "/" + (f"?{behind}" if slash == "?" else behind)


def split_path(raw_path: str, virtual_bucket: str | None) -> tuple[str | None, str | None]:
    """Bucket and key of a raw path; key None for the bucket itself, both None for the service."""
    rest = raw_path[1:]
    if virtual_bucket is not None:
        return virtual_bucket, decoded(rest) if rest else None
    if not rest:
        return None, None
    bucket, _, key = rest.partition("/")
    return decoded(bucket), decoded(key) if key else None


def decoded(raw: str) -> str:
    """Percent-decoded UTF-8 of raw latin-1 characters. Raises ``InvalidURI``."""
    if "%" not in raw:
        if raw.isascii():
            return raw
        data = raw.encode("latin-1")
    else:
        data = unquote_to_bytes(raw.encode("latin-1"))
        if data.count(b"%") != raw.count("%25"):
            _refuse_stray_percent(raw)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise S3Error("InvalidURI") from error


def _refuse_stray_percent(raw: str) -> None:
    for piece in raw.split("%")[1:]:
        if len(piece) < 2 or not all(c in "0123456789abcdefABCDEF" for c in piece[:2]):
            raise S3Error("InvalidURI")


def parse_query(raw_query: str) -> Query:
    """The parameters in the order sent; ``+`` is a space, as for AWS. Raises ``InvalidURI``."""
    if not raw_query:
        return NO_QUERY
    parts = raw_query.split("&", _QUERY_PARAMETERS_MAX)
    if len(parts) > _QUERY_PARAMETERS_MAX:
        raise S3Error("InvalidURI", "The query has too many parameters.")
    pairs: list[tuple[str, str]] = []
    for part in parts:
        if part:
            name, _, value = part.partition("=")
            pairs.append((_query_decoded(name), _query_decoded(value)))
    return Query(pairs)


def _query_decoded(raw: str) -> str:
    return decoded(raw.replace("+", " ")) if "+" in raw else decoded(raw)
