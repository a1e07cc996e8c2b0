"""Drives as a power cut leaves them, looked at and emptied without the service, and not changed."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from appliance.core.exportnames import key_of_path
from tests.system.drives import sh
from tests.system.service import PROGRAMS
from tests.unit.offline.house import House, build

pytestmark = [
    pytest.mark.timeout(900),
    pytest.mark.needs("mkfs.xfs", "losetup", "xfs_metadump", "xfs_mdrestore"),
]
IMAGE_BYTES: Final = 320 * 1024 * 1024
READ_BYTES: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Wreck:
    """Images of two drives whose power was cut, and what must be on each."""

    house: House
    images: tuple[Path, Path]
    folder: Path

    def type(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        """Run the command line."""
        return subprocess.run(
            [PROGRAMS / "appliance", *map(str, arguments)],
            check=False,
            capture_output=True,
            text=True,
            timeout=300,
        )

    def json(self, *arguments: str | Path, code: int = 0) -> Any:
        """The same with ``--json``."""
        finished = self.type(*arguments, "--json")
        assert finished.returncode == code, finished.stderr
        return json.loads(finished.stdout)


@pytest.fixture(scope="module")
def wreck(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Wreck]:
    """The images are copied while the file systems are mounted: nothing is unmounted in good order,
    so their journals were never replayed."""
    folder = tmp_path_factory.mktemp("wreck")
    home = folder / "home"
    home.mkdir()
    mounted = []
    images = []
    try:
        for name in ("drive-a", "drive-b"):
            image = folder / f"{name}.running"
            image.touch()
            with image.open("ab") as file:
                file.truncate(IMAGE_BYTES)
            sh("mkfs.xfs", "-q", "-f", "-m", "reflink=0", str(image))
            (home / name).mkdir()
            sh("mount", "-o", "loop,nouuid", str(image), str(home / name))
            mounted.append(home / name)
        house = build(home, seed=2)
        for name in ("drive-a", "drive-b"):
            images.append(folder / f"{name}.img")
            sh("cp", "--sparse=always", str(folder / f"{name}.running"), str(images[-1]))
    finally:
        for place in mounted:
            sh("umount", str(place))
    shutil.rmtree(home)
    yield Wreck(house, (images[0], images[1]), folder)


def _sha256(path: Path) -> str:
    found = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(READ_BYTES):
            found.update(piece)
    return found.hexdigest()


def _exported(to: Path) -> dict[tuple[str, str], bytes]:
    root = to / "buckets"
    found = {}
    for path in root.rglob("*"):
        if path.is_file():
            bucket, _, name = str(path.relative_to(root)).partition("/")
            found[bucket, key_of_path(name)] = path.read_bytes()
    return found


def _loops() -> str:
    return sh("losetup", "--list", "--noheadings", "--output", "BACK-FILE")


def test_one_drive_alone_gives_every_byte_back_and_stays_as_it_was(
    wreck: Wreck, tmp_path: Path
) -> None:
    """The other drive and the system disk are gone."""
    image = wreck.images[0]
    master, _ = wreck.house.keys(tmp_path)
    before = _sha256(image)
    report = wreck.json("mirror", "export", image, "--to", tmp_path / "out", "--master-key", master)
    assert _exported(tmp_path / "out") == wreck.house.contents
    assert report["copied"] == len(wreck.house.contents)
    assert report["unreadable_count"] == 0
    assert "journal was replayed aside" in report["access"]
    assert _sha256(image) == before
    assert str(wreck.folder) not in _loops()
    assert str(wreck.folder) not in Path("/proc/self/mountinfo").read_text()


def test_the_other_drive_does_as_a_block_device_with_the_recovery_key(
    wreck: Wreck, tmp_path: Path
) -> None:
    image = wreck.images[1]
    _, recovery = wreck.house.keys(tmp_path)
    before = _sha256(image)
    node = sh("losetup", "--find", "--show", str(image))
    try:
        arguments = ("--to", tmp_path / "out", "--recovery-key", recovery)
        report = wreck.json("mirror", "export", node, *arguments)
        assert "journal was replayed aside" in report["access"]
    finally:
        sh("losetup", "--detach", node)
    assert _exported(tmp_path / "out") == wreck.house.contents
    assert _sha256(image) == before


def test_without_its_journal_the_drive_would_have_less(wreck: Wreck, tmp_path: Path) -> None:
    """What the replay aside is for: the journal of this power cut holds what was acknowledged."""
    place = tmp_path / "bare"
    place.mkdir()
    sh("mount", "-o", "loop,ro,norecovery,nouuid", str(wreck.images[0]), str(place))
    try:
        report = wreck.type("drive", "inspect", place)
    finally:
        sh("umount", str(place))
    whole = wreck.json("drive", "inspect", wreck.images[0])
    assert whole["blobs"]["missing"] == 0
    assert report.returncode == 3 or "files are missing" in report.stdout, report.stdout


def test_inspect_and_verify_say_that_both_drives_are_whole(wreck: Wreck) -> None:
    before = [_sha256(image) for image in wreck.images]
    told = wreck.type("drive", "inspect", wreck.images[0])
    assert told.returncode == 0, told.stderr
    assert "The log is whole" in told.stdout
    assert "in sync with drive-b" in told.stdout
    assert "acme" in told.stdout
    report = wreck.json("mirror", "verify", *wreck.images)
    assert (report["repairable"], report["lost"], report["unknown"]) == (0, 0, 0)
    assert [drive["standing"] for drive in report["drives"]] == ["in sync", "in sync"]
    assert [_sha256(image) for image in wreck.images] == before


def test_a_drive_in_use_is_left_alone(wreck: Wreck, tmp_path: Path) -> None:
    copy = tmp_path / "copy.img"
    sh("cp", "--sparse=always", str(wreck.images[0]), str(copy))
    place = tmp_path / "place"
    place.mkdir()
    sh("mount", "-o", "loop,nouuid", str(copy), str(place))
    try:
        node = sh("findmnt", "--noheadings", "--output", "SOURCE", str(place))
        for busy in (copy, node):
            refused = wreck.type("drive", "inspect", busy)
            assert refused.returncode == 4
            assert "it is in use" in refused.stderr
    finally:
        sh("umount", str(place))


def test_what_is_no_drive_is_said_to_be_none(wreck: Wreck, tmp_path: Path) -> None:
    noise = tmp_path / "noise.img"
    noise.write_bytes(b"no file system" * 100_000)
    refused = wreck.type("drive", "inspect", noise)
    assert refused.returncode == 4
    assert "no XFS file system" in refused.stderr
    assert str(tmp_path) not in _loops()
