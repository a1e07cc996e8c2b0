"""Finishing a multipart upload: its parts become an object in one commit.

The parts' records stay where they are, below the upload; the object's record says so, the upload's
record goes, parts nobody named go, and the parts mark is left (see ``replace``). The commit expects
each used part as it was judged and no part besides, so a part that arrives meanwhile makes it look
again instead of being lost or slipping in.

Refuses what does not fit together: order, tags, sizes, checksums. The same completion sent again
finds its own object and is answered as the first was.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from appliance.core.access import Action
from appliance.core.checksums import ChecksumAlgorithm, ChecksumKind, combined, composite, encode
from appliance.core.conditions import UNCONDITIONAL, WriteCondition
from appliance.core.errors import Conflict, S3Error
from appliance.core.etag import format_etag, multipart_md5, unquote
from appliance.core.partlayout import RUNS_MAX, build_runs
from appliance.core.recordkeys import (
    object_key,
    part_key,
    part_number,
    parts_range,
    upload_key,
)
from appliance.engine.interface import Delete, Expect, ExpectEmpty, Operation, Put, Record
from appliance.objects.attributes import charges
from appliance.objects.context import BucketView, Context
from appliance.objects.intake import check_size
from appliance.objects.limits import ObjectLimits
from appliance.objects.model import Caller, Checksum, CompletedPart, ObjectInfo
from appliance.objects.object import DEFAULT_CHECKSUM
from appliance.objects.reading import show
from appliance.objects.records import (
    Kind,
    ObjectRecord,
    PartRecord,
    StoredChecksum,
    UploadRecord,
)
from appliance.objects.replace import PARTS_SCAN, TRIES_MAX, Change, check_condition, replace


@dataclass(frozen=True, slots=True)
class Completion:
    """What a client asks for."""

    bucket: str
    key: str
    upload_id: str
    upload: bytes
    parts: Sequence[CompletedPart]
    condition: WriteCondition
    checksum: tuple[ChecksumAlgorithm, str] | None
    checksum_kind: ChecksumKind | None
    size_bytes: int | None


@dataclass(frozen=True, slots=True)
class _Used:
    """A part that becomes the object's."""

    number: int
    stored: Record
    record: PartRecord


async def complete_upload(
    context: Context, caller: Caller | None, wanted: Completion
) -> ObjectInfo:
    """See ``Uploads.complete``."""
    _check_order(wanted.parts, context.limits)
    keys = (
        upload_key(wanted.bucket, wanted.key, wanted.upload),
        object_key(wanted.bucket, wanted.key),
    )
    for _ in range(TRIES_MAX):
        view, [upload, slot] = await context.bucket(caller, wanted.bucket, Action.PUT_OBJECT, keys)
        if upload is None:
            return _repeated(view, wanted, slot)
        if wanted.condition != UNCONDITIONAL:
            check_condition(wanted.condition, wanted.key, slot)
        start, end = parts_range(wanted.bucket, wanted.upload)
        found = await context.engine.scan(view.partition, start, end, PARTS_SCAN)
        used = _choose(wanted, found, context.limits)
        record = _object_record(
            wanted, UploadRecord.decode(upload.value), used, context.clock.now_ns()
        )
        change = _change(wanted, upload, found, used, record)
        try:
            await replace(
                context, caller, Action.PUT_OBJECT, view, wanted.key, change, wanted.condition
            )
        except Conflict:
            continue
        return show(view, wanted.key, record)
    raise S3Error("OperationAborted", "The upload is being changed. Try again.")


def _check_order(parts: Sequence[CompletedPart], limits: ObjectLimits) -> None:
    if not parts or len(parts) > limits.parts:
        raise S3Error("MalformedXML")
    for before, after in pairwise(parts):
        if after.number <= before.number:
            raise S3Error("InvalidPartOrder")


def _repeated(view: BucketView, wanted: Completion, slot: Record | None) -> ObjectInfo:
    """The answer when the upload is gone: its object's, if these parts made it."""
    if slot is not None:
        record = ObjectRecord.decode(slot.value)
        if record.kind is Kind.IN_PARTS and record.write_id == wanted.upload:
            etag = _requested_etag(wanted.parts)
            if etag == record.etag:
                return show(view, wanted.key, record)
    raise S3Error("NoSuchUpload", fields={"UploadId": wanted.upload_id})


def _requested_etag(parts: Sequence[CompletedPart]) -> str | None:
    try:
        digests = [bytes.fromhex(unquote(part.etag)) for part in parts]
    except ValueError:
        return None
    return format_etag(multipart_md5(digests), len(parts))


def _choose(wanted: Completion, found: Sequence[Record], limits: ObjectLimits) -> Sequence[_Used]:
    """The parts named, each checked. Raises ``S3Error`` InvalidPart, EntityTooSmall, ..."""
    stored = {part_number(record.key): record for record in found}
    used = []
    for part in wanted.parts:
        record = stored.get(part.number)
        decoded = PartRecord.decode(record.value) if record is not None else None
        if record is None or decoded is None or not _is_same(part, decoded):
            raise S3Error(
                "InvalidPart",
                fields={
                    "UploadId": wanted.upload_id,
                    "PartNumber": str(part.number),
                    "ETag": unquote(part.etag),
                },
            )
        used.append(_Used(part.number, record, decoded))
    for part_used in used[:-1]:
        if part_used.record.size_bytes < limits.part_min_bytes:
            raise S3Error(
                "EntityTooSmall",
                fields={
                    "ProposedSize": str(part_used.record.size_bytes),
                    "MinSizeAllowed": str(limits.part_min_bytes),
                    "PartNumber": str(part_used.number),
                    "ETag": part_used.record.md5.hex(),
                },
            )
    total = sum(part_used.record.size_bytes for part_used in used)
    check_size(total, limits.object_max_bytes)
    if wanted.size_bytes not in (None, total):
        raise S3Error(
            "InvalidRequest",
            f"The provided 'x-amz-mp-object-size' header value {wanted.size_bytes} does not match"
            f" what was computed: {total}",
        )
    return used


def _is_same(part: CompletedPart, record: PartRecord) -> bool:
    if unquote(part.etag) != record.md5.hex():
        return False
    if part.checksum is None:
        return True
    algorithm, value = part.checksum
    digest = record.digest(algorithm)
    return digest is None or encode(digest) == value


def _object_record(
    wanted: Completion, upload: UploadRecord, used: Sequence[_Used], now_ns: int
) -> ObjectRecord:
    algorithm, kind = upload.checksum or (DEFAULT_CHECKSUM, ChecksumKind.FULL_OBJECT)
    digests = []
    for part in used:
        digest = part.record.digest(algorithm)
        assert digest is not None, "every part has its upload's checksum"
        digests.append((digest, part.record.size_bytes))
    if kind is ChecksumKind.COMPOSITE:
        whole = composite(algorithm, [digest for digest, _ in digests])
    else:
        whole = combined(algorithm, digests)
    checksum = StoredChecksum(algorithm, kind, whole, upload.checksum is not None)
    _check_declared(wanted, checksum.show(len(used)))
    runs = build_runs((part.number, part.record.size_bytes) for part in used)
    return ObjectRecord(
        kind=Kind.IN_PARTS,
        size_bytes=sum(part.record.size_bytes for part in used),
        modified_ns=now_ns,
        md5=multipart_md5(part.record.md5 for part in used),
        write_id=wanted.upload,
        parts=len(used),
        owner=upload.owner,
        checksum=checksum,
        attributes=upload.attributes,
        runs=runs if len(runs) <= RUNS_MAX else (),
        acl=upload.acl,
    )


def _check_declared(wanted: Completion, computed: Checksum) -> None:
    if wanted.checksum_kind not in (None, computed.kind):
        raise S3Error(
            "InvalidRequest",
            f"The upload was created with the {computed.kind.value} checksum type. The complete"
            " request must have the same.",
        )
    if wanted.checksum is None:
        return
    algorithm, value = wanted.checksum
    if algorithm is not computed.algorithm:
        raise S3Error(
            "InvalidRequest",
            f"The upload was created with a {computed.algorithm.value} checksum, the complete"
            f" request has a {algorithm.value} one.",
        )
    whole, count = computed.value.partition("-")[::2]
    if value != computed.value and (count == "" or value != whole):
        raise S3Error(
            "BadDigest",
            f"The {algorithm.value} you specified did not match the calculated checksum.",
        )


def _change(
    wanted: Completion,
    upload: Record,
    found: Sequence[Record],
    used: Sequence[_Used],
    record: ObjectRecord,
) -> Change:
    kept = {part.stored.key for part in used}
    others: list[Operation] = [Delete(upload.key)]
    others += [Delete(stored.key) for stored in found if stored.key not in kept]
    expectations: list[Expect | ExpectEmpty] = [Expect(upload.key, upload.version)]
    expectations += [Expect(part.stored.key, part.stored.version) for part in used]
    # Gaps between the used numbers hold nothing but what this commit deletes.
    position, end = parts_range(wanted.bucket, wanted.upload)
    for part in used:
        if position < part.stored.key:
            expectations.append(ExpectEmpty(position, part.stored.key))
        position = part_key(wanted.bucket, wanted.upload, part.number + 1)
    expectations.append(ExpectEmpty(position, end))
    # The parts carry their own bytes; the object's record adds only itself.
    slot = Put(
        object_key(wanted.bucket, wanted.key),
        record.encode(),
        charges=charges(wanted.bucket, objects=1),
    )
    return Change(slot, others, expectations, mark=wanted.upload)
