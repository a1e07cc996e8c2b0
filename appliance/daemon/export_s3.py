"""Another S3 endpoint as the place where exported objects go.

Owns how an object becomes one there: same key, content type, headers, metadata and tags; an object
that was uploaded in parts goes out in the same parts, so that its ETag is the same (one whose parts
are smaller than endpoints take goes out whole, under an ETag of its own). Buckets keep
their names and are made where they are missing; or everything goes below a prefix of one bucket
that is there. Invariant: the endpoint checks the MD5 of what it takes, and the ETag it answers must
be the object's own wherever it is an MD5.
"""

from __future__ import annotations

import base64
import re
from collections.abc import AsyncIterator, Mapping
from functools import partial
from typing import Any, Final
from urllib.parse import quote, urlencode
from xml.sax.saxutils import escape

from appliance.core.errors import Refused
from appliance.daemon.export_target import Told
from appliance.objects.content import OpenObject
from appliance.objects.export import StoredBucket, StoredObject, as_text
from appliance.objects.model import Attributes
from appliance.system.remote_s3 import RemoteS3

PART_BYTES_MIN: Final = 5 * 1024 * 1024
_MD5: Final = re.compile(r"[0-9a-f]{32}(-\d+)?")
_GONE: Final = frozenset({404})
_MADE: Final = frozenset({409})
_OURS: Final = "BucketAlreadyOwnedByYou"


class ExportS3:
    """One run's target."""

    def __init__(self, remote: RemoteS3, bucket: str, prefix: str) -> None:
        """``bucket``: put everything below ``prefix`` of it; empty: buckets of the same names."""
        self._remote: Final = remote
        self._bucket: Final = bucket
        self._prefix: Final = prefix

    async def bucket(self, bucket: StoredBucket) -> None:
        """See ``Target``."""
        path = f"/{self._bucket or bucket.name}"
        if (await self._remote.ask("HEAD", path, allowed=_GONE)).status == 404:
            if self._bucket:
                raise Refused(f"cannot export to {path}: there is no such bucket; make it first")
            made = await self._remote.ask("PUT", path, allowed=_MADE)
            if made.status == 409 and made.code != _OURS:
                # Endpoints may hide other people's buckets: nothing of ours belongs in there.
                raise Refused(
                    f"cannot export to {path}: a bucket of that name belongs to somebody else;"
                    " make one of your own and give https://HOST/BUCKET/PREFIX"
                )

    def where(self, found: StoredObject) -> str:
        """See ``Target``."""
        if self._bucket:
            return f"/{self._bucket}/{self._prefix}{found.bucket}/{found.key}"
        return f"/{found.bucket}/{found.key}"

    async def has(self, found: StoredObject, opened: OpenObject) -> bool:
        """By size and ETag."""
        answer = await self._remote.ask("HEAD", self.where(found), allowed=_GONE)
        if answer.status == 404:
            return False
        same_size = answer.headers.get("content-length") == str(opened.info.size_bytes)
        return same_size and _etag(answer.headers) == opened.info.etag

    async def store(self, found: StoredObject, opened: OpenObject, told: Told) -> None:
        """See ``Target``."""
        headers = _headers(opened.info.attributes)
        sizes = await opened.part_sizes()
        if sizes and min(sizes[:-1], default=PART_BYTES_MIN) >= PART_BYTES_MIN:
            etag = await self._in_parts(found, opened, headers, sizes, told)
        else:
            if not sizes:
                md5 = base64.b64encode(bytes.fromhex(opened.info.etag)).decode()
                headers["Content-MD5"] = md5
            answer = await self._remote.ask(
                "PUT",
                self.where(found),
                headers=headers,
                body=partial(_told, opened, 0, opened.info.size_bytes, told),
                size_bytes=opened.info.size_bytes,
            )
            etag = "" if sizes else _etag(answer.headers)
        if _MD5.fullmatch(etag) and etag != opened.info.etag:
            raise Refused(f"the endpoint stored it with ETag {etag}, not {opened.info.etag}")

    async def _in_parts(
        self,
        found: StoredObject,
        opened: OpenObject,
        headers: Mapping[str, str],
        sizes: list[int],
        told: Told,
    ) -> str:
        path, ask = self.where(found), self._remote.ask
        upload = (await ask("POST", path, {"uploads": ""}, headers=headers)).element("UploadId")
        try:
            offset, parts = 0, []
            for number, size_bytes in enumerate(sizes, 1):
                answer = await ask(
                    "PUT",
                    path,
                    {"partNumber": str(number), "uploadId": upload},
                    body=partial(_told, opened, offset, size_bytes, told),
                    size_bytes=size_bytes,
                )
                etag = escape(answer.headers.get("etag", ""))
                parts.append(f"<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag></Part>")
                offset += size_bytes
            document = f"<CompleteMultipartUpload>{''.join(parts)}</CompleteMultipartUpload>"
            answer = await ask("POST", path, {"uploadId": upload}, body=document.encode())
            if answer.element("Code"):
                raise Refused(f"the endpoint did not complete it: {answer.code}")
        except BaseException:
            await ask("DELETE", path, {"uploadId": upload}, allowed=_GONE)
            raise
        return answer.element("ETag").strip('"')

    def note(self, name: str, line: dict[str, Any]) -> None:
        """The objects carry what there is to tell; what is unreadable is in the report."""

    async def finish(self) -> None:
        """See ``Target``."""

    async def close(self) -> None:
        """See ``Target``."""


def _headers(attributes: Attributes) -> dict[str, str]:
    headers = dict(attributes.headers)
    if attributes.content_type is not None:
        headers["content-type"] = attributes.content_type
    headers |= {f"x-amz-meta-{name}": value for name, value in attributes.metadata.items()}
    headers = {name: as_text(value) for name, value in headers.items()}
    if attributes.tags:
        headers["x-amz-tagging"] = urlencode(dict(attributes.tags), quote_via=quote)
    return headers


def _etag(headers: Mapping[str, str]) -> str:
    return headers.get("etag", "").strip('"')


async def _told(opened: OpenObject, offset: int, length: int, told: Told) -> AsyncIterator[bytes]:
    sent = 0
    async for piece in opened.read(offset, length):
        yield piece
        sent += len(piece)
        told(offset + sent)
