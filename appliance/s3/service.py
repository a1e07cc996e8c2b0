"""Operations on the service itself: ListBuckets.

Owns the paging of an account's buckets. Refuses malformed paging. Invariant: without
``max-buckets`` every bucket of the account is in one answer, because older devices fill a menu
with it and know no paging.
"""

from __future__ import annotations

from typing import Final

from appliance.objects.model import Bucket, Caller
from appliance.s3.dates import iso_time
from appliance.s3.operation import Context, reply_document
from appliance.s3.parameters import invalid_argument, position_of, token_of
from appliance.s3.request import Request
from appliance.s3.xml import document, element, owner_element

PAGE_BUCKETS_MAX: Final = 10_000
_STEP: Final = 1000
_NOBODY: Final = Caller(
    user_id="65a011a29cdf8ec533ec3d1ccaae921c", display_name="anonymous", contract=""
)
"""Who asks without credentials, by the id AWS gives it: owner of no bucket."""


async def list_buckets(context: Context, request: Request) -> None:
    """ListBuckets, with ``prefix``, ``bucket-region``, ``max-buckets``, ``continuation-token``."""
    caller = request.caller or _NOBODY
    limit = _limit(request)
    prefix = request.query.get("prefix", "")
    region = request.query.get("bucket-region") or context.settings.region
    token = request.query.get("continuation-token")
    after = position_of(token) if token else ""
    found: list[Bucket] = []
    truncated = region == context.settings.region and caller is not _NOBODY
    while truncated and (limit is None or len(found) < limit):
        step = _STEP if limit is None else min(_STEP, limit - len(found))
        page = await context.store.buckets.list(caller, prefix=prefix, after=after, limit=step)
        found.extend(page.items)
        truncated = page.truncated
        after = page.next_after or ""
    pieces = [
        owner_element("Owner", caller.user_id, caller.display_name),
        "<Buckets>",
        *(_bucket(bucket, context.settings.region) for bucket in found),
        "</Buckets>",
    ]
    if truncated:
        pieces.append(element("ContinuationToken", token_of(after)))
    if prefix:
        pieces.append(element("Prefix", prefix))
    await reply_document(request, document("ListAllMyBucketsResult", *pieces))


def _limit(request: Request) -> int | None:
    text = request.query.get("max-buckets")
    if not text:
        return None
    if not (text.isascii() and text.isdigit()) or not 1 <= int(text[:9]) <= PAGE_BUCKETS_MAX:
        message = f"Argument max-buckets must be an integer between 1 and {PAGE_BUCKETS_MAX}"
        raise invalid_argument("max-buckets", text, message)
    return int(text)


def _bucket(bucket: Bucket, region: str) -> str:
    return (
        f"<Bucket>{element('Name', bucket.name)}"
        f"<CreationDate>{iso_time(bucket.created_ns)}</CreationDate>"
        f"{element('BucketRegion', bucket.region or region)}</Bucket>"
    )
