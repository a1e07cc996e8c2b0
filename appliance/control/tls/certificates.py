"""The certificates the service shows, kept in a directory of the control role.

Owns ``ca.pem`` (public, for clients), ``authority.pem`` and ``server.pem`` (with keys, root only).
Refuses nothing that it can make anew: a missing, unreadable, foreign or expiring server certificate
is replaced; the authority is replaced only when it is missing, because customers trust it.
Invariant: after ``ensure`` the server certificate is valid now, for all names, under ``ca.pem``.
"""

from __future__ import annotations

import contextlib
import datetime
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from appliance.control.tls.authority import (
    Identity,
    is_due,
    is_signed_by,
    names_of,
    new_authority,
    new_server,
    read_identity,
)
from appliance.core.errors import InvalidInput, Unreachable
from appliance.core.ports import Clock

_NANOSECONDS: Final = 1_000_000_000
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ServerCertificate:
    """What a gateway shows: the names it is for, the chain, and the key."""

    names: tuple[str, ...]
    chain_pem: bytes
    key_pem: bytes

    def __repr__(self) -> str:
        """Without the key, so that no log line can carry it."""
        return f"ServerCertificate({self.names!r})"


def names_for(zone: str) -> tuple[str, ...]:
    """The names of the S3 service in a zone: by path, by bucket, and on the machine itself."""
    return (f"s3.{zone}", f"*.s3.{zone}", "localhost", "127.0.0.1", "::1")


class Certificates:
    """Blocking; small files. One process, one thread at a time."""

    def __init__(self, directory: Path, zone: str, clock: Clock) -> None:
        self._directory = directory
        self._zone = zone
        self._clock = clock
        self._current: ServerCertificate | None = None

    @property
    def ca_file(self) -> Path:
        """What clients must trust."""
        return self._directory / "ca.pem"

    @property
    def current(self) -> ServerCertificate:
        """The certificate in use. ``ensure`` comes first."""
        assert self._current is not None, "ensure comes first"
        return self._current

    def ensure(self) -> bool:
        """Make what is missing, renew what is due, read what was changed. True when the server
        certificate is another one than before. Raises ``Unreachable`` when files cannot be used."""
        try:
            self._directory.mkdir(mode=0o755, parents=True, exist_ok=True)
            return self._ensure()
        except OSError as error:
            raise Unreachable(
                f"cannot keep certificates in {self._directory}: {error.strerror}"
            ) from error

    def export_authority(self) -> bytes:
        """Key and certificate of the authority, to be sealed and kept with the data."""
        return self._read("authority.pem").pem()

    def adopt_authority(self, pem: bytes) -> bool:
        """Use the authority that is kept with the data: this machine is new, its customers are
        not. True when it was another one. Raises ``InvalidInput``."""
        kept = read_identity(pem)
        with contextlib.suppress(OSError, InvalidInput):
            if self._read("authority.pem").pem() == kept.pem():
                return False
        self._write("authority.pem", kept.pem(), 0o600)
        self.ensure()
        return True

    def _ensure(self) -> bool:
        now = datetime.datetime.fromtimestamp(self._clock.now_ns() / _NANOSECONDS, datetime.UTC)
        authority = self._authority(now)
        ca_pem = authority.certificate_pem()
        if not self.ca_file.exists() or self.ca_file.read_bytes() != ca_pem:
            self._write("ca.pem", ca_pem, 0o644)
        server = self._server(authority, names_for(self._zone), now)
        found = ServerCertificate(
            names_of(server.certificate), server.certificate_pem() + ca_pem, server.key_pem()
        )
        changed = found != self._current
        self._current = found
        return changed

    def _authority(self, now: datetime.datetime) -> Identity:
        try:
            return self._read("authority.pem")
        except FileNotFoundError:
            made = new_authority(self._zone, now)
            self._write("authority.pem", made.pem(), 0o600)
            return made
        except InvalidInput as error:
            raise Unreachable(
                f"cannot use {self._directory / 'authority.pem'}: {error}; put it back from a"
                " backup, or remove it to have a new one that clients do not trust yet"
            ) from error

    def _server(
        self, authority: Identity, names: Sequence[str], now: datetime.datetime
    ) -> Identity:
        try:
            kept = self._read("server.pem")
        except (FileNotFoundError, InvalidInput):
            kept = None
        if (
            kept is not None
            and names_of(kept.certificate) == tuple(names)
            and not is_due(kept.certificate, now)
            and is_signed_by(kept.certificate, authority)
        ):
            return kept
        made = new_server(authority, names, now)
        self._write("server.pem", made.pem(), 0o600)
        _log.info("made a server certificate for %s", ", ".join(names))
        return made

    def _read(self, name: str) -> Identity:
        return read_identity((self._directory / name).read_bytes())

    def _write(self, name: str, content: bytes, mode: int) -> None:
        """Atomic: key and certificate are one file, so they never belong to different pairs."""
        temporary = self._directory / f".{name}.{os.getpid()}"
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(descriptor)
            temporary.rename(self._directory / name)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise
