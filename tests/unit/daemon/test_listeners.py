"""Ports are bound once, refused when busy, and named for the gateways."""

from __future__ import annotations

import socket

import pytest

from appliance.core.errors import Unreachable
from appliance.daemon.listeners import network_of, open_listeners


def test_every_address_has_a_socket_under_its_name() -> None:
    listeners = open_listeners(["127.0.0.1:0"], ["localhost:0"], backlog=16)
    try:
        sockets = listeners.by_name()
        names = list(sockets)
        assert network_of(names[0]) == ("https", "internet")
        assert network_of(names[1]) == ("http", "internet")
        port = sockets[names[0]].getsockname()[1]
        assert listeners.endpoint("https") == f"https://localhost:{port}"
        plain = listeners.endpoint("http")
        assert plain is not None
        # Both loopback addresses, where the machine has both, on one port.
        assert all(name.endswith(plain.rsplit(":", 1)[1]) for name in names[1:])
        for _ in range(3):
            socket.create_connection(("127.0.0.1", port), timeout=5).close()
    finally:
        listeners.close()
        listeners.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=5)


def test_a_busy_port_is_refused_even_if_it_would_be_shared() -> None:
    with socket.socket() as busy:
        busy.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        address = f"127.0.0.1:{busy.getsockname()[1]}"
        for https, http in (([address], []), (["127.0.0.1:0"], [address])):
            with pytest.raises(Unreachable, match="another program uses that port"):
                open_listeners(https, http, backlog=16)


def test_an_address_of_another_machine_is_named() -> None:
    with pytest.raises(Unreachable, match=r"192\.0\.2\.1:0: this machine has no such address"):
        open_listeners(["192.0.2.1:0"], [], backlog=16)


def test_kept_sockets_are_used_again_and_superfluous_ones_told() -> None:
    first = open_listeners(["127.0.0.1:0"], ["localhost:0"], backlog=16)
    kept = dict(first.fresh)
    assert len(kept) == len(first.bound)
    second = open_listeners(["127.0.0.1:0"], ["localhost:0"], backlog=16, kept=kept)
    assert not second.fresh
    assert not second.superfluous
    assert second.endpoint("https") == first.endpoint("https")
    assert second.endpoint("http") == first.endpoint("http")
    third = open_listeners(["127.0.0.1:0"], [], backlog=16, kept=kept)
    assert not third.fresh
    assert len(third.superfluous) == len(kept) - 1
    more = open_listeners(["127.0.0.1:0"], [], backlog=16)
    for listeners in (third, first, more):
        listeners.close()


def test_an_address_may_change_while_its_port_stays() -> None:
    """The service manager has a copy of every kept socket until it is told to forget it."""
    with socket.socket() as chosen:
        chosen.bind(("127.0.0.1", 0))
        port = chosen.getsockname()[1]
    first = open_listeners([f"0.0.0.0:{port}"], [], backlog=16)
    other = open_listeners(["127.0.0.1:0"], [], backlog=16)
    kept = dict(first.fresh) | dict(other.fresh)
    copies = [each.dup() for each in kept.values()]
    second = open_listeners([f"127.0.0.1:{port}"], [], backlog=16, kept=kept)
    try:
        assert len(second.superfluous) == 2
        assert second.endpoint("https") == f"https://localhost:{port}"
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
        # What is in nobody's way serves on until its gateways are told otherwise.
        (elsewhere,) = (each.port for each in other.bound)
        socket.create_connection(("127.0.0.1", elsewhere), timeout=5).close()
    finally:
        for listeners in (second, first, other):
            listeners.close()
        for copy in copies:
            copy.close()
