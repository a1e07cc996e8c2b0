"""A drive whose writes fail for a while: the device stays, and later works again.

Owns the storage daemon's control socket. The daemon's export stands on a raw node, under which a
node that fails is put in and taken out again while it serves. Flushes are not failed: the daemon
flushes a node before it takes it out.
"""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any, Final

from tests.system.drives import DRIVE_BYTES, DyingDrive

ANSWER_S: Final = 20.0


class FailingDrive(DyingDrive):
    """See the module."""

    def __init__(self, folder: Path, name: str, *, size_bytes: int = DRIVE_BYTES) -> None:
        super().__init__(folder, name, size_bytes=size_bytes)
        self._control = folder / f"{name}.control"

    def _nodes(self) -> list[str]:
        return [
            f"driver=file,node-name=bytes,filename={self.image},cache.direct=off",
            "driver=raw,node-name=image,file=bytes",
        ]

    def _more(self) -> list[str]:
        self._control.unlink(missing_ok=True)
        socket_at = f"socket,id=control,path={self._control},server=on,wait=off"
        return ["--chardev", socket_at, "--monitor", "chardev=control"]

    def fail_writes(self) -> None:
        """From now on every write of the device ends with EIO, until ``heal``."""
        error = {"event": "none", "iotype": "write", "errno": 5, "immediately": True}
        bad = {
            "driver": "blkdebug",
            "node-name": "bad",
            "image": "bytes",
            "inject-error": [error, {**error, "iotype": "write-zeroes"}],
        }
        self._tell([("blockdev-add", bad), _standing_on("bad")])

    def heal(self) -> None:
        """The device takes writes again."""
        self._tell([_standing_on("bytes"), ("blockdev-del", {"node-name": "bad"})])

    def _tell(self, commands: list[tuple[str, dict[str, Any]]]) -> None:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(ANSWER_S)
            connection.connect(str(self._control))
            with connection.makefile("rw", encoding="utf-8") as talk:
                talk.readline()
                for command, arguments in [("qmp_capabilities", {}), *commands]:
                    talk.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
                    talk.flush()
                    while not {"return", "error"} & (said := json.loads(talk.readline())).keys():
                        pass
                    assert "return" in said, f"{command}: {said}"


def _standing_on(node: str) -> tuple[str, dict[str, Any]]:
    options = [{"driver": "raw", "node-name": "image", "file": node}]
    return "blockdev-reopen", {"options": options}
