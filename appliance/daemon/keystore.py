"""How a gateway learns secrets: by asking control, and remembering the answer for a moment.

Owns the small cache. Refuses to invent: while control is away an answer known already is used for
at most ``STALE_S_MAX``, so that a restart of control fails no request; beyond that ``Unavailable``.
Invariant: a key that was frozen, revoked or destroyed stops working within ``FRESH_S`` while
control is there.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from appliance.core.errors import NotFound, Unavailable
from appliance.core.ports import Clock, Credential, Owner
from appliance.runtime.link import Link

FRESH_S: Final = 3.0
STALE_S_MAX: Final = 300.0
ENTRIES_MAX: Final = 4096
ANSWER_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class _Known:
    answer: Any
    asked_s: float


class RemoteKeys:
    """A ``core.ports.KeyStore`` over IPC. Used from one event loop."""

    def __init__(self, control: Link, clock: Clock) -> None:
        self._control = control
        self._clock = clock
        self._known: OrderedDict[tuple[str, ...], _Known] = OrderedDict()
        self._asking: dict[tuple[str, ...], asyncio.Task[Any]] = {}

    async def credential(self, access_key: str) -> Credential | None:
        """See ``KeyStore``."""
        fields = await self._ask("credential", access_key)
        return None if fields is None else credential_from(fields)

    async def contract_key(self, contract: str) -> bytes:
        """See ``KeyStore``."""
        key = await self._ask("contract_key", contract)
        if key is None:
            raise NotFound(f"contract {contract} has no key: it was erased")
        return bytes(key)

    async def owner(self, contract: str, user_id: str) -> Owner | None:
        """See ``KeyStore``."""
        fields = await self._ask("owner", contract, user_id)
        return None if fields is None else Owner(*fields)

    async def _ask(self, method: str, *names: str) -> Any:
        question = (method, *names)
        known = self._known.get(question)
        now_s = self._clock.monotonic_s()
        if known is not None and now_s - known.asked_s <= FRESH_S:
            return known.answer
        task = self._asking.get(question)
        if task is None:
            task = asyncio.create_task(self._fetch(question), name=f"ask {method}")
            self._asking[question] = task
            task.add_done_callback(lambda done: self._answered(question, done))
        if (
            known is not None
            and now_s - known.asked_s <= STALE_S_MAX
            and not self._control.connected
        ):
            return known.answer
        # Shielded: one question serves all who ask; a client that leaves must not end it.
        return await asyncio.shield(task)

    def _answered(self, question: tuple[str, ...], task: asyncio.Task[Any]) -> None:
        self._asking.pop(question, None)
        if not task.cancelled():
            task.exception()  # seen, although nobody may be waiting for it any more

    async def _fetch(self, question: tuple[str, ...]) -> Any:
        method, *names = question
        try:
            params = names if len(names) > 1 else names[0]
            answer = await self._control.call(method, params, timeout_s=ANSWER_S)
        except Unavailable:
            known = self._known.get(question)
            if known is None or self._clock.monotonic_s() - known.asked_s > STALE_S_MAX:
                raise
            return known.answer
        self._known[question] = _Known(answer, self._clock.monotonic_s())
        self._known.move_to_end(question)
        if len(self._known) > ENTRIES_MAX:
            self._known.popitem(last=False)
        return answer


def credential_fields(credential: Credential) -> dict[str, object]:
    """A credential as it crosses to a gateway."""
    return {
        "access_key": credential.access_key,
        "secret_key": credential.secret_key,
        "user_id": credential.user_id,
        "display_name": credential.display_name,
        "contract": credential.contract,
        "bucket_prefix": credential.bucket_prefix,
        "frozen": credential.frozen,
    }


def credential_from(fields: Mapping[str, Any]) -> Credential:
    """What ``credential_fields`` made; fields of a newer release are passed over."""
    names = set(Credential.__dataclass_fields__)
    return Credential(**{name: value for name, value in fields.items() if name in names})
