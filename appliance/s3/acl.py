"""Access control lists on the wire: canned names, grant headers and documents, in and out.

Owns the reading of what a client asks for and the document of what is in force. Refuses what is no
list, unknown groups, and grantees by e-mail address: accounts here have none that S3 could know.
What is granted to whom, and whether it may be, is the object layer's.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from appliance.core.access import (
    DEFAULT_ACL,
    Acl,
    AclRequest,
    CannedAcl,
    Grant,
    Grantee,
    Group,
    Permission,
)
from appliance.core.errors import S3Error
from appliance.core.ports import Owner
from appliance.s3.metadata import version_header
from appliance.s3.operation import Context, reply_document, xml_headers
from appliance.s3.parameters import invalid_argument, version_of
from appliance.s3.request import Request
from appliance.s3.xml import INSTANCE_NAMESPACE, Document, document, element, owner_element, parse

_CANNED: Final = {canned.value: canned for canned in CannedAcl}
_FOR_SERVICES: Final = frozenset({"aws-exec-read", "log-delivery-write"})
_GRANT_HEADERS: Final = {
    "x-amz-grant-read": Permission.READ,
    "x-amz-grant-write": Permission.WRITE,
    "x-amz-grant-read-acp": Permission.READ_ACP,
    "x-amz-grant-write-acp": Permission.WRITE_ACP,
    "x-amz-grant-full-control": Permission.FULL_CONTROL,
}
_GRANTEE: Final = re.compile(
    r'\s*(id|uri|emailAddress)\s*=\s*(?:"([^"]*)"|([^",\s]*))\s*(?:,|\Z)', re.IGNORECASE
)
_DOCUMENT_BYTES_MAX: Final = 64 * 1024


def acl_of_headers(request: Request) -> AclRequest:
    """What ``x-amz-acl`` or ``x-amz-grant-*`` ask for, the default list without them.

    Raises ``S3Error`` InvalidArgument, InvalidRequest for both, NotImplemented for lists that grant
    to services of AWS.
    """
    headers = request.headers.by_lower_name
    canned = headers.get("x-amz-acl")
    named = [name for name in _GRANT_HEADERS if name in headers]
    if canned and named:
        message = "Specifying both Canned ACLs and Header Grants is not allowed"
        raise S3Error("InvalidRequest", message)
    if named:
        grants = [
            Grant(grantee, _GRANT_HEADERS[name])
            for name in named
            for grantee in _grantees(name, headers[name])
        ]
        return AclRequest(grants=tuple(grants))
    if not canned:
        return DEFAULT_ACL
    if canned in _FOR_SERVICES:
        raise S3Error("NotImplemented", f"There is no service to grant {canned} to.")
    if canned not in _CANNED:
        raise invalid_argument("x-amz-acl", canned, "The canned ACL is not valid.")
    return AclRequest(canned=_CANNED[canned])


def _grantees(name: str, header: str) -> Iterator[Grantee]:
    """The grantees of ``id="...", uri="..."``."""
    position = 0
    while position < len(header):
        found = _GRANTEE.match(header, position)
        if found is None:
            raise invalid_argument(name, header, "Argument format not recognized")
        kind, value = found[1].lower(), found[2] if found[2] is not None else found[3]
        position = found.end()
        if kind == "id":
            yield Owner(value, "")
        elif kind == "uri":
            yield _group(value)
        else:
            raise _unresolvable()


def _group(uri: str) -> Group:
    try:
        return Group(uri)
    except ValueError as error:
        raise invalid_argument("uri", uri, "Invalid group uri") from error


def _unresolvable() -> S3Error:
    return S3Error("UnresolvableGrantByEmailAddress")


def acl_of_document(body: bytes) -> AclRequest:
    """The list an ``AccessControlPolicy`` asks for. Raises ``S3Error`` MalformedXML,
    MalformedACLError, InvalidArgument, UnresolvableGrantByEmailAddress."""
    policy = parse(body, "AccessControlPolicy")
    lists = policy.all("AccessControlList")
    owners = policy.all("Owner")
    if len(lists) != 1 or len(owners) > 1:
        raise S3Error("MalformedACLError")
    owner_id = owners[0].optional("ID") if owners else None
    grants = tuple(_grant(grant) for grant in lists[0].all("Grant"))
    return AclRequest(grants=grants, owner_id=owner_id or None)


def _grant(grant: Document) -> Grant:
    grantees = grant.all("Grantee")
    if len(grantees) != 1:
        raise S3Error("MalformedACLError")
    try:
        permission = Permission(grant.optional("Permission"))
    except ValueError as error:
        raise S3Error("MalformedACLError") from error
    texts = grantees[0].texts()
    if texts.get("ID"):
        return Grant(Owner(texts["ID"], ""), permission)
    if texts.get("URI"):
        return Grant(_group(texts["URI"]), permission)
    if texts.get("EmailAddress"):
        raise _unresolvable()
    raise S3Error("MalformedACLError")


def acl_document(owner: Owner, acl: Acl) -> bytes:
    """The list as a client sees it: groups first, as AWS lists those of canned lists."""
    grants = sorted(acl.grants, key=lambda grant: isinstance(grant.grantee, Owner))
    return document(
        "AccessControlPolicy",
        owner_element("Owner", owner.user_id, owner.display_name),
        "<AccessControlList>",
        *(
            f"<Grant>{_grantee(grant.grantee)}{element('Permission', grant.permission.value)}"
            "</Grant>"
            for grant in grants
        ),
        "</AccessControlList>",
    )


def _grantee(grantee: Grantee) -> str:
    if isinstance(grantee, Owner):
        kind = "CanonicalUser"
        inside = element("ID", grantee.user_id) + element("DisplayName", grantee.display_name)
    else:
        kind, inside = "Group", element("URI", grantee.value)
    return f'<Grantee xmlns:xsi="{INSTANCE_NAMESPACE}" xsi:type="{kind}">{inside}</Grantee>'


async def _asked(request: Request) -> AclRequest:
    """The list of a request whose purpose it is: by header or by document, never by neither."""
    body = await request.read_body(_DOCUMENT_BYTES_MAX)
    asked = acl_of_headers(request)
    if asked is not DEFAULT_ACL:
        return asked
    if not body:
        raise S3Error("MissingSecurityHeader")
    return acl_of_document(body)


async def get_bucket_acl(context: Context, request: Request) -> None:
    """GetBucketAcl."""
    owner, acl = await context.store.acls.get_bucket(request.caller, request.bucket or "")
    await reply_document(request, acl_document(owner, acl))


async def put_bucket_acl(context: Context, request: Request) -> None:
    """PutBucketAcl."""
    asked = await _asked(request)
    await context.store.acls.put_bucket(request.caller, request.bucket or "", asked)
    await request.reply(200)


async def get_object_acl(context: Context, request: Request) -> None:
    """GetObjectAcl."""
    info, acl = await context.store.acls.get_object(
        request.caller, request.bucket or "", request.key or "", version_id=version_of(request)
    )
    content = acl_document(info.owner, acl)
    await reply_document(request, content, xml_headers(version_header(info)))


async def put_object_acl(context: Context, request: Request) -> None:
    """PutObjectAcl: date and content stay."""
    asked = await _asked(request)
    info = await context.store.acls.put_object(
        request.caller,
        request.bucket or "",
        request.key or "",
        asked,
        version_id=version_of(request),
    )
    await request.reply(200, version_header(info))
