"""Whose a claimed drive is, tried by processes of other users. Their numbers need no names."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from appliance.control.disks import permissions
from appliance.control.disks.permissions import Owners
from appliance.core.errors import DriveFault

STORE, GATEWAY, STRANGER = 61_001, 61_002, 61_003
GROUP = 61_000
OWNERS = Owners(STORE, GROUP)


def can(user: int, group: int, deed: Callable[[], object]) -> bool:
    """Whether a process of that user and group carries out the deed. Forked, not executed: the
    interpreter itself may lie where those users may not go."""
    process_id = os.fork()
    if process_id == 0:
        code = 1
        try:
            os.setgroups([])
            os.setgid(group)
            os.setuid(user)
            os.umask(0o007)
            deed()
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(process_id, 0)
    return os.waitstatus_to_exitcode(status) == 0


@pytest.fixture
def drive(tmp_path: Path) -> Path:
    """A furnished drive inside its private directory, with everything above it open to all."""
    for parent in (tmp_path, *tmp_path.parents):
        if parent.stat().st_uid == os.geteuid() and parent != Path("/"):
            parent.chmod(parent.stat().st_mode | 0o011)
    place = tmp_path / "drives"
    permissions.make_private(place, OWNERS)
    root = place / "d1"
    root.mkdir()
    permissions.share_staging(root, OWNERS)
    (root / "superblock").write_bytes(b"x")
    permissions.give_tree_to_store(root, OWNERS)
    return root


def test_the_store_writes_and_the_gateway_only_stages(drive: Path) -> None:
    staged = drive / "staging" / "g0"
    assert can(STORE, GROUP, lambda: (drive / "new").write_text("x"))
    assert can(STORE, GROUP, lambda: (drive / "superblock").write_text("y"))
    assert not can(GATEWAY, GROUP, lambda: (drive / "other").write_text("x"))
    assert can(GATEWAY, GROUP, lambda: (drive / "new").read_text())
    assert can(GATEWAY, GROUP, staged.mkdir)
    assert can(GATEWAY, GROUP, lambda: (staged / "blob").write_text("x"))
    assert can(STORE, GROUP, lambda: (staged / "blob").rename(drive / "adopted"))
    assert can(STORE, GROUP, lambda: (drive / "adopted").read_text())


def test_strangers_see_nothing(drive: Path) -> None:
    assert not can(STRANGER, STRANGER, lambda: os.listdir(drive))
    assert not can(STRANGER, STRANGER, lambda: (drive / "superblock").read_text())
    assert not can(STRANGER, STRANGER, lambda: os.listdir(drive.parent))
    assert not can(GATEWAY, GROUP, lambda: os.listdir(drive.parent))


def test_without_service_users_everything_is_the_owner_s(tmp_path: Path) -> None:
    place = tmp_path / "drives"
    permissions.make_private(place, None)
    permissions.give_to_store(place / "d1", None)
    assert place.stat().st_mode & 0o777 == 0o700
    assert (place / "d1").stat().st_mode & 0o777 == 0o700


def test_a_drive_of_another_server_is_taken_over_whole(drive: Path) -> None:
    """The same names have other numbers there."""
    store, gateway, group = 62_001, 62_002, 62_000
    there = Owners(store, group)
    (drive / "blob" / "7f").mkdir(parents=True)
    (drive / "blob" / "7f" / "data").write_bytes(b"x")
    (drive / "staging" / "g0").mkdir()
    (drive / "staging" / "g0" / "left").write_bytes(b"x")
    permissions.give_tree_to_store(drive, OWNERS)
    assert not permissions.take_over_tree(drive, OWNERS)
    assert permissions.take_over_tree(drive, there)
    permissions.make_private(drive.parent, there)
    assert can(store, group, lambda: (drive / "superblock").write_text("y"))
    assert can(store, group, lambda: (drive / "blob" / "7f" / "data").unlink())
    assert can(store, group, lambda: (drive / "staging" / "g0" / "left").unlink())
    assert can(gateway, group, lambda: (drive / "superblock").read_text())
    assert can(gateway, group, (drive / "staging" / "g1").mkdir)
    assert not can(gateway, group, lambda: (drive / "other").write_text("x"))
    assert not can(STORE, GROUP, lambda: (drive / "superblock").read_text())
    assert not permissions.take_over_tree(drive, there)


def test_a_take_over_that_was_cut_short_is_done_again(
    drive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = Owners(62_001, 62_000)
    real = os.chown

    def fail_at_superblock(path: Path, *numbers: int, **options: bool) -> None:
        if Path(path).name == "superblock":
            raise OSError(5, "Input/output error")
        real(path, *numbers, **options)

    with monkeypatch.context() as patch:
        patch.setattr(os, "chown", fail_at_superblock)
        with pytest.raises(DriveFault, match="taking it over"):
            permissions.take_over_tree(drive, there)
    assert permissions.take_over_tree(drive, there)
    assert (drive / "superblock").stat().st_uid == 62_001
