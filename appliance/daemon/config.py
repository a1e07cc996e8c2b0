"""The configuration of one machine: every key there is, its default and what it is for.

Owns what must be known before an engine is open, and limits. Everything else (drives, contracts,
accounts, certificates) is made by commands and lies on the drives. Refuses what ``settings``
refuses. Invariant: immutable once read.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import os
import re
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from appliance.core.errors import ConfigError
from appliance.daemon.settings import (
    Source,
    between,
    one_of,
    read_document,
    read_override,
    read_section,
    setting,
    type_words,
)

DEFAULT_FILE: Final = Path("/etc/appliance/appliance.toml")
DEVELOPMENT_MIRROR: Final = "m0"
_VARIABLE_PREFIX: Final = "APPLIANCE_"
_ZONE: Final = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*")
_REGION: Final = re.compile(r"[a-z0-9-]{1,32}")
_ADDRESS: Final = re.compile(r"(\[[0-9a-fA-F:.]+\]|[0-9.]+|localhost):(\d{1,5})")


def is_listen_address(address: str) -> bool:
    """``HOST:PORT`` with an IPv6 host in brackets; port 0 takes a free one."""
    found = _ADDRESS.fullmatch(address)
    if found is None or int(found[2]) > 65535:
        return False
    try:
        return found[1] == "localhost" or bool(ipaddress.ip_address(found[1].strip("[]")))
    except ValueError:
        return False


@dataclass(frozen=True, slots=True)
class ServiceSection:
    """What the service is called."""

    zone: str = setting(
        "localhost",
        "DNS zone of the service: S3 is at s3.ZONE, buckets at BUCKET.s3.ZONE.",
        allowed="a lower-case DNS name without the dot at the end",
        check=lambda value: len(value) <= 200 and _ZONE.fullmatch(value) is not None,
    )
    region: str = setting(
        "us-east-1",
        "Region that clients sign their requests for.",
        allowed="1 to 32 lower-case letters, digits and hyphens",
        check=lambda value: _REGION.fullmatch(value) is not None,
    )


@dataclass(frozen=True, slots=True)
class PathsSection:
    """Where the machine keeps what is not on the drives."""

    state: Path = setting(  # noqa: RUF009 - paths are immutable
        Path("/var/lib/appliance"),
        "Index, witness, certificates and, unless systemd hands it over, the master key.",
        allowed="an absolute path",
        check=Path.is_absolute,
    )
    runtime: Path = setting(  # noqa: RUF009 - paths are immutable
        Path("/run/appliance"),
        "Sockets between the processes, and the places where drives are mounted.",
        allowed="an absolute path",
        check=Path.is_absolute,
    )


@dataclass(frozen=True, slots=True)
class ListenSection:
    """Where clients connect."""

    https: tuple[str, ...] = setting(
        ("[::]:443", "0.0.0.0:443"),
        "Addresses for S3 over HTTPS. One that the machine does not have is refused at the start.",
        allowed="1 to 16 of HOST:PORT, IPv6 hosts in brackets, port 0 for a free one",
        check=lambda value: 1 <= len(value) <= 16 and all(map(is_listen_address, value)),
    )
    backlog: int = setting(
        1024,
        "Connections that may wait to be accepted, per address.",
        **between(16, 65535),
    )


@dataclass(frozen=True, slots=True)
class GatewaySection:
    """The processes that speak S3, and what one of them lets clients do."""

    processes: int = setting(
        0, "How many gateways run; 0 for one per processor core.", **between(0, 64)
    )
    connections: int = setting(
        4096, "Connections to one gateway; beyond it 503 SlowDown.", **between(16, 65536)
    )
    connections_per_client: int = setting(
        1024,
        "Connections of one client address to one gateway; 0 for no such limit.",
        **between(0, 65536),
    )
    idle_s: float = setting(
        60.0, "How long a connection may wait for its next request.", **between(5, 600)
    )
    body_wait_s: float = setting(
        30.0, "How long a request's body may make no progress.", **between(1, 600)
    )
    hashing_threads: int = setting(
        2, "Threads per gateway that hash and encrypt large bodies.", **between(1, 16)
    )
    stop_s: float = setting(
        30.0, "How long requests in flight may take to finish at a stop.", **between(1, 600)
    )
    single_part_max_bytes: int = setting(
        5 * 1024**3,
        "Largest body of one PUT or one part of a multipart upload.",
        **between(1, 5 * 1024**3),
    )
    public_access: bool = setting(
        False,
        "Whether customers may open buckets and objects to everybody. Without it access lists for"
        " all users are refused, and those that are there already give nobody anything.",
    )


@dataclass(frozen=True, slots=True)
class StoreSection:
    """The process that writes to a mirror's drives."""

    stop_s: float = setting(
        60.0, "How long commits in flight and the checkpoint may take at a stop.", **between(1, 600)
    )
    missing_drive_wait_s: float = setting(
        90.0,
        "How long a start waits for a drive that is missing before it goes on without it.",
        **between(0, 3600),
    )
    drive_deadline_s: float = setting(
        30.0,
        "How long a call may take on a drive whose peer has answered before it counts as failed.",
        **between(1, 600),
    )
    read_errors_advised: int = setting(
        10,
        "After so many read errors since it was claimed a drive is advised for replacement.",
        **between(1, 1_000_000),
    )
    crash_limit: int = setting(
        3,
        "After so many crashes on the same data the store starts for reading alone; 0 for never.",
        **between(0, 16),
    )
    crash_window_s: float = setting(
        300.0,
        "The time within which crashes are counted, and how long a store that starts for reading"
        " alone must run without one to take writes again.",
        **between(10, 86400),
    )
    resync_limit_mib_s: float = setting(
        0.0,
        "Most MiB per second that are copied when a drive is brought into a mirror; 0: no limit.",
        **between(0, 100_000),
    )
    resync_busy_percent: int = setting(
        25,
        "Share of its time that bringing a drive in may take while clients are active, in percent.",
        **between(1, 100),
    )
    resync_threads: int = setting(
        8,
        "Objects that are copied at a time when a drive is brought in and no client is active.",
        **between(1, 64),
    )
    resync_commit_percent: int = setting(
        50,
        "While a drive that is brought in cannot catch up with what clients write, they may write"
        " this share of what is copied meanwhile, in percent.",
        **between(1, 99),
    )
    spare_after_failed_s: float = setting(
        0.0,
        "How long a drive of a mirror counts as failed before a spare takes its place.",
        **between(0, 30 * 86_400),
    )
    spare_after_absent_s: float = setting(
        600.0,
        "How long a drive of a mirror is missing before a spare takes its place.",
        **between(0, 30 * 86_400),
    )
    trim_interval_days: float = setting(
        7.0,
        "Days between two times that drives are told what is free (discard); 0 for never.",
        **between(0, 365),
    )
    trim_freed_percent: float = setting(
        10.0,
        "Freed share of a drive, in percent, that it is told of sooner, once a day at most.",
        **between(1, 100),
    )
    scrub_interval_days: float = setting(
        30.0,
        "Days of service between two scrubs of a mirror, up to a tenth of them less; 0 for none but"
        " those asked for.",
        **between(0, 3650),
    )
    scrub_limit_mib_s: float = setting(
        0.0,
        "MiB per second that a scrub reads of each drive at most; 0 for no limit.",
        **between(0, 100_000),
    )
    scrub_busy_percent: int = setting(
        25, "Share of its time that a scrub works while clients are active.", **between(1, 100)
    )
    compaction_limit_mib_s: float = setting(
        64.0,
        "MiB per second that compaction of the log writes at most while room is not short; 0 for no"
        " limit.",
        **between(0, 100_000),
    )
    compaction_busy_percent: int = setting(
        25,
        "Share of its time that compaction works while clients are active and room is not short.",
        **between(1, 100),
    )


@dataclass(frozen=True, slots=True)
class LogSection:
    """What the processes write to the journal."""

    level: str = setting(
        "info", "Least severe kind of message.", **one_of("debug", "info", "warning", "error")
    )


@dataclass(frozen=True, slots=True)
class DevelopmentSection:
    """Development only: ``appliance dev`` writes this section, a server never has it."""

    enabled: bool = setting(
        False, "Directories as drives, plain HTTP, secrets shown again. Never on a server."
    )
    drives: tuple[Path, ...] = setting(
        (),
        "Directories that serve as drives.",
        allowed="none or two absolute paths",
        check=lambda value: len(value) in {0, 2} and all(path.is_absolute() for path in value),
    )
    plain_http: tuple[str, ...] = setting(
        (),
        "Addresses for S3 over plain HTTP.",
        allowed="a list of HOST:PORT",
        check=lambda value: all(map(is_listen_address, value)),
    )
    accounts: tuple[str, ...] = setting(
        (), "Accounts to make at the start; one called tenant gets a contract of its own."
    )


@dataclass(frozen=True, slots=True)
class Config:
    """Everything one process of the appliance is told."""

    service: ServiceSection = field(default_factory=ServiceSection)
    paths: PathsSection = field(default_factory=PathsSection)
    listen: ListenSection = field(default_factory=ListenSection)
    gateway: GatewaySection = field(default_factory=GatewaySection)
    store: StoreSection = field(default_factory=StoreSection)
    log: LogSection = field(default_factory=LogSection)
    development: DevelopmentSection = field(default_factory=DevelopmentSection)

    @property
    def gateways(self) -> int:
        """How many gateways run."""
        return self.gateway.processes or len(os.sched_getaffinity(0))

    @property
    def control_socket(self) -> Path:
        """Where control answers the other processes."""
        return self.paths.runtime / "control.sock"

    @property
    def admin_socket(self) -> Path:
        """Where control answers the ``appliance`` command."""
        return self.paths.runtime / "admin.sock"

    def sockets_of(self, gateway: int) -> Path:
        """Where control hands a gateway its listening sockets."""
        return self.paths.runtime / f"listen-{gateway}.sock"

    def store_socket(self, mirror: str) -> Path:
        """Where the store of a mirror answers."""
        return self.paths.runtime / "store" / f"{mirror}.sock"


def load(file: Path, environment: Mapping[str, str]) -> Config:
    """The configuration in ``file``; in development also the environment's word. Raises
    ``ConfigError``."""
    document, source = read_document(file)
    config = read_config(document, source)
    return override(config, environment) if config.development.enabled else config


def read_config(document: Mapping[str, Any], source: Source) -> Config:
    """A configuration out of a parsed file. Raises ``ConfigError``."""
    kinds = section_kinds()
    for name, table in document.items():
        if name not in kinds:
            known = f"sections are {', '.join(kinds)}"
            if isinstance(table, dict):
                raise ConfigError(f"{source.at(name)}: unknown section {name}; {known}")
            raise ConfigError(
                f"{source.line(name)}, key {name}: it stands outside of any section; {known}"
            )
    sections = {
        name: read_section(kinds[name], name, table, source) for name, table in document.items()
    }
    return Config(**sections)


def override(config: Config, environment: Mapping[str, str]) -> Config:
    """The configuration with every ``APPLIANCE_<SECTION>_<KEY>`` applied."""
    for name, kind in section_kinds().items():
        changed = {}
        for key in (each.name for each in dataclasses.fields(kind)):
            variable = f"{_VARIABLE_PREFIX}{name}_{key}".upper()
            if variable in environment:
                changed[key] = read_override(kind, name, key, environment[variable], variable)
        if changed:
            section = dataclasses.replace(getattr(config, name), **changed)
            config = dataclasses.replace(config, **{name: section})
    return config


def section_kinds() -> dict[str, type[Any]]:
    """The dataclass of every section, by name."""
    return typing.get_type_hints(Config)


def documentation() -> str:
    """Every key as Markdown tables; ``docs/configuration.md`` holds exactly this."""
    lines: list[str] = []
    for name, kind in section_kinds().items():
        hints = typing.get_type_hints(kind)
        lines += [f"## `[{name}]`", "", f"{kind.__doc__}", ""]
        lines += ["| key | what | type | default | allowed |", "|---|---|---|---|---|"]
        for each in dataclasses.fields(kind):
            metadata = each.metadata
            cells = [
                f"`{each.name}`",
                metadata["doc"],
                type_words(hints[each.name]),
                f"`{_as_toml(each.default)}`",
                metadata["allowed"] or "any",
            ]
            lines.append(f"| {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines)


def as_toml(config: Config) -> str:
    """The configuration as a file that ``load`` reads back to the same."""
    lines: list[str] = []
    for name in section_kinds():
        section = getattr(config, name)
        lines.append(f"[{name}]")
        lines += [
            f"{each.name} = {_as_toml(getattr(section, each.name))}"
            for each in dataclasses.fields(section)
        ]
        lines.append("")
    return "\n".join(lines)


def _as_toml(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(value)
    if isinstance(value, tuple):
        return f"[{', '.join(map(_as_toml, value))}]"
    text = str(value).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'
