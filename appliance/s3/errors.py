"""The S3 front's one table of refusals: code → HTTP status and default message.

Owns how a refusal looks on the wire and which S3 code an engine's error becomes. Refuses nothing
itself. Invariant: every error document is well-formed XML, whatever bytes a client sent, and names
the same request id as the ``x-amz-request-id`` header.

Reference: AWS S3 API Reference, "Error responses".
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from appliance.core.errors import (
    ApplianceError,
    Conflict,
    DataLost,
    LimitExceeded,
    MembershipChanged,
    NoSpace,
    NotFound,
    ReadOnly,
    S3Error,
    Unavailable,
    Unreachable,
)
from appliance.s3.xml import DECLARATION, element, printable

_TABLE: Final[dict[str, tuple[int, str]]] = {
    "AccessControlListNotSupported": (400, "The bucket does not allow ACLs."),
    "AccessDenied": (403, "Access Denied"),
    "AccessForbidden": (403, "CORSResponse: This CORS request is not allowed."),
    "AccountProblem": (403, "There is a problem with your account."),
    "AllAccessDisabled": (403, "All access to this resource has been disabled."),
    "AuthorizationHeaderMalformed": (400, "The authorization header is malformed."),
    "AuthorizationQueryParametersError": (400, "The authorization query parameters are wrong."),
    "BadDigest": (400, "The Content-MD5 or checksum value did not match what was received."),
    "BadRequest": (400, "Bad Request"),
    "BucketAlreadyExists": (409, "The requested bucket name is not available."),
    "BucketAlreadyOwnedByYou": (409, "You already own the requested bucket."),
    "BucketNotEmpty": (409, "The bucket you tried to delete is not empty."),
    "ConditionalRequestConflict": (409, "A conflicting operation occurred. Retry the request."),
    "ConnectionClosed": (400, "The connection was closed before the request was complete."),
    "CredentialsNotSupported": (400, "This request does not support credentials."),
    "EntityTooLarge": (400, "Your proposed upload exceeds the maximum allowed object size."),
    "EntityTooSmall": (400, "Your proposed upload is smaller than the minimum allowed size."),
    "ExpiredToken": (400, "The provided token has expired."),
    "IllegalLocationConstraintException": (
        400,
        "The specified location constraint is not this endpoint's region.",
    ),
    "IncompleteBody": (400, "The body is shorter than the number of bytes announced."),
    "InternalError": (500, "An internal error occurred. Try again."),
    "InvalidAccessKeyId": (403, "The access key ID you provided does not exist."),
    "InvalidArgument": (400, "Invalid Argument"),
    "InvalidBucketAclWithObjectOwnership": (
        400,
        "Bucket cannot have ACLs set with ObjectOwnership's BucketOwnerEnforced setting",
    ),
    "InvalidBucketName": (400, "The specified bucket is not valid."),
    "InvalidBucketState": (409, "The request is not valid for the current state of the bucket."),
    "InvalidDigest": (400, "The Content-MD5 or checksum value that you specified is not valid."),
    "InvalidEncryptionAlgorithmError": (400, "The encryption request is not valid. Use AES256."),
    "InvalidLocationConstraint": (400, "The specified location constraint is not valid."),
    "InvalidObjectState": (403, "The operation is not valid for the object's storage class."),
    "InvalidPart": (
        400,
        "One or more of the specified parts could not be found or has another entity tag.",
    ),
    "InvalidPartNumber": (416, "The requested partnumber is not satisfiable."),
    "InvalidPartOrder": (400, "The list of parts was not in ascending order."),
    "InvalidRange": (416, "The requested range is not satisfiable."),
    "InvalidRedirectLocation": (400, "The website redirect location is not valid."),
    "InvalidRequest": (400, "Invalid Request"),
    "InvalidSecurity": (403, "The provided security credentials are not valid."),
    "InvalidStorageClass": (400, "The storage class you specified is not valid."),
    "InvalidTag": (400, "The tag provided was not a valid tag."),
    "InvalidToken": (400, "The provided token is malformed or otherwise not valid."),
    "InvalidURI": (400, "Could not parse the specified URI."),
    "KeyTooLongError": (400, "Your key is too long."),
    "MalformedACLError": (400, "The ACL you provided was not well-formed."),
    "MalformedPOSTRequest": (400, "The body of your POST request is not well-formed."),
    "MalformedPolicy": (400, "The policy is not well-formed."),
    "MalformedXML": (
        400,
        "The XML you provided was not well-formed or did not validate against our published schema",
    ),
    "MalformedTrailerError": (400, "The request contained trailing data that was not well-formed."),
    "MaxMessageLengthExceeded": (400, "Your request was too big."),
    "MaxPostPreDataLengthExceededError": (400, "The fields before the file were too large."),
    "MetadataTooLarge": (400, "Your metadata headers exceed the maximum allowed metadata size."),
    "MethodNotAllowed": (405, "The specified method is not allowed against this resource."),
    "MissingAttachment": (400, "A SOAP attachment was expected, but none was found."),
    "MissingContentLength": (411, "You must provide the Content-Length HTTP header."),
    "MissingRequestBodyError": (400, "Request body is empty."),
    "MissingSecurityHeader": (400, "Your request was missing a required header."),
    "NoSuchAccelerateConfiguration": (404, "There is no accelerate configuration."),
    "NoSuchBucket": (404, "The specified bucket does not exist"),
    "NoSuchBucketPolicy": (404, "The bucket policy does not exist"),
    "NoSuchCORSConfiguration": (404, "The CORS configuration does not exist"),
    "NoSuchConfiguration": (404, "The specified configuration does not exist."),
    "NoSuchKey": (404, "The specified key does not exist."),
    "NoSuchLifecycleConfiguration": (404, "The lifecycle configuration does not exist"),
    "NoSuchObjectLockConfiguration": (
        404,
        "The specified object does not have an object lock configuration",
    ),
    "NoSuchPublicAccessBlockConfiguration": (
        404,
        "The public access block configuration was not found",
    ),
    "NoSuchTagSet": (404, "The TagSet does not exist"),
    "NoSuchUpload": (
        404,
        "The specified upload does not exist. The upload ID may be invalid, or the upload may"
        " have been aborted or completed.",
    ),
    "NoSuchVersion": (404, "The specified version does not exist."),
    "NoSuchWebsiteConfiguration": (404, "The bucket does not have a website configuration"),
    "NotImplemented": (501, "A header you provided implies functionality that is not implemented"),
    "ObjectLockConfigurationNotFoundError": (
        404,
        "Object Lock configuration does not exist for this bucket",
    ),
    "OperationAborted": (409, "A conflicting operation is in progress. Try again."),
    "OwnershipControlsNotFoundError": (404, "The bucket ownership controls were not found"),
    "PermanentRedirect": (301, "This bucket must be addressed using its own endpoint."),
    "PreconditionFailed": (412, "At least one of the pre-conditions you specified did not hold"),
    "QuotaExceeded": (403, "The request would exceed the capacity of your contract."),
    "ReplicationConfigurationNotFoundError": (404, "There is no replication configuration."),
    "RequestHeaderSectionTooLarge": (400, "Your request header section is too large."),
    "RequestTimeTooSkewed": (
        403,
        "The difference between the request time and the server's time is too large.",
    ),
    "RequestTimeout": (
        400,
        "Your socket connection to the server was not read from or written to in time.",
    ),
    "ServerSideEncryptionConfigurationNotFoundError": (
        404,
        "The server side encryption configuration was not found",
    ),
    "ServiceUnavailable": (503, "Service is unable to handle the request. Try again."),
    "SignatureDoesNotMatch": (
        403,
        "The request signature we calculated does not match the signature you provided."
        " Check your key and signing method.",
    ),
    "SlowDown": (503, "Please reduce your request rate."),
    "TooManyBuckets": (400, "You have attempted to create more buckets than allowed."),
    "TooManyParts": (400, "The upload has more parts than allowed."),
    "UnexpectedContent": (400, "This request does not support content."),
    "UnresolvableGrantByEmailAddress": (
        400,
        "The email address you provided does not match any account on record.",
    ),
    "UnsupportedSignature": (400, "The provided request is signed with an unsupported algorithm."),
    "XAmzContentChecksumMismatch": (
        400,
        "The provided checksum does not match what was computed.",
    ),
    "XAmzContentSHA256Mismatch": (
        400,
        "The provided 'x-amz-content-sha256' header does not match what was computed.",
    ),
}
TABLE: Final[Mapping[str, tuple[int, str]]] = MappingProxyType(_TABLE)
"""Code → (HTTP status, message used where the refusal gives none)."""

NO_SPACE_RETRY_S: Final = 60
"""A full mirror is freed by an operator or by deletes, not within a client's first retries."""


def status_of(code: str) -> int:
    """The HTTP status of an S3 code; 400 for one the table does not know."""
    entry = _TABLE.get(code)
    return entry[0] if entry else 400


def translated(error: ApplianceError) -> S3Error:
    """What a client is told of any error on purpose. Never tells more than the S3 code implies.

    Clients stop on 4xx and retry 5xx: an exceeded quota is 403, a full or absent mirror 503.
    """
    match error:
        case S3Error():
            return error
        case LimitExceeded():
            return S3Error("QuotaExceeded")
        case NoSpace():
            message = "The storage is full for now. Nothing was stored; try again later."
            return S3Error("ServiceUnavailable", message, headers=_retry_after(NO_SPACE_RETRY_S))
        case ReadOnly():
            message = "The storage takes no writes now. Nothing was stored; try again later."
            return S3Error("ServiceUnavailable", message, headers=_retry_after(error.retry_after_s))
        case Unavailable():
            return S3Error("ServiceUnavailable", headers=_retry_after(error.retry_after_s))
        case MembershipChanged() | Conflict():
            message = "The request met a change underway. Try again."
            return S3Error("SlowDown", message, headers=_retry_after(1))
        case Unreachable():
            return S3Error("ServiceUnavailable", headers=_retry_after(1))
        case NotFound():
            return S3Error("AllAccessDisabled")
        case DataLost():
            message = "The stored data cannot be read; a retry will not help. It has been reported."
            return S3Error("InternalError", message)
        case _:
            return S3Error("InternalError")


def _retry_after(seconds: int) -> dict[str, str]:
    return {"Retry-After": str(max(1, seconds))}


def message_of(error: S3Error) -> str:
    """The refusal's own message, the table's where it has none."""
    if error.message:
        return error.message
    entry = _TABLE.get(error.code)
    return entry[1] if entry else error.code


def rendered(error: S3Error, *, resource: str, request_id: str, host_id: str) -> bytes:
    """The error document. ``resource`` is the path the client asked for."""
    pieces = [
        DECLARATION,
        "<Error>",
        element("Code", error.code),
        element("Message", printable(message_of(error))),
    ]
    for name, value in error.fields.items():
        pieces.append(element(name, printable(value)))
    if "Resource" not in error.fields:
        pieces.append(element("Resource", printable(resource)))
    pieces.append(element("RequestId", request_id))
    pieces.append(element("HostId", host_id))
    pieces.append("</Error>")
    return "".join(pieces).encode("utf-8", "replace")
