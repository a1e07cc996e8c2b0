"""The master key's file, and the recovery key's public half until the drives hold it.

Owns two small files of the control role: the master key (a systemd credential, or a file that only
root reads) and the public recovery key. Refuses a master key file that others can read, and to make
a new master key where an old one may be missing. Invariant: a file is whole or not there.
"""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path
from typing import Final

from appliance.core.errors import InvalidInput, NotFound, Refused, Unreachable
from appliance.core.keywrap import KEY_BYTES, MasterKey, RecoveryPublic

CREDENTIAL: Final = "master-key"
_MASTER_HEAD: Final = "appliance-master-key-1"
_RECOVERY_HEAD: Final = "appliance-recovery-public-1"
_BYTES_MAX: Final = 4096


def read_master_key(file: Path, credentials_directory: str | None) -> MasterKey:
    """From systemd's credential where there is one, else from ``file``. Raises ``NotFound``,
    ``Refused`` and ``InvalidInput``."""
    if credentials_directory:
        credential = Path(credentials_directory) / CREDENTIAL
        if credential.exists():
            file = credential
    try:
        mode = file.stat().st_mode
        text = file.read_text(encoding="ascii")[:_BYTES_MAX]
    except FileNotFoundError:
        raise NotFound(
            f"cannot find the master key {file}: run `{sys.executable} -m appliance.daemon setup`"
            " on a new appliance; on one that has data put its master key back"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise Unreachable(f"cannot read the master key {file}: {error}") from error
    if stat.S_IMODE(mode) & 0o077:
        raise Refused(f"cannot use the master key {file}: others may read it; run chmod 600")
    return MasterKey(_parse(file, text, _MASTER_HEAD))


def write_master_key(file: Path, master: MasterKey) -> None:
    """Durable on return. Raises ``Refused`` when the file is there already."""
    _write(file, f"{_MASTER_HEAD} {master.secret.hex()}\n")


def read_recovery_public(file: Path) -> RecoveryPublic | None:
    """None when setup did not run here. Raises ``InvalidInput``."""
    try:
        text = file.read_text(encoding="ascii")[:_BYTES_MAX]
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise Unreachable(f"cannot read the recovery key {file}: {error}") from error
    return RecoveryPublic(_parse(file, text, _RECOVERY_HEAD))


def write_recovery_public(file: Path, recovery: RecoveryPublic) -> None:
    """Durable on return. Raises ``Refused`` when the file is there already."""
    _write(file, f"{_RECOVERY_HEAD} {recovery.public.hex()}\n")


def _parse(file: Path, text: str, head: str) -> bytes:
    words = text.split()
    try:
        if len(words) != 2 or words[0] != head:
            raise ValueError
        key = bytes.fromhex(words[1])
        if len(key) != KEY_BYTES:
            raise ValueError
    except ValueError:
        # Neither the text nor a part of it: it may be a key.
        raise InvalidInput(
            f"cannot use {file}: it is not {head!r} and {2 * KEY_BYTES} hexadecimal digits"
        ) from None
    return key


def _write(file: Path, text: str) -> None:
    """Crash points: (1) temporary file, flushed (2) link under its name (3) directory flushed."""
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.write(descriptor, text.encode("ascii"))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        try:
            os.link(temporary, file)  # unlike rename it never replaces
        finally:
            temporary.unlink()
        directory = os.open(file.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    except FileExistsError:
        raise Refused(f"cannot write {file}: it exists, and keys are never replaced") from None
    except OSError as error:
        raise Unreachable(f"cannot write {file}: {error.strerror}") from error
