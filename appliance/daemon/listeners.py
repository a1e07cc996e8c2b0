"""The sockets clients connect to, opened by control for every gateway.

Owns binding. Every gateway has its own socket per address (SO_REUSEPORT): the kernel then spreads
connections evenly, where on one shared socket the first to wake takes them all. Control keeps its
descriptors open: while a gateway restarts its connections queue, and it gets the same sockets
again. Refuses an address in use, also by another appliance that would share it. Invariant: all
sockets of one address have the same port.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from appliance.core.errors import Refused, Unreachable

INTERNET: Final = "internet"
HTTPS: Final = "https"
HTTP: Final = "http"
LOCALHOST: Final = "localhost"
_PORT_TRIES: Final = 20
_NO_SUCH_ADDRESS: Final = frozenset({errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT, errno.EADDRINUSE})


@dataclass(frozen=True, slots=True)
class Bound:
    """One address with a socket per gateway."""

    scheme: str
    network: str
    host: str
    port: int
    sockets: tuple[socket.socket, ...]

    @property
    def name(self) -> str:
        """How the socket is called when handed over: ``https internet [::]:443``."""
        return f"{self.scheme} {self.network} {self.host}:{self.port}"


class Listeners:
    """All listening sockets. Close at the very end."""

    def __init__(self, bound: Sequence[Bound]) -> None:
        self._bound = tuple(bound)

    def of_gateway(self, number: int) -> Mapping[str, socket.socket]:
        """The sockets of one gateway by name."""
        return {each.name: each.sockets[number] for each in self._bound}

    def endpoint(self, scheme: str) -> str | None:
        """The first address of a scheme as a URL a client on this machine can use."""
        for each in self._bound:
            if each.scheme == scheme:
                anywhere = each.host in {"[::]", "0.0.0.0"}
                local = each.host in {"127.0.0.1", "[::1]"}
                host = LOCALHOST if anywhere or local else each.host
                return f"{scheme}://{host}:{each.port}"
        return None

    def close(self) -> None:
        """Idempotent."""
        for each in self._bound:
            for listener in each.sockets:
                listener.close()


def network_of(name: str) -> tuple[str, str]:
    """Scheme and network out of a socket's name."""
    scheme, network, _ = name.split(" ", 2)
    return scheme, network


def open_listeners(
    https: Sequence[str], http: Sequence[str], *, gateways: int, backlog: int
) -> Listeners:
    """Bind every address for every gateway. Raises ``Unreachable`` for a port in use or an address
    the machine does not have, ``Refused`` for a port that takes a privilege."""
    bound: list[Bound] = []
    try:
        for scheme, addresses in ((HTTPS, https), (HTTP, http)):
            for address in addresses:
                host, _, port = address.rpartition(":")
                if host == LOCALHOST:
                    bound += _bind_loopback(scheme, int(port), gateways, backlog)
                else:
                    bound.append(_bind(scheme, host, int(port), gateways, backlog))
    except BaseException:
        Listeners(bound).close()
        raise
    return Listeners(bound)


def _bind_loopback(scheme: str, port: int, gateways: int, backlog: int) -> list[Bound]:
    """Both loopback addresses on one port; a machine may lack the IPv6 one."""
    for _ in range(_PORT_TRIES if port == 0 else 1):
        first = _bind(scheme, "127.0.0.1", port, gateways, backlog)
        try:
            return [first, _bind(scheme, "[::1]", first.port, gateways, backlog)]
        except Unreachable as error:
            cause = error.__cause__
            assert isinstance(cause, OSError)
            if cause.errno != errno.EADDRINUSE:
                return [first]
            Listeners([first]).close()
            if port != 0:
                raise
    raise Unreachable(f"cannot find a port that is free on both {LOCALHOST} addresses")


def _bind(scheme: str, host: str, port: int, gateways: int, backlog: int) -> Bound:
    opened: list[socket.socket] = []
    try:
        # Without SO_REUSEPORT first: it would silently share the port with another appliance.
        with _socket(host, port, shared=False) as probe:
            port = probe.getsockname()[1]
        for _ in range(gateways):
            opened.append(_socket(host, port, shared=True))
        for listener in opened:
            listener.listen(backlog)
    except OSError as error:
        for listener in opened:
            listener.close()
        raise _explained(host, port, error) from error
    return Bound(scheme, INTERNET, host, port, tuple(opened))


def _socket(host: str, port: int, *, shared: bool) -> socket.socket:
    family = socket.AF_INET6 if host.startswith("[") else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
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
