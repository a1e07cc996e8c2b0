"""Looking at a drive changes nothing, whatever is tried."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path

import pytest

from appliance.core.errors import DriveFault
from appliance.engine.mirror.readonly import ReadOnlyVolume
from appliance.system.files import DirectoryVolume

ATTEMPTS: dict[str, Callable[[ReadOnlyVolume], object]] = {
    "write": lambda v: v.open("f", write=True),
    "create": lambda v: v.open("new", create=True),
    "durable": lambda v: v.open("f", write=True, durable=True),
    "make_directory": lambda v: v.make_directory("d"),
    "rename": lambda v: v.rename("f", "g"),
    "take_over": lambda v: v.take_over("f"),
    "unlink": lambda v: v.unlink("f"),
    "flush_directory": lambda v: v.flush_directory(""),
    "write_at": lambda v: v.open("f").write_at(0, b"x"),
    "flush": lambda v: v.open("f").flush(),
    "allocate": lambda v: v.open("f").allocate(10),
    "truncate": lambda v: v.open("f").truncate(0),
}


@pytest.mark.parametrize("name", ATTEMPTS)
def test_every_write_is_refused_and_does_nothing(name: str, tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"content")
    volume = ReadOnlyVolume(DirectoryVolume(tmp_path, "drive"))
    with pytest.raises(DriveFault) as refused:
        ATTEMPTS[name](volume)
    assert refused.value.errno == errno.EROFS
    volume.close()
    assert [path.name for path in tmp_path.iterdir()] == ["f"]
    assert (tmp_path / "f").read_bytes() == b"content"


def test_what_is_not_a_read_is_in_the_list_above() -> None:
    reads = {"name", "open", "names", "stat", "space", "close"}
    reads |= {"read_at", "read_cached", "size_bytes"}
    offered = {
        name
        for kind in (ReadOnlyVolume, type(_open_file()))
        for name in dir(kind)
        if not name.startswith("_")
    }
    assert offered - reads <= set(ATTEMPTS)


def _open_file() -> object:
    volume = ReadOnlyVolume(DirectoryVolume(Path(__file__).parent, "drive"))
    file = volume.open(Path(__file__).name)
    file.close()
    volume.close()
    return file


def test_reading_gives_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"content")
    volume = ReadOnlyVolume(DirectoryVolume(tmp_path, "drive"))
    file = volume.open("f")
    assert file.read_at(0, 100) == b"content"
    assert file.size_bytes() == 7
    assert volume.names("") == ["f"]
    file.close()
    volume.close()
