"""What tests of access lists share: lists to ask for, and Alice's bucket with an object ``k``."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from appliance.core.access import AclRequest, CannedAcl, Grant, Permission
from appliance.core.ports import Owner
from appliance.objects.model import Caller
from tests.unit.objects.world import ALICE, BUCKET, BytesBody, World, world

READ_WRITE = AclRequest(CannedAcl.PUBLIC_READ_WRITE)
PUBLIC_READ = AclRequest(CannedAcl.PUBLIC_READ)


def granting(caller: Caller, *permissions: Permission) -> AclRequest:
    grantee = Owner(caller.user_id, "")
    return AclRequest(grants=tuple(Grant(grantee, each) for each in permissions))


def run(scenario: Callable[[World], Awaitable[None]], *, public_access: bool = True) -> None:
    with world(public_access=public_access) as here:
        asyncio.run(_run(scenario, here))


async def _run(scenario: Callable[[World], Awaitable[None]], here: World) -> None:
    await here.store.buckets.create(ALICE, BUCKET)
    await here.put("k", b"data")
    await scenario(here)


def put(here: World, caller: Caller | None, key: str = "new") -> Awaitable[object]:
    return here.store.objects.put(caller, BUCKET, key, BytesBody(b"x"))
