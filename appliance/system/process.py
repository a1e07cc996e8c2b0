"""Programs: started with an argument list, bounded in time and output, never through a shell.

Owns one call. Refuses to wait for a program that does not die: a tool stuck in the kernel on a hung
drive is left behind at its deadline and reported, so that it stalls nobody else.
"""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from appliance.core.errors import DriveTimeout, Unreachable

OUTPUT_BYTES_MAX: Final = 1024 * 1024
_SEARCH: Final = "/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, slots=True)
class Finished:
    """What a program left: exit code, output, and its complaint as one line."""

    code: int
    output: str
    complaint: str


def run(arguments: Sequence[str], *, deadline_s: float) -> Finished:
    """Run a program to its end. Blocking; any thread.

    Raises ``Unreachable`` when it is not installed, ``DriveTimeout`` when it is not back by the
    deadline (it is killed, and left behind if it cannot die).
    """
    program = arguments[0]
    environment = {"PATH": _SEARCH, "LC_ALL": "C.UTF-8"}
    try:
        process = subprocess.Popen(
            list(arguments),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            close_fds=True,
        )
    except FileNotFoundError as error:
        raise Unreachable(
            f"cannot run {program}: it is not installed; install the package that has it"
        ) from error
    except PermissionError as error:
        raise Unreachable(f"cannot run {program}: permission denied") from error
    try:
        output, complaint = process.communicate(timeout=deadline_s)
    except subprocess.TimeoutExpired as error:
        _abandon(process)
        raise DriveTimeout(
            arguments[-1], program, errno.ETIMEDOUT, f"not back after {deadline_s:g} s"
        ) from error
    return Finished(process.returncode, _text(output), _one_line(complaint))


def _abandon(process: subprocess.Popen[bytes]) -> None:
    """Kill without waiting: a process stuck in the kernel dies only when its call returns."""
    process.kill()
    for stream in (process.stdout, process.stderr):
        if stream is not None:
            stream.close()
    try:
        process.wait(timeout=0.5)
    except subprocess.TimeoutExpired:
        # The object is kept from warning about a child that the kernel will reap with us.
        process.returncode = -1


def _text(data: bytes) -> str:
    return data[:OUTPUT_BYTES_MAX].decode("utf-8", errors="replace")


def _one_line(data: bytes) -> str:
    lines = [line.strip() for line in _text(data).splitlines() if line.strip()]
    return "; ".join(lines[-3:])


def is_root() -> bool:
    """Whether this process may mount and format."""
    return os.geteuid() == 0
