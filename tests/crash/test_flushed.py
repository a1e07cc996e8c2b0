"""What the store has done is flushed by the time it says so: bytes, and names in every directory.

The simulated drives keep changes of names in one journal, as XFS does, where the flush of one
directory also keeps what was done in others before. A promise must not rest on that: here each
directory in which a name was made has to be flushed itself, and every file that is no scratch.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path

import pytest

from appliance.core.errors import DriveFault
from appliance.engine.mirror.accepted import Loss, write_losses
from appliance.engine.mirror.blob import blob_directory, blob_path
from appliance.engine.mirror.index_file import publish
from appliance.engine.mirror.log import Log, SegmentState
from appliance.engine.mirror.place import FilePlace, decode_place
from appliance.engine.mirror.rebuild import condemn
from appliance.engine.mirror.scrub_book import _NEW, Page, save
from appliance.engine.mirror.slots import SLOT_BYTES, SlotFile, create_slots, encode_slot
from tests.crash.acts import blob_of, put_staged
from tests.crash.deeds import lawful
from tests.crash.machine import DRIVES, Machine
from tests.crash.simulated import Power, SimulatedDisk
from tests.crash.simulated_volume import Inode, SimulatedVolume, parent
from tests.crash.world import World

SCRATCH = "staging"
DEEDS = 14


class Names:
    """Watches one drive: the directories in which a name was made, or a segment removed, since they
    were flushed."""

    def __init__(self, disk: SimulatedDisk) -> None:
        self.disk = disk
        self.unflushed: dict[str, str] = {}
        """Directory → what was last done in it."""
        self._change, self._flush = disk.change, disk.flush_names
        vars(disk).update(change=self.change, flush_names=self.flush)

    def change(self, kind: str, source: str, target: str, inode: Inode | None) -> None:
        made = target or source
        if kind != "unlink" or made.startswith("log/"):
            self.unflushed[parent(made)] = f"{kind} {made}"
        self._change(kind, source, target, inode)

    def flush(self, directory: str) -> None:
        self.unflushed.pop(directory, None)
        self._flush(directory)

    def waiting(self) -> list[str]:
        """What a power cut could take, but for scratch."""
        files = self.disk.frozen().tree.items()
        bytes_of = [path for path, file in files if file is not None and file.waiting]
        names = [f"{what} (in {directory or '/'})" for directory, what in self.unflushed.items()]
        return [
            each
            for each in (*names, *bytes_of)
            if not each.partition(" ")[2].startswith(SCRATCH) and not each.startswith(SCRATCH)
        ]


@pytest.mark.parametrize("number", range(8))
def test_nothing_waits_in_a_cache_when_a_deed_is_done(number: int, scratch: Path) -> None:
    world = World(f"flushed {number}", scratch)
    watched = [Names(disk) for disk in world.machine.disks.values()]
    world.open()
    for count in range(DEEDS):
        choices = lawful(world, plain=False)
        deed = world.rng.choice(choices)
        world.deed = deed.name
        deed.act(world)
        for names in watched:
            if names.disk.name == world.away:
                names.unflushed.clear()  # it left in the midst of whatever it was
            else:
                assert names.waiting() == [], f"{names.disk.name} after deed {count}, {deed.name}"


def _book(volume: SimulatedVolume) -> None:
    save(volume, Page(share=0.9))
    save(volume, Page(share=0.8))


def _publish(volume: SimulatedVolume) -> None:
    volume.open("building-00000001.db", write=True, create=True)
    assert publish(volume, "building-00000001.db") == "index-00000001.db"


def _condemn(volume: SimulatedVolume) -> None:
    _publish(volume)
    condemn(volume, "index-00000001.db")
    assert volume.names("") == ["index-00000001.db.bad"]


def _lose(volume: SimulatedVolume) -> None:
    write_losses(volume, [Loss(1, 1)])
    write_losses(volume, [Loss(2, 1)])


def _prepare(volume: SimulatedVolume) -> None:
    log = Log(volume, bytes(16), 65_536)
    log.prepare(SegmentState(1, 1))
    log.recycle(SegmentState(1, 2))


def _settle(volume: SimulatedVolume) -> None:
    """A segment whose maker died before the name and the header were flushed."""
    log = Log(volume, bytes(16), 65_536)
    file = volume.open("log/00000001", write=True, create=True)
    file.write_at(0, bytes(4096))
    file.close()
    log.settle([SegmentState(1, 1)])


def _open_slots(volume: SimulatedVolume) -> None:
    """A vote whose writer died before it was flushed is seen from now on, so it must stay."""
    create_slots(volume, "vote", 1, b"old")
    file = volume.open("vote", write=True)
    file.write_at(SLOT_BYTES, encode_slot(1, 2, b"new"))
    file.close()
    opened = SlotFile.open(volume, "vote", 1, write=True)
    assert isinstance(opened, SlotFile)
    assert opened.payload == b"new"


def _remove(volume: SimulatedVolume) -> None:
    _prepare(volume)
    Log(volume, bytes(16), 65_536).remove(1)
    assert volume.names("log") == []


@pytest.mark.parametrize(
    "act", [_book, _publish, _condemn, _lose, _prepare, _settle, _open_slots, _remove]
)
def test_what_is_durable_on_return_waits_in_no_cache(
    act: Callable[[SimulatedVolume], None],
) -> None:
    names = Names(SimulatedDisk("drive-a", Power()))
    act(names.disk.mount())
    assert names.waiting() == []


@pytest.mark.parametrize("name", ["scrub.json", "scrub.json.new"])
def test_a_book_that_cannot_be_written_says_so(name: str) -> None:
    disk = SimulatedDisk("drive-a", Power())
    save(disk.mount(), Page(share=0.9))
    disk.mount().open(_NEW, write=True, create=True)
    disk.fail_at(1, errno.EIO, kinds=frozenset({"unlink" if name.endswith("new") else "rename"}))
    with pytest.raises(DriveFault):
        save(disk.mount(), Page(share=0.8))


@pytest.mark.parametrize("lost", ["the file", "its directory"])
def test_a_blob_that_recovery_brings_back_is_flushed(machine: Machine, lost: str) -> None:
    machine.open()
    put_staged(machine, b"large", 1, b"q" * 70_000)
    place = decode_place(blob_of(machine, b"large").place)
    assert isinstance(place, FilePlace)
    machine.drop_store()
    disk = machine.disks["drive-b"]
    image = dict(disk.image())
    del image[blob_path(place.blob_id)]
    if lost != "the file":
        del image[blob_directory(place.blob_id)]
    disk.restore_image(image)
    names = Names(disk)
    machine.open()
    assert blob_path(place.blob_id) in disk.contents()
    assert names.waiting() == []


def test_a_new_log_is_there_after_a_power_cut() -> None:
    names = Names(SimulatedDisk("drive-a", Power()))
    Log(names.disk.mount(), bytes(16), 65_536).close()
    assert names.waiting() == []


def test_a_new_mirror_is_flushed_when_it_is_made(
    scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched: list[Names] = []
    make = SimulatedDisk.__init__

    def watching(disk: SimulatedDisk, *arguments: object, **named: object) -> None:
        make(disk, *arguments, **named)  # type: ignore[arg-type]
        watched.append(Names(disk))

    monkeypatch.setattr(SimulatedDisk, "__init__", watching)
    Machine(1, scratch)
    assert {names.disk.name for names in watched} > set(DRIVES)
    for names in watched:
        assert names.waiting() == []
