"""The admin API's one route table: method, path, access right, handler.

Owns the table and thin handlers that turn a request into one call of a manager and its answer into
JSON. Refuses whatever is not in the table, bodies that are not JSON objects, and fields it does not
know, so that a misspelt option is never silently ignored.
"""

from __future__ import annotations

import enum
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from aiohttp import web

from appliance.api.managers import Managers
from appliance.core.decisions import Choice
from appliance.core.documents import to_document
from appliance.core.errors import InvalidInput
from appliance.core.scrubs import ScrubOrder

BODY_BYTES_MAX: Final = 64 * 1024


class Access(enum.Enum):
    """Who may call a route. The socket's file mode keeps everybody else out."""

    READ = "read"
    OPERATE = "operate"


@dataclass(frozen=True, slots=True)
class Answer:
    """What a handler gives back; ``body`` is a core type, or a sequence of one."""

    body: object
    status: int = 200


Handler: TypeAlias = Callable[[Managers, web.Request], Awaitable[Answer]]


@dataclass(frozen=True, slots=True)
class Route:
    """One row of the table. ``path`` is below ``/v1`` and may hold ``{name}``."""

    method: str
    path: str
    access: Access
    handler: Handler


async def get_status(managers: Managers, request: web.Request) -> Answer:
    """``StatusReport``."""
    return Answer(await managers.status.report())


async def list_drives(managers: Managers, request: web.Request) -> Answer:
    """Many ``DriveReport``."""
    return Answer(await managers.disks.drive_reports())


async def claim_drive(managers: Managers, request: web.Request) -> Answer:
    """``{"identity": ..., "force_serial": ...}`` → the ``Job`` that formats it."""
    fields = await read_fields(request, {"identity": str}, {"force_serial": str})
    job = await managers.disks.claim(fields["identity"], force_serial=fields.get("force_serial"))
    return Answer(job, status=200 if job.ended else 202)


async def list_mirrors(managers: Managers, request: web.Request) -> Answer:
    """Many ``MirrorReport``."""
    return Answer(await managers.disks.mirror_reports())


async def create_mirror(managers: Managers, request: web.Request) -> Answer:
    """``{"name": ..., "drives": [A, B]}`` → ``MirrorReport``."""
    fields = await read_fields(request, {"name": str, "drives": list}, {})
    if not all(isinstance(each, str) for each in fields["drives"]):
        raise InvalidInput("cannot read the request: every entry of drives is an identity")
    return Answer(await managers.disks.create_mirror(fields["name"], fields["drives"]), status=201)


async def get_scrub(managers: Managers, request: web.Request) -> Answer:
    """``ScrubReport``."""
    name = request.match_info["mirror"]
    return Answer(await managers.disks.scrub(name, ScrubOrder.LOOK))


async def order_scrub(managers: Managers, request: web.Request) -> Answer:
    """``{"order": "start" | "pause" | "resume" | "cancel"}`` → ``ScrubReport``."""
    fields = await read_fields(request, {"order": str}, {})
    try:
        order = ScrubOrder(fields["order"])
    except ValueError as error:
        known = [each.value for each in ScrubOrder]
        raise InvalidInput(f"cannot read the request: order is none of {known}") from error
    return Answer(await managers.disks.scrub(request.match_info["mirror"], order))


async def resolve_mirror(managers: Managers, request: web.Request) -> Answer:
    """``{"choice": ..., "drive": ...}`` → ``MirrorReport``, as it is then."""
    fields = await read_fields(request, {"choice": str}, {"drive": str})
    try:
        choice = Choice(fields["choice"])
    except ValueError as error:
        known = ", ".join(each.value for each in Choice)
        raise InvalidInput(f"cannot read the request: choice is one of {known}") from error
    name = request.match_info["mirror"]
    return Answer(await managers.disks.resolve(name, choice, fields.get("drive", "")))


async def replace_drive(managers: Managers, request: web.Request) -> Answer:
    """``{"old": ..., "new": ...}`` → the ``Job`` that fills the new drive."""
    fields = await read_fields(request, {"old": str, "new": str}, {})
    name = request.match_info["mirror"]
    return Answer(await managers.disks.replace(name, fields["old"], fields["new"]), status=202)


async def pause_resync(managers: Managers, request: web.Request) -> Answer:
    """``{"paused": true or false}`` → ``MirrorReport``."""
    fields = await read_fields(request, {"paused": bool}, {})
    name = request.match_info["mirror"]
    return Answer(await managers.disks.pause_resync(name, paused=fields["paused"]))


async def add_spare(managers: Managers, request: web.Request) -> Answer:
    """``{"drive": ...}`` → ``MirrorReport``."""
    fields = await read_fields(request, {"drive": str}, {})
    return Answer(await managers.disks.add_spare(request.match_info["mirror"], fields["drive"]))


async def remove_spare(managers: Managers, request: web.Request) -> Answer:
    """``{"drive": ...}`` → ``MirrorReport``."""
    fields = await read_fields(request, {"drive": str}, {})
    return Answer(await managers.disks.remove_spare(request.match_info["mirror"], fields["drive"]))


async def list_jobs(managers: Managers, request: web.Request) -> Answer:
    """Many ``Job``."""
    return Answer(list(managers.disks.jobs()))


async def get_job(managers: Managers, request: web.Request) -> Answer:
    """``Job``."""
    return Answer(managers.disks.job(request.match_info["job"]))


async def list_accounts(managers: Managers, request: web.Request) -> Answer:
    """Many ``AccountReport``."""
    return Answer(await managers.accounts.reports())


async def create_account(managers: Managers, request: web.Request) -> Answer:
    """``{"name": ...}`` → ``NewAccount``, the only answer that holds a secret."""
    fields = await read_fields(request, {"name": str}, {})
    return Answer(await managers.accounts.create(fields["name"]), status=201)


async def list_buckets(managers: Managers, request: web.Request) -> Answer:
    """Many ``BucketReport``."""
    return Answer(await managers.buckets.reports())


ROUTES: Final = (
    Route("GET", "/status", Access.READ, get_status),
    Route("GET", "/drives", Access.READ, list_drives),
    Route("POST", "/drives/claim", Access.OPERATE, claim_drive),
    Route("GET", "/mirrors", Access.READ, list_mirrors),
    Route("POST", "/mirrors", Access.OPERATE, create_mirror),
    Route("GET", "/mirrors/{mirror}/scrub", Access.READ, get_scrub),
    Route("POST", "/mirrors/{mirror}/scrub", Access.OPERATE, order_scrub),
    Route("POST", "/mirrors/{mirror}/resolve", Access.OPERATE, resolve_mirror),
    Route("POST", "/mirrors/{mirror}/replace", Access.OPERATE, replace_drive),
    Route("POST", "/mirrors/{mirror}/resync", Access.OPERATE, pause_resync),
    Route("POST", "/mirrors/{mirror}/spares/add", Access.OPERATE, add_spare),
    Route("POST", "/mirrors/{mirror}/spares/remove", Access.OPERATE, remove_spare),
    Route("GET", "/jobs", Access.READ, list_jobs),
    Route("GET", "/jobs/{job}", Access.READ, get_job),
    Route("GET", "/accounts", Access.READ, list_accounts),
    Route("POST", "/accounts", Access.OPERATE, create_account),
    Route("GET", "/buckets", Access.READ, list_buckets),
)


async def read_fields(
    request: web.Request, required: Mapping[str, type], optional: Mapping[str, type]
) -> dict[str, Any]:
    """The body as an object of exactly these fields. Raises ``InvalidInput``."""
    try:
        body = json.loads(await request.read())
    except ValueError as error:
        raise InvalidInput(f"cannot read the request: its body is not JSON: {error}") from error
    if not isinstance(body, dict):
        raise InvalidInput("cannot read the request: its body is not a JSON object")
    known = {**required, **optional}
    unknown = sorted(set(body) - set(known))
    if unknown:
        raise InvalidInput(
            f"cannot read the request: unknown field {unknown[0]!r}; known are {sorted(known)}"
        )
    fields = {name: value for name, value in body.items() if value is not None}
    for name, kind in known.items():
        if name in required and name not in fields:
            raise InvalidInput(f"cannot read the request: the field {name!r} is missing")
        if name in fields and not isinstance(fields[name], kind):
            raise InvalidInput(f"cannot read the request: {name!r} is not a {kind.__name__}")
    return fields


def body_of(answer: Answer) -> bytes:
    """The answer as JSON; sequences become ``{"items": [...]}`` so that fields can be added."""
    body = answer.body
    if isinstance(body, list | tuple):
        return json.dumps({"items": [to_document(each) for each in body]}).encode()
    return json.dumps(to_document(body)).encode()
