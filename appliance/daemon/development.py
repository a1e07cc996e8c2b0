"""What control does by itself in development: drives of directories, a mirror, accounts.

Owns nothing a server has. Refuses to claim directories that hold anything else, and to make a new
mirror where a drive belongs to one or where there was one. Invariant: a second start on the same
state finds the same mirror and the same accounts with the same keys.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from appliance.control.accounts.accounts import Accounts
from appliance.control.disks.manager import Disks
from appliance.core.admin import DriveReport, DriveState, NewAccount
from appliance.core.errors import NotFound, Refused
from appliance.daemon.config import DEVELOPMENT_MIRROR

_CONTRACT: Final = "development"
_OWN_CONTRACT: Final = "tenant"
_POLL_S: Final = 0.01


async def ensure_mirror(disks: Disks, directories: Sequence[Path]) -> None:
    """Make the one mirror of development unless there is one. Raises ``Refused``."""
    if disks.mirrors():
        return
    nodes = [str(path.resolve()) for path in directories]
    chosen = [each for each in await disks.drive_reports() if each.drive.node in nodes]
    for report in chosen:
        if report.state is DriveState.CLAIMABLE:
            if disks.was_made(DEVELOPMENT_MIRROR):
                raise Refused(
                    f"cannot use {report.drive.node} as a drive: it is empty, and this state's data"
                    " is on drives that are not here; put them back, or begin anew on another state"
                )
            await _claim(disks, report)
        elif report.state is not DriveState.CLAIMED:
            reasons = "; ".join(report.reasons) or report.state.value
            raise Refused(f"cannot use {report.drive.node} as a drive: {reasons}")
    await disks.create_mirror(DEVELOPMENT_MIRROR, [each.drive.identity for each in chosen])


async def _claim(disks: Disks, report: DriveReport) -> None:
    job = await disks.claim(report.drive.identity)
    while not job.ended:
        await asyncio.sleep(_POLL_S)
        job = disks.job(job.id)
    if job.error:
        raise Refused(job.error)


async def ensure_accounts(accounts: Accounts, names: Sequence[str]) -> list[NewAccount]:
    """The accounts of these names with their secrets, made where they are missing."""
    found = []
    for name in names:
        try:
            found.append(await accounts.reveal(name))
        except NotFound:
            contract = _OWN_CONTRACT if name == _OWN_CONTRACT else _CONTRACT
            found.append(await accounts.create(name, contract=contract))
    return found
