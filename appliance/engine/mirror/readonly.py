"""A drive that may be looked at and not touched.

Owns the refusal of every write. Invariant: nothing done through a ``ReadOnlyVolume`` changes a byte
of the drive, whoever calls what; the tools that examine a drive without the service stand on it.
"""

from __future__ import annotations

import errno
from typing import Final, NoReturn

from appliance.core.errors import DriveFault
from appliance.core.ports import Buffer, File, FileStat, Space, Volume


class ReadOnlyFile:
    """An open file that only reads."""

    def __init__(self, drive: str, path: str, file: File) -> None:
        self._drive: Final = drive
        self._path: Final = path
        self._file: Final = file

    def read_at(self, offset: int, length: int, *, past_cache: bool = False) -> bytes:
        """See ``core.ports.File``."""
        return self._file.read_at(offset, length, past_cache=past_cache)

    def read_cached(self, offset: int, length: int) -> bytes | None:
        """See ``core.ports.File``."""
        return self._file.read_cached(offset, length)

    def size_bytes(self) -> int:
        """See ``core.ports.File``."""
        return self._file.size_bytes()

    def close(self) -> None:
        """See ``core.ports.File``."""
        self._file.close()

    def write_at(self, offset: int, data: Buffer) -> None:
        """Refused."""
        _refuse(self._drive, f"writing {self._path}")

    def flush(self) -> None:
        """Refused: only who writes has something to flush."""
        _refuse(self._drive, f"flushing {self._path}")

    def allocate(self, length: int) -> None:
        """Refused."""
        _refuse(self._drive, f"reserving room for {self._path}")

    def truncate(self, length: int) -> None:
        """Refused."""
        _refuse(self._drive, f"truncating {self._path}")


class ReadOnlyVolume:
    """``Volume`` over another one, for reading alone. Everything else raises ``DriveFault`` with
    ``EROFS`` and does nothing. Any thread, as far as the volume below allows it."""

    def __init__(self, volume: Volume) -> None:
        self._volume: Final = volume

    @property
    def name(self) -> str:
        """See ``core.ports.Volume``."""
        return self._volume.name

    def open(
        self,
        path: str,
        *,
        write: bool = False,
        create: bool = False,
        durable: bool = False,
        direct: bool = False,
    ) -> ReadOnlyFile:
        """See ``core.ports.Volume``; for reading only."""
        if write or create:
            _refuse(self.name, f"opening {path} for writing")
        return ReadOnlyFile(self.name, path, self._volume.open(path))

    def names(self, path: str) -> list[str]:
        """See ``core.ports.Volume``."""
        return self._volume.names(path)

    def stat(self, path: str) -> FileStat | None:
        """See ``core.ports.Volume``."""
        return self._volume.stat(path)

    def space(self) -> Space:
        """See ``core.ports.Volume``."""
        return self._volume.space()

    def close(self) -> None:
        """See ``core.ports.Volume``."""
        self._volume.close()

    def make_directory(self, path: str) -> None:
        """Refused."""
        _refuse(self.name, f"making the directory {path}")

    def rename(self, source: str, target: str) -> None:
        """Refused."""
        _refuse(self.name, f"renaming {source}")

    def take_over(self, path: str) -> None:
        """Refused."""
        _refuse(self.name, f"taking over {path}")

    def unlink(self, path: str) -> None:
        """Refused."""
        _refuse(self.name, f"unlinking {path}")

    def flush_directory(self, path: str) -> None:
        """Refused: only who writes has something to flush."""
        _refuse(self.name, f"flushing the directory {path or '.'}")


def _refuse(drive: str, operation: str) -> NoReturn:
    raise DriveFault(drive, operation, errno.EROFS, "the drive is only looked at")
