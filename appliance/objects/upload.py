"""Multipart uploads: begun, fed, listed, given up.

Owns the records of an unfinished upload and of its parts. A part belongs to an upload as long as
the upload's record is there: every part is committed with the expectation that it is, so a finished
or aborted upload gains no part. What finishing means is in ``completion``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from appliance.core.access import DEFAULT_ACL, AclRequest, Action, Item
from appliance.core.checksums import ChecksumAlgorithm, ChecksumKind, allowed_kind, default_kind
from appliance.core.conditions import UNCONDITIONAL, WriteCondition
from appliance.core.errors import Conflict, S3Error
from appliance.core.names import check_key
from appliance.core.ports import Owner
from appliance.core.ranges import parse_copy_range
from appliance.core.recordkeys import (
    UPLOAD_ID_BYTES,
    id_of_upload,
    key_of_record,
    part_key,
    parts_range,
    upload_key,
    upload_of_id,
    upload_root,
)
from appliance.engine.interface import Delete, Expect, ExpectEmpty, Presence, Put, Record
from appliance.objects.acl import new_object_access
from appliance.objects.attributes import charges, check_attributes
from appliance.objects.completion import Completion, complete_upload
from appliance.objects.context import BucketView, Context
from appliance.objects.copying import CopyBody, check_source
from appliance.objects.intake import Intake, check_size
from appliance.objects.model import (
    NO_ATTRIBUTES,
    Attributes,
    Body,
    Caller,
    CompletedPart,
    CopySource,
    ObjectInfo,
    Part,
    PartListing,
    Upload,
    UploadListing,
)
from appliance.objects.object import DEFAULT_CHECKSUM
from appliance.objects.reading import open_object, show_part
from appliance.objects.records import (
    PartRecord,
    StoredChecksum,
    UploadRecord,
    part_size_bytes,
)
from appliance.objects.replace import PARTS_SCAN, TRIES_MAX
from appliance.objects.walk import Walk

_TIME_BYTES: Final = 8


class Uploads:
    """Operations on multipart uploads."""

    def __init__(self, context: Context) -> None:
        self._context: Final = context

    async def create(
        self,
        caller: Caller | None,
        bucket: str,
        key: str,
        attributes: Attributes = NO_ATTRIBUTES,
        *,
        checksum: tuple[ChecksumAlgorithm, ChecksumKind | None] | None = None,
        acl: AclRequest = DEFAULT_ACL,
    ) -> Upload:
        """Begin an upload. Raises ``S3Error`` as ``Objects.put`` does, InvalidRequest for a
        checksum type its algorithm cannot have, AccessDenied for anonymous callers and accounts of
        other contracts: nobody could take such an upload up again."""
        context = self._context
        check_key(key, size_bytes_max=context.limits.key_bytes)
        attributes = check_attributes(attributes, context.limits)
        chosen = None if checksum is None else _checked(*checksum)
        view, _ = await context.bucket(caller, bucket, Action.PUT_OBJECT)
        if caller is None or not view.rules.is_insider(caller):
            raise S3Error("AccessDenied", "Anonymous users cannot initiate multipart uploads.")
        owner, access_list = await new_object_access(context, view.rules, caller, acl)
        now_ns = context.clock.now_ns()
        # The time leads, so that a key's uploads list in the order they began.
        upload = now_ns.to_bytes(_TIME_BYTES, "big") + context.entropy.token(
            UPLOAD_ID_BYTES - _TIME_BYTES
        )
        initiator = Owner(caller.user_id, caller.display_name)
        record = UploadRecord(now_ns, initiator, attributes, chosen, owner, access_list)
        for _ in range(TRIES_MAX):
            put = Put(upload_key(bucket, key, upload), record.encode())
            try:
                await context.commit(view.partition, [put], [view.unchanged()])
            except Conflict:
                context.forget(bucket)
                view, _records = await context.bucket(caller, bucket, Action.PUT_OBJECT)
            else:
                return _show(view, key, upload, record)
        raise S3Error("OperationAborted", "The bucket is being changed. Try again.")

    async def put_part(
        self,
        caller: Caller | None,
        bucket: str,
        key: str,
        upload_id: str,
        number: int,
        body: Body,
    ) -> Part:
        """Store or replace a part. Raises ``S3Error`` NoSuchUpload, InvalidArgument (number),
        InvalidRequest (another checksum algorithm), and as ``Objects.put`` does."""
        context = self._context
        if not 1 <= number <= context.limits.parts:
            raise S3Error(
                "InvalidArgument",
                f"Part number must be an integer between 1 and {context.limits.parts}, inclusive",
                fields={"ArgumentName": "partNumber", "ArgumentValue": str(number)},
            )
        view, upload, stored = await self._find(caller, bucket, key, upload_id, Action.PUT_OBJECT)
        check_size(body.size_bytes, context.limits.part_max_bytes)
        algorithms = _algorithms(UploadRecord.decode(stored.value), body.checksum_algorithm)
        record_key = part_key(bucket, upload, number)
        await context.admit(view, body.size_bytes or 0, record_key, part_size_bytes)
        contract_key = await context.contract_key(view.contract)
        intake = Intake(context, contract_key, algorithms, context.limits.part_max_bytes)
        taken = await intake.take(body)
        record = PartRecord(
            taken.size_bytes, context.clock.now_ns(), taken.md5, taken.write_id, taken.digests
        )
        put = Put(
            record_key,
            record.encode(),
            taken.blob,
            charges(bucket, size_bytes=taken.size_bytes),
        )
        try:
            await context.commit(
                view.partition,
                [put],
                [Expect(stored.key, Presence.PRESENT)],
                await context.quota(view),
            )
        except Conflict as error:
            context.forget(bucket)
            await context.bucket(caller, bucket, Action.PUT_OBJECT)
            raise _no_such_upload(upload_id) from error
        algorithm, digest = taken.digests[-1]
        declared = body.declared().checksum is not None
        whole = StoredChecksum(algorithm, ChecksumKind.FULL_OBJECT, digest, declared)
        return Part(number, taken.size_bytes, taken.md5.hex(), record.modified_ns, whole.show())

    async def copy_part(
        self,
        caller: Caller | None,
        source: CopySource,
        byte_range: str | None,
        bucket: str,
        key: str,
        upload_id: str,
        number: int,
    ) -> Part:
        """Store a range of an object as a part. ``byte_range`` is the header as sent.

        Raises ``S3Error`` InvalidArgument, InvalidRange, PreconditionFailed, and as ``put_part``.
        """
        await self._find(caller, bucket, key, upload_id, Action.PUT_OBJECT)
        opened = await open_object(
            self._context, caller, source.bucket, source.key, version_id=source.version_id
        )
        check_source(source, opened.info)
        taken = parse_copy_range(byte_range, opened.info.size_bytes)
        body = CopyBody(opened.read(taken.start, taken.length), taken.length)
        return await self.put_part(caller, bucket, key, upload_id, number, body)

    async def complete(
        self,
        caller: Caller | None,
        bucket: str,
        key: str,
        upload_id: str,
        parts: Sequence[CompletedPart],
        *,
        condition: WriteCondition = UNCONDITIONAL,
        checksum: tuple[ChecksumAlgorithm, str] | None = None,
        checksum_kind: ChecksumKind | None = None,
        size_bytes: int | None = None,
    ) -> ObjectInfo:
        """Make the named parts an object, in one commit. The same again is answered the same.

        Raises ``S3Error`` NoSuchUpload, MalformedXML (no parts), InvalidPartOrder, InvalidPart,
        EntityTooSmall, EntityTooLarge, BadDigest, InvalidRequest, and a write's conditions.
        """
        check_key(key, size_bytes_max=self._context.limits.key_bytes)
        upload = upload_of_id(upload_id)
        if upload is None:
            await self._context.bucket(caller, bucket, Action.PUT_OBJECT)
            raise _no_such_upload(upload_id)
        wanted = Completion(
            bucket, key, upload_id, upload, parts, condition, checksum, checksum_kind, size_bytes
        )
        return await complete_upload(self._context, caller, wanted)

    async def abort(self, caller: Caller | None, bucket: str, key: str, upload_id: str) -> None:
        """Give an upload up, with all its parts. Raises ``S3Error`` NoSuchUpload."""
        for _ in range(TRIES_MAX):
            view, upload, stored = await self._find(
                caller, bucket, key, upload_id, Action.ABORT_UPLOAD
            )
            start, end = parts_range(bucket, upload)
            found = await self._context.engine.scan(view.partition, start, end, PARTS_SCAN)
            operations = [Delete(stored.key), *(Delete(part.key) for part in found)]
            expectations: Sequence[Expect | ExpectEmpty] = (
                Expect(stored.key, Presence.PRESENT),
                ExpectEmpty(start, end),
            )
            try:
                await self._context.commit(view.partition, operations, expectations)
            except Conflict:
                continue
            return
        raise S3Error("OperationAborted", "The upload is being changed. Try again.")

    async def list_parts(
        self,
        caller: Caller | None,
        bucket: str,
        key: str,
        upload_id: str,
        *,
        after_number: int = 0,
        limit: int = 1000,
    ) -> PartListing:
        """The parts stored so far, behind a number. Raises ``S3Error`` NoSuchUpload."""
        context = self._context
        view, upload, stored = await self._find(caller, bucket, key, upload_id, Action.LIST_PARTS)
        record = UploadRecord.decode(stored.value)
        limit = min(limit, context.limits.list_parts)
        start, end = parts_range(bucket, upload, min(max(after_number, 0), 0xFFFE) + 1)
        found = await context.engine.scan(view.partition, start, end, limit + 1)
        checksum = None
        if record.checksum is not None:
            checksum = StoredChecksum(record.checksum[0], ChecksumKind.FULL_OBJECT, b"", True)
        parts = [show_part(part, checksum) for part in found[:limit]]
        truncated = limit > 0 and len(found) > limit
        shown = _show(view, key, upload, record)
        return PartListing(shown, parts, truncated, parts[-1].number if truncated else None)

    async def list(
        self,
        caller: Caller | None,
        bucket: str,
        *,
        prefix: str = "",
        delimiter: str = "",
        key_marker: str = "",
        upload_marker: str = "",
        limit: int = 1000,
    ) -> UploadListing:
        """Unfinished uploads by key and age, behind the markers. An upload marker counts only
        together with a key marker."""
        view, _ = await self._context.bucket(caller, bucket, Action.LIST_UPLOADS)
        self._context.must_have_all()
        root = upload_root(bucket)
        walk = Walk(self._context.engine, view.partition, root, prefix, delimiter)
        if key_marker:
            walk.resume_behind(key_marker, upload_of_id(upload_marker))
        limit = min(limit, self._context.limits.list_uploads)
        walked = await walk.page(limit, _any, first_of_key=False)
        uploads = [_show_stored(view, record, len(root)) for record in walked.records]
        if not walked.truncated:
            return UploadListing(uploads, walked.prefixes)
        if walked.last_prefix is not None:
            return UploadListing(uploads, walked.prefixes, True, walked.last_prefix)
        last = uploads[-1]
        return UploadListing(uploads, walked.prefixes, True, last.key, last.upload_id)

    async def _find(
        self, caller: Caller | None, bucket: str, key: str, upload_id: str, action: Action
    ) -> tuple[BucketView, bytes, Record]:
        """The upload's record. Only who may write learns that there is none.

        Raises ``S3Error`` NoSuchUpload, NoSuchBucket, AccessDenied.
        """
        check_key(key, size_bytes_max=self._context.limits.key_bytes)
        upload = upload_of_id(upload_id)
        keys = [] if upload is None else [upload_key(bucket, key, upload)]
        view, found = await self._context.look(bucket, keys)
        stored = found[0] if found else None
        if upload is None or stored is None:
            view.check(caller, Action.PUT_OBJECT)
            raise _no_such_upload(upload_id)
        view.check(caller, action, Item(UploadRecord.decode(stored.value).initiator))
        return view, upload, stored


def _any(_: Record) -> bool:
    return True


def _checked(
    algorithm: ChecksumAlgorithm, kind: ChecksumKind | None
) -> tuple[ChecksumAlgorithm, ChecksumKind]:
    chosen = kind or default_kind(algorithm)
    if not allowed_kind(algorithm, chosen):
        raise S3Error(
            "InvalidRequest",
            f"The {chosen.value} checksum type cannot be used with the"
            f" {algorithm.value.lower()} checksum algorithm.",
        )
    return algorithm, chosen


def _algorithms(
    upload: UploadRecord, declared: ChecksumAlgorithm | None
) -> Sequence[ChecksumAlgorithm]:
    """What to compute of a part: the upload's checksum first, and the one the client sends."""
    if upload.checksum is None:
        if declared in (None, DEFAULT_CHECKSUM):
            return (DEFAULT_CHECKSUM,)
        assert declared is not None, "narrowed above"
        return (DEFAULT_CHECKSUM, declared)
    algorithm = upload.checksum[0]
    if declared not in (None, algorithm):
        assert declared is not None, "narrowed above"
        raise S3Error(
            "InvalidRequest",
            f"Checksum Type mismatch occurred, expected checksum Type:"
            f" {algorithm.value.lower()}, actual checksum Type: {declared.value.lower()}",
        )
    return (algorithm,)


def _no_such_upload(upload_id: str) -> S3Error:
    return S3Error("NoSuchUpload", fields={"UploadId": upload_id})


def _show(view: BucketView, key: str, upload: bytes, record: UploadRecord) -> Upload:
    algorithm, kind = record.checksum or (None, None)
    return Upload(
        id_of_upload(upload),
        key,
        record.initiated_ns,
        view.rules.owner_of(record.owner),
        record.initiator,
        record.attributes,
        algorithm,
        kind,
    )


def _show_stored(view: BucketView, stored: Record, root_bytes: int) -> Upload:
    upload = stored.key[-UPLOAD_ID_BYTES:]
    key = key_of_record(stored.key, root_bytes)
    return _show(view, key, upload, UploadRecord.decode(stored.value))
