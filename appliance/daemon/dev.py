"""Development: the whole service as children of one supervisor, directories as drives, no root.

Owns the children, their order (control outlives the stores, stores outlive gateways) and the ready
file. Nothing in it is faked except that the drives are not disks. Refuses to start halfway: a role
that cannot come up ends everything with its sentence and code.
Invariant: the ready file exists only while the service serves.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import shlex
import shutil
import signal
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from appliance.core.contracts import check_name
from appliance.core.errors import ApplianceError, InvalidInput, Refused, Unreachable
from appliance.daemon.child import FIRST_STARTS_MAX, Child, Ended
from appliance.daemon.config import (
    DEVELOPMENT_MIRROR,
    Config,
    DevelopmentSection,
    GatewaySection,
    ListenSection,
    PathsSection,
    StoreSection,
    as_toml,
    load,
)
from appliance.daemon.directories import make_directory, only_one
from appliance.daemon.exits import complain
from appliance.daemon.journal import start_logging
from appliance.runtime.ipc import connect

DEFAULT_PORT: Final = 8443
START_S: Final = 90.0
GRACE_S: Final = 10.0
MISSING_DRIVE_WAIT_S: Final = 5.0
"""A directory that is not there at the start will not be plugged in a moment later."""
_SOCKET_PATH_MAX: Final = 100


@dataclass(frozen=True, slots=True)
class Options:
    """What ``appliance dev`` was asked for."""

    state: Path
    drives: tuple[Path, ...] = ()
    port: int = DEFAULT_PORT
    plain_http: int | None = None
    accounts: tuple[str, ...] = ("main",)
    ready_file: Path | None = None


def run(options: Options) -> int:
    """Run until a signal; the exit code."""
    start_logging("dev", "info", os.environ)
    try:
        state = _resolved(options.state)
        make_directory(state, 0o755)
        with only_one(state, "supervisor"):
            config, file = prepare(options, state)
            start_logging("dev", config.log.level, os.environ)
            asyncio.run(_supervise(options, config, file))
    except Ended as ended:
        return ended.code
    except ApplianceError as error:
        return complain("dev", error)
    except OSError as error:
        return complain("dev", Unreachable(f"cannot go on: {error}"))
    return 0


def prepare(options: Options, state: Path) -> tuple[Config, Path]:
    """Directories and the children's configuration file. Raises ``ApplianceError``."""
    for name in options.accounts:
        check_name(name, "account")
    drives = [_resolved(path) for path in options.drives]
    if not drives:
        drives = [state / "drives" / name for name in ("a", "b")]
    elif len(drives) != 2:
        raise Refused(f"cannot start with {len(drives)} --drive: give it twice, or not at all")
    elif drives[0] == drives[1]:
        raise Refused(f"cannot use {drives[0]} as both drives: give two different directories")
    for drive in drives:
        if not drive.parent.is_dir() and options.drives:
            raise Unreachable(f"cannot use {drive} as a drive: {drive.parent} does not exist")
        make_directory(drive, 0o755)
    if options.ready_file is not None:
        _clear(options.ready_file)
    runtime = _runtime_directory(state)
    make_directory(runtime / "store", 0o700)
    plain = () if options.plain_http is None else (f"localhost:{options.plain_http}",)
    config = Config(
        paths=PathsSection(state=state, runtime=runtime),
        store=StoreSection(missing_drive_wait_s=MISSING_DRIVE_WAIT_S),
        listen=ListenSection(https=(f"localhost:{options.port}",)),
        gateway=GatewaySection(public_access=True),
        development=DevelopmentSection(
            enabled=True, drives=tuple(drives), plain_http=plain, accounts=options.accounts
        ),
    )
    file = runtime / "appliance.toml"
    file.write_text(as_toml(config), encoding="utf-8")
    return load(file, os.environ), file


def _resolved(path: Path) -> Path:
    try:
        found = path.resolve()
    except (OSError, RuntimeError) as error:
        raise Unreachable(f"cannot use {path}: its symbolic links lead nowhere") from error
    if not str(found).isprintable():
        raise InvalidInput(f"cannot use {str(found)!r}: its name has characters nobody can type")
    return found


def _clear(ready_file: Path) -> None:
    """Take an earlier life's file away, and see that a new one can be written, before anything is
    started."""
    try:
        ready_file.unlink(missing_ok=True)
        with tempfile.TemporaryFile(dir=ready_file.parent):
            pass
    except OSError as error:
        raise Unreachable(
            f"cannot write the ready file {ready_file}: {error.strerror}; choose another"
        ) from error


def _runtime_directory(state: Path) -> Path:
    """Below the state, unless the command line's socket would not fit into a socket address."""
    runtime = state / "run"
    if len(str(runtime / "admin.sock")) > _SOCKET_PATH_MAX:
        digest = hashlib.sha256(str(state).encode()).hexdigest()[:16]
        runtime = Path(tempfile.gettempdir()) / f"appliance-{os.getuid()}-{digest}"
    make_directory(runtime, 0o700)
    if runtime.stat().st_uid != os.getuid():
        raise Refused(f"cannot use {runtime}: it belongs to somebody else")
    return runtime


async def _supervise(options: Options, config: Config, file: Path) -> None:
    supervisor = Supervisor(options, config, file)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, supervisor.stop_asked)
    loop.add_signal_handler(signal.SIGHUP, supervisor.reload)
    try:
        await supervisor.run()
    finally:
        await supervisor.stop()


class Supervisor:
    """The children and what is told of them. Used from one event loop."""

    def __init__(self, options: Options, config: Config, file: Path) -> None:
        self._options = options
        self._config = config
        self._stopping = asyncio.Event()
        self._asked = 0
        self._told: dict[str, Any] | None = None
        self._failure: Unreachable | None = None
        # Only this process holds the writing end: when it is gone the children notice and stop.
        self._pipe, self._keep = os.pipe()
        command = [sys.executable, "-m", "appliance.daemon"]
        tail = ["--config", str(file)]
        # A port that is busy now will be so in a second: control is not tried again.
        self._control = self._child("control", [*command, "control", *tail], first_starts=1)
        self._store = self._child("store", [*command, "store", DEVELOPMENT_MIRROR, *tail])
        self._gateways = [
            self._child(f"gateway {number}", [*command, "gateway", str(number), *tail])
            for number in range(config.gateways)
        ]

    @property
    def _children(self) -> list[Child]:
        return [self._control, self._store, *self._gateways]

    def _child(
        self, role: str, command: list[str], *, first_starts: int = FIRST_STARTS_MAX
    ) -> Child:
        return Child(
            role, command, os.environ, self._pipe, self._tell_ready, first_starts=first_starts
        )

    async def run(self) -> None:
        """Serve until asked to stop. Raises ``Ended`` when a role cannot be had."""
        running = [asyncio.create_task(child.run(), name=child.role) for child in self._children]
        starting = asyncio.create_task(self._start(), name="start")
        stopping = asyncio.create_task(self._until_asked(), name="stop")
        try:
            await asyncio.wait([starting, stopping, *running], return_when=asyncio.FIRST_COMPLETED)
            if starting.done() and not stopping.done():
                starting.result()
                await asyncio.wait([stopping, *running], return_when=asyncio.FIRST_COMPLETED)
            for task in running:
                if task.done():
                    task.result()
        finally:
            for task in (starting, stopping):
                task.cancel()
            await self.stop()
            await asyncio.gather(starting, stopping, *running, return_exceptions=True)
        if self._failure is not None:
            raise self._failure

    async def stop(self) -> None:
        """Gateways first, control last. Idempotent."""
        if self._options.ready_file is not None:
            with contextlib.suppress(OSError):
                self._options.ready_file.unlink(missing_ok=True)
        self._told = None
        gateway_s = self._config.gateway.stop_s + GRACE_S
        await asyncio.gather(*(gateway.stop(gateway_s) for gateway in self._gateways))
        await self._store.stop(self._config.store.stop_s + GRACE_S)
        await self._control.stop(GRACE_S)
        for child in self._children:
            child.close()
        for descriptor in (self._pipe, self._keep):
            if descriptor >= 0:
                os.close(descriptor)
        self._pipe = self._keep = -1

    async def _until_asked(self) -> None:
        await self._stopping.wait()

    def stop_asked(self) -> None:
        """A signal: stop in order; a second one: at once."""
        self._asked += 1
        self._stopping.set()
        if self._asked > 1:
            for child in self._children:
                child.kill()

    def reload(self) -> None:
        """Pass SIGHUP on."""
        for child in self._children:
            if child.process_id:
                os.kill(child.process_id, signal.SIGHUP)

    async def _start(self) -> None:
        try:
            async with asyncio.timeout(START_S):
                for child in self._children:
                    await child.was_ready.wait()
                self._told = await self._describe()
        except TimeoutError:
            late = [f"{each.role} ({each.status})" for each in self._children]
            raise Unreachable(f"cannot start within {START_S:.0f} s: {', '.join(late)}") from None
        self._write_ready()
        print(_words(self._told, self._config), flush=True)  # noqa: T201

    async def _describe(self) -> dict[str, Any]:
        peer = await connect(self._config.control_socket, role="supervisor")
        try:
            described: dict[str, Any] = await peer.call("describe", timeout_s=START_S)
        finally:
            peer.close()
        return described

    def _tell_ready(self) -> None:
        """A role is ready; perhaps it came back under another process id."""
        try:
            self._write_ready()
        except Unreachable as error:
            self._failure = error
            self._stopping.set()

    def _write_ready(self) -> None:
        file = self._options.ready_file
        if file is None or self._told is None:
            return
        process_ids = {
            "supervisor": os.getpid(),
            "control": self._control.process_id,
            "store": self._store.process_id,
            "gateways": [gateway.process_id for gateway in self._gateways],
        }
        document = {**self._told, "pids": process_ids}
        temporary = file.with_name(f".{file.name}.{os.getpid()}")
        try:
            # Nobody else ever sees the secrets in it, not even while it is written.
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with open(descriptor, "w", encoding="utf-8") as stream:
                json.dump(document, stream, indent=1)
            temporary.rename(file)
        except OSError as error:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise Unreachable(f"cannot write the ready file {file}: {error.strerror}") from error


def _words(told: Mapping[str, Any], config: Config) -> str:
    """What a person needs to begin."""
    lines = ["The appliance serves.", "", f"  endpoint    {told['endpoint']}"]
    if told["plain_endpoint"]:
        lines.append(f"  plain HTTP  {told['plain_endpoint']} (development only)")
    lines += [f"  CA          {told['ca_file']}", f"  region      {told['region']}"]
    for account in told["accounts"]:
        lines += [
            f"  account     {account['name']} (bucket {account['bucket']})",
            f"    access key  {account['access_key']}",
            f"    secret key  {account['secret_key']}",
        ]
    lines += ["", "Try it:", "", f"  {_aws_line(told)}", ""]
    if _program("aws") == "aws" and not shutil.which("aws"):
        lines += ["  (without an aws command here: apt-get install awscli)", ""]
    socket = shlex.quote(str(config.admin_socket))
    lines += [f"  APPLIANCE_SOCKET={socket} {_program('appliance')} status", ""]
    return "\n".join(lines)


def _aws_line(told: Mapping[str, Any]) -> str:
    account = told["accounts"][0] if told["accounts"] else {"access_key": "", "secret_key": ""}
    variables = {
        "AWS_CA_BUNDLE": told["ca_file"],
        "AWS_ACCESS_KEY_ID": account["access_key"],
        "AWS_SECRET_ACCESS_KEY": account["secret_key"],
        "AWS_DEFAULT_REGION": told["region"],
    }
    words = [f"{name}={shlex.quote(value)}" for name, value in variables.items()]
    return " ".join([*words, _program("aws"), "--endpoint-url", told["endpoint"], "s3 ls"])


def _program(name: str) -> str:
    """The command as the person can call it."""
    beside = Path(sys.executable).parent / name
    return name if shutil.which(name) or not beside.exists() else shlex.quote(str(beside))
