"""The typed client of the admin API. Blocking: a command line waits anyway.

Owns one unix socket path. Refuses nothing itself: what the API refuses comes back as the same error
class with the same sentence. Invariant: whatever goes wrong is an ``ApplianceError``.
"""

from __future__ import annotations

import http.client
import json
import socket
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import quote

from appliance.core import errors
from appliance.core.admin import (
    AccountReport,
    BucketReport,
    DriveReport,
    MirrorReport,
    NewAccount,
    StatusReport,
)
from appliance.core.decisions import Choice
from appliance.core.documents import from_document
from appliance.core.jobs import Job
from appliance.core.scrubs import ScrubOrder, ScrubReport

T = TypeVar("T")

TIMEOUT_S: Final = 180.0
ANSWER_BYTES_MAX: Final = 64 * 1024 * 1024

_CLASSES: Final[dict[str, type[errors.ApplianceError]]] = {
    "invalid-input": errors.InvalidInput,
    "not-found": errors.NotFound,
    "refused": errors.Refused,
    "unreachable": errors.Unreachable,
    "no-space": errors.NoSpace,
    "read-only": errors.Unreachable,
    "unavailable": errors.Unreachable,
}


class _Connection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: Path, timeout_s: float) -> None:
        super().__init__("appliance", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


class Client:
    """One method per route."""

    def __init__(self, socket_path: Path, *, timeout_s: float = TIMEOUT_S) -> None:
        self._path = socket_path
        self._timeout_s = timeout_s

    def status(self) -> StatusReport:
        """The appliance at a glance."""
        return from_document(StatusReport, self._call("GET", "/status"))

    def drives(self) -> list[DriveReport]:
        """Every drive the machine shows."""
        return self._items(DriveReport, "/drives")

    def claim_drive(self, identity: str, *, force_serial: str | None = None) -> Job:
        """Start formatting a drive; follow it with ``job``."""
        fields = {"identity": identity, "force_serial": force_serial}
        return from_document(Job, self._call("POST", "/drives/claim", fields))

    def mirrors(self) -> list[MirrorReport]:
        """Every mirror and its members."""
        return self._items(MirrorReport, "/mirrors")

    def create_mirror(self, name: str, drives: list[str]) -> MirrorReport:
        """A new mirror of two claimed drives."""
        fields = {"name": name, "drives": drives}
        return from_document(MirrorReport, self._call("POST", "/mirrors", fields))

    def scrub(self, mirror: str, order: ScrubOrder = ScrubOrder.LOOK) -> ScrubReport:
        """Say something about a mirror's scrub, and learn how it stands."""
        path = _mirror_path(mirror, "scrub")
        if order is ScrubOrder.LOOK:
            return from_document(ScrubReport, self._call("GET", path))
        return from_document(ScrubReport, self._call("POST", path, {"order": order.value}))

    def resolve_mirror(
        self, name: str, choice: Choice, *, drive: str | None = None
    ) -> MirrorReport:
        """Decide what the mirror waits for; how it is then."""
        fields = {"choice": choice.value, "drive": drive}
        path = _mirror_path(name, "resolve")
        return from_document(MirrorReport, self._call("POST", path, fields))

    def replace_drive(self, mirror: str, old: str, new: str) -> Job:
        """Let a claimed drive take a member's place; follow it with ``job``."""
        fields = {"old": old, "new": new}
        return from_document(Job, self._call("POST", _mirror_path(mirror, "replace"), fields))

    def pause_resync(self, mirror: str, *, paused: bool) -> MirrorReport:
        """Hold, or go on, bringing drives in."""
        path = _mirror_path(mirror, "resync")
        return from_document(MirrorReport, self._call("POST", path, {"paused": paused}))

    def add_spare(self, mirror: str, drive: str) -> MirrorReport:
        """Keep a claimed drive ready."""
        path = _mirror_path(mirror, "spares/add")
        return from_document(MirrorReport, self._call("POST", path, {"drive": drive}))

    def remove_spare(self, mirror: str, drive: str) -> MirrorReport:
        """Free a spare."""
        path = _mirror_path(mirror, "spares/remove")
        return from_document(MirrorReport, self._call("POST", path, {"drive": drive}))

    def jobs(self) -> list[Job]:
        """Running jobs and the last ended ones."""
        return self._items(Job, "/jobs")

    def job(self, job_id: str) -> Job:
        """Where a job stands."""
        return from_document(Job, self._call("GET", f"/jobs/{job_id}"))

    def accounts(self) -> list[AccountReport]:
        """Every account, without secrets."""
        return self._items(AccountReport, "/accounts")

    def create_account(self, name: str) -> NewAccount:
        """A new account; the secret is shown this once."""
        return from_document(NewAccount, self._call("POST", "/accounts", {"name": name}))

    def buckets(self) -> list[BucketReport]:
        """Every bucket of every account."""
        return self._items(BucketReport, "/buckets")

    def _items(self, kind: type[T], path: str) -> list[T]:
        document = self._call("GET", path)
        items = document.get("items") if isinstance(document, dict) else None
        if not isinstance(items, list):
            raise errors.Unreachable(f"cannot understand the answer of {self._path}: no items")
        return [from_document(kind, item) for item in items]

    def _call(self, method: str, path: str, fields: dict[str, Any] | None = None) -> Any:
        connection = _Connection(self._path, self._timeout_s)
        body = None if fields is None else json.dumps(fields).encode()
        try:
            headers = {"Content-Type": "application/json"} if body else {}
            connection.request(method, f"/v1{path}", body=body, headers=headers)
            response = connection.getresponse()
            raw = response.read(ANSWER_BYTES_MAX)
        except PermissionError as error:
            raise errors.Unreachable(
                f"cannot talk to the appliance: {self._path} may not be used by this user; "
                "run the command as root, or as the user that runs the appliance"
            ) from error
        except (FileNotFoundError, ConnectionRefusedError) as error:
            raise errors.Unreachable(
                f"cannot talk to the appliance: nobody serves {self._path}; start it with "
                "`systemctl start appliance.target` (or `appliance dev`), "
                "or name its socket with --socket"
            ) from error
        except (OSError, http.client.HTTPException) as error:
            raise errors.Unreachable(
                f"cannot talk to the appliance at {self._path}: {error}; "
                "see `systemctl status appliance-control`, or name its socket with --socket"
            ) from error
        finally:
            connection.close()
        return self._understood(response.status, raw)

    def _understood(self, status: int, raw: bytes) -> Any:
        try:
            document = json.loads(raw)
        except ValueError as error:
            raise errors.Unreachable(
                f"cannot understand the answer of {self._path} (HTTP {status}): not JSON"
            ) from error
        if status < 400:
            return document
        details = document.get("error", {}) if isinstance(document, dict) else {}
        kind = _CLASSES.get(details.get("code", ""), errors.ApplianceError)
        raise kind(details.get("message") or f"the appliance answered with HTTP {status}")


def _mirror_path(name: str, what: str) -> str:
    return f"/mirrors/{quote(name, safe='')}/{what}"
