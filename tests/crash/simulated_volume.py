"""The volume of a simulated drive: ``core.ports.Volume`` over ``simulated.SimulatedDisk``."""

from __future__ import annotations

import errno
import random
from typing import TYPE_CHECKING

from appliance.core.errors import DriveFault
from appliance.core.ports import Buffer, FileStat, Space
from tests.crash.images import (
    BLOCK_BYTES,
    EMPTY,
    Content,
    FrozenFile,
    Waiting,
    keep_write,
    put_bytes,
    resize,
)

if TYPE_CHECKING:
    from tests.crash.simulated import SimulatedDisk


class PowerCut(BaseException):
    """The machine is off. No engine code may catch it: nobody is there to catch anything."""


def parent(path: str) -> str:
    """The directory a path lies in."""
    return path.rpartition("/")[0]


class Inode:
    """A file's contents: as readers see them, and as they are on stable storage."""

    __slots__ = ("_frozen", "_live", "_stable", "_waiting")

    def __init__(self, stable: Content = EMPTY) -> None:
        self._stable = stable
        self._live: bytearray | None = None  # only while it differs, or may
        self._waiting: list[Waiting] = []
        self._frozen: FrozenFile | None = None

    @property
    def live(self) -> bytes | bytearray:
        """What a reader sees. Read only."""
        return self._stable.data if self._live is None else self._live

    @property
    def stable(self) -> Content:
        """What is on stable storage."""
        return self._stable

    def frozen(self) -> FrozenFile:
        """As it is now."""
        if self._frozen is None:
            self._frozen = FrozenFile(self._stable, tuple(self._waiting))
        return self._frozen

    def _change(self) -> bytearray:
        self._frozen = None
        if self._live is None:
            self._live = bytearray(self._stable.data)
        return self._live

    def write(self, offset: int, data: bytes) -> None:
        put_bytes(self._change(), offset, data)
        self._waiting.append(Waiting(offset, data))

    def truncate(self, length: int) -> None:
        resize(self._change(), length)
        self._waiting.append(Waiting(length, None))

    def flush(self) -> None:
        if self._waiting:
            self._stable = Content(bytes(self.live))
            self._waiting.clear()
            self._frozen = None

    def flush_range(self, offset: int, length: int) -> None:
        """What a durable write leaves: its own range is stable, and nothing else of the file."""
        end = offset + length
        pieces = [(at, data) for at, data in self._waiting if data is not None]
        resized = len(pieces) < len(self._waiting)
        if resized or all(offset <= at and at + len(data) <= end for at, data in pieces):
            self.flush()
            return
        self._stable = self._stable.patched(offset, bytes(self.live[offset:end]))
        left: list[Waiting] = []
        for at, data in pieces:
            if at < offset:
                left.append(Waiting(at, data[: offset - at]))
            if at + len(data) > end:
                left.append(Waiting(max(at, end), data[max(end - at, 0) :]))
        self._waiting = left
        self._frozen = None

    def put(self, offset: int, data: bytes) -> None:
        """Other bytes in one place, on the medium and in what readers see."""
        put_bytes(self._change(), offset, data)
        self._stable = self._stable.patched(offset, data)

    def lose_cache(self, rng: random.Random) -> None:
        content = bytearray(self._stable.data)
        for offset, data in self._waiting:
            fate = rng.randrange(4)
            if fate == 0:
                continue
            keep_write(content, offset, data, 1 if fate == 1 else rng.random())
        if self._waiting:
            self._stable = Content(bytes(content))
        self._waiting.clear()
        self._live = self._frozen = None


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
        stays_on = self._volume.disk.begin("flush", self._path)
        self._volume.disk.under_way(stays_on, "flush", self._path)
        if not self._volume.disk.lies_about_flushes:
            self._inode.flush()

    def allocate(self, length: int) -> None:
        self._volume.check(self._path)
        disk = self._volume.disk
        stays_on = disk.begin("allocate", self._path, 0, length)
        if not disk.has_room(length - len(self._inode.live)):
            raise DriveFault(disk.name, f"allocate {self._path}", errno.ENOSPC)
        if not stays_on:
            raise PowerCut

    def truncate(self, length: int) -> None:
        self._volume.check(self._path)
        stays_on = self._volume.disk.begin("truncate", self._path, length)
        self._inode.truncate(length)
        self._volume.disk.under_way(stays_on, "truncate", self._path)

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
        self.disk.under_way(stays_on, "create", path)
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
        self.disk.under_way(stays_on, "make_directory", path)

    def rename(self, source: str, target: str) -> None:
        stays_on = self._begin("rename", source)
        if source not in self.disk.tree:
            raise self._fault(errno.ENOENT, source)
        self._need_directory(parent(target))
        self.disk.change("rename", source, target, None)
        self.disk.under_way(stays_on, "rename", source)

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
        self.disk.under_way(stays_on, "unlink", path)

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
        self.disk.under_way(stays_on, "flush_directory", path)
        self.disk.flush_names(path)

    def space(self) -> Space:
        self._look("space", "")
        if not self.disk.is_present:
            raise self._fault(errno.EIO, "")
        return Space(self.disk.capacity_bytes, self.disk.capacity_bytes - self.disk.used_bytes())

    def close(self) -> None:
        return
