"""Carrying an operator's decision about a mirror to its store.

Owns the check that the store asks just this, so that nothing is forced that needs no force. Refuses
everything else. Used from one event loop.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from appliance.control.disks.assembly import Assembly
from appliance.core.decisions import MEANINGS, Choice, choice_for
from appliance.core.errors import InvalidInput, Refused, Unavailable
from appliance.engine.interface import Health, MirrorState

HealthOf = Callable[[str], Awaitable[Health | None]]
Override = Callable[[str, Mapping[str, object]], Awaitable[None]]
"""Gives a mirror's store the operator's word. Raises ``Unavailable``."""

SETTLE_S: Final = 30.0
LOOK_EVERY_S: Final = 0.2

_log = logging.getLogger(__name__)


async def no_override(mirror: str, _message: Mapping[str, object]) -> None:
    """Where no store can be told anything."""
    raise Unavailable(f"cannot decide for mirror {mirror}: its store does not answer")


async def decide(
    assembly: Assembly,
    choice: Choice,
    identity: str,
    *,
    health_of: HealthOf,
    override: Override,
) -> None:
    """Give the store the word and wait until it asks no more, or something else; at most
    ``SETTLE_S``. Raises ``InvalidInput``, ``Refused``, ``Unavailable``."""
    name = assembly.mirror
    health = await health_of(name)
    if health is None:
        raise Unavailable(
            f"cannot decide for mirror {name}: its store does not answer;"
            f" see `systemctl status appliance-store@{name}`"
        )
    meaning = MEANINGS[choice]
    if health.question.value != meaning.question:
        asked = choice_for(health.question.value)
        if asked:
            wants = f"it waits for {MEANINGS[asked].option}"
        elif health.state is MirrorState.OFFLINE:
            wants = f"it is not open and asks for nothing yet ({health.reason}); look again soon"
        else:
            wants = "it waits for no decision"
        raise Refused(f"cannot resolve mirror {name} with {meaning.option}: {wants}")
    message: dict[str, object] = {
        "forced": choice is Choice.FORCE,
        "resume": choice is Choice.RESUME,
        # An open store whose drives contradict each other gives up what it does not keep.
        "accept_losses": choice is Choice.ACCEPT_LOSSES
        or (choice is Choice.KEEP and health.state is MirrorState.READ_ONLY),
        "chosen": _chosen(assembly, health, identity) if choice is Choice.KEEP else None,
    }
    # Beyond the answer there is only this line to tell later who decided what.
    decided = " ".join(filter(None, [choice.value, str(message["chosen"] or "")]))
    _log.warning("mirror %s: the operator decided: %s", name, decided)
    await override(name, message)
    for _ in range(int(SETTLE_S / LOOK_EVERY_S)):
        await asyncio.sleep(LOOK_EVERY_S)
        after = await health_of(name)
        if after is not None and after.question is not health.question:
            return


def _chosen(assembly: Assembly, health: Health, identity: str) -> str:
    """The drive id an operator means by drive id or serial."""
    found = [
        member.drive
        for member in assembly.members
        if identity in {member.drive, member.serial} and member.drive in health.choices
    ]
    if not identity or len(found) != 1:
        known = ", ".join(sorted(health.choices)) or "none"
        raise InvalidInput(f"cannot keep drive {identity!r}: the drives to choose from are {known}")
    return found[0]
