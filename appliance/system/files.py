"""Real directories as drives: ``Volume`` and ``File`` of ``core.ports`` on the system's files.

Owns every file descriptor of a drive. Refuses paths that lead out of the directory. Translates each
``OSError`` into ``DriveFault`` with its errno, and completes short writes.

Durable files use O_DSYNC, and O_DIRECT where the file system has it: then data never waits in the
page cache, where a failed write-back would be reported once and forgotten. O_DIRECT needs memory
aligned to the block, so what is not is copied through page-aligned buffers that are kept: for a
read, fresh memory from the kernel costs five times as much as the copy.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import stat
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from appliance.core.errors import DriveFault
from appliance.core.ports import Buffer, FileStat, Space

BLOCK_BYTES: Final = 4096
BOUNCE_BYTES: Final = 1024 * 1024
READ_BYTES: Final = 4 * 1024 * 1024 + 2 * BLOCK_BYTES
"""Of a direct read, with the blocks it begins and ends in, through memory that is used again."""
READ_BUFFERS_KEPT: Final = 8
_FALLOC_FL_KEEP_SIZE: Final = 1
_MODE: Final = 0o640
_SEALED: Final = 0o440
_LIBC: Final = ctypes.CDLL(None, use_errno=True)


@contextmanager
def _faults(drive: str, operation: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        number = error.errno or errno.EIO
        raise DriveFault(drive, operation, number, error.strerror or str(error)) from error


def flush_file_system(path: str | os.PathLike[str]) -> None:
    """Everything written to the file system of ``path``, names too, is on stable storage on return
    (syncfs; sync would wait for every other device as well). Raises ``OSError``."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if _LIBC.syncfs(descriptor) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), os.fspath(path))
    finally:
        os.close(descriptor)


def check_path(drive: str, path: str) -> str:
    """``path`` if it is relative and stays inside. Raises ``DriveFault`` (EINVAL)."""
    if path.startswith("/") or "\0" in path or ".." in path.split("/"):
        raise DriveFault(drive, f"opening {path!r}", errno.EINVAL, "the path leaves the drive")
    return path


class _Buffers:
    """Page-aligned memory of one size for direct reads, used again. Any thread."""

    def __init__(self, size_bytes: int, *, kept_max: int) -> None:
        self._size_bytes = size_bytes
        self._free: deque[mmap.mmap] = deque(maxlen=kept_max)

    @contextmanager
    def lent(self, size_bytes: int) -> Iterator[memoryview]:
        """``size_bytes`` of memory that is nobody else's in the body. A body that fails, or hangs
        in a dead drive, keeps it."""
        buffer = self._taken() if size_bytes <= self._size_bytes else mmap.mmap(-1, size_bytes)
        with memoryview(buffer) as whole, whole[:size_bytes] as view:
            yield view
        if len(buffer) == self._size_bytes:
            self._free.append(buffer)

    def _taken(self) -> mmap.mmap:
        try:
            return self._free.pop()
        except IndexError:
            return mmap.mmap(-1, self._size_bytes)


_READ_BUFFERS: Final = _Buffers(READ_BYTES, kept_max=READ_BUFFERS_KEPT)


class DirectoryFile:
    """An open file of a ``DirectoryVolume``. One thread at a time unless only reading."""

    def __init__(self, drive: str, path: str, descriptor: int, *, direct: bool) -> None:
        self._drive = drive
        self._path = path
        self._descriptor = descriptor
        self._direct = direct
        self._bounce: mmap.mmap | None = None

    def read_at(self, offset: int, length: int, *, past_cache: bool = False) -> bytes:
        """See ``core.ports.File``."""
        with _faults(self._drive, f"reading {self._path}"):
            if self._direct:
                return self._read_direct(offset, length)
            if past_cache:
                os.posix_fadvise(self._descriptor, offset, length, os.POSIX_FADV_DONTNEED)
            data = os.pread(self._descriptor, length, offset)
            if len(data) in {length, 0}:
                return data
            return self._read_rest(data, offset, length)

    def _read_rest(self, data: bytes, offset: int, length: int) -> bytes:
        parts = [data]
        done = len(data)
        while done < length:
            more = os.pread(self._descriptor, length - done, offset + done)
            if not more:
                break
            parts.append(more)
            done += len(more)
        return b"".join(parts)

    def _read_direct(self, offset: int, length: int) -> bytes:
        start = offset - offset % BLOCK_BYTES
        end = -(-(offset + length) // BLOCK_BYTES) * BLOCK_BYTES
        if end == start:
            return b""
        with _READ_BUFFERS.lent(end - start) as view:
            done = 0
            while done < end - start:
                with view[done:] as rest:
                    count = os.preadv(self._descriptor, [rest], start + done)
                done += count
                if count == 0 or count % BLOCK_BYTES:
                    break
            return bytes(view[offset - start : min(done, offset - start + length)])

    def read_cached(self, offset: int, length: int) -> bytes | None:
        """See ``core.ports.File``."""
        if self._direct:
            return None
        data = bytearray(length)
        try:
            count = os.preadv(self._descriptor, [data], offset, os.RWF_NOWAIT)
        except OSError:
            # Not in memory, or a file system that cannot tell: reading it says what is wrong.
            return None
        return bytes(data) if count == length else None

    def write_at(self, offset: int, data: Buffer) -> None:
        """See ``core.ports.File``."""
        with _faults(self._drive, f"writing {self._path}"), memoryview(data).cast("B") as view:
            if not self._direct:
                self._write_all(view, offset)
                return
            if offset % BLOCK_BYTES or len(view) % BLOCK_BYTES:
                raise OSError(errno.EINVAL, "a direct write must be of whole blocks")
            if _is_aligned(view):
                self._write_all(view, offset)
            else:
                self._write_direct(view, offset)

    def _write_direct(self, view: memoryview, offset: int) -> None:
        if self._bounce is None or len(self._bounce) < len(view):
            # Grown once to the largest write: a batch must be one system call, one flush.
            self._bounce = mmap.mmap(-1, max(len(view), 64 * 1024))
        self._bounce[: len(view)] = view
        with memoryview(self._bounce) as bounce, bounce[: len(view)] as aligned:
            self._write_all(aligned, offset)
        if len(self._bounce) > BOUNCE_BYTES:
            self._bounce.close()
            self._bounce = None

    def _write_all(self, view: memoryview, offset: int) -> None:
        done = 0
        while done < len(view):
            with view[done:] as rest:
                count = os.pwrite(self._descriptor, rest, offset + done)
            if count <= 0:
                raise OSError(errno.EIO, "the drive took no bytes")
            done += count

    def flush(self) -> None:
        """See ``core.ports.File``."""
        with _faults(self._drive, f"flushing {self._path}"):
            os.fdatasync(self._descriptor)

    def allocate(self, length: int) -> None:
        """See ``core.ports.File``."""
        with _faults(self._drive, f"reserving room for {self._path}"):
            _fallocate_keep_size(self._descriptor, length)

    def truncate(self, length: int) -> None:
        """See ``core.ports.File``."""
        with _faults(self._drive, f"truncating {self._path}"):
            os.ftruncate(self._descriptor, length)

    def size_bytes(self) -> int:
        """See ``core.ports.File``."""
        with _faults(self._drive, f"looking at {self._path}"):
            return os.fstat(self._descriptor).st_size

    def descriptor(self) -> int:
        """A duplicate of the open descriptor, the caller's to close. Raises ``DriveFault``."""
        with _faults(self._drive, f"duplicating {self._path}"):
            return os.dup(self._descriptor)

    def close(self) -> None:
        """See ``core.ports.File``."""
        descriptor, self._descriptor = self._descriptor, -1
        # Let go rather than closed: a call that hangs in a failed drive may be writing out of it.
        self._bounce = None
        if descriptor >= 0:
            try:
                os.close(descriptor)
            except OSError:
                # Close reports a write-back nobody waited for; durable data was flushed before.
                pass


def _is_aligned(view: memoryview) -> bool:
    """Whether the kernel can write from this memory directly. Only writable memory can tell where
    it is; other memory is somewhere in the heap anyway."""
    if view.readonly or not len(view):
        return False
    return ctypes.addressof(ctypes.c_char.from_buffer(view)) % BLOCK_BYTES == 0


def _fallocate_keep_size(descriptor: int, length: int) -> None:
    """fallocate(2) with FALLOC_FL_KEEP_SIZE, which ``os`` does not offer. A file system without it
    reserves nothing, which costs only an earlier warning of a full drive."""
    result = _LIBC.fallocate(
        descriptor, _FALLOC_FL_KEEP_SIZE, ctypes.c_longlong(0), ctypes.c_longlong(length)
    )
    if result != 0:
        number = ctypes.get_errno()
        if number not in {errno.EOPNOTSUPP, errno.ENOSYS}:
            raise OSError(number, os.strerror(number))


class DirectoryVolume:
    """A directory as a drive. Any thread. Keeps its directory open, so that it stays on the mount
    it was made on even if another is laid over it."""

    def __init__(self, path: str | os.PathLike[str], name: str) -> None:
        """Raises ``DriveFault`` if the directory cannot be opened."""
        self._name = name
        self._direct: bool | None = None
        with _faults(name, f"opening the directory {os.fspath(path)}"):
            self._root = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    @property
    def name(self) -> str:
        """See ``core.ports.Volume``."""
        return self._name

    @property
    def is_direct(self) -> bool:
        """Whether durable files bypass the page cache. Known once one was opened."""
        return self._direct is True

    def open(
        self,
        path: str,
        *,
        write: bool = False,
        create: bool = False,
        durable: bool = False,
        direct: bool = False,
    ) -> DirectoryFile:
        """See ``core.ports.Volume``."""
        check_path(self._name, path)
        flags = os.O_CLOEXEC | os.O_NOFOLLOW | (os.O_RDWR if write or create else os.O_RDONLY)
        if create:
            flags |= os.O_CREAT | os.O_EXCL
        with _faults(self._name, f"opening {path}"):
            if durable:
                return self._open_direct(path, flags | os.O_DSYNC)
            if direct:
                return self._open_direct(path, flags)
            descriptor = os.open(path, flags, _MODE, dir_fd=self._root)
            return DirectoryFile(self._name, path, descriptor, direct=False)

    def _open_direct(self, path: str, flags: int) -> DirectoryFile:
        if self._direct is not False:
            try:
                descriptor = os.open(path, flags | os.O_DIRECT, _MODE, dir_fd=self._root)
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise
                # The file system has no O_DIRECT. It refuses after creating the file.
                self._direct = False
                flags &= ~os.O_EXCL
            else:
                self._direct = True
                return DirectoryFile(self._name, path, descriptor, direct=True)
        descriptor = os.open(path, flags, _MODE, dir_fd=self._root)
        return DirectoryFile(self._name, path, descriptor, direct=False)

    def make_directory(self, path: str) -> None:
        """See ``core.ports.Volume``."""
        check_path(self._name, path)
        parts = [part for part in path.split("/") if part]
        with _faults(self._name, f"making the directory {path}"):
            for count in range(1, len(parts) + 1):
                try:
                    os.mkdir("/".join(parts[:count]), 0o750, dir_fd=self._root)
                except FileExistsError:
                    continue

    def rename(self, source: str, target: str) -> None:
        """See ``core.ports.Volume``."""
        check_path(self._name, source)
        check_path(self._name, target)
        with _faults(self._name, f"renaming {source} to {target}"):
            os.rename(source, target, src_dir_fd=self._root, dst_dir_fd=self._root)

    def take_over(self, path: str) -> None:
        """See ``core.ports.Volume``."""
        check_path(self._name, path)
        with _faults(self._name, f"taking over {path}"):
            descriptor = os.open(
                path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=self._root
            )
            try:
                if os.fstat(descriptor).st_uid != os.geteuid():
                    os.fchown(descriptor, os.geteuid(), -1)
                os.fchmod(descriptor, _SEALED)
            except PermissionError:
                # Run without the privilege, as some tests are; every byte is verified when read.
                return
            finally:
                os.close(descriptor)

    def unlink(self, path: str) -> None:
        """See ``core.ports.Volume``."""
        check_path(self._name, path)
        with _faults(self._name, f"unlinking {path}"):
            os.unlink(path, dir_fd=self._root)

    def names(self, path: str) -> list[str]:
        """See ``core.ports.Volume``."""
        with _faults(self._name, f"listing {path or 'the drive'}"):
            descriptor = self._open_directory(path)
            try:
                return sorted(os.listdir(descriptor))
            finally:
                os.close(descriptor)

    def stat(self, path: str) -> FileStat | None:
        """See ``core.ports.Volume``."""
        check_path(self._name, path)
        with _faults(self._name, f"looking at {path}"):
            try:
                found = os.stat(path or ".", dir_fd=self._root, follow_symlinks=False)
            except (FileNotFoundError, NotADirectoryError):
                return None
            return FileStat(size_bytes=found.st_size, is_directory=stat.S_ISDIR(found.st_mode))

    def flush_directory(self, path: str) -> None:
        """See ``core.ports.Volume``."""
        with _faults(self._name, f"flushing the directory {path or '.'}"):
            descriptor = self._open_directory(path)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def _open_directory(self, path: str) -> int:
        check_path(self._name, path)
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW
        return os.open(path or ".", flags, dir_fd=self._root)

    def space(self) -> Space:
        """See ``core.ports.Volume``."""
        with _faults(self._name, "asking for its room"):
            found = os.fstatvfs(self._root)
            return Space(
                total_bytes=found.f_blocks * found.f_frsize,
                free_bytes=found.f_bavail * found.f_frsize,
            )

    def close(self) -> None:
        """See ``core.ports.Volume``."""
        root, self._root = self._root, -1
        if root >= 0:
            try:
                os.close(root)
            except OSError:
                # A directory handle holds nothing that could be lost.
                pass
