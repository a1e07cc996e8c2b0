"""The sockets clients connect to, opened by control for every gateway.

Owns binding. All gateways share one socket per address and agree among themselves who accepts (see
``s3.acceptor``): nobody's connections wait for a gateway that is busy, hung or restarting. With a
socket each (SO_REUSEPORT) the kernel would choose, by a hash, which often gives few connections to
one. Control keeps its descriptors open, so that connections queue while all gateways restart. The
service manager keeps them too, so that the same is true while control restarts.
Refuses an address in use. Invariant: a restart of any role changes no socket.
"""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from appliance.core.errors import Refused, Unreachable

INTERNET: Final = "internet"
HTTPS: Final = "https"
HTTP: Final = "http"
LOCALHOST: Final = "localhost"
LOOPBACKS: Final = ("127.0.0.1", "[::1]")
_PORT_TRIES: Final = 20
_NO_SUCH_ADDRESS: Final = frozenset({errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT})


@dataclass(frozen=True, slots=True)
class Wanted:
    """An address as configured; its port may be 0 for a free one."""

    scheme: str
    network: str
    host: str
    port: int

    @property
    def name(self) -> str:
        """How its socket is kept over restarts: no colon, see ``system.descriptors``."""
        host = self.host.replace(":", ";")
        return f"{self.scheme} {self.network} {host} {self.port}"


@dataclass(frozen=True, slots=True)
class Bound:
    """One address and its socket."""

    wanted: Wanted
    socket: socket.socket

    @property
    def port(self) -> int:
        """The port in fact."""
        return int(self.socket.getsockname()[1])

    @property
    def name(self) -> str:
        """How the socket is called when handed over: ``https internet [::]:443``."""
        wanted = self.wanted
        return f"{wanted.scheme} {wanted.network} {wanted.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Listeners:
    """All listening sockets. ``fresh`` were bound now and are to be kept over restarts;
    ``superfluous`` were kept, but nobody wants them any more. Close at the very end."""

    bound: Sequence[Bound]
    fresh: Mapping[str, socket.socket] = field(default_factory=dict)
    superfluous: Mapping[str, socket.socket] = field(default_factory=dict)

    def by_name(self) -> Mapping[str, socket.socket]:
        """What every gateway is handed."""
        return {each.name: each.socket for each in self.bound}

    def endpoint(self, scheme: str) -> str | None:
        """The first address of a scheme as a URL a client on this machine can use."""
        for each in self.bound:
            if each.wanted.scheme == scheme:
                here = {"[::]", "0.0.0.0", "127.0.0.1", "[::1]"}
                host = LOCALHOST if each.wanted.host in here else each.wanted.host
                return f"{scheme}://{host}:{each.port}"
        return None

    def close(self) -> None:
        """Idempotent."""
        for each in self.bound:
            each.socket.close()
        for listener in self.superfluous.values():
            listener.close()


def network_of(name: str) -> tuple[str, str]:
    """Scheme and network out of the name a socket was handed over with."""
    scheme, network, _ = name.split(" ", 2)
    return scheme, network


def open_listeners(
    https: Sequence[str],
    http: Sequence[str],
    *,
    backlog: int,
    kept: Mapping[str, socket.socket] | None = None,
) -> Listeners:
    """A socket for every address; those ``kept`` from an earlier life are used again. Raises
    ``Unreachable`` for a port in use or an address the machine does not have, ``Refused`` for a
    port that takes a privilege."""
    opener = _Opener(backlog, dict(kept or {}))
    addresses = [(HTTPS, *_parts(each)) for each in https]
    addresses += [(HTTP, *_parts(each)) for each in http]
    opener.make_way(addresses)
    try:
        for scheme, host, port in addresses:
            if host == LOCALHOST:
                opener.open_loopback(scheme, port)
            else:
                opener.open(Wanted(scheme, INTERNET, host, port))
    except BaseException:
        opener.result().close()
        raise
    return opener.result()


class _Opener:
    def __init__(self, backlog: int, kept: dict[str, socket.socket]) -> None:
        self._backlog = backlog
        self._kept = kept
        self._bound: list[Bound] = []
        self._fresh: dict[str, socket.socket] = {}

    def result(self) -> Listeners:
        return Listeners(self._bound, self._fresh, self._kept)

    def make_way(self, addresses: Sequence[tuple[str, str, int]]) -> None:
        """A kept socket that nobody wants any more, on a port that is now wanted for another
        address, listens no longer: the service manager's copy of it would keep the port busy."""
        wanted = {
            each.name: each.port
            for scheme, host, port in addresses
            for each in (
                Wanted(scheme, INTERNET, one, port)
                for one in (LOOPBACKS if host == LOCALHOST else (host,))
            )
        }
        ports = {port for name, port in wanted.items() if name not in self._kept}
        for name in self._kept.keys() - wanted.keys():
            if self._kept[name].getsockname()[1] in ports:
                with contextlib.suppress(OSError):  # it is not listening any more
                    self._kept[name].shutdown(socket.SHUT_RDWR)

    def open_loopback(self, scheme: str, port: int) -> None:
        """Both loopback addresses on one port; a machine may lack the IPv6 one."""
        first, second = (Wanted(scheme, INTERNET, host, port) for host in LOOPBACKS)
        for _ in range(_PORT_TRIES if port == 0 else 1):
            bound = self.open(first)
            try:
                self.open(second, bound.port)
            except Unreachable as error:
                cause = error.__cause__
                assert isinstance(cause, OSError)
                if cause.errno in _NO_SUCH_ADDRESS:
                    return
                if port != 0:
                    raise
                self._take_back(bound)
            else:
                return
        raise Unreachable(f"cannot find a port that is free on both {LOCALHOST} addresses")

    def open(self, wanted: Wanted, port: int | None = None) -> Bound:
        """``port`` overrides the wanted one."""
        again = self._kept.pop(wanted.name, None)
        if again is not None:
            bound = Bound(wanted, again)
        else:
            bound = _bind(wanted, port if port is not None else wanted.port, self._backlog)
            self._fresh[wanted.name] = bound.socket
        self._bound.append(bound)
        return bound

    def _take_back(self, bound: Bound) -> None:
        self._bound.remove(bound)
        self._fresh.pop(bound.wanted.name, None)
        bound.socket.close()


def _parts(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host, int(port)


def _bind(wanted: Wanted, port: int, backlog: int) -> Bound:
    try:
        opened = _socket(wanted.host, port)
        try:
            opened.listen(backlog)
        except OSError:
            opened.close()
            raise
    except OSError as error:
        raise _explained(wanted.host, port, error) from error
    return Bound(wanted, opened)


def _socket(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if host.startswith("[") else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        made.bind((host.strip("[]"), port))
    except OSError:
        made.close()
        raise
    return made


def _explained(host: str, port: int, error: OSError) -> Unreachable | Refused:
    where = f"cannot listen on {host}:{port}"
    if error.errno == errno.EADDRINUSE:
        return Unreachable(f"{where}: another program uses that port; stop it or choose another")
    if error.errno in {errno.EACCES, errno.EPERM}:
        return Refused(f"{where}: ports below 1024 need root; choose a higher one")
    if error.errno in _NO_SUCH_ADDRESS:
        return Unreachable(f"{where}: this machine has no such address")
    return Unreachable(f"{where}: {error.strerror}")
