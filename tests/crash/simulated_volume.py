"""The volume of a simulated drive: ``core.ports.Volume`` over ``simulated.SimulatedDisk``."""

from __future__ import annotations

import errno
import random
from typing import TYPE_CHECKING, Final

from appliance.core.errors import DriveFault
from appliance.core.ports import Buffer, FileStat, Space

if TYPE_CHECKING:
    from tests.crash.simulated import SimulatedDisk

BLOCK_BYTES: Final = 4096
SECTOR_BYTES: Final = 512


class PowerCut(BaseException):
    """The machine is off. No engine code may catch it: nobody is there to catch anything."""


def parent(path: str) -> str:
    """The directory a path lies in."""
    return path.rpartition("/")[0]


class Inode:
    """A file's contents: as readers see them, and as they are on stable storage."""

    def __init__(self) -> None:
        self.live = bytearray()
        self.stable = bytearray()
        self.waiting: list[tuple[int, bytes | None]] = []

    def write(self, offset: int, data: bytes) -> None:
        put_bytes(self.live, offset, data)
        self.waiting.append((offset, data))

    def truncate(self, length: int) -> None:
        _resize(self.live, length)
        self.waiting.append((length, None))

    def flush(self) -> None:
        for offset, data in self.waiting:
            self._settle(offset, data)
        self.waiting.clear()

    def _settle(self, offset: int, data: bytes | None) -> None:
        if data is None:
            _resize(self.stable, offset)
        else:
            put_bytes(self.stable, offset, data)

    def lose_cache(self, rng: random.Random) -> None:
        for offset, data in self.waiting:
            fate = rng.randrange(4)
            if fate == 0:
                continue
            if fate == 1 or data is None:
                self._settle(offset, data)
                continue
            for at in range(0, len(data), SECTOR_BYTES):
                if rng.randrange(4 if fate == 2 else 2):
                    put_bytes(self.stable, offset + at, data[at : at + SECTOR_BYTES])
        self.waiting.clear()
        self.live = bytearray(self.stable)


def _resize(content: bytearray, length: int) -> None:
    if length < len(content):
        del content[length:]
    else:
        content.extend(bytes(length - len(content)))


def put_bytes(content: bytearray, offset: int, data: bytes) -> None:
    if len(content) < offset + len(data):
        _resize(content, offset + len(data))
    content[offset : offset + len(data)] = data


class SimulatedFile:
    """An open file of a ``SimulatedVolume``."""

    def __init__(
        self,
        volume: SimulatedVolume,
        path: str,
        inode: Inode,
        *,
        write: bool,
        durable: bool,
        direct: bool = False,
    ) -> None:
        self._volume = volume
        self._path = path
        self._inode = inode
        self._write = write
        self._durable = durable
        self._direct = durable or direct

    def read_at(self, offset: int, length: int, *, past_cache: bool = False) -> bytes:
        self._volume.check(self._path)
        if not self._volume.disk.begin("read", self._path, offset, length):
            raise PowerCut
        return bytes(self._inode.live[offset : offset + length])

    def read_cached(self, offset: int, length: int) -> bytes | None:
        return None  # every read of a simulated drive may fail

    def write_at(self, offset: int, data: Buffer) -> None:
        self._volume.check(self._path)
        assert self._write, f"{self._path} is open for reading only"
        content = bytes(data)
        if self._direct:
            assert offset % BLOCK_BYTES == 0 and len(content) % BLOCK_BYTES == 0, (
                "a direct write must be of whole blocks"
            )
        self._volume.disk.write(self._inode, self._path, offset, content, durable=self._durable)

    def flush(self) -> None:
        self._volume.check(self._path)
        if not self._volume.disk.begin("flush", self._path):
            raise PowerCut
        if not self._volume.disk.lies_about_flushes:
            self._inode.flush()

    def allocate(self, length: int) -> None:
        self._volume.check(self._path)
        disk = self._volume.disk
        stays_on = disk.begin("allocate", self._path, 0, length)
        if disk.used_bytes() + length - len(self._inode.live) > disk.capacity_bytes:
            raise DriveFault(disk.name, f"allocate {self._path}", errno.ENOSPC)
        if not stays_on:
            raise PowerCut

    def truncate(self, length: int) -> None:
        self._volume.check(self._path)
        stays_on = self._volume.disk.begin("truncate", self._path, length)
        self._inode.truncate(length)
        if not stays_on:
            raise PowerCut

    def size_bytes(self) -> int:
        self._volume.check(self._path)
        return len(self._inode.live)

    def close(self) -> None:
        return


class SimulatedVolume:
    """One mount of a ``SimulatedDisk``; implements ``core.ports.Volume``."""

    def __init__(self, disk: SimulatedDisk, mount: int) -> None:
        self.disk = disk
        self._mount = mount

    @property
    def name(self) -> str:
        return self.disk.name

    def check(self, path: str) -> None:
        if not self.disk.power.is_on:
            raise PowerCut
        if self._mount != self.disk.mounts:
            raise DriveFault(self.name, f"using {path}", errno.EIO, "the mount is gone")

    def _look(self, kind: str, path: str) -> None:
        self.check(path)
        if self.disk.look_hook is not None:
            self.disk.look_hook(kind, path)

    def _begin(self, kind: str, path: str) -> bool:
        self.check(path)
        return self.disk.begin(kind, path)

    def _fault(self, code: int, path: str) -> DriveFault:
        return DriveFault(self.name, f"using {path}", code)

    def open(
        self,
        path: str,
        *,
        write: bool = False,
        create: bool = False,
        durable: bool = False,
        direct: bool = False,
    ) -> SimulatedFile:
        tree = self.disk.tree
        if not create:
            self._look("open", path)
            if not self.disk.is_present:
                raise self._fault(errno.EIO, path)
            if path not in tree:
                raise self._fault(errno.ENOENT, path)
            inode = tree[path]
            if inode is None:
                raise self._fault(errno.EISDIR, path)
            return SimulatedFile(self, path, inode, write=write, durable=durable, direct=direct)
        stays_on = self._begin("create", path)
        if path in tree:
            raise self._fault(errno.EEXIST, path)
        self._need_directory(parent(path))
        inode = Inode()
        self.disk.change("create", path, "", inode)
        if not stays_on:
            raise PowerCut
        return SimulatedFile(self, path, inode, write=True, durable=durable, direct=direct)

    def _need_directory(self, path: str) -> None:
        if path not in self.disk.tree:
            raise self._fault(errno.ENOENT, path)
        if self.disk.tree[path] is not None:
            raise self._fault(errno.ENOTDIR, path)

    def make_directory(self, path: str) -> None:
        stays_on = self._begin("make_directory", path)
        parts = path.split("/")
        for count in range(1, len(parts) + 1):
            directory = "/".join(parts[:count])
            if directory not in self.disk.tree:
                self.disk.change("create", directory, "", None)
        if not stays_on:
            raise PowerCut

    def rename(self, source: str, target: str) -> None:
        stays_on = self._begin("rename", source)
        if source not in self.disk.tree:
            raise self._fault(errno.ENOENT, source)
        self._need_directory(parent(target))
        self.disk.change("rename", source, target, None)
        if not stays_on:
            raise PowerCut

    def take_over(self, path: str) -> None:
        """Everything here has one owner."""
        self.stat(path)

    def unlink(self, path: str) -> None:
        stays_on = self._begin("unlink", path)
        if path not in self.disk.tree:
            raise self._fault(errno.ENOENT, path)
        if self.disk.tree[path] is None:
            raise self._fault(errno.EISDIR, path)
        self.disk.change("unlink", path, "", None)
        if not stays_on:
            raise PowerCut

    def names(self, path: str) -> list[str]:
        self._look("names", path)
        if not self.disk.is_present:
            raise self._fault(errno.EIO, path)
        self._need_directory(path)
        return sorted(
            found.rpartition("/")[2] for found in self.disk.tree if found and parent(found) == path
        )

    def stat(self, path: str) -> FileStat | None:
        self._look("stat", path)
        if not self.disk.is_present:
            raise self._fault(errno.EIO, path)
        if path not in self.disk.tree:
            return None
        inode = self.disk.tree[path]
        return FileStat(0 if inode is None else len(inode.live), inode is None)

    def flush_directory(self, path: str) -> None:
        stays_on = self._begin("flush_directory", path)
        self._need_directory(path)
        if not stays_on:
            raise PowerCut
        self.disk.flush_names(path)

    def space(self) -> Space:
        self._look("space", "")
        if not self.disk.is_present:
            raise self._fault(errno.EIO, "")
        return Space(self.disk.capacity_bytes, self.disk.capacity_bytes - self.disk.used_bytes())

    def close(self) -> None:
        return
