"""The one path of every S3 request: address, authentication, operation, refusal, record.

Owns the order of these steps and the last line of defence: whatever goes wrong, the client gets one
well-formed answer or a cut connection, never a traceback, never half an answer that looks whole.
Refuses by rendering ``S3Error``. Invariant: each request ends in exactly one access record.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from typing import Final

from appliance.core.errors import ApplianceError, S3Error
from appliance.core.ports import Clock, KeyStore
from appliance.objects.model import Body
from appliance.s3.access import AccessRecord
from appliance.s3.auth import Authenticator
from appliance.s3.body import NO_BODY, Payload, RequestBody
from appliance.s3.errors import rendered, status_of, translated
from appliance.s3.limits import FrontLimits
from appliance.s3.request import Request
from appliance.s3.target import Domains, origin_form, parse_query, split_path
from appliance.s3.xml import CONTENT_TYPE

logger = logging.getLogger(__name__)


class Gateway:
    """Hand ``handle`` to an ``S3Server``; ``dispatch`` is the router of the operations.

    ``hashing`` runs the hashes of large bodies beside the event loop; None hashes in it.
    ``on_record`` is called once per request, on the event loop, and must be quick.
    """

    def __init__(
        self,
        dispatch: Callable[[Request], Awaitable[None]],
        *,
        keys: KeyStore,
        clock: Clock,
        region: str,
        domains: Domains,
        limits: FrontLimits | None = None,
        hashing: Executor | None = None,
        on_record: Callable[[AccessRecord], None] | None = None,
    ) -> None:
        self._dispatch: Final = dispatch
        self._clock: Final = clock
        self._domains: Final = domains
        self._limits: Final = limits or FrontLimits()
        self._hashing: Final = hashing
        self._on_record: Final = on_record
        self._authenticator: Final = Authenticator(
            keys, clock=clock, region=region, limits=self._limits
        )

    async def handle(self, request: Request) -> None:
        """Answer a request. Raises only ``ConnectionError`` when the client is gone."""
        began_s = self._clock.monotonic_s()
        try:
            try:
                if request.objection is not None:
                    raise request.objection
                self._address(request)
                payload = await self._authenticator.authenticate(request)
                request.body = self._body(request, payload)
                await self._dispatch(request)
                assert request.started, "an operation answers before it returns"
            except ConnectionError:
                raise
            except ApplianceError as error:
                await self._refuse(request, error)
            except Exception:
                logger.exception("request %s failed", request.request_id)
                await self._refuse(request, S3Error("InternalError"))
            await request.finish()
        except (ConnectionError, asyncio.CancelledError):
            request.code = request.code or "ConnectionClosed"
            raise
        finally:
            if self._on_record is not None:
                self._on_record(self._record(request, began_s))

    def _address(self, request: Request) -> None:
        """Read bucket, key and query off the raw target and host."""
        host = request.headers.by_lower_name.get("host", "")
        if not request.raw_target.startswith("/"):
            target = origin_form(request.raw_target, host)
            request.raw_path, _, request.raw_query = target.partition("?")
        request.host, virtual_bucket = self._domains.split(host)
        request.virtual_hosted = virtual_bucket is not None
        request.bucket, request.key = split_path(request.raw_path, virtual_bucket)
        request.query = parse_query(request.raw_query)

    def _body(self, request: Request, payload: Payload) -> Body:
        if request.wire is None or not request.body_announced:
            return NO_BODY
        headers = request.headers.by_lower_name
        return RequestBody(request.wire, headers, payload, self._limits, self._hashing)

    async def _refuse(self, request: Request, error: ApplianceError) -> None:
        """Answer with the error's document; cut the connection if an answer was already begun."""
        refusal = translated(error)
        request.code = refusal.code
        if refusal is not error and refusal.code == "InternalError":
            logger.error("request %s failed: %s", request.request_id, error)
        if request.started:
            request.abort()
            raise ConnectionAbortedError("the answer failed half way")
        content = rendered(
            refusal,
            resource=request.raw_path,
            request_id=request.request_id,
            host_id=request.host_id,
        )
        headers = {**refusal.headers, "Content-Type": CONTENT_TYPE}
        await request.reply(status_of(refusal.code), headers, content)

    def _record(self, request: Request, began_s: float) -> AccessRecord:
        caller = request.caller
        wire = request.wire
        duration_s = self._clock.monotonic_s() - began_s
        return AccessRecord(
            request_id=request.request_id,
            began_ns=self._clock.now_ns() - int(duration_s * 1e9),
            duration_s=duration_s,
            network=request.network,
            remote_address=request.remote_address,
            secure=request.secure,
            method=request.method,
            operation=request.operation,
            raw_target=request.raw_target,
            bucket=request.bucket,
            key=request.key,
            access_key=request.access_key,
            user_id=caller.user_id if caller is not None else "",
            contract=caller.contract if caller is not None else "",
            status=request.status,
            code=request.code,
            bytes_in=wire.bytes_in if wire is not None else 0,
            bytes_out=wire.bytes_out if wire is not None else 0,
            user_agent=request.headers.by_lower_name.get("user-agent", ""),
        )
