"""Keys for the tools that work without the service, and the recovery of a lost master key.

Owns the reading of key files. Refuses to write a master key where one is.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Final

from appliance.control.keys.files import read_master_key, write_master_key
from appliance.control.keys.offline import recover_master_key
from appliance.core.errors import InvalidInput, NotFound, Refused, Unreachable
from appliance.core.keywrap import MasterKey, RecoveryPrivate, read_recovery
from appliance.core.offline import RecoveredKey
from appliance.daemon.offline import Telling
from appliance.daemon.offline_drive import Opened, opened_drive
from appliance.engine.mirror.offline_engine import OfflineEngine

FROM_STDIN: Final = "-"
_BYTES_MAX: Final = 4096


def read_key(master_key: Path | None, recovery_key: str | None) -> MasterKey | RecoveryPrivate:
    """The key that was given, as a file. Raises ``NotFound``, ``Refused``, ``InvalidInput``."""
    if master_key is not None:
        if not master_key.exists():
            # Not the vault's advice, which is to set up a new appliance.
            raise NotFound(f"cannot find the master key: there is no file {master_key}")
        return read_master_key(master_key, None)
    assert recovery_key is not None, "the parser demands one of them"
    return read_recovery_key(recovery_key)


def read_recovery_key(file: str) -> RecoveryPrivate:
    """The recovery key as it was written down, in a file, or from stdin for ``-``."""
    try:
        if file == FROM_STDIN:
            text = sys.stdin.readline(_BYTES_MAX)
        else:
            text = Path(file).read_text(encoding="ascii")[:_BYTES_MAX]
    except FileNotFoundError:
        raise NotFound(f"cannot find the recovery key: there is no file {file}") from None
    except UnicodeDecodeError:
        raise InvalidInput("cannot read the recovery key: letters A-Z, digits 2-7") from None
    except OSError as error:
        raise Unreachable(f"cannot read the recovery key {file}: {error.strerror}") from error
    return read_recovery(text)


def recover_key(
    path: Path, target: Path, recovery_key: str, scratch: Path, telling: Telling
) -> RecoveredKey:
    """Write the master key that lies on the drive, wrapped, to ``target``. Blocking."""
    recovery = read_recovery_key(recovery_key)
    if target.exists():
        raise Refused(f"cannot write {target}: it exists, and keys are never replaced")
    with opened_drive(path, scratch, telling) as opened:
        master = asyncio.run(_recover(opened, recovery))
    write_master_key(target, master)
    return RecoveredKey(str(path), master.key_id.hex(), str(target))


async def _recover(opened: Opened, recovery: RecoveryPrivate) -> MasterKey:
    engine = OfflineEngine(opened.drive)
    try:
        return await recover_master_key(engine, recovery)
    finally:
        await engine.close()
