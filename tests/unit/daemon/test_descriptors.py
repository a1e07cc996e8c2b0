"""Descriptors are given to the service manager and had back."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from appliance.system import descriptors


def test_descriptors_travel_with_their_names(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        with (tmp_path / "file").open("w") as file:
            descriptors.keep("https internet 1", file.fileno(), str(tmp_path / "notify"))
        message, [number], _, _ = socket.recv_fds(manager, 4096, 4)
        assert message == b"FDSTORE=1\nFDPOLL=0\nFDNAME=https internet 1"
        os.write(number, b"through the copy")
        os.close(number)
        descriptors.forget("https internet 1", str(tmp_path / "notify"))
        assert manager.recv(4096) == b"FDSTOREREMOVE=1\nFDNAME=https internet 1"
    assert (tmp_path / "file").read_text() == "through the copy"
    descriptors.keep("nobody keeps it", 0, None)
    with pytest.raises(AssertionError):
        descriptors.keep("a:b", 0, None)


def test_kept_ones_are_taken_from_the_environment_once() -> None:
    pipes = os.pipe()
    try:
        environment = {
            descriptors.KEPT_VARIABLE: f"a=b={pipes[0]}\nc={pipes[1]}",
            "LISTEN_FDS": "7",
            "LISTEN_PID": "1",
            "LISTEN_FDNAMES": "x",
            "HOME": "/",
        }
        assert descriptors.kept(environment) == {"a=b": pipes[0], "c": pipes[1]}
        assert environment == {"HOME": "/"}
        assert descriptors.kept(environment) == {}
    finally:
        for each in pipes:
            os.close(each)


def test_systemd_s_own_way_is_understood() -> None:
    """A fresh process, where numbers from 3 on are free for systemd's descriptors."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.dup2(writing, 3)
        os.dup2(writing, 4)
        environment = {
            "LISTEN_FDS": "2", "LISTEN_PID": str(os.getpid()), "LISTEN_FDNAMES": "one:two",
        }  # fmt: skip
        found = descriptors.kept(environment)
        os._exit(0 if found == {"one": 3, "two": 4} and not environment else 1)
    os.close(reading)
    os.close(writing)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
