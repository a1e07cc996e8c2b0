"""Who may ask control for what.

Owns the one table of rights on control's socket, by the kernel's word about the caller. Refuses
stores that ask for keys and gateways that ask for drives: what a process was not given it cannot
leak. Where the service users do not exist (development) only the user that runs control may ask.
"""

from __future__ import annotations

import enum
import os
import pwd
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

from appliance.core.errors import Refused
from appliance.runtime.ipc import Handler, Peer

STORE_USER: Final = "appliance-store"
GATEWAY_USER: Final = "appliance-gateway"


class Right(enum.Enum):
    """What a caller is to us."""

    STORE = "store"
    GATEWAY = "gateway"
    OWN = "own"


@dataclass(frozen=True, slots=True)
class Rights:
    """User ids by right; root and control's own user have all."""

    store_user: int | None
    gateway_user: int | None

    def has(self, user: int, right: Right) -> bool:
        """Whether a user id has a right."""
        granted = {Right.STORE: self.store_user, Right.GATEWAY: self.gateway_user}.get(right)
        return user in {0, os.geteuid(), granted}

    def check(self, peer: Peer, right: Right, method: str) -> None:
        """Raises ``Refused``."""
        user = peer.credentials.user_id
        if not self.has(user, right):
            raise Refused(f"{method} is not for role {peer.role!r} with user id {user}")

    def guard(
        self, method: str, right: Right, answer: Callable[[Peer, Any], Awaitable[Any]]
    ) -> Handler:
        """``answer`` for those who have the right."""

        async def guarded(peer: Peer, params: Any) -> Any:
            self.check(peer, right, method)
            return await answer(peer, params)

        return guarded


def service_rights() -> Rights:
    """The rights on this machine."""
    return Rights(_user(STORE_USER), _user(GATEWAY_USER))


def _user(name: str) -> int | None:
    try:
        return pwd.getpwnam(name).pw_uid
    except KeyError:
        return None
