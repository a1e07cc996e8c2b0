"""Which S3 operation a request is.

Owns the one table from (level, subresource, method) to operation. Refuses methods a resource does
not have (405), subresources that contradict each other, and known operations that do not exist here
(501, with the name). Unknown query parameters are ignored, as AWS does.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Final, NamedTuple

from appliance.core.errors import S3Error, Unavailable
from appliance.objects.context import MISSING_RETRY_S
from appliance.objects.store import ObjectStore
from appliance.s3 import (
    acl,
    attributes,
    bucket,
    bucket_access,
    bucket_settings,
    copy,
    delete_objects,
    listing,
    multipart,
    multipart_listing,
    object,
    service,
    tagging,
    unsupported,
)
from appliance.s3.operation import Context, Operation, Settings
from appliance.s3.request import Request


class Route(NamedTuple):
    """An operation and the name AWS gives it."""

    name: str
    run: Operation


Methods = Mapping[str, Route]
_setting = bucket_settings.get_bucket_setting
_clear = bucket_settings.delete_bucket_setting
_lock = unsupported.object_lock_of_object


def _fixed(name: str, subresource: str, *, deletable: bool = False) -> dict[str, Route]:
    """A setting every bucket has the same of; deletable where deleting it changes nothing."""
    get = partial(_setting, subresource=subresource)
    methods = {"GET": Route(f"GetBucket{name}", get)}
    if deletable:
        methods["DELETE"] = Route(f"DeleteBucket{name}", partial(_clear, subresource=subresource))
    return methods


_SERVICE: Final[Methods] = {"GET": Route("ListBuckets", service.list_buckets)}

_BUCKET: Final[Methods] = {
    "GET": Route("ListObjects", listing.list_objects),
    "HEAD": Route("HeadBucket", bucket.head_bucket),
    "PUT": Route("CreateBucket", bucket.create_bucket),
    "DELETE": Route("DeleteBucket", bucket.delete_bucket),
}
_LIST_V2: Final = Route("ListObjectsV2", listing.list_objects_v2)

_BUCKET_SUBRESOURCES: Final[Mapping[str, Methods]] = {
    "accelerate": _fixed("AccelerateConfiguration", "accelerate"),
    "acl": {
        "GET": Route("GetBucketAcl", acl.get_bucket_acl),
        "PUT": Route("PutBucketAcl", acl.put_bucket_acl),
    },
    "cors": _fixed("Cors", "cors", deletable=True),
    "delete": {"POST": Route("DeleteObjects", delete_objects.delete_objects)},
    "encryption": {
        **_fixed("Encryption", "encryption", deletable=True),
        "PUT": Route("PutBucketEncryption", bucket_settings.put_bucket_encryption),
    },
    "lifecycle": _fixed("LifecycleConfiguration", "lifecycle", deletable=True),
    "location": {"GET": Route("GetBucketLocation", bucket_settings.get_bucket_location)},
    "logging": _fixed("Logging", "logging"),
    "notification": _fixed("NotificationConfiguration", "notification"),
    "object-lock": {
        **_fixed("ObjectLockConfiguration", "object-lock"),
        "PUT": Route("PutObjectLockConfiguration", bucket_settings.put_object_lock_configuration),
    },
    "ownershipControls": {
        "GET": Route("GetBucketOwnershipControls", bucket_access.get_ownership_controls),
        "PUT": Route("PutBucketOwnershipControls", bucket_access.put_ownership_controls),
        "DELETE": Route("DeleteBucketOwnershipControls", bucket_access.delete_ownership_controls),
    },
    "policy": _fixed("Policy", "policy", deletable=True),
    "policyStatus": {"GET": Route("GetBucketPolicyStatus", bucket_access.get_policy_status)},
    "publicAccessBlock": {
        "GET": Route("GetPublicAccessBlock", bucket_access.get_public_access_block),
        "PUT": Route("PutPublicAccessBlock", bucket_access.put_public_access_block),
        "DELETE": Route("DeletePublicAccessBlock", bucket_access.delete_public_access_block),
    },
    "replication": _fixed("Replication", "replication", deletable=True),
    "requestPayment": _fixed("RequestPayment", "requestPayment"),
    "tagging": {
        "GET": Route("GetBucketTagging", tagging.get_bucket_tagging),
        "PUT": Route("PutBucketTagging", tagging.put_bucket_tagging),
        "DELETE": Route("DeleteBucketTagging", tagging.delete_bucket_tagging),
    },
    "uploads": {"GET": Route("ListMultipartUploads", multipart_listing.list_multipart_uploads)},
    "versioning": _fixed("Versioning", "versioning"),
    "versions": {"GET": Route("ListObjectVersions", listing.list_object_versions)},
    "website": _fixed("Website", "website", deletable=True),
    # Known to AWS, absent here for every method.
    "abac": {},
    "analytics": {},
    "intelligent-tiering": {},
    "inventory": {},
    "metadataConfiguration": {},
    "metadataTable": {},
    "metrics": {},
    "session": {},
}

_OBJECT: Final[Methods] = {
    "GET": Route("GetObject", object.get_object),
    "HEAD": Route("HeadObject", object.head_object),
    "PUT": Route("PutObject", object.put_object),
    "DELETE": Route("DeleteObject", object.delete_object),
}
_COPY: Final = Route("CopyObject", copy.copy_object)
_COPY_PART: Final = Route("UploadPartCopy", copy.upload_part_copy)

_OBJECT_SUBRESOURCES: Final[Mapping[str, Methods]] = {
    "acl": {
        "GET": Route("GetObjectAcl", acl.get_object_acl),
        "PUT": Route("PutObjectAcl", acl.put_object_acl),
    },
    "attributes": {"GET": Route("GetObjectAttributes", attributes.get_object_attributes)},
    "legal-hold": {
        "GET": Route("GetObjectLegalHold", _lock),
        "PUT": Route("PutObjectLegalHold", _lock),
    },
    "restore": {"POST": Route("RestoreObject", unsupported.restore_object)},
    "retention": {
        "GET": Route("GetObjectRetention", _lock),
        "PUT": Route("PutObjectRetention", _lock),
    },
    "tagging": {
        "GET": Route("GetObjectTagging", tagging.get_object_tagging),
        "PUT": Route("PutObjectTagging", tagging.put_object_tagging),
        "DELETE": Route("DeleteObjectTagging", tagging.delete_object_tagging),
    },
    "uploadId": {
        "GET": Route("ListParts", multipart_listing.list_parts),
        "PUT": Route("UploadPart", multipart.upload_part),
        "POST": Route("CompleteMultipartUpload", multipart.complete_multipart_upload),
        "DELETE": Route("AbortMultipartUpload", multipart.abort_multipart_upload),
    },
    "uploads": {"POST": Route("CreateMultipartUpload", multipart.create_multipart_upload)},
    "append": {},
    "encryption": {},
    "renameObject": {},
    "select": {},
    "torrent": {"GET": Route("GetObjectTorrent", unsupported.get_object_torrent)},
}
NOT_THERE: Final = frozenset({"NoSuchBucket", "NoSuchKey", "NoSuchUpload", "NoSuchVersion"})
_PREFLIGHT: Final = Route("PreflightRequest", unsupported.preflight)
_METHODS: Final = ("DELETE", "GET", "HEAD", "POST", "PUT")


class Router:
    """Runs the operation a request names. Holds no state of a request."""

    def __init__(self, store: ObjectStore, settings: Settings) -> None:
        self._context: Final = Context(store, settings)

    async def dispatch(self, request: Request) -> None:
        """Answer ``request``, or raise an ``ApplianceError`` for the gateway to render."""
        route = self.route(request)
        request.operation = route.name
        try:
            if "x-amz-expected-bucket-owner" in request.headers:
                await self._check_owner(request)
            await route.run(self._context, request)
        except S3Error as error:
            missing = self._context.store.missing
            if missing and error.code in NOT_THERE and not request.started:
                # It may be one of those. Whoever is told that it is gone may act on that.
                raise Unavailable(missing, MISSING_RETRY_S) from error
            raise

    @property
    def context(self) -> Context:
        """What operations are given; its ``running`` tells what a stop has to wait for."""
        return self._context

    def route(self, request: Request) -> Route:
        """Which operation it is. Raises ``MethodNotAllowed``, ``NotImplemented``,
        ``InvalidArgument``."""
        if request.method == "OPTIONS":
            return _PREFLIGHT
        if request.method not in _METHODS:
            raise unsupported.method_not_allowed(request.method, _METHODS)
        if request.bucket is None:
            return _plain(request, _SERVICE)
        if request.key is None:
            return _bucket_route(request)
        return _object_route(request)

    async def _check_owner(self, request: Request) -> None:
        if request.bucket is None or request.operation == "CreateBucket":
            return
        owner = await self._context.store.buckets.owner(request.bucket)
        if owner.user_id != request.headers["x-amz-expected-bucket-owner"]:
            raise S3Error("AccessDenied")


def _plain(request: Request, methods: Methods) -> Route:
    route = methods.get(request.method)
    if route is None:
        raise unsupported.method_not_allowed(request.method, tuple(sorted(methods)))
    return route


def _subresource(request: Request, known: Mapping[str, Methods]) -> str | None:
    if not request.query:
        return None
    found = [name for name in request.query if name in known]
    if len(found) > 1:
        message = f"Conflicting query string parameters: {', '.join(found)}"
        fields = {"ArgumentName": "ResourceType", "ArgumentValue": found[0]}
        raise S3Error("InvalidArgument", message, fields=fields)
    return found[0] if found else None


def _of_subresource(request: Request, name: str, methods: Methods) -> Route:
    route = methods.get(request.method)
    if route is None:
        request.operation = f"{request.method}:{name}"
        raise unsupported.not_implemented(f"{request.method} ?{name}")
    return route


def _bucket_route(request: Request) -> Route:
    name = _subresource(request, _BUCKET_SUBRESOURCES)
    if name is not None:
        return _of_subresource(request, name, _BUCKET_SUBRESOURCES[name])
    if request.method == "POST":
        raise unsupported.not_implemented("Uploading with an HTML form")
    if request.method == "GET" and "list-type" in request.query:
        if request.query["list-type"] == "2":
            return _LIST_V2
        message = "Invalid List Type specified in Request"
        fields = {"ArgumentName": "list-type", "ArgumentValue": request.query["list-type"]}
        raise S3Error("InvalidArgument", message, fields=fields)
    return _plain(request, _BUCKET)


def _object_route(request: Request) -> Route:
    name = _subresource(request, _OBJECT_SUBRESOURCES)
    if name is None:
        if request.method == "PUT" and "x-amz-copy-source" in request.headers:
            return _COPY
        if request.method == "PUT" and "partNumber" in request.query:
            message = "A partNumber needs an uploadId with it."
            raise S3Error("InvalidArgument", message)
        return _plain(request, _OBJECT)
    route = _of_subresource(request, name, _OBJECT_SUBRESOURCES[name])
    if route.name == "UploadPart" and "x-amz-copy-source" in request.headers:
        return _COPY_PART
    return route
