"""ListParts and ListMultipartUploads.

Owns the two pages. Refuses malformed parameters. Invariant: following the markers shows every part
and every upload that is there throughout exactly once.
"""

from __future__ import annotations

from collections.abc import Callable

from appliance.objects.model import Part, Upload
from appliance.s3.checksum_headers import checksum_elements
from appliance.s3.dates import iso_time
from appliance.s3.operation import Context, reply_document
from appliance.s3.parameters import KEYS_MAX, integer, key_encoding
from appliance.s3.request import Request
from appliance.s3.xml import document, element, escape, owner_element


async def list_parts(context: Context, request: Request) -> None:
    """ListParts."""
    encode, encoding = key_encoding(request)
    limit = integer(request, "max-parts", KEYS_MAX, KEYS_MAX)
    after = integer(request, "part-number-marker", 0)
    bucket, key = request.bucket or "", request.key or ""
    upload_id = request.query.get("uploadId", "")
    page = await context.store.uploads.list_parts(
        request.caller, bucket, key, upload_id, after_number=after, limit=limit
    )
    upload = page.upload
    pieces = [
        element("Bucket", bucket),
        encoding,
        f"<Key>{encode(key)}</Key>",
        element("UploadId", upload_id),
        owner_element("Initiator", upload.initiator.user_id, upload.initiator.display_name),
        owner_element("Owner", upload.owner.user_id, upload.owner.display_name),
        element("StorageClass", upload.attributes.storage_class),
        f"<PartNumberMarker>{after}</PartNumberMarker>",
    ]
    last = page.next_after if page.next_after is not None else 0
    if page.parts:
        last = page.parts[-1].number
    pieces.append(f"<NextPartNumberMarker>{last}</NextPartNumberMarker>")
    pieces.append(f"<MaxParts>{limit}</MaxParts>")
    pieces.append(f"<IsTruncated>{'true' if page.truncated else 'false'}</IsTruncated>")
    pieces.append(_checksum(upload))
    pieces.extend(_part(part) for part in page.parts)
    await reply_document(request, document("ListPartsResult", *pieces))


def _part(part: Part) -> str:
    return (
        f"<Part><PartNumber>{part.number}</PartNumber>"
        f"<LastModified>{iso_time(part.modified_ns)}</LastModified>"
        f"<ETag>&quot;{part.etag}&quot;</ETag><Size>{part.size_bytes}</Size>"
        f"{checksum_elements(part.checksum, with_kind=False)}</Part>"
    )


def _checksum(upload: Upload) -> str:
    if upload.checksum_algorithm is None or upload.checksum_kind is None:
        return ""
    return (
        f"<ChecksumAlgorithm>{upload.checksum_algorithm.value}</ChecksumAlgorithm>"
        f"<ChecksumType>{upload.checksum_kind.value}</ChecksumType>"
    )


async def list_multipart_uploads(context: Context, request: Request) -> None:
    """ListMultipartUploads; an upload marker without a key marker is ignored, as AWS does."""
    encode, encoding = key_encoding(request)
    limit = integer(request, "max-uploads", KEYS_MAX, KEYS_MAX)
    query = request.query
    prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
    key_marker = query.get("key-marker", "")
    upload_marker = query.get("upload-id-marker", "") if key_marker else ""
    bucket = request.bucket or ""
    page = await context.store.uploads.list(
        request.caller,
        bucket,
        prefix=prefix,
        delimiter=delimiter,
        key_marker=key_marker,
        upload_marker=upload_marker,
        limit=limit,
    )
    pieces = [
        element("Bucket", bucket),
        f"<KeyMarker>{encode(key_marker)}</KeyMarker>",
        element("UploadIdMarker", upload_marker),
    ]
    if page.truncated:
        pieces.append(f"<NextKeyMarker>{encode(page.next_key_marker or '')}</NextKeyMarker>")
        pieces.append(element("NextUploadIdMarker", page.next_upload_marker or ""))
    pieces.append(encoding)
    pieces.append(f"<Delimiter>{encode(delimiter)}</Delimiter>" if delimiter else "")
    pieces.append(f"<Prefix>{encode(prefix)}</Prefix><MaxUploads>{limit}</MaxUploads>")
    pieces.append(f"<IsTruncated>{'true' if page.truncated else 'false'}</IsTruncated>")
    pieces.extend(_upload(upload, encode) for upload in page.uploads)
    pieces.extend(
        f"<CommonPrefixes><Prefix>{encode(found)}</Prefix></CommonPrefixes>"
        for found in page.common_prefixes
    )
    await reply_document(request, document("ListMultipartUploadsResult", *pieces))


def _upload(upload: Upload, encode: Callable[[str], str]) -> str:
    return (
        f"<Upload><Key>{encode(upload.key)}</Key><UploadId>{escape(upload.upload_id)}</UploadId>"
        f"{owner_element('Initiator', upload.initiator.user_id, upload.initiator.display_name)}"
        f"{owner_element('Owner', upload.owner.user_id, upload.owner.display_name)}"
        f"<StorageClass>{escape(upload.attributes.storage_class)}</StorageClass>"
        f"<Initiated>{iso_time(upload.initiated_ns)}</Initiated>{_checksum(upload)}</Upload>"
    )
